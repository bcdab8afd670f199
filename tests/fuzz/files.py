"""`make fuzz-files`: sends mutated image files to `maskdrop serve`, by every way, and to the drop folder of a stack.

COUNT: number of files (20,000). SEED: of the mutations (0). DROP: number of files for the drop folder (0: no stack is
started). CORPUS: a folder with further originals. Files that cause a fault are kept in reports/fuzz/.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import httpx2
import psutil

from lambdas.adapters.registry import DynamoDBRegistry
from local import processes, stack
from local.config import ROOT, LocalConfig
from local.connect import client
from local.images import ENDED, ImageClient
from maskdrop.errors import error_kinds
from maskdrop.options import Options
from tests.bench.measure import tree_peak
from tests.fuzz.images import Mutation, mutations, originals
from tests.fuzz.senders import TIMEOUT_S, WAYS, Fault, Outcome, outcome
from tests.ports import free_ports

KEPT = ROOT / "reports" / "fuzz"

ENGINE = "selfie"
"""The engine where a way has one: the fastest."""

CLIENTS = 6

PRESET = "fuzzed"


@dataclass(slots=True)
class Report:
    """What happened to the files. outcomes: by way and outcome. faults: messages. slowest: seconds of one request."""

    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def add(self, way: str, result: Outcome, seconds: float = 0.0) -> None:
        with self._lock:
            self.outcomes[way, result] += 1
            self.slowest = max(self.slowest, seconds)

    def fault(self, mutation: Mutation, message: str) -> None:
        """Keeps the file and the message."""
        name = hashlib.sha256(mutation.data).hexdigest()[:16]
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / name).write_bytes(mutation.data)
        with self._lock:
            self.faults.append(f"{name} ({mutation.name}): {message}")
            print(self.faults[-1], flush=True)

    def print(self, title: str, seconds: float, peak_mb: float) -> None:
        files = self.outcomes.total() + len(self.faults)
        print(f"\n{title}: {files} files in {seconds:.0f} s, {len(self.faults)} faults; ", end="")
        print(f"slowest response {self.slowest:.1f} s, peak memory {peak_mb:.0f} MB\n\n| way | status | code | files |")
        print("|---|---|---|---|")
        for (way, one), count in sorted(self.outcomes.items(), key=lambda item: (item[0][0], -item[1])):
            print(f"| {way} | {one.status} | {one.code[:60]} | {count} |")


@contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Runs `maskdrop serve` with its data in `folder`; yields its process and URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "cli", "serve", "--no-auth", "--port", str(port), "--data", str(folder)]
    env = {**os.environ, "MODEL_WEIGHTS_DIR": str(LocalConfig().weights), "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log)  # noqa: S603
    try:
        assert process.stdout
        if not process.stdout.readline():
            raise RuntimeError((folder / "log").read_text()[-2000:])
        yield psutil.Process(process.pid), f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def to_server(count: int, seed: int, files: Mapping[str, bytes]) -> Report:
    """Sends `count` mutations to a server, each by one of the ways in turn."""
    report = Report()
    with TemporaryDirectory() as folder, served(Path(folder)) as (process, url):
        with (
            httpx2.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http,
            tree_peak(process.pid, 0.5) as peak,
        ):

            def send(item: tuple[str, Mutation]) -> None:
                way, mutation = item
                start = time.monotonic()
                try:
                    result = outcome(http, way, "photo.jpg", mutation.data, ENGINE)
                except Fault as fault:
                    report.fault(mutation, str(fault))
                else:
                    report.add(way, result, time.monotonic() - start)

            begin = time.monotonic()
            work = zip(itertools.cycle(WAYS), itertools.islice(mutations(files, seed), count), strict=False)
            with ThreadPoolExecutor(CLIENTS) as pool:
                while batch := list(itertools.islice(work, 1000)):  # `map` reads all of its argument at once
                    list(pool.map(send, batch))
            seconds = time.monotonic() - begin
            if not process.is_running() or http.get("/ping").status_code != 200:
                report.fault(Mutation("the last file", b""), "the server has ended")
        log = (Path(folder) / "log").read_text()
        if "Traceback" in log:
            report.fault(Mutation("a file", b""), "the log has a traceback: " + log[log.index("Traceback") :][:2000])
        report.print("maskdrop serve", seconds, peak.mb)
    return report


def to_drop_folder(count: int, seed: int, files: Mapping[str, bytes]) -> Report:
    """Puts `count` mutations into the inbox of a local stack; each has a job that ends, with a code of the errors."""
    config, report = LocalConfig.from_env(os.environ), Report()
    started = stack.up(config)
    try:
        images, statuses = ImageClient(config, started), {kind.code: kind.status for kind in error_kinds().values()}
        registry = DynamoDBRegistry(client(config, "dynamodb"), started.registry)
        registry.put("preset", PRESET, Options.from_json({"engine": ENGINE}).to_json())
        model = processes.find("model", config.state)
        assert model
        begin = time.monotonic()
        with tree_peak(model.pid, 0.5) as peak:
            waiting = {
                images.upload(f"{PRESET}/{seed}-{number}.jpg", mutation.data): mutation
                for number, mutation in enumerate(itertools.islice(mutations(files, seed), count))
            }
            deadline = time.monotonic() + TIMEOUT_S + count
            while waiting and time.monotonic() < deadline:
                for job_id in list(waiting):
                    job = images.job(job_id)
                    if job is None or job["state"] not in ENDED:
                        time.sleep(0.05)
                        continue
                    mutation, error = waiting.pop(job_id), job.get("error")
                    status = statuses.get(error["code"], 500) if error else 200
                    if status >= 500:
                        report.fault(mutation, f"failed with {error}")
                    else:
                        report.add("drop folder", Outcome(status, error["code"] if error else ""))
        for mutation in waiting.values():
            report.fault(mutation, "its job has not ended")
        report.print("drop folder", time.monotonic() - begin, peak.mb)
    finally:
        stack.down(config)
    return report


def main() -> int:
    count, seed, drop = (
        int(os.environ.get(name, default)) for name, default in (("COUNT", "20000"), ("SEED", "0"), ("DROP", "0"))
    )
    corpus = os.environ.get("CORPUS")
    files = originals(Path(corpus) if corpus else None)
    print(f"{len(files)} originals, seed {seed}")
    reports = [to_server(count, seed, files)]
    if drop:
        reports.append(to_drop_folder(drop, seed, files))
    return 1 if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
