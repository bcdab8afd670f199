"""`make awkward`: sends the files of a folder by every way in, and compares with what its manifest states.

FOLDER: has `manifest.csv` (columns `file`, `http_status`: statuses separated by `|`) and `files/`.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from maskdrop.errors import UnknownForeground
from tests.fuzz.files import CLIENTS, ENGINE, served
from tests.fuzz.senders import TIMEOUT_S, WAYS, Fault, Outcome, outcome


@dataclass(frozen=True, slots=True)
class Awkward:
    """A file, and the statuses that the manifest allows for it."""

    name: str
    data: bytes
    statuses: frozenset[int]

    def allows(self, result: Outcome) -> bool:
        """Whether a result (200) or an error is as expected.

        An API may have one status for all errors of a file. For that of remove.bg, no subject is an error.
        """
        refused = bool(self.statuses - {200}) and 400 <= result.status < 500
        return result.status in self.statuses or refused or result.code == UnknownForeground.code


def awkward(folder: Path) -> Iterator[Awkward]:
    with (folder / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            statuses = frozenset(int(status) for status in row["http_status"].split("|"))
            yield Awkward(row["file"], (folder / "files" / row["file"]).read_bytes(), statuses)


def main() -> int:
    files, wrong = list(awkward(Path(os.environ["FOLDER"]))), 0
    with (
        TemporaryDirectory() as data,
        served(Path(data)) as (_, url),
        httpx2.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):

        def problem(way: str, one: Awkward) -> str:
            try:
                result = outcome(http, way, one.name, one.data, ENGINE)
            except Fault as fault:
                return str(fault)
            return "" if one.allows(result) else f"{result.status} {result.code}"

        for way in WAYS:
            problems = list(pool.map(problem, [way] * len(files), files))
            print(f"{way}: {problems.count('')} of {len(files)} as the manifest states", flush=True)
            for one, text in zip(files, problems, strict=True):
                if text:
                    wrong += 1
                    print(f"  {one.name}: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
