"""Detection data sets in COCO's form: read_set and write_set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sagemaker_model.data.detection import ANNOTATIONS, IMAGES, DetectionRecord, DetectionSet, read_set, write_set
from sagemaker_model.data.records import BadRecord, InvalidData


def made_set(folder: Path) -> DetectionSet:
    """Two images of 40 x 30 pixels in folder/images, of which the first has two boxes."""
    (folder / IMAGES).mkdir(parents=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / IMAGES / name), np.zeros((30, 40, 3), np.uint8))
    boxes = np.array([[1.25, 2, 11.1, 12], [0, 0, 40, 30]], np.float32)
    areas = np.array([50.5, 1200], np.float32)
    first = DetectionRecord(
        folder / IMAGES / "a.png", 40, 30, boxes, np.array([1, 0]), np.array([False, True]), areas, "train"
    )
    none = np.zeros((0, 4), np.float32)
    second = DetectionRecord(
        folder / IMAGES / "b.png", 40, 30, none, np.zeros(0, np.int64), np.zeros(0, np.bool_), split="val"
    )
    return DetectionSet(("person", "airplane"), (first, second))


def change(folder: Path, table: str, **values: Any) -> None:
    """Changes the first row of a table in annotations.json."""
    content = json.loads((folder / ANNOTATIONS).read_text())
    content[table][0] |= values
    (folder / ANNOTATIONS).write_text(json.dumps(content))


def test_a_written_set_is_read_back_unchanged(tmp_path: Path) -> None:
    written = made_set(tmp_path)
    write_set(written, tmp_path)
    read = read_set(tmp_path)
    assert read.names == written.names
    for one, other in zip(read.records, written.records, strict=True):
        assert (one.file, one.width, one.height, one.split) == (other.file, other.width, other.height, other.split)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.crowd, other.crowd)
    np.testing.assert_array_equal(read.records[0].areas, written.records[0].areas)
    assert [len(read_set(tmp_path, split).records) for split in ("train", "val")] == [1, 1]


def test_a_record_reads_its_image_and_reports_another_size(tmp_path: Path) -> None:
    write_set(made_set(tmp_path), tmp_path)
    assert read_set(tmp_path).records[0].read().shape == (30, 40, 3)
    cv2.imwrite(str(tmp_path / IMAGES / "a.png"), np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(BadRecord, match="another size"):
        read_set(tmp_path).records[0].read()


def test_only_keeps_the_boxes_of_the_classes_and_every_image(tmp_path: Path) -> None:
    airplanes = made_set(tmp_path).only(["airplane"])
    assert airplanes.names == ("airplane",)
    assert [record.labels.tolist() for record in airplanes.records] == [[0], []]
    assert airplanes.records[0].boxes[0, 0] == 1.25
    with pytest.raises(InvalidData, match="no class zebra"):
        airplanes.only(["zebra"])


@pytest.mark.parametrize(
    ("table", "values", "match"),
    [
        ("annotations", {"bbox": [30, 2, 11, 5]}, "outside the image"),
        ("annotations", {"bbox": [30, 2, 0, 5]}, "empty"),
        ("annotations", {"bbox": [float("nan"), 2, 3, 5]}, "empty or outside"),
        ("annotations", {"bbox": [1, 2, 3]}, "not a COCO list"),
        ("annotations", {"category_id": 9}, "not a COCO list"),
        ("annotations", {"image_id": 9}, "images that it does not list: 9"),
        ("images", {"file_name": "../a.png"}, "without folders"),
        ("images", {"file_name": "b.png"}, "lists an image twice"),
        ("images", {"id": 2}, "id of its own"),
        ("images", {"width": 0}, "size 0 x 30"),
        ("images", {"split": "dev"}, "split 'dev'"),
        ("categories", {"name": "airplane"}, "name of its own"),
    ],
)
def test_a_file_that_breaks_the_form_is_refused(tmp_path: Path, table: str, values: dict[str, Any], match: str) -> None:
    write_set(made_set(tmp_path), tmp_path)
    change(tmp_path, table, **values)
    with pytest.raises(InvalidData, match=match):
        read_set(tmp_path)


def test_a_folder_without_the_file_and_a_split_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="prepare-detection"):
        read_set(tmp_path)
    write_set(made_set(tmp_path), tmp_path)
    with pytest.raises(InvalidData, match="it has: train, val"):
        read_set(tmp_path, "test")


def test_a_box_that_exceeds_the_image_by_rounding_ends_at_its_edge(tmp_path: Path) -> None:
    write_set(made_set(tmp_path), tmp_path)
    change(tmp_path, "annotations", bbox=[20.005, 10, 20.0, 20.01])
    assert read_set(tmp_path).records[0].boxes[0, 2:].tolist() == [40, 30]
