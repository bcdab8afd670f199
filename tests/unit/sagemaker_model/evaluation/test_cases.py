from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.cases import read_alpha, read_dataset
from tests.unit.sagemaker_model.evaluation.synthetic import DISCS, disc, write_manifest


def test_a_dataset_has_the_cases_of_its_split_in_manifest_order(data: Path) -> None:
    assert [case.id for case in read_dataset(data, "val").cases] == list(DISCS)
    assert [case.id for case in read_dataset(data, "train").cases] == ["of_train"]
    assert [case.id for case in read_dataset(data, "val", limit=2).cases] == list(DISCS)[:2]


def test_parts_can_be_selected_and_read_from_another_column(data: Path) -> None:
    assert {case.id for case in read_dataset(data, "val", parts=["far"]).cases} == {"far_1", "far_2"}
    assert {case.part for case in read_dataset(data, "val", by="size").cases} == {"True", "False"}


def test_a_manifest_without_parts_gives_one_unnamed_part(data: Path) -> None:
    write_manifest(data, [{"id": "near_1", "split": "test"}])
    assert [case.part for case in read_dataset(data, "test").cases] == [""]


def test_an_image_may_be_a_png(data: Path) -> None:
    with Image.open(data / "images" / "near_1.jpg") as photo:
        photo.save(data / "images" / "near_1.png")
    (data / "images" / "near_1.jpg").unlink()
    assert read_dataset(data, "val").cases[0].image.suffix == ".png"


def test_the_digest_depends_on_images_and_masks_and_not_on_their_folder(data: Path, tmp_path: Path) -> None:
    before = read_dataset(data, "val").sha256
    assert read_dataset(Path(shutil.copytree(data, tmp_path / "copy")), "val").sha256 == before
    Image.fromarray(disc(39)).save(data / "masks" / "near_1.png")
    assert read_dataset(data, "val").sha256 != before
    assert read_dataset(data, "val", limit=2).sha256 != read_dataset(data, "val", limit=3).sha256


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "near_1", "part": "near"}, "no column split"),
        ({"id": "near_1", "split": "test"}, "no images of split 'val'"),
        ({"id": "../masks/near_1", "split": "val"}, "must be unique file names"),
        ({"id": "", "split": "val"}, "must be unique file names"),
        ({"id": "elsewhere", "split": "val"}, "elsewhere.jpg cannot be read"),
    ],
)
def test_an_invalid_manifest_is_rejected_with_its_reason(data: Path, row: dict[str, object], message: str) -> None:
    write_manifest(data, [row])
    with pytest.raises(InvalidData, match=message):
        read_dataset(data, "val")


def test_a_duplicate_id_is_rejected(data: Path) -> None:
    write_manifest(data, [{"id": "near_1", "split": "val"}] * 2)
    with pytest.raises(InvalidData, match="must be unique"):
        read_dataset(data, "val")


def test_missing_manifests_parts_and_columns_are_rejected(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="cannot be read"):
        read_dataset(tmp_path / "nowhere", "val")
    with pytest.raises(InvalidData, match=r"part 'middle'.*val \(far\)"):
        read_dataset(data, "val", parts=["middle"])
    with pytest.raises(InvalidData, match="no column colour"):
        read_dataset(data, "val", by="colour")


def test_read_alpha_returns_the_alpha_of_a_cut_out_and_the_grey_of_a_matte(tmp_path: Path) -> None:
    alpha = np.array([[0, 100, 255]], np.uint8)
    cut_out = np.dstack([np.full_like(alpha, 77)] * 3 + [alpha])
    for name, pixels in (("cut_out", cut_out), ("matte", alpha)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert np.array_equal(read_alpha(tmp_path / f"{name}.png"), alpha)


def test_files_that_are_neither_matte_nor_cut_out_are_rejected(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "photo.png")
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "page.png").write_text("<html>")
    for name, message in (
        ("photo", "not a mask"),
        ("deep", "not a mask"),
        ("page", "not an image"),
        ("none", "does not exist"),
    ):
        with pytest.raises(InvalidData, match=message):
            read_alpha(tmp_path / f"{name}.png")
