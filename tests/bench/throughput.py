"""Images per second of the model server alone, and of the whole stack from the S3 put to the recorded result."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx2

from local.config import LocalConfig
from local.images import ImageClient
from local.stack import Stack

CLIENTS = 8
"""Concurrent clients: enough for two busy cores, few enough for a small CPU share of the client."""

WAIT_S = 600


def bare(model_url: str, photo: bytes, count: int) -> float:
    """images/s of POST /invocations with one image each and CLIENTS concurrent requests."""
    with httpx2.Client(base_url=model_url, timeout=120, trust_env=False) as client:

        def one(_: int) -> None:
            response = client.post("/invocations", content=photo, headers={"content-type": "image/jpeg"})
            response.raise_for_status()

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(one, range(CLIENTS)))
            start = time.perf_counter()
            list(pool.map(one, range(count)))
            return count / (time.perf_counter() - start)


def end_to_end(config: LocalConfig, running_stack: Stack, photo: bytes, count: int) -> float:
    """images/s from the first put to the last record, by wall time. Raises RuntimeError unless all jobs succeed."""
    images = ImageClient(config, running_stack)
    warm = images.upload("default/bench/warm.jpg", photo)
    _wait(images, {warm})

    def put(number: int) -> str:
        return images.upload(f"default/bench/{number}.jpg", photo)

    start = time.time()
    with ThreadPoolExecutor(CLIENTS) as pool:
        ids = set(pool.map(put, range(count)))
    last = _wait(images, ids)
    return count / (last - start)


def _wait(images: ImageClient, ids: set[str]) -> float:
    """The time at which the last job ended, by the records. Polled rarely, because polling takes CPU time."""
    deadline = time.monotonic() + WAIT_S
    last = 0.0
    waiting = sorted(ids)
    while waiting:
        job = images.job(waiting[-1])
        if job and job["state"] in ("done", "failed"):
            if job["state"] == "failed":
                raise RuntimeError(f"{job['source']['key']} failed: {job['error']['message']}")
            last = max(last, datetime.fromisoformat(job["finished_at"]).timestamp())
            waiting.pop()
            continue
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(waiting)} of {len(ids)} images had not ended after {WAIT_S} s.")
        time.sleep(0.5)
    return last
