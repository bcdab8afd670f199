"""Chooses boxes from the output of a detection network: a threshold, then suppression by class."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

IOU_MAX = 0.6
"""Boxes of one class with a higher IoU than this are one object; the box with the highest score is kept. Value of
TOOD's and FCOS's published configurations. The previous system had 0.45, which loses objects in crowds."""

DETECTIONS_MAX = 100
"""Maximum number of detections of an image: as many as COCO's metrics count."""

CANDIDATES_MAX = 2_000
"""Maximum number of boxes that are compared with each other, by score: 20 ms on one core."""


class Chosen(NamedTuple):
    """The highest score first. boxes: Nx4 float32. scores: N float32. classes: N int64."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def suppress(boxes: Floats, scores: Floats, min_score: float, size: tuple[float, float]) -> Chosen:
    """Returns the boxes of at least `min_score`, without duplicates, clipped to an image.

    boxes: Ax4, x0, y0, x1, y1. scores: AxC in 0..1; a box may be chosen for several classes. size: width and height of
    the image in the unit of the boxes. Boxes without a part in the image are left out.
    """
    rows, classes = np.nonzero(scores >= min_score)
    values = scores[rows, classes]
    width, height = size
    clipped = np.clip(boxes[rows], 0, np.array((width, height, width, height), np.float32)).astype(np.float32)
    order = np.argsort(-values, kind="stable")
    order = order[(clipped[order, :2] < clipped[order, 2:]).all(1)][:CANDIDATES_MAX]
    clipped, values, classes = clipped[order], values[order], classes[order]
    if not len(order):
        return Chosen(clipped, values, classes)
    corner_and_size = np.concatenate((clipped[:, :2], clipped[:, 2:] - clipped[:, :2]), 1)
    indexes = cv2.dnn.NMSBoxesBatched(corner_and_size.tolist(), values.tolist(), classes.tolist(), 0.0, IOU_MAX)
    kept = np.sort(np.asarray(indexes, np.int64))[:DETECTIONS_MAX]  # the rows are in the order of their scores
    return Chosen(clipped[kept], values[kept], classes[kept])
