"""Measures the model server's memory over many images; it must not grow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2

from local import processes
from local.config import LocalConfig
from tests.bench.measure import tree_mb, tree_peak

STEPS = 5


def resident_mb(config: LocalConfig, model_url: str, photos: tuple[bytes, ...], count: int) -> list[tuple[int, float]]:
    """(images so far, megabytes) at STEPS steps, and last the peak; of the server with its decoder processes."""
    process = processes.find("model", config.state)
    if process is None:
        raise RuntimeError("The model server is not running.")
    rows: list[tuple[int, float]] = []
    with (
        httpx2.Client(base_url=model_url, timeout=120, trust_env=False) as client,
        ThreadPoolExecutor(4) as pool,
        tree_peak(process.pid) as peak,
    ):

        def one(number: int) -> None:
            photo = photos[number % len(photos)]
            client.post("/invocations", content=photo, headers={"content-type": "image/jpeg"}).raise_for_status()

        for step in range(STEPS):
            numbers = range(step * count // STEPS, (step + 1) * count // STEPS)
            list(pool.map(one, numbers))
            rows.append((numbers.stop, tree_mb(process.pid)))
    return [*rows, (count, peak.mb)]
