from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from sagemaker_model.data import shards
from tests.unit.sagemaker_model.data import datasets
from tests.unit.sagemaker_model.data.datasets import HEIGHT, WIDTH, disc


def prepare(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", "prepare", *map(str, words)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that is a dataset in all four layouts, with one person in one image."""
    root = tmp_path / "source"
    square = [[20, 30], [120, 30], [120, 129], [20, 129]]
    datasets.folder(root, masks={"a": disc()})
    datasets.voc(root, {"a": np.where(disc(radius=60) > 0, np.uint8(15), np.uint8(0))}, {"train": ["a"]})
    datasets.supervisely(root / "ds1", {"a.jpg": [datasets.polygon(square)]})
    return datasets.coco(root, ["a.jpg"], [datasets.rectangle(10, 10, WIDTH - 10, HEIGHT - 10)])


@pytest.mark.parametrize("kind", ["supervisely", "voc", "coco", "folders"])
def test_every_kind_of_dataset_is_converted_to_readable_shards(source: Path, tmp_path: Path, kind: str) -> None:
    result = prepare(kind, source, tmp_path / "out", "--split", "1/0", "--side", "80")
    assert result.exit_code == 0, result.output
    (record,) = shards.records(shards.shard_paths(tmp_path / "out", "train"))
    assert record.part == kind
    assert record.mask.shape == (70, 80)
    assert record.mask[40, 40] == 255


def test_skipped_records_are_printed_with_their_reason(source: Path, tmp_path: Path) -> None:
    (source / "masks" / "a.png").write_bytes(b"no image")
    datasets.folder(source, masks={"b": disc()})
    result = prepare("folders", source, tmp_path / "out")
    assert result.exit_code == 0
    assert "Skipped, unreadable mask: 1 (a)" in result.output


def test_a_result_without_records_exits_with_1(source: Path, tmp_path: Path) -> None:
    result = prepare("folders", source, tmp_path / "out", "--min-side", "5000")
    assert result.exit_code == 1
    assert "image too small: 1" in result.output


def test_backgrounds_are_searched_recursively(source: Path, tmp_path: Path) -> None:
    datasets.photo(tmp_path / "backgrounds" / "interior" / "wall.jpg")
    words = ("--backgrounds", tmp_path / "backgrounds", "--swapped", "1", "--split", "1/0")
    assert prepare("folders", source, tmp_path / "out", *words).exit_code == 0
    found = list(shards.records(shards.shard_paths(tmp_path / "out", "train")))
    assert [one.background for one in found] == ["", "wall.jpg"]


@pytest.mark.parametrize(
    "words",
    [
        ("voc", "missing"),
        ("coco", "."),
        ("folders", ".", "--split", "0.7"),
        ("folders", ".", "--split", "a/b"),
        ("folders", ".", "--aspect", "9x16"),
        ("folders", ".", "--subject", "only"),
    ],
)
def test_an_error_is_printed_without_a_traceback_and_exits_with_1(tmp_path: Path, words: tuple[str, ...]) -> None:
    kind, source, *options = words
    result = prepare(kind, tmp_path / source, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.strip()
    assert "Traceback" not in result.output


def test_the_manifest_contains_the_options(source: Path, tmp_path: Path) -> None:
    words = (
        "--split",
        "0.6/0.3/0.1",
        "--seed",
        "7",
        "--shard-mb",
        "3",
        "--aspect",
        "9:16",
        "--class",
        "dog",
        "--empty",
    )
    prepare("coco", source, tmp_path / "out", *words)
    recipe = json.loads((tmp_path / "out" / "manifest.json").read_text())["recipe"]
    assert recipe["shares"] == [0.6, 0.3, 0.1]
    assert (recipe["seed"], recipe["shard_bytes"], recipe["aspect"]) == (7, 3_000_000, [9, 16])
    assert (recipe["classes"], recipe["empty"]) == (["dog"], True)


def test_backgrounds_are_strips_of_training_photos_and_views_of_panoramas(tmp_path: Path) -> None:
    rows = [{"id": f"{split}-{kind}", "split": split, "licence_class": kind} for split in ("train", "val")
            for kind in ("clean", "unclear")]  # fmt: skip
    narrow = disc((30, 200), 20, (600, 400))
    datasets.folder(tmp_path / "photos", rows, {row["id"]: narrow for row in rows})
    panorama = np.ones((32, 64, 3), np.float32)
    (tmp_path / "panoramas").mkdir()
    cv2.imwrite(str(tmp_path / "panoramas" / "hall.hdr"), panorama)
    words = ["data", "backgrounds", str(tmp_path / "photos"), str(tmp_path / "out")]
    result = CliRunner().invoke(
        app, [*words, "--panoramas", str(tmp_path / "panoramas"), "--views", "3", "--side", "64", "--clean"]
    )
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["hall-000.jpg", "hall-001.jpg", "hall-002.jpg", "train-clean-0.jpg"]
    result = CliRunner().invoke(app, words)
    assert "5 images" in result.output


class FakeS3:
    """The results bucket of a stage with one complete training record, an incomplete one, and a strange key."""

    def __init__(self) -> None:
        whole, half = "a" * 32, "b" * 32
        names = (f"images/{whole}.jpg", f"masks/{whole}.png", f"records/{whole}.json", f"images/{half}.jpg", "../x.png")
        self.keys = [f"training/{name}" for name in names]

    def get_paginator(self, _: str) -> FakeS3:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803  boto3's names
        assert (Bucket, Prefix) == ("results-1", "training/")
        return [{"Contents": [{"Key": key} for key in self.keys]}, {}]

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        return {"Body": BytesIO(Key.encode())}


def test_complete_corrections_of_a_stage_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connection(stage: str | None) -> Iterator[tuple[dict[str, str], Any]]:
        assert stage == "prod"
        yield {"ResultsBucket": "results-1"}, lambda _: FakeS3()

    monkeypatch.setattr("cli.data.connection", connection)
    result = CliRunner().invoke(app, ["data", "corrections", str(tmp_path / "out"), "--stage", "prod"])
    assert result.stdout.startswith("1 correction in ")
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        f"out/{part}" for part in (f"images/{'a' * 32}.jpg", f"masks/{'a' * 32}.png", f"records/{'a' * 32}.json")
    ]
