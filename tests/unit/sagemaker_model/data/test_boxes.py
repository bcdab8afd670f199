"""Readers of detection data sets, and their preparation."""

from __future__ import annotations

import base64
import csv
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sagemaker_model.data.boxes.mxnet import HEADER, MAGIC, PART, read_records
from sagemaker_model.data.detection import DetectionRecord, DetectionSet, read_set
from sagemaker_model.data.prepare_boxes import BoxRecipe, Preparation, listing_of, prepare_boxes
from sagemaker_model.data.records import InvalidData

WIDTH, HEIGHT = 100, 80


def png(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def prepared(source: Path, kind: Any, out: Path, **options: Any) -> Preparation:
    recipe = BoxRecipe(kind=kind, **options)
    return prepare_boxes(listing_of(source, recipe), recipe, out)


def named(data: DetectionSet, name: str) -> DetectionRecord:
    (record,) = (record for record in data.records if record.file.name == name)
    return record


def rows_of(data: DetectionSet, name: str) -> list[tuple[str, list[float]]]:
    """The label and corners of each box of an image."""
    record = named(data, name)
    return [(data.names[label], box.tolist()) for label, box in zip(record.labels, record.boxes, strict=True)]


def reasons(preparation: Preparation) -> dict[tuple[str, str], int]:
    return dict(preparation.reasons())


# COCO


def coco_set(folder: Path, annotations: Sequence[dict[str, Any]], images: Sequence[dict[str, Any]] = ()) -> Path:
    rows = [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}, *images]
    for row in rows:
        write(folder / "val2017" / row["file_name"], png())
    content = {
        "images": rows,
        "annotations": [{"id": at, "image_id": 1, "category_id": 7} | row for at, row in enumerate(annotations)],
        "categories": [{"id": 7, "name": "airplane"}, {"id": 9, "name": "person"}],
    }
    write(folder / "annotations" / "instances_val2017.json", json.dumps(content))
    return folder


def test_coco_is_prepared_with_its_areas_crowds_and_split(tmp_path: Path) -> None:
    annotations: list[dict[str, Any]] = [
        {"bbox": [10, 20, 30, 40], "area": 600.5},
        {"bbox": [0, 0, 50, 50], "iscrowd": 1, "category_id": 9},
    ]
    result = prepared(coco_set(tmp_path / "coco", annotations), "coco", tmp_path / "out")
    assert rows_of(result.data, "a.png") == [("airplane", [10, 20, 40, 60]), ("person", [0, 0, 50, 50])]
    record = read_set(tmp_path / "out", "val").records[0]
    assert record.areas is not None
    assert record.areas.tolist() == [600.5, 2500]
    assert record.crowd.tolist() == [False, True]
    assert record.read().shape == (HEIGHT, WIDTH, 3)
    assert not result.problems


def test_broken_rows_are_clipped_or_skipped_and_listed_with_their_reason(tmp_path: Path) -> None:
    annotations: list[dict[str, Any]] = [
        {"bbox": [10, 20, 30, 40]},
        {"bbox": [90, 70, 30, 40]},
        {"bbox": [60, 20, -30, 40]},
        {"bbox": [200, 20, 30, 40]},
        {"bbox": [10, 20, 0, 40]},
        {"bbox": [float("nan"), 20, 5, 40]},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, 4], "category_id": 5},
        {"bbox": [1, 2, 3, 4], "image_id": 44},
    ]
    images = [
        {"id": 2, "file_name": "other-size.png", "width": 5, "height": 5},
        {"id": 3, "file_name": "only-broken.png", "width": WIDTH, "height": HEIGHT},
        {"id": 4, "file_name": "without.png", "width": WIDTH, "height": HEIGHT},
        {"id": 5, "file_name": "text.png", "width": WIDTH, "height": HEIGHT},
        {"id": 6, "file_name": "gone.png", "width": WIDTH, "height": HEIGHT},
        {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
    ]
    source = coco_set(tmp_path / "coco", [*annotations, {"bbox": [9, 9, -1, 4], "image_id": 3}], images)
    write(source / "val2017" / "text.png", "no image")
    (source / "val2017" / "gone.png").unlink()
    result = prepared(source, "coco", tmp_path / "out")
    assert reasons(result) == {
        ("box clipped", "box beyond the image"): 1,
        ("box skipped", "box inside out"): 2,
        ("box skipped", "box outside the image"): 1,
        ("box skipped", "empty box"): 1,
        ("box skipped", "not a number"): 1,
        ("box skipped", "bad row"): 1,
        ("box skipped", "unknown class"): 1,
        ("image skipped", "image not listed"): 1,
        ("image skipped", "image of another size"): 1,
        ("image skipped", "no usable box"): 1,
        ("image skipped", "no box of the classes"): 1,
        ("image skipped", "unreadable image"): 1,
        ("image skipped", "missing file"): 1,
        ("image skipped", "name taken"): 1,
    }
    assert rows_of(result.data, "a.png") == [("airplane", [10, 20, 40, 60]), ("airplane", [90, 70, 100, 80])]
    with (tmp_path / "out" / "problems.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result.problems)
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["a.png"]


def test_classes_select_boxes_and_number_them_in_their_order(tmp_path: Path) -> None:
    annotations: list[dict[str, Any]] = [{"bbox": [1, 2, 3, 4], "category_id": 9}, {"bbox": [10, 20, 30, 40]}]
    source = coco_set(tmp_path / "coco", annotations)
    both = prepared(source, "coco", tmp_path / "both", classes=("person", "airplane"))
    assert both.data.names == ("person", "airplane")
    assert both.data.records[0].labels.tolist() == [0, 1]
    one = prepared(source, "coco", tmp_path / "one", classes=("person",))
    assert (len(one.data.records[0].boxes), one.others, one.problems) == (1, 1, [])
    with pytest.raises(InvalidData, match="no class zebra; it has: airplane, person"):
        prepared(source, "coco", tmp_path / "none", classes=("zebra",))


def test_images_without_a_box_are_kept_on_request_but_not_those_with_broken_boxes(tmp_path: Path) -> None:
    images = [{"id": 2, "file_name": "empty.png", "width": WIDTH, "height": HEIGHT}]
    source = coco_set(tmp_path / "coco", [{"bbox": [9, 9, -1, 4]}], images)
    result = prepared(source, "coco", tmp_path / "out", empty=True)
    assert [record.file.name for record in result.data.records] == ["empty.png"]


def test_a_split_by_shares_does_not_depend_on_the_other_images(tmp_path: Path) -> None:
    boxes = [{"bbox": [1, 2, 3, 4], "image_id": number} for number in range(1, 42)]
    images = [{"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in range(2, 42)]
    shares = (0.5, 0.5, 0.0)
    whole = prepared(coco_set(tmp_path / "a", boxes, images), "coco", tmp_path / "out", shares=shares).data
    part = prepared(coco_set(tmp_path / "b", boxes[:9], images[:8]), "coco", tmp_path / "out-b", shares=shares).data
    splits = {record.file.name: record.split for record in whole.records}
    assert {record.file.name: record.split for record in part.records}.items() <= splits.items()
    assert 10 < sum(split == "train" for split in splits.values()) < 31


def test_a_folder_with_a_data_set_is_not_overwritten_and_a_source_without_images_is_refused(tmp_path: Path) -> None:
    source = coco_set(tmp_path / "coco", [{"bbox": [1, 2, 3, 4]}])
    prepared(source, "coco", tmp_path / "out")
    with pytest.raises(InvalidData, match="choose another folder"):
        prepared(source, "coco", tmp_path / "out")
    with pytest.raises(InvalidData, match="no usable image"):
        prepared(coco_set(tmp_path / "broken", [{"bbox": [1, 2, 3, 0]}]), "coco", tmp_path / "other")


def test_file_names_cannot_leave_the_data_set(tmp_path: Path) -> None:
    source = coco_set(tmp_path / "coco", [{"bbox": [1, 2, 3, 4]}])
    path = source / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("a.png", "../../secret.png"))
    write(tmp_path / "secret.png", png())
    write(source / "a.lst", "0\t" + "\t".join(map(str, LABELS)) + "\t../secret.png\n")
    for kind in ("coco", "lst"):
        with pytest.raises(InvalidData, match="no usable image"):
            prepared(source, kind, tmp_path / "out")
        assert "file outside the data set" in (tmp_path / "out" / "problems.csv").read_text()


def test_names_that_have_no_utf_8_are_kept_as_escapes(tmp_path: Path) -> None:
    source = coco_set(
        tmp_path / "source", [{"bbox": [10, 10, 20, 20]}, {"bbox": [1, 1, 5, 5], "category_id": "\ud800"}]
    )
    file = source / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace('"airplane"', '"\\ud800"'))
    preparation = prepared(source, "coco", tmp_path / "out")
    assert reasons(preparation) == {("box skipped", "unknown class"): 1}
    assert "\ud800" in read_set(tmp_path / "out").names


def test_images_in_folders_get_flat_names(tmp_path: Path) -> None:
    images = [{"id": 2, "file_name": "b/a.png", "width": WIDTH, "height": HEIGHT}]
    source = coco_set(tmp_path / "coco", [{"bbox": [1, 2, 3, 4], "image_id": 2}], images)
    result = prepared(source, "coco", tmp_path / "out")
    assert [record.file for record in result.data.records] == [tmp_path / "out" / "images" / "b_a.png"]
    assert read_set(tmp_path / "out").records[0].read().shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["coco", "open-images", "voc", "labelme", "lst", "rec"])
def test_a_folder_of_another_form_is_refused(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "source" / "a.png", png())
    with pytest.raises(InvalidData, match=r"must have|has no"):
        prepared(tmp_path / "source", kind, tmp_path / "out")


# Open Images


def open_images_set(folder: Path, rows: str) -> Path:
    for name in ("0a", "0b"):
        write(folder / "validation" / f"{name}.png", png())
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
    write(folder / "validation-annotations-bbox.csv", header + rows)
    write(folder / "class-descriptions-boxable.csv", "/m/0cmf2,Airplane\n/m/01g317,Person\n")
    return folder


def test_open_images_is_prepared_with_names_pixels_and_groups(tmp_path: Path) -> None:
    rows = (
        "0a,xclick,/m/0cmf2,1,0.1,0.5,0.25,0.75,0,0,0\n"
        "0a,xclick,/m/01g317,1,0,1,0,1,0,0,1\n"
        "0c,xclick,/m/01g317,1,0,1,0,1,0,0,1\n"
        "0b,xclick,/m/0zzz,1,0,1,0,1,0,0,1\n"
        "0b,xclick,/m/0cmf2,1,0.5,1,0.5,1,0,0,0\n"
    )
    result = prepared(open_images_set(tmp_path / "source", rows), "open-images", tmp_path / "out")
    assert result.data.names == ("Airplane", "Person")
    assert rows_of(result.data, "0a.png") == [("Airplane", [10, 20, 50, 60]), ("Person", [0, 0, 100, 80])]
    assert named(result.data, "0a.png").crowd.tolist() == [False, True]
    assert {record.split for record in result.data.records} == {"val"}
    assert reasons(result) == {("image skipped", "missing file"): 1, ("box skipped", "unknown class"): 1}


def test_a_flipped_row_of_an_older_system_is_skipped(tmp_path: Path) -> None:
    # It mirrored XMin and XMax each in place, which left XMin > XMax.
    rows = "0a,x,/m/0cmf2,1,0.9,0.5,0.25,0.75,0,0,0\n0a,x,/m/0cmf2,1,0.1,0.5,0.25,0.75,0,0,0\n"
    result = prepared(open_images_set(tmp_path / "source", rows), "open-images", tmp_path / "out")
    assert rows_of(result.data, "0a.png") == [("Airplane", [10, 20, 50, 60])]
    assert reasons(result) == {("box skipped", "box inside out"): 1}


# Pascal VOC


def voc_xml(objects: str, size: str = f"<width>{WIDTH}</width><height>{HEIGHT}</height>", before: str = "") -> str:
    return (
        f'<?xml version="1.0"?>{before}<annotation><filename>x.jpg</filename><size>{size}</size>{objects}</annotation>'
    )


def voc_object(corners: Sequence[int], more: str = "") -> str:
    tags = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>aeroplane</name>{more}<bndbox>{tags}</bndbox></object>"


def test_pascal_voc_counts_pixels_from_1_and_includes_the_last(tmp_path: Path) -> None:
    source = tmp_path / "VOCdevkit" / "VOC2012"
    whole, pixel = voc_object((1, 1, WIDTH, HEIGHT)), voc_object((5, 5, 5, 5), "<difficult>1</difficult>")
    write(source / "Annotations" / "one.xml", voc_xml(whole + pixel))
    write(source / "JPEGImages" / "one.png", png())
    write(source / "ImageSets" / "Main" / "val.txt", "one\n")
    result = prepared(source.parent, "voc", tmp_path / "out")
    assert [box for _, box in rows_of(result.data, "one.png")] == [[0, 0, WIDTH, HEIGHT], [4, 4, 5, 5]]
    assert result.data.records[0].crowd.tolist() == [False, True]
    assert result.data.records[0].split == "val"
    assert not result.problems


def test_xml_with_entities_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    write(tmp_path / "source" / "bomb.xml", voc_xml("<object><name>&b;</name></object>", before=bomb))
    write(tmp_path / "source" / "bomb16.xml", voc_xml("", before=bomb).encode("utf-16"))
    write(tmp_path / "source" / "cut.xml", "<annotation>")
    write(tmp_path / "source" / "good.xml", voc_xml(voc_object((1, 1, 9, 9)) + "<object/>", size=""))
    for name in ("bomb", "bomb16", "cut", "good"):
        write(tmp_path / "source" / f"{name}.png", png())
    result = prepared(tmp_path / "source", "voc", tmp_path / "out")
    assert [record.file.name for record in result.data.records] == ["good.png"]
    assert reasons(result) == {("image skipped", "unreadable annotation"): 3, ("box skipped", "bad row"): 1}


# LabelMe


def labelme_file(path: Path, shapes: Sequence[dict[str, Any]], **more: Any) -> None:
    content = {"shapes": shapes, "imagePath": "..\\images\\a.png", "imageData": None} | more
    write(path, json.dumps(content | {"imageWidth": WIDTH, "imageHeight": HEIGHT}))


def test_labelme_shapes_become_boxes(tmp_path: Path) -> None:
    write(tmp_path / "source" / "images" / "a.png", png())
    shapes: list[dict[str, Any]] = [
        {"label": "car", "points": [[50, 60], [10, 20]], "shape_type": "rectangle"},
        {"label": "car", "points": [[1, 2], [9, 2], [5, 8]], "shape_type": "polygon", "group_id": 3},
        {"label": "car", "points": [[21, 2], [29, 2], [25, 12]], "shape_type": "polygon", "group_id": 3},
        {"label": "wheel", "points": [[20, 20], [23, 24]], "shape_type": "circle"},
        {"label": "car", "points": [[1, 2]], "shape_type": "point"},
        {"label": "car", "points": "no"},
    ]
    labelme_file(tmp_path / "source" / "json" / "a.json", shapes)
    write(tmp_path / "source" / "json" / "settings.json", "{}")
    result = prepared(tmp_path / "source", "labelme", tmp_path / "out")
    assert rows_of(result.data, "json_a.png") == [
        ("car", [10, 20, 50, 60]),
        ("car", [1, 2, 29, 12]),
        ("wheel", [15, 15, 25, 25]),
    ]
    assert reasons(result) == {("box skipped", "shape without a box"): 1, ("box skipped", "bad row"): 1}


def test_labelme_reads_the_image_in_the_json_but_none_outside_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.png", png())
    shapes = [{"label": "car", "points": [[10, 20], [50, 60]], "shape_type": "rectangle"}]
    labelme_file(
        tmp_path / "source" / "a.json", shapes, imagePath="gone.png", imageData=base64.b64encode(png()).decode()
    )
    labelme_file(tmp_path / "source" / "b.json", shapes, imagePath="../secret.png")
    write(tmp_path / "source" / "c.json", '{"shapes": [')
    result = prepared(tmp_path / "source", "labelme", tmp_path / "out")
    assert [record.file.name for record in result.data.records] == ["a.png"]
    assert reasons(result) == {
        ("image skipped", "file outside the data set"): 1,
        ("image skipped", "unreadable annotation"): 1,
    }


# Lists and RecordIO of MXNet

LABELS = (2.0, 5.0, 1.0, 0.1, 0.25, 0.5, 0.75)
"""A header of 2 numbers, 5 numbers per box, and one box of the class 1."""


def test_a_list_for_object_detection_is_prepared(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "source" / "photos" / name, png())
    lines = [
        "0\t" + "\t".join(map(str, LABELS)) + "\tphotos/a.png",
        "1\t4\t6\t100\t80\t0\t0\t0\t1\t1\t1\tphotos/b.png",
        "2\t1.000000\tphotos/c.png",
        "3\t2\t5\tx\t0\t0\t1\t1\tphotos/c.png",
        "4\t2\t5\t7\t0\t0\t1\t1\tphotos/c.png",
    ]
    write(tmp_path / "source" / "train.lst", "\n".join(lines) + "\n")
    result = prepared(tmp_path / "source", "lst", tmp_path / "out", names=("car", "airplane"))
    assert rows_of(result.data, "photos_a.png") == [("airplane", [10, 20, 50, 60])]
    assert rows_of(result.data, "photos_b.png") == [("car", [0, 0, 100, 80])]
    assert named(result.data, "photos_b.png").crowd.tolist() == [True]
    assert {record.split for record in result.data.records} == {"train"}
    assert reasons(result) == {
        ("image skipped", "no boxes"): 1,
        ("image skipped", "bad row"): 1,
        ("image skipped", "no usable box"): 1,
        ("box skipped", "unknown class"): 1,
    }


def record_part(data: bytes, flag: int = 0) -> bytes:
    return PART.pack(MAGIC, flag << 29 | len(data)) + data + bytes(-len(data) % 4)


def image_record(labels: Sequence[float], image: bytes) -> bytes:
    if len(labels) == 1:
        return HEADER.pack(0, labels[0], 5, 0) + image
    return HEADER.pack(len(labels), 0, 5, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def test_a_recordio_file_is_prepared(tmp_path: Path) -> None:
    records = [image_record(LABELS, png()), image_record((3.0,), png()), b"short", image_record(LABELS, png())]
    write(tmp_path / "val.rec", b"".join(map(record_part, records)))
    result = prepared(tmp_path / "val.rec", "rec", tmp_path / "out")
    assert [record.file.name for record in result.data.records] == ["val-0000000.png", "val-0000003.png"]
    assert rows_of(result.data, "val-0000003.png") == [("1", [10, 20, 50, 60])]
    assert result.data.records[0].split == "val"
    assert reasons(result) == {("image skipped", "no boxes"): 1, ("image skipped", "bad record"): 1}


def test_a_record_that_contains_the_magic_number_is_joined(tmp_path: Path) -> None:
    magic = struct.pack("<I", MAGIC)
    parts = record_part(b"abcd", 1) + record_part(b"efgh", 2) + record_part(b"ij", 3)
    path = write(tmp_path / "a.rec", parts + record_part(b"next"))
    assert list(read_records(path)) == [(0, b"abcd" + magic + b"efgh" + magic + b"ij"), (36, b"next")]
    assert next(read_records(path, 36)) == (36, b"next")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no recordio at all",
        record_part(b"abcd")[:-1],
        record_part(b"abcd", 1),
        record_part(b"abcd", 3),
        PART.pack(MAGIC, 4 << 29),
    ],
)
def test_a_damaged_recordio_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidData):
        list(read_records(write(tmp_path / "a.rec", data)))
