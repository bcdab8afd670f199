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
"""Bytes on disk at most."""


def embedding(value: float) -> Embedding:
    return (np.full((1, 4, 8, 8), value, np.float16), np.full((1, 2, 16, 16), -value, np.float16))


def value_of(found: Embedding | None) -> float | None:
    return None if found is None else float(found[0][0, 0, 0, 0])


def test_what_was_put_comes_back() -> None:
    cache = EmbeddingCache(SIZE)
    cache.put("a", embedding(1))
    assert all(map(np.array_equal, cache.get("a") or (), embedding(1)))
    assert cache.get("b") is None


def test_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(2 * SIZE)
    cache.put("a", embedding(1))
    cache.put("b", embedding(2))
    cache.get("a")
    cache.put("c", embedding(3))
    assert [value_of(cache.get(key)) for key in "abc"] == [1, None, 3]
    assert cache.bytes == 2 * SIZE


def test_the_same_key_counts_once() -> None:
    cache = EmbeddingCache(2 * SIZE)
    for _ in range(3):
        cache.put("a", embedding(1))
    assert cache.bytes == SIZE


def test_one_above_the_budget_is_not_kept_and_drives_nothing_out() -> None:
    cache = EmbeddingCache(SIZE)
    cache.put("a", embedding(1))
    cache.put("large", embedding(2) * 2)
    assert cache.get("large") is None
    assert value_of(cache.get("a")) == 1


def test_many_threads_keep_it_within_its_budget() -> None:
    cache = EmbeddingCache(5 * SIZE)

    def work(i: int) -> bool:
        cache.put(str(i % 12), embedding(i % 12))
        return value_of(cache.get(str(i % 12))) in (None, i % 12)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(500)))
    assert cache.bytes == 5 * SIZE


class Encoder:
    """Makes the embedding of a key, a number. What it was asked for is in `asked`; `held` keeps it at work."""

    def __init__(self, held: threading.Event | None = None, fault: Exception | None = None) -> None:
        self.asked: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self._held, self._fault = held, fault

    def __call__(self, keys: Sequence[str]) -> list[Embedding]:
        self.asked.append(list(keys))
        self.entered.release()
        if self._held:
            assert self._held.wait(30)
        if self._fault:
            raise self._fault
        return [embedding(int(key)) for key in keys]


def values_of(found: dict[str, Embedding]) -> dict[str, float | None]:
    return {key: value_of(one) for key, one in found.items()}


class Waited(EmbeddingCache):
    """Says when a thread has looked for what is not kept: from then on it makes it or waits for it."""

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.missed = threading.Semaphore(0)

    def get(self, key: str) -> Embedding | None:
        found = super().get(key)
        if found is None:
            self.missed.release()
        return found


def test_only_what_is_not_kept_is_made() -> None:
    cache, encoder = EmbeddingCache(10 * SIZE), Encoder()
    cache.put("1", embedding(1))
    assert values_of(cache.get_or_make(["1", "2", "3", "2"], encoder)) == {"1": 1, "2": 2, "3": 3}
    assert values_of(cache.get_or_make(["3"], encoder)) == {"3": 3}
    assert encoder.asked == [["2", "3"]]


@pytest.mark.parametrize("memory_bytes", [10 * SIZE, 0])
def test_what_another_thread_is_making_is_waited_for_and_made_once(memory_bytes: int) -> None:
    cache, encoder = Waited(memory_bytes), Encoder(held=threading.Event())
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get_or_make, ["1"], encoder)
        assert encoder.entered.acquire(timeout=30)
        others = [pool.submit(cache.get_or_make, ["1"], encoder) for _ in range(3)]
        for _ in range(4):
            assert cache.missed.acquire(timeout=30)
        assert encoder._held
        assert not any(other.done() for other in others)
        encoder._held.set()
        assert [values_of(one.result(30)) for one in (first, *others)] == [{"1": 1}] * 4
    if memory_bytes:
        assert encoder.asked == [["1"]]


def test_who_waits_for_what_fails_is_told_and_the_next_tries_again() -> None:
    cache, encoder = Waited(10 * SIZE), Encoder(held=threading.Event(), fault=MemoryError("too large"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_make, ["1"], encoder)
        assert encoder.entered.acquire(timeout=30)
        second = pool.submit(cache.get_or_make, ["1", "2"], Encoder())
        assert encoder._held
        for _ in range(3):
            assert cache.missed.acquire(timeout=30)
        while cache.get("2") is None:
            assert cache.missed.acquire(timeout=30)
        encoder._held.set()
        for one in (first, second):
            with pytest.raises(MemoryError, match="too large"):
                one.result(30)
    assert values_of(cache.get_or_make(["1", "2"], again := Encoder())) == {"1": 1, "2": 2}
    assert again.asked == [["1"]]


def test_an_encoder_that_loses_one_fails_and_nobody_waits_for_ever() -> None:
    cache = EmbeddingCache(10 * SIZE)
    with pytest.raises(ValueError, match="zip"):
        cache.get_or_make(["1", "2"], lambda _: [embedding(1)])
    assert values_of(cache.get_or_make(["1", "2"], Encoder())) == {"1": 1, "2": 2}


def test_another_process_finds_what_one_has_put(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, numpy as np\n"
        "from sagemaker_model.engines.embeddings import EmbeddingCache\n"
        "cache = EmbeddingCache(0, pathlib.Path(sys.argv[1]), 10**6)\n"
        "cache.put('a', (np.full((1, 4, 8, 8), 7, np.float16), np.full((1, 2, 16, 16), -7, np.float16)))\n"
    )
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)  # noqa: S603 - our own program
    cache = EmbeddingCache(SIZE, tmp_path, 10**6)
    assert all(map(np.array_equal, cache.get("a") or (), embedding(7)))
    assert cache.bytes == SIZE, "it is in memory from then on"


def test_the_folder_keeps_its_budget_and_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = EmbeddingCache(0, tmp_path, 2 * FILE)
    for i, key in enumerate("ab"):
        cache.put(key, embedding(i))
        os.utime(tmp_path / f"{key}.npz", (i, i))
    cache.get("a")
    cache.put("c", embedding(2))
    assert [value_of(cache.get(key)) for key in "abc"] == [0, None, 2]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * FILE


@pytest.mark.parametrize("damage", [b"", b"PK", "cut", "flipped"])
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, damage: bytes | str) -> None:
    cache = EmbeddingCache(0, tmp_path, 10**6)
    cache.put("a", embedding(1))
    path = tmp_path / "a.npz"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 4] ^= 255
    else:
        data = bytearray(damage)
    path.write_bytes(data)
    assert cache.get("a") is None
    cache.put("a", embedding(2))
    assert value_of(cache.get("a")) == 2


def test_a_folder_that_is_gone_costs_the_sharing_alone(tmp_path: Path) -> None:
    cache = EmbeddingCache(SIZE, tmp_path / "gone", 10**6)
    cache.put("a", embedding(1))
    assert value_of(cache.get("a")) == 1
    assert cache.get("b") is None
