"""Small datasets in each published layout."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 160, 140
RED, GREEN = (200, 40, 40), (40, 180, 40)


def disc(centre: tuple[int, int] = (80, 70), radius: int = 40, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """Returns a mask with a disc, HxW uint8."""
    return cv2.circle(np.zeros(size[::-1], np.uint8), centre, radius, 255, -1)


def photo(path: Path, mask: np.ndarray | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Writes an image that is red inside the mask and green outside, with noise."""
    mask = np.zeros(size[::-1], np.uint8) if mask is None else mask
    colours = np.where(mask[..., None] > 0, np.array(RED, np.uint8), np.array(GREEN, np.uint8))
    noise = np.random.default_rng(len(path.name)).integers(0, 20, colours.shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours + noise).save(path)


def folder(root: Path, rows: Iterable[Mapping[str, str]] = (), masks: Mapping[str, np.ndarray] | None = None) -> Path:
    """Writes a data folder. rows: rows of the manifest, each with an id; without rows, no manifest is written."""
    rows = list(rows)
    for id_, mask in (masks or {row["id"]: disc() for row in rows}).items():
        photo(root / "images" / f"{id_}.jpg", mask)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{id_}.png")
    if rows:
        with (root / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
            writer.writeheader()
            writer.writerows(rows)
    return root


def voc(root: Path, masks: Mapping[str, np.ndarray], lists: Mapping[str, Iterable[str]]) -> Path:
    """Writes a Pascal VOC dataset. masks: class numbers by image name. lists: image names by split."""
    for split, names in lists.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    (root / "SegmentationClass").mkdir(exist_ok=True)
    for name, labels in masks.items():
        photo(root / "JPEGImages" / f"{name}.jpg", labels)
        image = Image.fromarray(labels)
        image.putpalette([value for number in range(256) for value in (number, 255 - number, number // 2)])
        image.save(root / "SegmentationClass" / f"{name}.png")
    return root


def supervisely(dataset: Path, annotations: Mapping[str, Any]) -> None:
    """Writes a Supervisely dataset. annotations: objects by image name; a string is written unchanged."""
    (dataset / "ann").mkdir(parents=True, exist_ok=True)
    for name, objects in annotations.items():
        photo(dataset / "img" / name)
        annotation = {"size": {"height": HEIGHT, "width": WIDTH}, "tags": [], "objects": objects}
        text = objects if isinstance(objects, str) else json.dumps(annotation)
        (dataset / "ann" / f"{name}.json").write_text(text)


def bitmap(mask: np.ndarray, origin: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Returns a Supervisely bitmap object: a PNG with a palette of two colours, the first transparent."""
    image = Image.fromarray((mask > 0).astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"classTitle": "person_bmp", "geometryType": "bitmap", "bitmap": {"data": data, "origin": origin}, **more}


def polygon(exterior: list[list[Any]], *interior: list[list[int]], **more: Any) -> dict[str, Any]:
    points = {"exterior": exterior, "interior": list(interior)}
    return {"classTitle": "person_poly", "geometryType": "polygon", "points": points, **more}


def coco(
    root: Path, images: list[Any], annotations: list[Any], file: str = "annotations/instances_train2017.json"
) -> Path:
    """Writes a COCO dataset. images: rows of the list of images, or file names of images to write."""
    entries = []
    for number, image in enumerate(images):
        if isinstance(image, str):
            photo(root / "train2017" / image)
            image = {"id": number, "file_name": image, "width": WIDTH, "height": HEIGHT, "license": 4}
        entries.append(image)
    content = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "licenses": [{"id": 4, "name": "Attribution License"}],
    }
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root


def rectangle(x0: int, y0: int, x1: int, y1: int, image: int = 0, **more: Any) -> dict[str, Any]:
    """Returns a COCO annotation with a rectangular polygon."""
    flat = [x0, y0, x1, y0, x1, y1, x0, y1]
    return {"id": 1, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": [flat], **more}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Returns the content of all files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
