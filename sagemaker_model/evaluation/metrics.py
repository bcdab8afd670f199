"""The field's measures of a matte against the truth, each for one image.

IoU, Dice and boundary F look at masks: what is at least half opaque. SAD, MSE, MAD, Grad and Conn look at alpha, 0..1,
as Rhemann et al. define them ("A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009;
alphamatting.com). They count the unknown region of a trimap alone; here there is none, and the whole image counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

OPAQUE = 128
"""Of 255: from here on a pixel belongs to the subject, a certainty of 0.5."""

GRADIENT_SIGMA = 1.4
"""Pixels: the Gaussian whose derivatives Grad compares."""

GRADIENT_TAIL = 1e-2
"""The Gaussian's value at which its filter ends: 4 pixels from the middle with the sigma above."""

CONNECTED_STEPS = 10
"""Thresholds of Conn: 0.1, 0.2 … 1."""

CONNECTED_SLACK = 0.15
"""How far alpha may stand above the level at which it hangs together with the subject before Conn counts it."""

BOUNDARY_TOLERANCE = 0.008
"""Of the image's diagonal, rounded up to whole pixels: how far boundaries may lie apart and still agree, as in DAVIS
(Perazzi et al., CVPR 2016). 7 pixels for 640 x 480."""


@dataclass(frozen=True, slots=True)
class Scores:
    """iou, dice, boundary_f: 0..1, 1 is perfect. The others are errors, 0 is perfect.

    sad, grad and conn are sums in thousands, and grow with the image; mse and mad are means in 0..1.
    """

    iou: float
    dice: float
    boundary_f: float
    sad: float
    mse: float
    mad: float
    grad: float
    conn: float


def score(alpha: Pixels, truth: Pixels) -> Scores:
    """Both HxW uint8, 255 = subject."""
    found, subject = alpha >= OPAQUE, truth >= OPAQUE
    a, t = alpha / 255, truth / 255
    error = np.abs(a - t)
    return Scores(
        iou=iou(found, subject),
        dice=dice(found, subject),
        boundary_f=boundary_f(found, subject),
        sad=float(error.sum()) / 1000,
        mse=float((error * error).mean()),
        mad=float(error.mean()),
        grad=gradient_error(a, t),
        conn=connectivity_error(a, t),
    )


def iou(found: Mask, subject: Mask) -> float:
    """1 for two empty masks."""
    union = np.count_nonzero(found | subject)
    return float(np.count_nonzero(found & subject) / union) if union else 1.0


def dice(found: Mask, subject: Mask) -> float:
    """1 for two empty masks."""
    both = np.count_nonzero(found) + np.count_nonzero(subject)
    return float(2 * np.count_nonzero(found & subject) / both) if both else 1.0


def boundary_f(found: Mask, subject: Mask) -> float:
    """The harmonic mean of two shares: of the found boundary that lies near the true one, and of the true one that lies
    near the found one. 1 where neither has a boundary, 0 where one has none."""
    ours, theirs = _boundary(found), _boundary(subject)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*found.shape))
    precision = float(_within(theirs, tolerance)[ours].mean())
    recall = float(_within(ours, tolerance)[theirs].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def gradient_error(alpha: Floats, truth: Floats) -> float:
    """Grad, in thousands: squared differences of the lengths of both gradients, summed."""
    difference = _gradient(alpha) - _gradient(truth)
    return float((difference * difference).sum()) / 1000


def connectivity_error(alpha: Floats, truth: Floats) -> float:
    """Conn, in thousands: how differently the pixels of both hang together with the largest region that both share at
    each threshold, summed."""
    level = np.ones_like(truth)  # the highest threshold up to which a pixel is part of that region
    connected = np.ones(truth.shape, np.bool_)
    for step in range(1, CONNECTED_STEPS + 1):
        both = (alpha >= step / CONNECTED_STEPS) & (truth >= step / CONNECTED_STEPS)
        still = connected & _largest_region(both)
        level[connected & ~still] = (step - 1) / CONNECTED_STEPS
        connected = still
    return float(np.abs(_connectivity(alpha, level) - _connectivity(truth, level)).sum()) / 1000


def _connectivity(alpha: Floats, level: Floats) -> Floats:
    above = alpha - level
    return 1 - np.where(above >= CONNECTED_SLACK, above, 0)


def _largest_region(mask: Mask) -> Mask:
    """Of regions that hang together by the sides of pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count == 1:
        return mask
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def _gradient(values: Floats) -> Floats:
    """The gradient's length, by a Gaussian's derivatives, each filter's squares summing to 1."""
    sigma = GRADIENT_SIGMA
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * GRADIENT_TAIL)))
    x = np.arange(-half, half + 1, dtype=np.float64)
    smooth = np.exp(-x * x / (2 * sigma * sigma))
    slope = x * smooth
    smooth, slope = smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)
    across = cv2.sepFilter2D(values, -1, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(values, -1, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down).reshape(values.shape)


def _boundary(mask: Mask) -> Mask:
    """The mask's pixels beside one that is not of it. The image's border is no boundary."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross).reshape(mask.shape)  # beyond the border counts as the mask's
    return mask & (inner == 0)


def _within(boundary: Mask, tolerance: int) -> Mask:
    """The pixels at most `tolerance` pixels from the boundary, by straight lines."""
    distance = cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance.reshape(boundary.shape) <= tolerance
