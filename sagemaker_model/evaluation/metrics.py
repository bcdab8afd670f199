"""Standard metrics of a matte against its ground truth, for one image.

IoU, Dice and boundary F compare masks: pixels that are at least half opaque. SAD, MSE, MAD, Grad and Conn compare
alpha, 0..1, as defined by Rhemann et al. ("A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009;
alphamatting.com). Rhemann et al. evaluate only the unknown region of a trimap; here, without a trimap, the whole image
counts.
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

MASK_THRESHOLD = 128
"""Minimum alpha, of 255, of a pixel of the subject: a probability of 0.5."""

GRADIENT_SIGMA = 1.4
"""Sigma in pixels of the Gaussian whose derivatives Grad compares."""

GRADIENT_TAIL = 1e-2
"""Value of the Gaussian at which its filter ends: 4 pixels from the centre with the sigma above."""

CONNECTED_STEPS = 10
"""Number of thresholds of Conn: 0.1, 0.2 … 1."""

CONNECTED_SLACK = 0.15
"""Minimum difference between alpha and the pixel's level (see `connectivity_error`) that Conn counts."""

BOUNDARY_TOLERANCE = 0.008
"""Distance up to which boundaries match, as a share of the image's diagonal, rounded up to whole pixels, as in DAVIS
(Perazzi et al., CVPR 2016). 7 pixels for 640 x 480."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics of one image. iou, dice, boundary_f: 0..1, 1 is perfect. The others are errors, 0 is perfect.

    sad, grad and conn are sums in thousands, which grow with the image; mse and mad are means in 0..1.
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
    """Computes all metrics. alpha, truth: HxW uint8, 255 = subject."""
    predicted_mask, true_mask = alpha >= MASK_THRESHOLD, truth >= MASK_THRESHOLD
    predicted, true = alpha / 255, truth / 255
    error = np.abs(predicted - true)
    return Scores(
        iou=iou(predicted_mask, true_mask),
        dice=dice(predicted_mask, true_mask),
        boundary_f=boundary_f(predicted_mask, true_mask),
        sad=float(error.sum()) / 1000,
        mse=float((error * error).mean()),
        mad=float(error.mean()),
        grad=gradient_error(predicted, true),
        conn=connectivity_error(predicted, true),
    )


def iou(predicted: Mask, truth: Mask) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def dice(predicted: Mask, truth: Mask) -> float:
    """Dice coefficient; 1 for two empty masks."""
    total = np.count_nonzero(predicted) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(predicted & truth) / total) if total else 1.0


def boundary_f(predicted: Mask, truth: Mask) -> float:
    """Boundary F-measure: the harmonic mean of precision and recall.

    Precision is the share of the predicted boundary near the true one, recall the share of the true boundary near the
    predicted one. The result is 1 if neither mask has a boundary, 0 if only one has.
    """
    predicted_boundary, true_boundary = _boundary(predicted), _boundary(truth)
    if not predicted_boundary.any() or not true_boundary.any():
        return float(predicted_boundary.any() == true_boundary.any())
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*predicted.shape))
    precision = float(_within(true_boundary, tolerance)[predicted_boundary].mean())
    recall = float(_within(predicted_boundary, tolerance)[true_boundary].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def gradient_error(alpha: Floats, truth: Floats) -> float:
    """Grad, in thousands: the sum of squared differences between the gradient magnitudes."""
    difference = _gradient_magnitude(alpha) - _gradient_magnitude(truth)
    return float((difference * difference).sum()) / 1000


def connectivity_error(alpha: Floats, truth: Floats) -> float:
    """Conn, in thousands: the sum of differences in connectivity.

    A pixel's connectivity depends on its level: the highest threshold at which it is part of the largest region that
    both mattes share.
    """
    level = np.ones_like(truth)
    connected = np.ones(truth.shape, np.bool_)
    for step in range(1, CONNECTED_STEPS + 1):
        shared = (alpha >= step / CONNECTED_STEPS) & (truth >= step / CONNECTED_STEPS)
        still_connected = connected & _largest_region(shared)
        level[connected & ~still_connected] = (step - 1) / CONNECTED_STEPS
        connected = still_connected
    return float(np.abs(_connectivity(alpha, level) - _connectivity(truth, level)).sum()) / 1000


def _connectivity(alpha: Floats, level: Floats) -> Floats:
    above = alpha - level
    return 1 - np.where(above >= CONNECTED_SLACK, above, 0)


def _largest_region(mask: Mask) -> Mask:
    """Returns the largest 4-connected region."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count == 1:
        return mask
    region: Mask = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return region


def _gradient_magnitude(values: Floats) -> Floats:
    """Returns the magnitude of the gradient, by Gaussian derivative filters of unit norm."""
    sigma = GRADIENT_SIGMA
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * GRADIENT_TAIL)))
    x = np.arange(-half, half + 1, dtype=np.float64)
    gaussian = np.exp(-x * x / (2 * sigma * sigma))
    derivative = x * gaussian
    gaussian, derivative = gaussian / np.linalg.norm(gaussian), derivative / np.linalg.norm(derivative)
    horizontal = cv2.sepFilter2D(values, -1, derivative, gaussian, borderType=cv2.BORDER_REPLICATE)
    vertical = cv2.sepFilter2D(values, -1, gaussian, derivative, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(horizontal, vertical).reshape(values.shape)


def _boundary(mask: Mask) -> Mask:
    """Returns the mask's pixels next to a pixel outside the mask. The image's border is not a boundary."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross).reshape(mask.shape)  # pixels beyond the border count as inside
    boundary: Mask = mask & (inner == 0)
    return boundary


def _within(boundary: Mask, tolerance: int) -> Mask:
    """Returns the pixels at a Euclidean distance of at most `tolerance` pixels from the boundary."""
    distance = cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near: Mask = distance.reshape(boundary.shape) <= tolerance
    return near
