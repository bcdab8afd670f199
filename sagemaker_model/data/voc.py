"""Pascal VOC 2012 (host.robots.ox.ac.uk/pascal/VOC/voc2012), and sets in its layout: JPEGImages/, SegmentationClass/
with palette PNGs of class numbers, ImageSets/Segmentation/{train,val}.txt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from sagemaker_model.data.masks import png
from sagemaker_model.data.records import BadRecord, Entry, InvalidData, contents
from sagemaker_model.imaging.pixels import Pixels

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""By their number in the masks."""

VOID = 255
"""The class of the five pixels or so along every contour, and of what was too hard to label."""


def entries(source: Path, classes: Sequence[str] = ("person",)) -> list[Entry]:
    """The images of the two lists, those without the classes too. `source`: VOC2012, or the VOCdevkit around it.
    Raises InvalidData."""
    root = source / "VOC2012" if (source / "VOC2012").is_dir() else source
    if unknown := set(classes) - set(CLASSES[1:]):
        raise InvalidData(f"Pascal VOC has no class {', '.join(sorted(unknown))}; it has {', '.join(CLASSES[1:])}.")
    numbers = [CLASSES.index(name) for name in classes]
    lists = [(split, root / "ImageSets" / "Segmentation" / f"{split}.txt") for split in ("train", "val")]
    if not any(path.is_file() for _, path in lists) or not (root / "SegmentationClass").is_dir():
        raise InvalidData(
            f"{source} is no Pascal VOC: it has no SegmentationClass/ and ImageSets/Segmentation/train.txt or val.txt."
        )
    return [
        Entry(
            id=name,
            picture=root / "JPEGImages" / f"{name}.jpg",
            mask=partial(_mask, root / "SegmentationClass" / f"{name}.png", numbers),
            split=split,
            source=f"Pascal VOC 2012: {name}",
        )
        for split, path in lists
        if path.is_file()
        for name in path.read_text(errors="replace").split()
    ]


def _mask(path: Path, numbers: Sequence[int]) -> Pixels:
    """HxW uint8. Raises BadRecord."""
    read = png(contents(path))
    if read.mode not in ("P", "L"):
        raise BadRecord(f"no mask of class numbers: {path.name} has the mode {read.mode}")
    labels = np.asarray(read)
    subject = np.isin(labels, numbers)
    void = labels == VOID
    # The void along a contour is divided in its middle, where the contour is: nearer to the subject is subject.
    near = _distance(subject) < _distance(~subject & ~void)
    return np.where(void & near, 255, subject * np.uint8(255)).astype(np.uint8)


def _distance(places: np.ndarray) -> np.ndarray:
    """To the nearest of these places, in pixels; infinite where there are none."""
    if not places.any():
        return np.full(places.shape, np.inf, np.float32)
    return cv2.distanceTransform((~places).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
