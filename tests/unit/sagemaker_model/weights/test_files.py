from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagemaker_model.weights.files import atomic_write

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("concurrent", [True, False])
def test_the_file_is_replaced_at_the_end_of_the_block(tmp_path: Path, concurrent: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with atomic_write(path, concurrent=concurrent) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("concurrent", [True, False])
def test_an_error_keeps_the_previous_file_and_deletes_the_temporary_one(tmp_path: Path, concurrent: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path, concurrent=concurrent) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_concurrent_writes_have_different_temporary_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_write(path, concurrent=True) as first, atomic_write(path, concurrent=True) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_a_leftover_of_a_crash_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        leftover = temporary
    leftover.write_text("leftover of a crash")
    with atomic_write(path) as temporary:
        temporary.write_text("newer")
    assert path.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("concurrent", [True, False])
def test_a_process_that_crashes_before_the_end_of_the_block_keeps_the_previous_file(
    tmp_path: Path, concurrent: bool
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import os, pathlib, sys; from sagemaker_model.weights.files import atomic_write\n"
        f"with atomic_write(pathlib.Path(sys.argv[1]), concurrent={concurrent}) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    crashed = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=False)  # noqa: S603  its own code
    assert crashed.returncode == 9
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.glob("[!.]*")] == ["a.json"]


def test_threads_that_write_one_file_leave_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def write(number: int) -> None:
        with atomic_write(path, concurrent=True, sync=False) as temporary:
            temporary.write_text(str(number) * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [*range(8)] * 5))
    assert len({*path.read_text()}) == 1
    assert len(path.read_text()) == 10_000
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_no_file_is_an_error_and_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "old"
