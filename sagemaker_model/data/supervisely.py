"""Supervisely's format (developer.supervisely.com, "Supervisely Annotation Format"), and its Person Dataset:
project/dataset/img/NAME.jpg with project/dataset/ann/NAME.jpg.json, or NAME.json as older exports have it.

An object is a bitmap (a PNG, packed by zlib, in base64, with the place of its upper left corner) or a polygon (an
exterior and holes). Objects with the same `instance` are parts of one.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_model.data.masks import Subject, checked_size, joined, png, polygon
from sagemaker_model.data.records import LIMITS, BadRecord, Entry, InvalidData, contents
from sagemaker_model.imaging.pixels import Pixels

CLASSES = ("person_bmp", "person_poly")
"""Of the Person Dataset: the same subject, drawn in two ways."""


def entries(source: Path, classes: Sequence[str] = CLASSES, subject: Subject = "all") -> list[Entry]:
    """Every image and every annotation of a dataset, a project, or a folder of projects. Raises InvalidData."""
    datasets = [
        found.parent
        for pattern in ("ann", "*/ann", "*/*/ann")
        for found in sorted(source.glob(pattern))
        if (found.parent / "img").is_dir()
    ]
    if not datasets:
        raise InvalidData(f"{source} is no project of Supervisely: no folder in it has img/ and ann/.")
    return [entry for dataset in datasets for entry in _of_dataset(source, dataset, classes, subject)]


def _of_dataset(source: Path, dataset: Path, classes: Sequence[str], subject: Subject) -> list[Entry]:
    pictures = sorted(path for path in (dataset / "img").iterdir() if not path.name.startswith("."))
    annotated = {path.name.removesuffix(".json"): path for path in sorted((dataset / "ann").glob("*.json"))}
    pairs = []
    for picture in pictures:
        by_name, by_stem = annotated.pop(picture.name, None), annotated.pop(picture.stem, None)
        pairs.append((picture, by_name or by_stem or dataset / "ann" / f"{picture.name}.json"))
    pairs += [(dataset / "img" / name, path) for name, path in annotated.items()]
    place = dataset.relative_to(source)
    return [
        Entry(
            id="_".join((*place.parts, picture.stem)),
            picture=picture,
            mask=partial(_mask, annotation, classes, subject),
            source=f"Supervisely: {place / picture.name}",
        )
        for picture, annotation in pairs
    ]


def _mask(annotation: Path, classes: Sequence[str], subject: Subject) -> Pixels:
    """HxW uint8. Raises BadRecord: also where one object alone is damaged, for its pixels would count as background."""
    try:
        said = json.loads(contents(annotation))
        height, width = checked_size(said["size"]["height"], said["size"]["width"])
        instances: dict[Any, list[Pixels]] = {}
        for number, object_ in enumerate(said["objects"]):
            if object_["classTitle"] in classes:
                drawn = _drawn(object_, height, width)
                instances.setdefault(object_.get("instance") or number, []).append(drawn)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadRecord(f"bad annotation: {annotation.name} ({type(error).__name__}: {error})") from error
    return joined([np.maximum.reduce(parts) for parts in instances.values()], subject, height, width)


def _drawn(object_: dict[str, Any], height: int, width: int) -> Pixels:
    """One object. Older exports name no geometryType and leave what an object is not empty."""
    if object_.get("bitmap"):
        return _bitmap(object_["bitmap"], height, width)
    points = object_["points"]
    drawn = polygon(points["exterior"], height, width, between=False)
    for hole in points.get("interior") or ():
        drawn[polygon(hole, height, width, between=False) > 0] = 0
    return drawn


def _bitmap(bitmap: dict[str, Any], height: int, width: int) -> Pixels:
    try:
        packed = base64.b64decode(bitmap["data"], validate=True)
        unpacked = zlib.decompressobj().decompress(packed, LIMITS.max_bytes)
    except (binascii.Error, zlib.error) as error:
        raise BadRecord(f"bad bitmap: {error}") from error
    read = png(unpacked)
    # Transparent is outside; a bitmap without transparency says it by 0.
    inside = np.asarray(read.convert("RGBA").getchannel("A") if read.has_transparency_data else read.convert("L"))
    x, y = (int(value) for value in bitmap["origin"])
    if x < 0 or y < 0 or y + inside.shape[0] > height or x + inside.shape[1] > width:
        raise BadRecord("bad bitmap: it reaches out of the image")
    drawn = np.zeros((height, width), np.uint8)
    drawn[y : y + inside.shape[0], x : x + inside.shape[1]][inside > 0] = 255
    return drawn
