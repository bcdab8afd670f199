from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sagemaker_model.engines.embeddings import Embedding, EmbeddingCache

SIZE = 2 * (4 * 8 * 8 + 2 * 16 * 16)
FILE = SIZE + 1000
"""Upper bound of the bytes of one file."""


def embedding(value: float) -> Embedding:
    return (np.full((1, 4, 8, 8), value, np.float16), np.full((1, 2, 16, 16), -value, np.float16))


def value_of(cached: Embedding | None) -> float | None:
    return None if cached is None else float(cached[0][0, 0, 0, 0])


def test_get_returns_the_embedding_that_was_put() -> None:
    cache = EmbeddingCache(SIZE)
    cache.put("a", embedding(1))
    assert all(map(np.array_equal, cache.get("a") or (), embedding(1)))
    assert cache.get("b") is None


def test_the_least_recently_used_embedding_is_evicted_first() -> None:
    cache = EmbeddingCache(2 * SIZE)
    cache.put("a", embedding(1))
    cache.put("b", embedding(2))
    cache.get("a")
    cache.put("c", embedding(3))
    assert [value_of(cache.get(key)) for key in "abc"] == [1, None, 3]
    assert cache.bytes == 2 * SIZE


def test_putting_the_same_key_again_does_not_add_to_the_size() -> None:
    cache = EmbeddingCache(2 * SIZE)
    for _ in range(3):
        cache.put("a", embedding(1))
    assert cache.bytes == SIZE


def test_an_embedding_larger_than_the_budget_is_not_cached_and_evicts_none() -> None:
    cache = EmbeddingCache(SIZE)
    cache.put("a", embedding(1))
    cache.put("large", embedding(2) * 2)
    assert cache.get("large") is None
    assert value_of(cache.get("a")) == 1


def test_the_cache_stays_within_its_budget_with_many_threads() -> None:
    cache = EmbeddingCache(5 * SIZE)

    def put_and_get(i: int) -> bool:
        cache.put(str(i % 12), embedding(i % 12))
        return value_of(cache.get(str(i % 12))) in (None, i % 12)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_and_get, range(500)))
    assert cache.bytes == 5 * SIZE


class Encoder:
    """Returns the embedding of each key, a number.

    `requests` records the keys of each call; `hold` blocks calls until it is set.
    """

    def __init__(self, hold: threading.Event | None = None, error: Exception | None = None) -> None:
        self.requests: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self._hold, self._error = hold, error

    def __call__(self, keys: Sequence[str]) -> list[Embedding]:
        self.requests.append(list(keys))
        self.entered.release()
        if self._hold:
            assert self._hold.wait(30)
        if self._error:
            raise self._error
        return [embedding(int(key)) for key in keys]


def values_of(cached: dict[str, Embedding]) -> dict[str, float | None]:
    return {key: value_of(one) for key, one in cached.items()}


class ObservedCache(EmbeddingCache):
    """Counts misses in `missed`: after a miss the thread computes the embedding or waits for it."""

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.missed = threading.Semaphore(0)

    def get(self, key: str) -> Embedding | None:
        cached = super().get(key)
        if cached is None:
            self.missed.release()
        return cached


def test_only_missing_embeddings_are_computed() -> None:
    cache, encoder = EmbeddingCache(10 * SIZE), Encoder()
    cache.put("1", embedding(1))
    assert values_of(cache.get_or_compute(["1", "2", "3", "2"], encoder)) == {"1": 1, "2": 2, "3": 3}
    assert values_of(cache.get_or_compute(["3"], encoder)) == {"3": 3}
    assert encoder.requests == [["2", "3"]]


@pytest.mark.parametrize("memory_bytes", [10 * SIZE, 0])
def test_an_embedding_that_another_thread_computes_is_waited_for_and_computed_once(memory_bytes: int) -> None:
    cache, encoder = ObservedCache(memory_bytes), Encoder(hold=threading.Event())
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get_or_compute, ["1"], encoder)
        assert encoder.entered.acquire(timeout=30)
        others = [pool.submit(cache.get_or_compute, ["1"], encoder) for _ in range(3)]
        for _ in range(4):
            assert cache.missed.acquire(timeout=30)
        assert encoder._hold
        assert not any(other.done() for other in others)
        encoder._hold.set()
        assert [values_of(one.result(30)) for one in (first, *others)] == [{"1": 1}] * 4
    if memory_bytes:
        assert encoder.requests == [["1"]]


def test_waiting_threads_get_the_error_of_the_failed_computation_and_the_next_call_retries() -> None:
    cache, encoder = ObservedCache(10 * SIZE), Encoder(hold=threading.Event(), error=MemoryError("too large"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_compute, ["1"], encoder)
        assert encoder.entered.acquire(timeout=30)
        second = pool.submit(cache.get_or_compute, ["1", "2"], Encoder())
        assert encoder._hold
        for _ in range(3):
            assert cache.missed.acquire(timeout=30)
        while cache.get("2") is None:
            assert cache.missed.acquire(timeout=30)
        encoder._hold.set()
        for one in (first, second):
            with pytest.raises(MemoryError, match="too large"):
                one.result(30)
    assert values_of(cache.get_or_compute(["1", "2"], again := Encoder())) == {"1": 1, "2": 2}
    assert again.requests == [["1"]]


def test_an_encoder_that_returns_too_few_embeddings_fails_and_blocks_no_later_call() -> None:
    cache = EmbeddingCache(10 * SIZE)
    with pytest.raises(ValueError, match="zip"):
        cache.get_or_compute(["1", "2"], lambda _: [embedding(1)])
    assert values_of(cache.get_or_compute(["1", "2"], Encoder())) == {"1": 1, "2": 2}


def test_another_process_reads_the_embedding_from_the_folder(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, numpy as np\n"
        "from sagemaker_model.engines.embeddings import EmbeddingCache\n"
        "cache = EmbeddingCache(0, pathlib.Path(sys.argv[1]), 10**6)\n"
        "cache.put('a', (np.full((1, 4, 8, 8), 7, np.float16), np.full((1, 2, 16, 16), -7, np.float16)))\n"
    )
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)  # noqa: S603 - a fixed program
    cache = EmbeddingCache(SIZE, tmp_path, 10**6)
    assert all(map(np.array_equal, cache.get("a") or (), embedding(7)))
    assert cache.bytes == SIZE, "the embedding is in memory too"


def test_the_folder_stays_within_its_budget_by_deleting_the_least_recently_used_file(tmp_path: Path) -> None:
    cache = EmbeddingCache(0, tmp_path, 2 * FILE)
    for i, key in enumerate("ab"):
        cache.put(key, embedding(i))
        os.utime(tmp_path / f"{key}.npz", (i, i))
    cache.get("a")
    cache.put("c", embedding(2))
    assert [value_of(cache.get(key)) for key in "abc"] == [0, None, 2]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * FILE


@pytest.mark.parametrize("damage", [b"", b"PK", "cut", "flipped"])
def test_a_damaged_file_is_a_miss_and_is_replaced(tmp_path: Path, damage: bytes | str) -> None:
    cache = EmbeddingCache(0, tmp_path, 10**6)
    cache.put("a", embedding(1))
    path = tmp_path / "a.npz"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 4] ^= 255
    else:
        assert isinstance(damage, bytes)
        data = bytearray(damage)
    path.write_bytes(data)
    assert cache.get("a") is None
    cache.put("a", embedding(2))
    assert value_of(cache.get("a")) == 2


def test_without_its_folder_the_cache_still_works_in_memory(tmp_path: Path) -> None:
    cache = EmbeddingCache(SIZE, tmp_path / "gone", 10**6)
    cache.put("a", embedding(1))
    assert value_of(cache.get("a")) == 1
    assert cache.get("b") is None
