from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from sagemaker_model.data import folders, shards
from sagemaker_model.data.compose import compose
from sagemaker_model.data.prepare import entries_of, prepare, reasons
from sagemaker_model.data.recipe import Recipe
from sagemaker_model.data.records import InvalidData, Record
from tests.unit.sagemaker_model.data import datasets
from tests.unit.sagemaker_model.data.datasets import GREEN, RED, bytes_of, disc

ROOT = Path(__file__).parents[4]
SMALL = {"side": 64, "min_side": 32}


def data_folder(tmp_path: Path, count: int = 12, **row: str) -> Path:
    return datasets.folder(tmp_path / "source", [{"id": f"p{number:02}", **row} for number in range(count)])


def run(source: Path, out: Path, backgrounds: list[Path] | None = None, **options: Any) -> dict[str, Any]:
    recipe = Recipe.of("folders", **SMALL | options)
    return prepare(entries_of(source, recipe), recipe, out, backgrounds=backgrounds or [])


def read(out: Path) -> list[Record]:
    return list(shards.records(sorted(out.glob("*.tar"))))


@pytest.fixture
def blue(tmp_path: Path) -> Path:
    path = tmp_path / "backgrounds" / "blue.png"
    path.parent.mkdir()
    Image.new("RGB", (300, 80), (0, 0, 255)).save(path)
    return path


# Output


def test_each_record_is_in_one_shard_of_its_part_and_split(tmp_path: Path) -> None:
    rows = [
        {"id": f"{part}{n}", "part": part, "split": split} for part in ("a", "b") for n in range(4) for split in ["val"]
    ]
    rows += [{"id": "c", "part": "b", "split": "train"}]
    manifest = run(datasets.folder(tmp_path / "source", rows), tmp_path / "out")
    assert [row["file"] for row in manifest["shards"]] == ["a-val-000000.tar", "b-train-000000.tar", "b-val-000000.tar"]
    assert manifest["counts"] == {"a": {"train": 0, "val": 4, "test": 0}, "b": {"train": 1, "val": 4, "test": 0}}
    assert {(one.id, one.part, one.split) for one in read(tmp_path / "out")} == {tuple(row.values()) for row in rows}


def test_images_keep_their_aspect_ratio_and_masks_stay_aligned(tmp_path: Path) -> None:
    run(data_folder(tmp_path, 1), tmp_path / "out")
    (one,) = read(tmp_path / "out")
    assert one.image.shape == (56, 64, 3)
    assert (one.width, one.height) == (160, 140)
    inside, outside = one.mask > 250, one.mask < 5
    assert np.abs(one.image[inside].mean(axis=0) - RED).max() < 25
    assert np.abs(one.image[outside].mean(axis=0) - GREEN).max() < 25


def test_a_split_depends_on_seed_and_id_alone(tmp_path: Path) -> None:
    entries = folders.entries(data_folder(tmp_path, 60))
    recipe = Recipe.of("folders", shares=(0.5, 0.3, 0.2))
    drawn = {entry.id: recipe.split_of(entry) for entry in entries}
    assert set(drawn.values()) == {"train", "val", "test"}
    assert drawn == {entry.id: recipe.split_of(entry) for entry in reversed(entries[:40] + entries[40:])}
    assert drawn != {
        entry.id: Recipe.of("folders", shares=(0.5, 0.3, 0.2), seed=1).split_of(entry) for entry in entries
    }


def test_shares_override_the_split_of_the_dataset(tmp_path: Path) -> None:
    source = data_folder(tmp_path, 3, split="val")
    assert {row["split"] for row in run(source, tmp_path / "own")["shards"]} == {"val"}
    assert {row["split"] for row in run(source, tmp_path / "drawn", shares=(1.0, 0.0, 0.0))["shards"]} == {"train"}


def test_rules_exclude_small_images_small_subjects_and_empty_masks(tmp_path: Path) -> None:
    masks = {"empty": disc(radius=0) * 0, "large": disc(radius=60), "small": disc(radius=5)}
    source = datasets.folder(tmp_path / "source", masks=masks)
    assert not run(source, tmp_path / "1")["skipped"]
    skipped = run(source, tmp_path / "2", empty=False, min_share=0.2)["skipped"]
    assert skipped == {"empty": "no subject", "small": "subject too small: 0.004 of the image"}
    assert reasons(run(source, tmp_path / "3", min_side=141)) == Counter({"image too small": 3})


def test_an_aspect_ratio_is_cropped_around_the_subject(tmp_path: Path) -> None:
    source = datasets.folder(tmp_path / "source", masks={"a": disc(centre=(120, 70), radius=30)})
    run(source, tmp_path / "out", aspect=(9, 16), side=140)
    (one,) = read(tmp_path / "out")
    assert one.mask.shape == (140, 78)
    assert one.mask[70, 38] == 255
    assert (one.mask > 0).sum() == (disc(radius=30) > 0).sum()


# Backgrounds


def test_training_records_are_also_stored_on_another_background(tmp_path: Path, blue: Path) -> None:
    rows = [
        {"id": f"{split}{n}", "split": split, "licence_class": "clean"} for split in ("train", "val") for n in range(8)
    ]
    manifest = run(datasets.folder(tmp_path / "source", rows), tmp_path / "out", [blue], swapped=0.5)
    found = read(tmp_path / "out")
    composites = [one for one in found if one.background]
    assert 0 < len(composites) < 8
    assert {one.id for one in found if not one.background} == {row["id"] for row in rows}
    assert {(one.split, one.background, one.licence_class) for one in composites} == {("train", "blue.png", "unclear")}
    assert sum(row["records"] for row in manifest["shards"]) == len(found)
    for one in composites:
        assert np.abs(one.image[one.mask == 0].mean(axis=0) - (0, 0, 255)).max() < 5
        assert np.abs(one.image[one.mask == 255].mean(axis=0) - RED).max() < 25


def test_a_clean_background_keeps_the_licence_class_clean(tmp_path: Path, blue: Path) -> None:
    run(
        data_folder(tmp_path, 3, split="train", licence_class="clean"),
        tmp_path / "out",
        [blue],
        swapped=1.0,
        backgrounds_class="clean",
    )
    assert {one.licence_class for one in read(tmp_path / "out")} == {"clean"}


def test_an_unreadable_background_is_reported_and_excludes_no_record(tmp_path: Path, blue: Path) -> None:
    blue.write_bytes(b"no image")
    manifest = run(data_folder(tmp_path, 3, split="train"), tmp_path / "out", [blue], swapped=1.0)
    assert reasons(manifest) == Counter({"unreadable background": 3})
    assert len(read(tmp_path / "out")) == 3


@pytest.mark.parametrize("soft", [True, False])
def test_the_old_background_does_not_bleed_into_the_edge(soft: bool) -> None:
    y, x = np.mgrid[:120, :120]
    alpha = np.clip((40 - np.hypot(x - 60, y - 60)) / 3 + 0.5, 0, 1)
    image = np.rint(alpha[..., None] * RED + (1 - alpha[..., None]) * GREEN).astype(np.uint8)
    mask = np.rint((alpha if soft else alpha > 0.5) * 255.0).astype(np.uint8)
    record = Record(id="a", image=image, mask=mask, width=120, height=120)
    composite = compose(record, np.zeros((50, 70, 3), np.uint8), "black.png")

    def error(colours: np.ndarray, alpha: np.ndarray) -> float:
        """Returns the mean difference between edge colours and the subject's colour, weighted by the mask."""
        edge = (alpha > 0) & (alpha < 255)
        return float(np.abs(alpha[edge, None] / 255 * (colours[edge].astype(float) - RED)).mean())

    opacity = composite.mask[..., None] / 255
    colours = np.where(opacity > 0, composite.image / np.maximum(opacity, 1 / 255), 0)
    assert error(colours, composite.mask) < error(image, cv2.GaussianBlur(mask, (5, 5), 1)) / 3


# Invalid records and sources


def test_unusable_records_are_listed_with_their_reasons_and_the_others_are_stored(tmp_path: Path) -> None:
    source = data_folder(tmp_path, 6, split="train")
    (source / "images" / "p01.jpg").write_bytes(b"no image")
    (source / "masks" / "p02.png").unlink()
    (source / "manifest.csv").write_text((source / "manifest.csv").read_text().replace("p03,train", "p03,dev"))
    manifest = run(source, tmp_path / "out")
    assert {id_: reason.partition(":")[0] for id_, reason in manifest["skipped"].items()} == {
        "p01": "unreadable image", "p02": "missing file", "p03": "no such split",
    }  # fmt: skip
    assert {one.id for one in read(tmp_path / "out")} == {"p00", "p04", "p05"}


def test_a_duplicate_id_is_skipped_so_that_no_image_is_in_two_splits(tmp_path: Path) -> None:
    labels = np.full((140, 160), 15, np.uint8)
    root = datasets.voc(tmp_path / "source", {"a": labels}, {"train": ["a"], "val": ["a"]})
    recipe = Recipe.of("voc")
    manifest = prepare(entries_of(root, recipe), recipe, tmp_path / "out")
    assert [row["split"] for row in manifest["shards"]] == ["train"]
    assert manifest["skipped"] == {"a (entry 1)": "id taken: a"}


def test_unusable_records_alone_give_no_shard(tmp_path: Path) -> None:
    manifest = run(data_folder(tmp_path, 3), tmp_path / "out", min_side=10_000)
    assert (manifest["shards"], len(manifest["skipped"]), manifest["complete"]) == ([], 3, True)
    assert set(bytes_of(tmp_path / "out")) == {"manifest.json"}
    assert run(tmp_path / "source", tmp_path / "out", min_side=10_000) == manifest


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("folders", {"classes": ("person",)}),
        ("voc", {"subject": "central"}),
        ("coco", {"shares": (0.7, 0.4, 0.0)}),
        ("coco", {"shares": (float("nan"), 0.4, 0.0)}),
        ("coco", {"shares": (1.5, -0.5, 0.0)}),
        ("coco", {"min_share": 40}),
        ("coco", {"swapped": -1}),
        ("coco", {"side": 0}),
        ("coco", {"aspect": (0, 1)}),
    ],
)
def test_invalid_options_are_rejected(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidData):
        Recipe.of(kind, **options)


# Interruption and resumption


ONE_RECORD_PER_SHARD: dict[str, Any] = {"shard_bytes": 1}


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(tmp_path: Path, blue: Path) -> None:
    recipe = Recipe.of("folders", **SMALL, shard_bytes=20_000)
    entries = entries_of(data_folder(tmp_path), recipe)
    for out, workers in (("one", 1), ("four", 4)):
        prepare(entries, recipe, tmp_path / out, backgrounds=[blue], workers=workers)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")
    other = Recipe.of("folders", **SMALL, shard_bytes=20_000, seed=1)
    prepare(entries, other, tmp_path / "other", backgrounds=[blue])
    assert bytes_of(tmp_path / "one") != bytes_of(tmp_path / "other")


class Killed(BaseException):
    """Simulates a kill: no handler catches it."""


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises Killed instead of the n-th call of os.fsync or os.replace from now on."""
    calls = iter(range(1, 10_000))

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def counted_call(*args: Any) -> None:
            if next(calls) == call:
                raise Killed
            real(*args)

        return counted_call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def test_a_run_interrupted_at_any_moment_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = data_folder(tmp_path, 5)
    (source / "masks" / "p02.png").unlink()
    run(source, tmp_path / "uninterrupted", **ONE_RECORD_PER_SHARD)
    expected = bytes_of(tmp_path / "uninterrupted")
    assert len(expected) == 5
    for moment in range(1, 100):
        out = tmp_path / str(moment)
        try:
            with monkeypatch.context() as patch:
                kill_at(moment, patch)
                run(source, out, **ONE_RECORD_PER_SHARD)
        except Killed:
            run(source, out, **ONE_RECORD_PER_SHARD)
            assert bytes_of(out) == expected
        else:
            break
    assert moment > 4 * 4  # four shards, each with four such calls: two for itself, two for the manifest


CHILD = """
import os, signal, sys
from pathlib import Path
from sagemaker_model.data.prepare import entries_of, prepare
from sagemaker_model.data.recipe import Recipe

def kill_at_the_third_record(done):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

left = 3
recipe = Recipe.of("folders", side=64, min_side=32, shard_bytes=1)
prepare(entries_of(Path(sys.argv[1]), recipe), recipe, Path(sys.argv[2]), workers=2, progress=kill_at_the_third_record)
"""


def test_a_killed_process_is_resumed(tmp_path: Path) -> None:
    source, out = data_folder(tmp_path, 5), tmp_path / "out"
    run(source, tmp_path / "uninterrupted", **ONE_RECORD_PER_SHARD)
    command = [sys.executable, "-c", CHILD, str(source), str(out)]
    ended = subprocess.run(command, check=False, cwd=ROOT)  # noqa: S603 - a fixed command
    assert ended.returncode == -signal.SIGKILL
    assert out.exists()
    run(source, out, **ONE_RECORD_PER_SHARD)
    assert bytes_of(out) == bytes_of(tmp_path / "uninterrupted")


def test_finished_shards_are_kept_and_damaged_shards_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = data_folder(tmp_path, 6, split="train")
    (source / "masks" / "p02.png").unlink()
    run(source, tmp_path / "out", **ONE_RECORD_PER_SHARD)
    expected = bytes_of(tmp_path / "out")
    (tmp_path / "out" / "folders-train-000001.tar").write_bytes(b"damaged")
    (tmp_path / "out" / "folders-train-000003.tar").unlink()
    written, write = [], shards.write

    def counted(file: Any, samples: Any) -> None:
        written.append(1)
        write(file, samples)

    monkeypatch.setattr(shards, "write", counted)
    run(source, tmp_path / "out", **ONE_RECORD_PER_SHARD)
    assert len(written) == 2
    assert bytes_of(tmp_path / "out") == expected


def test_a_folder_of_another_recipe_or_source_is_rejected_and_unchanged(tmp_path: Path) -> None:
    source = data_folder(tmp_path, 3)
    run(source, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    with pytest.raises(InvalidData, match="other options"):
        run(source, tmp_path / "out", seed=5)
    datasets.folder(source, masks={"new": disc()})
    (source / "manifest.csv").unlink()
    with pytest.raises(InvalidData, match="another source"):
        run(source, tmp_path / "out")
    with pytest.raises(InvalidData, match="neither empty nor prepared"):
        run(source, source)
    assert bytes_of(tmp_path / "out") == before


def test_two_concurrent_runs_cannot_use_one_folder(tmp_path: Path) -> None:
    source, out = data_folder(tmp_path, 3), tmp_path / "out"
    recipe = Recipe.of("folders", **SMALL)

    def start_second_run(_done: int) -> None:
        with pytest.raises(InvalidData, match="Another run"):
            run(source, out)

    prepare(entries_of(source, recipe), recipe, out, progress=start_second_run)
    assert len(read(out)) == 3


def test_progress_adds_up_to_the_number_of_entries_in_new_and_resumed_runs(tmp_path: Path) -> None:
    source = data_folder(tmp_path, 6)
    (source / "masks" / "p02.png").unlink()
    recipe = Recipe.of("folders", **SMALL)
    for _ in range(2):
        done: list[int] = []
        prepare(entries_of(source, recipe), recipe, tmp_path / "out", progress=done.append)
        assert sum(done) == 6
