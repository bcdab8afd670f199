from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from local.config import LocalConfig
from local.watch import Watch


class Images:
    """Finishes each uploaded photo: one whose name contains `damaged` fails."""

    damaged = "bad"

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}

    def upload(self, name: str, body: bytes) -> str:
        failed = bool(self.damaged) and self.damaged in name
        error = {"code": "unreadable_image", "message": "The file [a] is damaged."} if failed else None
        warnings = ["guessed_subject"] if "guess" in name else []
        self.jobs[name] = {"state": "failed" if failed else "done", "error": error, "warnings": warnings, "name": name}
        return name

    def job(self, job_id: str) -> dict[str, Any]:
        return self.jobs[job_id]

    def download(self, job: dict[str, Any], folder: Path) -> Path:
        return folder / job["name"]


@pytest.fixture
def printed() -> list[str]:
    return []


@pytest.fixture
def watch(tmp_path: Path, printed: list[str]) -> Watch:
    return Watch(LocalConfig(folder=tmp_path), Images(), printed.append)  # type: ignore[arg-type]


def drop(watch: Watch, *names: str) -> None:
    for name in names:
        path = watch.config.drop / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo")
        watch.unsettled.files[path] = (5, path.stat().st_mtime, 0.0)
    watch._upload()
    watch._download()


def test_each_photo_is_printed_with_its_folder_its_warnings_or_its_error(watch: Watch, printed: list[str]) -> None:
    drop(watch, "shop/guess.jpg", "shop/bad.jpg")
    assert "shop/guess.jpg: submitted" in printed
    (done,) = [line for line in printed if line.startswith("shop/guess.jpg: [green]")]
    assert "guessed_subject" in done
    (failed,) = [line for line in printed if line.startswith("shop/bad.jpg: [red]")]
    assert "unreadable_image" in failed


def test_failed_photos_are_listed_until_they_succeed(watch: Watch) -> None:
    path = watch.config.results / "failed.csv"
    drop(watch, "a.jpg")
    assert not path.exists()
    drop(watch, "shop/bad.jpg")
    with path.open() as file:
        assert list(csv.reader(file)) == [
            ["photo", "code", "message"],
            ["shop/bad.jpg", "unreadable_image", "The file [a] is damaged."],
        ]
    watch.images.damaged = ""  # type: ignore[attr-defined]
    drop(watch, "shop/bad.jpg")
    assert not path.exists()


def test_the_summary_counts_photos_by_their_end(watch: Watch) -> None:
    drop(watch, "a.jpg", "b/c.jpg", "bad.jpg")
    watch.submitted["x"] = watch.config.drop / "x.jpg"
    assert watch.summary() == (
        f"2 done; 1 failed: {watch.config.results / 'failed.csv'}; 1 not finished: submitted again at the next start."
    )
