"""Describes the machine: cores, CPU and Python."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"
