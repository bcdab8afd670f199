"""A calibrated score of a matte: the probability that its IoU with the truth is at least GOOD_IOU.

A logistic function of measurements of the matte. Its weights are those of `maskdrop evaluate --calibrate`, which states
how reliable the score is (docs/evaluation.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sagemaker_model.engines.two_passes import Floats

GOOD_IOU = 0.9
"""IoU from which a matte is good."""

REVIEW_BELOW = 0.911
"""Calibrated score below which a result needs a review, where the options name none: from it on, 98 % of the mattes are
good."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic function. means, scales, weights: of each measurement. bias: of the sum."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def score(self, measured: Floats) -> float:
        """Returns the probability, 0..1. measured: N float32 in the order of the weights."""
        logit = self.bias + float(((measured - np.array(self.means)) / np.array(self.scales)) @ np.array(self.weights))
        return float(1 / (1 + np.exp(-np.clip(logit, -30, 30))))
