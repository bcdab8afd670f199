"""Reader of Pascal VOC 2012 (host.robots.ox.ac.uk/pascal/VOC/voc2012), and of other datasets in its layout.

Layout: JPEGImages/, SegmentationClass/ with palette PNGs of class numbers, ImageSets/Segmentation/{train,val}.txt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.data.masks import decode_png
from sagemaker_model.data.records import BadRecord, Entry, InvalidData, read_file
from sagemaker_model.imaging.pixels import Pixels

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Class names; the index is the number in the masks."""

VOID = 255
"""Class number of unlabelled pixels: about five pixels along every contour, and objects too hard to label."""


def entries(source: Path, classes: Sequence[str] = ("person",)) -> list[Entry]:
    """Lists the images of both lists, with and without the classes. source: the folder VOC2012 or its parent VOCdevkit.
    Raises InvalidData."""
    root = source / "VOC2012" if (source / "VOC2012").is_dir() else source
    if unknown := set(classes) - set(CLASSES[1:]):
        raise InvalidData(f"Pascal VOC has no class {', '.join(sorted(unknown))}; it has {', '.join(CLASSES[1:])}.")
    numbers = [CLASSES.index(name) for name in classes]
    lists = [(split, root / "ImageSets" / "Segmentation" / f"{split}.txt") for split in ("train", "val")]
    if not any(path.is_file() for _, path in lists) or not (root / "SegmentationClass").is_dir():
        raise InvalidData(
            f"{source} is not Pascal VOC: it needs SegmentationClass/ and ImageSets/Segmentation/train.txt or val.txt."
        )
    return [
        Entry(
            id=name,
            image=root / "JPEGImages" / f"{name}.jpg",
            mask=partial(_mask, root / "SegmentationClass" / f"{name}.png", numbers),
            split=split,
            source=f"Pascal VOC 2012: {name}",
        )
        for split, path in lists
        if path.is_file()
        for name in path.read_text(errors="replace").split()
    ]


def _mask(path: Path, numbers: Sequence[int]) -> Pixels:
    """Reads the mask of the classes with these numbers. HxW uint8. Raises BadRecord."""
    image = decode_png(read_file(path))
    if image.mode not in ("P", "L"):
        raise BadRecord(f"not a mask of class numbers: {path.name} has the mode {image.mode}")
    labels = np.asarray(image)
    subject = np.isin(labels, numbers)
    void = labels == VOID
    # The contour runs through the middle of the void: void pixels nearer to the subject belong to the subject.
    near = _distance(subject) < _distance(~subject & ~void)
    return np.where(void & near, 255, subject * np.uint8(255)).astype(np.uint8)


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns each pixel's distance to the nearest pixel of the mask, in pixels; infinite for an empty mask."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5).astype(np.float32, copy=False)
