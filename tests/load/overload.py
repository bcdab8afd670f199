"""`make load-overload`: measures the capacity of the local stack, then loads it with 80 %, 300 % and again 80 % of it.

Passes if 80 % has no error and no refusal, and if 300 % has only refusals with 429 or 503 and Retry-After, loses no
accepted job, and the stack serves 80 % again afterwards. MINUTES: duration of the phase at 80 % (default: 10); the
others are shorter. The jobs of the overload are processed after it, for up to three times as long. Reports:
reports/overload/.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local import processes
from local.config import ROOT, LocalConfig
from tests.load.__main__ import locust, running_stack
from tests.load.resources import Usage, trend, usage
from tests.load.settings import LoadSettings

REPORTS = ROOT / "reports" / "overload"

CLOSED_USERS = 8
"""Users of the closed loop that measures the capacity: twice the images that the model server processes at a time."""

WAIT_S = 30
"""Seconds that a request may take: as many users are needed for each request per second."""

USERS_MAX = 200

SAMPLE_S = 5.0

PROGRAMS = ("emulator", "sagemaker")
"""Programs of the stack. Functions are child processes of the emulator, the model server one of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """factor: of the capacity; None: a closed loop. minutes_max: longest duration."""

    name: str
    factor: float | None
    mix: str
    minutes_max: float


PHASES = (
    Phase(name="warm-up", factor=None, mix="default", minutes_max=0.5),
    Phase(name="capacity", factor=None, mix="default", minutes_max=2),
    Phase(name="80 %", factor=0.8, mix="below-capacity", minutes_max=math.inf),
    Phase(name="300 %", factor=3.0, mix="above-capacity", minutes_max=5),
    Phase(name="80 % again", factor=0.8, mix="below-capacity", minutes_max=3),
)


def settings(phase: Phase, minutes: float, capacity: Mapping[str, float]) -> LoadSettings:
    """capacity: tasks per second of each class of users in the closed loop."""
    folder = REPORTS / phase.name.replace(" ", "").replace("%", "")
    minutes = min(minutes, phase.minutes_max)
    if phase.factor is None:
        return LoadSettings(minutes=minutes, users=CLOSED_USERS, mix=phase.mix, report=folder)
    rates = {name: rate * phase.factor for name, rate in capacity.items()}
    users = min(USERS_MAX, max(CLOSED_USERS, math.ceil(sum(rates.values()) * WAIT_S)))
    settle_s = LoadSettings().settle_s + minutes * 60 * phase.factor
    return LoadSettings(minutes=minutes, users=users, mix=phase.mix, rates=rates, settle_s=settle_s, report=folder)


class Memory:
    """Samples the memory of the programs of the local stack in a thread."""

    def __init__(self, config: LocalConfig) -> None:
        self._config, self._end = config, threading.Event()
        self.samples: list[Usage] = []

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(SAMPLE_S):
            found = [processes.find(name, self._config.state) for name in PROGRAMS]
            used = [one for process in found if process and (one := usage(process))]
            if used:
                total = sum(one.rss_mb for one in used)
                self.samples.append(
                    Usage(at=used[0].at, rss_mb=total, files=0, threads=0, processes=len(used), disk_mb=0)
                )

    def text(self) -> str:
        """Returns the memory at the begin and at the end, after the warm-up of the phase."""
        if len(self.samples) < 10:
            return "-"
        one = trend([sample.at for sample in self.samples], [sample.rss_mb for sample in self.samples])
        return f"{one.first:.0f} -> {one.last:.0f}"


def row(phase: Phase, summary: Mapping[str, Any], memory: str, code: int) -> list[str]:
    """Returns the cells of one phase."""
    requests = [one for one in summary["requests"] if one["name"] != "drop to done"]
    total = {what: sum(one[what] for one in requests) for what in ("ok", "refused", "error")}
    p95 = max((one["p95_s"] for one in requests if one["ok"]), default=math.nan)
    jobs = next((one for one in summary["requests"] if one["name"] == "drop to done"), {"p95_s": math.nan})
    return [
        phase.name,
        f"{sum(total.values()) / summary['seconds']:.2f}",
        *(str(total[what]) for what in ("ok", "refused", "error")),
        f"{p95:.1f}",
        str(summary["accepted"]),
        str(sum(summary["ends"].values())),
        str(summary["lost"]),
        f"{jobs['p95_s']:.1f}",
        memory,
        "pass" if code == 0 else "FAIL",
    ]


HEAD = (
    "phase", "requests/s", "ok", "refused", "errors", "p95 s", "accepted", "ended", "lost", "job p95 s", "RSS MB",
    "limits",
)  # fmt: skip


def table(rows: list[list[str]]) -> Iterator[str]:
    """Yields the lines of a Markdown table."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    minutes = float(os.environ.get("MINUTES", "10"))
    capacity: dict[str, float] = {}
    rows, failed = [], False
    with running_stack() as file:
        config = LocalConfig.of_running_stack(os.environ)
        for phase in PHASES:
            chosen = settings(phase, minutes, capacity)
            with Memory(config) as memory:
                code = locust(chosen, file)
            summary = json.loads((chosen.report / "summary.json").read_text())
            if phase.name == "capacity":
                capacity = {name: count / summary["seconds"] for name, count in summary["tasks"].items()}
            if phase.factor is not None:
                failed |= code != 0
            rows.append(row(phase, summary, memory.text(), code))
    lines = list(table(rows))
    Path(REPORTS / "table.md").write_text("\n".join(lines) + "\n")
    print(*lines, f"capacity, tasks per second: {capacity}", sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
