"""Measures the model server's memory over many images; it must not grow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from local import processes
from local.config import LocalConfig

STEPS = 5


def resident_mb(config: LocalConfig, model_url: str, photos: tuple[bytes, ...], count: int) -> list[tuple[int, float]]:
    """(images so far, resident megabytes) at STEPS steps, and last the process's peak."""
    process = processes.find("model", config.state)
    if process is None:
        raise RuntimeError("The model server is not running.")
    rows: list[tuple[int, float]] = []
    with httpx2.Client(base_url=model_url, timeout=120, trust_env=False) as client, ThreadPoolExecutor(4) as pool:

        def one(number: int) -> None:
            photo = photos[number % len(photos)]
            client.post("/invocations", content=photo, headers={"content-type": "image/jpeg"}).raise_for_status()

        for step in range(STEPS):
            numbers = range(step * count // STEPS, (step + 1) * count // STEPS)
            list(pool.map(one, numbers))
            rows.append((numbers.stop, _status_mb(process.pid, "VmRSS")))
    return [*rows, (count, _status_mb(process.pid, "VmHWM"))]


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no {name}.")
