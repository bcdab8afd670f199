"""Settings of a load test, read from the environment so that distributed workers and the master share them.

| variable | default | |
|---|---|---|
| `MASKDROP_STACK` | | JSON file that describes the stack (tests/load/target.py) |
| `LOAD_SHAPE` | `steady` | `steady`, `step`, `spike` or `soak` |
| `LOAD_MINUTES` | 1 | duration |
| `LOAD_USERS` | 8 | maximum number of users |
| `LOAD_MIX` | `default` | a table of tests/load/mixes.toml |
| `LOAD_RATES` | | tasks per second of each class of users, as JSON; without it, a task starts when the last one ends |
| `LOAD_TIME_LAPSE` | 0 | local stack: simulates the instances of `bulk`, this many times faster than real time |
| `LOAD_INSTANCES` | 5 | maximum number of simulated instances |
| `LOAD_SETTLE_S` | 300 | seconds after the load in which every accepted job must reach a final state |
| `LOAD_REPORT` | `reports/load` | folder of the report |
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.config import ROOT

MIXES = Path(__file__).with_name("mixes.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A table of mixes.toml. users: class of users -> share. p95_s: name of a request -> limit in seconds."""

    users: dict[str, int]
    errors: float
    refused: float
    p95_s: dict[str, float] = field(default_factory=dict)


def mixes() -> dict[str, Mix]:
    return {name: Mix(**table) for name, table in tomllib.loads(MIXES.read_text()).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """The fields are described in the table of the module."""

    shape: str = "steady"
    minutes: float = 1
    users: int = 8
    mix: str = "default"
    rates: dict[str, float] = field(default_factory=dict)
    time_lapse: float = 0
    instances: int = 5
    settle_s: float = 300
    report: Path = ROOT / "reports" / "load"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> LoadSettings:
        """Raises ValueError for an unknown mix or a value of another type."""
        default = cls()
        settings = cls(
            shape=env.get("LOAD_SHAPE", default.shape),
            minutes=float(env.get("LOAD_MINUTES", default.minutes)),
            users=int(env.get("LOAD_USERS", default.users)),
            mix=env.get("LOAD_MIX", default.mix),
            rates={name: float(rate) for name, rate in json.loads(env.get("LOAD_RATES", "{}")).items()},
            time_lapse=float(env.get("LOAD_TIME_LAPSE", default.time_lapse)),
            instances=int(env.get("LOAD_INSTANCES", default.instances)),
            settle_s=float(env.get("LOAD_SETTLE_S", default.settle_s)),
            report=Path(env.get("LOAD_REPORT", default.report)),
        )
        if settings.mix not in mixes():
            raise ValueError(f"LOAD_MIX must be one of {', '.join(mixes())}; got {settings.mix!r}")
        return settings

    def to_env(self) -> dict[str, str]:
        values: dict[str, Any] = {
            "LOAD_SHAPE": self.shape,
            "LOAD_MINUTES": self.minutes,
            "LOAD_USERS": self.users,
            "LOAD_MIX": self.mix,
            "LOAD_RATES": json.dumps(self.rates),
            "LOAD_TIME_LAPSE": self.time_lapse,
            "LOAD_INSTANCES": self.instances,
            "LOAD_SETTLE_S": self.settle_s,
            "LOAD_REPORT": self.report,
        }
        return {name: str(value) for name, value in values.items()}

    @property
    def limits(self) -> Mix:
        return mixes()[self.mix]
