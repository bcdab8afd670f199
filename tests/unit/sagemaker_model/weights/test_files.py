from __future__ import annotations

from pathlib import Path

import pytest

from sagemaker_model.weights.files import atomic_write


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
