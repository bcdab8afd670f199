from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sagemaker_model.embeddings import Embedding, EmbeddingCache

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


def test_another_process_finds_what_one_has_put(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, numpy as np\n"
        "from sagemaker_model.embeddings import EmbeddingCache\n"
        "cache = EmbeddingCache(0, pathlib.Path(sys.argv[1]), 10**6)\n"
        "cache.put('a', (np.full((1, 4, 8, 8), 7, np.float16), np.full((1, 2, 16, 16), -7, np.float16)))\n"
    )
    root = Path(__file__).parents[3]
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
