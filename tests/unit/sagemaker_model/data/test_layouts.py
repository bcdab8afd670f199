"""Readers of the published layouts, and their errors for damaged records and datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sagemaker_model.data import coco, folders, masks, supervisely, voc
from sagemaker_model.data.records import BadRecord, Entry, InvalidData
from tests.unit.sagemaker_model.data import datasets
from tests.unit.sagemaker_model.data.datasets import HEIGHT, WIDTH, disc

SQUARE = [[20, 30], [59, 30], [59, 89], [20, 89]]
"""40 x 60 pixels, including the outline."""


def only(entries: list[Entry]) -> Entry:
    (entry,) = entries
    return entry


def reason(entry: Entry) -> str:
    with pytest.raises(BadRecord) as raised:
        entry.load()
    return raised.value.message


# Data folders


def test_a_data_folder_is_read_with_all_fields_of_its_manifest(tmp_path: Path) -> None:
    row = {"id": "a.1", "split": "val", "part": "street", "licence_class": "clean", "source": "me", "licence": "CC0"}
    record = only(folders.entries(datasets.folder(tmp_path, [row]))).load()
    assert {name: getattr(record, name) for name in row} == row
    assert (record.width, record.height) == (WIDTH, HEIGHT)
    assert np.array_equal(record.mask, disc())
    assert record.image[70, 80, 0] > record.image[70, 80, 1]


def test_a_soft_mask_stays_soft(tmp_path: Path) -> None:
    soft = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    assert np.array_equal(only(folders.entries(datasets.folder(tmp_path, masks={"a": soft}))).load().mask, soft)


@pytest.mark.parametrize("mode", ["1", "LA", "RGB", "RGBA", "I;16", "P"])
def test_every_png_mode_gives_the_same_mask(tmp_path: Path, mode: str) -> None:
    root = datasets.folder(tmp_path, masks={"a": disc()})
    mask = Image.fromarray(disc())
    if mode == "I;16":
        mask = Image.fromarray(disc().astype(np.uint16) * 257)
    elif mode.endswith("A"):
        mask = Image.merge(mode, [Image.new("L", mask.size, 9)] * (len(mode) - 1) + [mask])
    else:
        mask = mask.convert(mode)
    mask.save(root / "masks" / "a.png")
    assert np.array_equal(only(folders.entries(root)).load().mask, disc())


def test_each_invalid_record_of_a_data_folder_has_its_reason(tmp_path: Path) -> None:
    root = datasets.folder(
        tmp_path, [{"id": id_} for id_ in ("cut", "gone", "maskless", "other_size", "ones", "red", "two")]
    )
    (root / "images" / "gone.jpg").unlink()
    (root / "masks" / "maskless.png").unlink()
    data = (root / "images" / "cut.jpg").read_bytes()
    (root / "images" / "cut.jpg").write_bytes(data[: len(data) // 2])
    Image.fromarray(disc(size=(50, 60))).save(root / "masks" / "other_size.png")
    Image.fromarray(disc() // 255).save(root / "masks" / "ones.png")
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(root / "masks" / "red.png")
    datasets.photo(root / "images" / "two.png")
    datasets.photo(root / "images" / "unlisted.jpg")
    reasons = {entry.id: reason(entry).partition(":")[0] for entry in folders.entries(root)}
    assert reasons == {
        "cut": "unreadable image",
        "gone": "missing file",
        "maskless": "missing file",
        "ones": "mask of 0 and 1",
        "other_size": "mask of another size",
        "red": "coloured mask",
        "two": "two images",
        "unlisted": "not in the manifest",
    }


@pytest.mark.parametrize("text", ["", "name,split\na,val\n", "id,split\na,val\na,train\n", "id\n\xff\n"])
def test_an_invalid_manifest_is_rejected(tmp_path: Path, text: str) -> None:
    root = datasets.folder(tmp_path, [{"id": "a"}])
    (root / "manifest.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidData, match=r"manifest\.csv"):
        folders.entries(root)


# Pascal VOC


def test_voc_masks_contain_the_selected_classes_and_lists_are_splits(tmp_path: Path) -> None:
    labels = np.where(disc() > 0, np.uint8(15), np.uint8(0))
    labels[:20] = 12
    root = datasets.voc(tmp_path, {"a": labels, "b": labels}, {"train": ["a"], "val": ["b"]})
    first, second = voc.entries(root)
    assert (first.id, first.split, second.id, second.split) == ("a", "train", "b", "val")
    assert np.array_equal(first.load().mask == 255, labels == 15)
    assert np.array_equal(only(voc.entries(root, ["dog"])[:1]).load().mask == 255, labels == 12)


def test_void_pixels_belong_to_the_nearer_side_of_the_contour(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 80:] = 15
    labels[:, 77:83] = voc.VOID
    labels[:10, :10] = voc.VOID  # far from any person
    root = datasets.voc(tmp_path, {"a": labels}, {"train": ["a"]})
    assert np.array_equal(only(voc.entries(root)).load().mask == 255, np.tile(np.arange(WIDTH) >= 80, (HEIGHT, 1)))


def test_a_voc_mask_without_class_numbers_is_rejected(tmp_path: Path) -> None:
    root = datasets.voc(tmp_path, {"a": disc()}, {"train": ["a", "gone"]})
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "SegmentationClass" / "a.png")
    assert [reason(entry).partition(":")[0] for entry in voc.entries(root)] == [
        "not a mask of class numbers",
        "missing file",
    ]


def test_an_unknown_class_of_voc_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="cyclist"):
        voc.entries(tmp_path, ["cyclist"])


# Supervisely


def test_bitmaps_and_polygons_with_holes_are_joined(tmp_path: Path) -> None:
    hole = [[30, 40], [39, 40], [39, 49], [30, 49]]
    patch = np.ones((10, 20), np.uint8)
    datasets.supervisely(
        tmp_path / "ds1", {"a.jpg": [datasets.polygon(SQUARE, hole), datasets.bitmap(patch, (100, 5))]}
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[30:90, 20:60] = 255
    expected[40:50, 30:40] = 0
    expected[5:15, 100:120] = 255
    entry = only(supervisely.entries(tmp_path))
    assert entry.id == "ds1_a"
    assert np.array_equal(entry.load().mask, expected)


def test_older_supervisely_exports_with_empty_fields_and_other_names_are_read(tmp_path: Path) -> None:
    old = [{"classTitle": "person_poly", "bitmap": None, "points": {"exterior": SQUARE, "interior": []}}]
    datasets.supervisely(tmp_path / "project" / "ds1", {"a.jpg": old})
    ann = tmp_path / "project" / "ds1" / "ann"
    (ann / "a.jpg.json").rename(ann / "a.json")
    assert (only(supervisely.entries(tmp_path)).load().mask > 0).sum() == 40 * 60


def test_subject_only_counts_the_parts_of_an_instance_as_one(tmp_path: Path) -> None:
    patch, (one, other) = np.ones((10, 20), np.uint8), (datasets.polygon(SQUARE), datasets.polygon(SQUARE))
    parts = [one | {"instance": "x"}, datasets.bitmap(patch, (100, 5), instance="x")]
    datasets.supervisely(tmp_path / "ds1", {"a.jpg": parts, "b.jpg": [one, other], "c.jpg": []})
    first, second, third = supervisely.entries(tmp_path, subject="only")
    assert (first.load().mask > 0).sum() == 40 * 60 + 10 * 20
    assert reason(second) == "not exactly one subject: 2"
    assert reason(third) == "not exactly one subject: 0"


@pytest.mark.parametrize(
    ("object_", "message"),
    [
        (datasets.polygon(SQUARE[:2]), "fewer than 3 points"),
        (datasets.polygon([[0, 0], [1e9, 0], [0, 5]]), "far outside"),
        (datasets.polygon([[0, 0], [float("nan"), 0], [0, 5]]), "far outside"),
        (datasets.polygon([["a", 0], [1, 0], [0, 5]]), "bad polygon"),
        ({"classTitle": "person_bmp", "bitmap": {"data": "%%%", "origin": [0, 0]}}, "bad bitmap"),
        ({"classTitle": "person_bmp", "bitmap": {"data": "AAAA", "origin": [0, 0]}}, "bad bitmap"),
        ({"classTitle": "person_bmp", "bitmap": {"data": "eNoDAAAAAAE=", "origin": [0, 0]}}, "unreadable mask"),
        ({"classTitle": "person_bmp", "bitmap": {"origin": [0, 0]}}, "bad annotation"),
        (datasets.bitmap(np.ones((9, 9)), (WIDTH - 5, 0)), "outside the image"),
        (datasets.bitmap(np.ones((9, 9)), (-1, 0)), "outside the image"),
        ({"classTitle": "person_poly"}, "bad annotation"),
        ("person_poly", "bad annotation"),
        (None, "bad annotation"),
    ],
)
def test_a_damaged_supervisely_object_invalidates_its_record_with_a_reason(
    tmp_path: Path, object_: Any, message: str
) -> None:
    datasets.supervisely(tmp_path / "ds1", {"a.jpg": [datasets.polygon(SQUARE), object_]})
    assert message in reason(only(supervisely.entries(tmp_path)))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"objects": []}', '{"size": {"height": 1e400, "width": 1}, "objects": []}', "[" * 100_000]
)
def test_an_invalid_supervisely_annotation_invalidates_its_record(tmp_path: Path, text: str) -> None:
    datasets.supervisely(tmp_path / "ds1", {"a.jpg": text})
    assert "bad annotation" in reason(only(supervisely.entries(tmp_path)))


def test_images_without_annotation_and_annotations_without_image_are_reported(tmp_path: Path) -> None:
    datasets.supervisely(tmp_path / "ds1", {"a.jpg": [datasets.polygon(SQUARE)], "b.jpg": [datasets.polygon(SQUARE)]})
    (tmp_path / "ds1" / "img" / "a.jpg").unlink()
    (tmp_path / "ds1" / "ann" / "b.jpg.json").unlink()
    reasons = {entry.id: reason(entry) for entry in supervisely.entries(tmp_path)}
    assert reasons == {"ds1_a": "missing file: a.jpg", "ds1_b": "missing file: b.jpg.json"}


# COCO


def test_the_most_central_person_is_the_subject_of_coco_by_default(tmp_path: Path) -> None:
    big_aside, small_central = datasets.rectangle(0, 0, 60, 140), datasets.rectangle(70, 60, 90, 80)
    dog = datasets.rectangle(70, 70, 80, 80, category_id=18)
    crowd = datasets.rectangle(75, 65, 85, 75, iscrowd=1)
    root = datasets.coco(tmp_path, ["a.jpg"], [big_aside, small_central, dog, crowd])
    record = only(coco.entries(root)).load()
    assert (record.id, record.split, record.licence) == ("a", "train", "Attribution License")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[60:80, 70:90] = True
    assert np.array_equal(record.mask == 255, expected)
    assert (only(coco.entries(root, subject="all")).load().mask > 0).sum() == 60 * 140 + 20 * 20
    assert (only(coco.entries(root, ["dog"])).load().mask > 0).sum() == 100


def test_images_of_the_same_name_in_two_folders_have_different_ids(tmp_path: Path) -> None:
    root = datasets.coco(
        tmp_path, ["day/a.jpg", "night/a.jpg"], [datasets.rectangle(1, 1, 9, 9, image=n) for n in (0, 1)]
    )
    assert [entry.load().id for entry in coco.entries(root)] == ["day/a", "night/a"]


def test_a_continuous_polygon_contains_the_pixels_whose_centre_is_inside() -> None:
    drawn = masks.draw_polygon([[2.4, 2.4], [7.6, 2.4], [7.6, 6.4], [2.4, 6.4]], 10, 12, continuous=True)
    expected = np.zeros((10, 12), np.uint8)
    expected[2:6, 2:8] = 255
    assert np.array_equal(drawn, expected)


def packed(counts: list[int]) -> str:
    """Packs RLE counts into a string as COCO does: the inverse of the tested function."""
    text = ""
    for at, count in enumerate(counts):
        value = count - counts[at - 2] if at > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + (bits if done else bits | 32))
            if done:
                break
    return text


def runs(mask: np.ndarray) -> list[int]:
    """The lengths of alternating runs down the columns, the first of zeros."""
    flat = mask.T.reshape(-1).astype(bool)
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
    return [int(length) for length in np.diff(changes, prepend=0)]


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_rle_is_decoded_to_its_mask_packed_or_not(mask: np.ndarray) -> None:
    counts = runs(mask)
    for encoded in (counts, packed(counts)):
        drawn = coco.segmentation_mask({"size": list(mask.shape), "counts": encoded}, *mask.shape)
        assert np.array_equal(drawn == 255, mask)


def test_an_rle_string_of_pycocotools_is_decoded() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[5:30, 10:20] = 255
    mask[7, 12] = 0
    mask[30:, 40:] = 255
    text = "e<i0?00YOBd0>3000000000000ii0AfVO00000000000000000"
    assert np.array_equal(coco.segmentation_mask({"size": [40, 50], "counts": text}, 40, 50), mask)
    assert packed(runs(mask)) == text


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_any_rle_string_gives_a_mask_of_the_right_size_or_bad_record(text: str) -> None:
    try:
        drawn = coco.segmentation_mask({"size": [5, 7], "counts": text}, 5, 7)
    except BadRecord:
        return
    assert drawn.shape == (5, 7)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "bad polygon"),
        ([[1, 1, 5, 5]], "fewer than 3 points"),
        ([[1, 1, 5, 5, 3]], "bad annotation"),
        ([[1, 1, 5, 5, 3, 3e8]], "far outside"),
        ([[1, 1, 5, 5, 3, 10**400]], "bad polygon"),
        ([["a", 1, 5, 5, 3, 3]], "bad polygon"),
        (None, "bad polygon"),
        (7, "bad annotation"),
        ({"size": [HEIGHT, WIDTH]}, "bad annotation"),
        ({"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}, "another size"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 6]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, WIDTH * HEIGHT + 5]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": [0.5, WIDTH * HEIGHT - 0.5]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": "P"}, "truncated"),
        ({"size": [HEIGHT, WIDTH], "counts": "P" * 50}, "not packed counts"),
    ],
)
def test_a_damaged_coco_segmentation_invalidates_its_record_with_a_reason(
    tmp_path: Path, segmentation: Any, message: str
) -> None:
    annotations = [datasets.rectangle(1, 1, 50, 50), datasets.rectangle(1, 1, 9, 9, segmentation=segmentation)]
    assert message in reason(only(coco.entries(datasets.coco(tmp_path, ["a.jpg"], annotations))))


def test_invalid_coco_images_and_annotations_are_reported_and_affect_no_other(tmp_path: Path) -> None:
    images = ["a.jpg", None, {"id": [9]}, {"id": 3, "file_name": "\0", "height": 5, "width": 5}]
    annotations = [datasets.rectangle(1, 1, 50, 50), "none", {"category_id": 1, "image_id": {"no": "hash"}}]
    first, *others = coco.entries(datasets.coco(tmp_path, images, annotations))
    assert (first.load().mask > 0).sum() == 49 * 49
    assert len(others) == 5
    assert all(reason(entry) for entry in others)


# Folders without a dataset


def test_a_folder_of_another_layout_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(json.dumps({"images": []}))
    (tmp_path / "ann").mkdir()
    for read in (folders.entries, voc.entries, supervisely.entries, coco.entries):
        with pytest.raises(InvalidData, match=r" is not |has no class"):
            read(tmp_path)
