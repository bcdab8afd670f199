"""Calibration of an engine's score: "score >= s means that the IoU is at least 0.9".

The score is fitted to the measurements that the engine takes of its own mattes. Every figure is cross-validated: the
score of an image comes from a fit to other images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from maskdrop import catalog
from maskdrop.options import Options
from sagemaker_model.cutout import FULL_SIZE_ALPHA, decode_image
from sagemaker_model.data.records import InvalidData
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.confidence import GOOD_IOU, Calibration
from sagemaker_model.engines.two_passes import Floats
from sagemaker_model.evaluation.cases import Case, read_alpha
from sagemaker_model.evaluation.metrics import score
from sagemaker_model.evaluation.summary import Table
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.settings import ServerSettings

GOOD = f"IoU ≥ {GOOD_IOU}"

FOLDS = 10
"""Parts of the data; each gets its scores from a fit to the others."""

PENALTY = 1.0
"""Weight of the squared weights of the fit, in images: a few measurements of hundreds of images need little."""

RELIABLE = 0.98
"""Share of good images that the threshold of the review promises."""

BINS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Limits of the score's bins. Most scores are high, so the bins there are narrow."""


@runtime_checkable
class Examined(Protocol):
    """An engine that measures its own mattes."""

    measurements: tuple[str, ...]

    def examine(self, rgb: Pixels) -> tuple[Alpha, Floats]:
        """Returns the alpha of an image, HxWx3 uint8, and the measurements, float32 in the order of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The measurements of one image, and the IoU of its matte."""

    measured: Floats
    iou: float


def observations(engine: Examined, row: catalog.Engine, cases: Sequence[Case]) -> Iterator[Observation | None]:
    """Yields the observation of each case; None where no subject was found, which has no score."""
    limits = ServerSettings().limits
    for case in cases:
        decoded = decode_image(case.image.read_bytes(), Options(engine=row.name), limits)
        alpha, measured = engine.examine(decoded.image.rgb)
        full = FULL_SIZE_ALPHA[row.returns](alpha, decoded.image)
        yield Observation(measured, score(full, read_alpha(case.mask)).iou) if (full >= 128).any() else None


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """A fit with its cross-validated scores. names: of the measurements. threshold: lowest score that is RELIABLE."""

    names: tuple[str, ...]
    calibration: Calibration
    scores: Floats
    good: Floats
    threshold: float

    def bins(self) -> list[tuple[float, float, int, float, float]]:
        """Returns start, end, images, mean score and share of good images of each bin that has any."""
        rows = []
        for start, end in itertools.pairwise(BINS):
            inside = (self.scores >= start) & ((self.scores < end) | (end == 1))
            if inside.any():
                mean, share = float(self.scores[inside].mean()), float(self.good[inside].mean())
                rows.append((start, end, int(inside.sum()), mean, share))
        return rows

    def tables(self) -> list[Table]:
        """Returns the reliability by bins, and the figures of the threshold."""
        sure, bad = self.scores >= self.threshold, self.good == 0
        bins: list[tuple[str, ...]] = [
            (f"{a:g} to {b:g}", str(count), f"{mean:.2f}", f"{share:.0%}") for a, b, count, mean, share in self.bins()
        ]
        caught = (~sure & bad).sum() / max(1, bad.sum())
        of_sure = f"{self.good[sure].mean():.1%}" if sure.any() else ""
        return [
            Table("Reliability of the score", ("score", "images", "mean score", GOOD), bins),
            Table(
                f"Score from which {RELIABLE:.0%} of the images are good",
                ("score", "images from it on", f"of these, {GOOD}", "images below it", "share of the others below it"),
                [(f"{self.threshold:.3f}", str(sure.sum()), of_sure, str((~sure).sum()), f"{caught:.0%}")],
            ),
        ]

    def constants(self) -> str:
        """Returns the fit as the source of `engines.auto`."""
        rows = {name: getattr(self.calibration, name) for name in ("means", "scales", "weights")}
        values = [f"    {name}={tuple(round(one, 4) for one in row)}," for name, row in rows.items()]
        bias = f"    bias={self.calibration.bias:.4f},"
        return "\n".join(["CALIBRATION = Calibration(", *values, bias, ")", f"REVIEW_BELOW = {self.threshold:.3f}"])

    def drawing(self) -> str:
        """Returns the reliability as SVG: a point for each bin, as large as its number of images."""
        left, top, side, size = 44, 22, 320, 388
        bottom, threshold = top + side, left + self.threshold * side
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" '
            'font-family="sans-serif" font-size="12" text-anchor="middle">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<path d="M{left} {top}v{side}h{side}" fill="none" stroke="#888"/>',
            f'<path d="M{left} {bottom}l{side} -{side}" stroke="#bbb" stroke-dasharray="4 4"/>',
            f'<path d="M{threshold:.1f} {top}v{side}" stroke="#c65a00"/>',
            f'<text x="{left + side / 2}" y="{size - 6}">score (orange: review below {self.threshold:.2f})</text>',
            f'<text transform="translate(12 {top + side / 2}) rotate(-90)">share of images with {GOOD}</text>',
        ]
        for _, _, count, mean, share in self.bins():
            radius = 3 + 22 * (count / len(self.scores)) ** 0.5
            x, y = left + mean * side, bottom - share * side
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#4a7ab5" fill-opacity=".75"/>')
        for fifth in range(6):
            at, label = side * fifth / 5, f"{fifth / 5:g}</text>"
            parts.append(f'<text x="{left + at:.0f}" y="{bottom + 16}">{label}')
            parts.append(f'<text x="{left - 14}" y="{bottom - at + 4:.0f}">{label}')
        return "\n".join([*parts, "</svg>\n"])


def calibrate(engine: Examined, seen: Sequence[Observation | None]) -> Reliability:
    """Fits the score to observations. Raises InvalidData without a good and a bad image for each fold."""
    known = [one for one in seen if one]
    measured = np.array([one.measured for one in known], np.float32).reshape(len(known), len(engine.measurements))
    good = np.array([one.iou >= GOOD_IOU for one in known], np.float32)
    if min(good.sum(), len(good) - good.sum()) < FOLDS:
        raise InvalidData(
            f"The calibration needs at least {FOLDS} images with an IoU of at least {GOOD_IOU} and {FOLDS} below; "
            f"got {int(good.sum())} and {int(len(good) - good.sum())}."
        )
    # Images in the order of their IoU, dealt in turn: each fold has all qualities.
    fold = np.empty(len(known), int)
    fold[np.argsort([one.iou for one in known], kind="stable")] = np.arange(len(known)) % FOLDS
    scores = np.empty(len(known), np.float32)
    for number in range(FOLDS):
        fitted = fit(measured[fold != number], good[fold != number])
        scores[fold == number] = [fitted.score(one) for one in measured[fold == number]]
    return Reliability(engine.measurements, fit(measured, good), scores, good, reliable_from(scores, good))


def reliable_from(scores: Floats, good: Floats) -> float:
    """Returns the lowest score from which the share of good images is at least RELIABLE; 1 if there is none."""
    order = np.argsort(-scores, kind="stable")
    shares = np.cumsum(good[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= RELIABLE)
    return float(scores[order[enough[-1]]]) if len(enough) else 1.0


def fit(measured: Floats, good: Floats) -> Calibration:
    """Returns the logistic function with the highest penalised likelihood, by Newton's method.

    measured: NxM float32. good: N float32, 0 or 1.
    """
    means, scales = measured.mean(0).astype(float), np.maximum(measured.std(0).astype(float), 1e-6)
    inputs = np.hstack([(measured - means) / scales, np.ones((len(measured), 1))])
    penalty = np.diag([*[PENALTY] * measured.shape[1], 0.0])
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (predicted - good) + penalty @ weights
        curvature = (inputs * (predicted * (1 - predicted))[:, None]).T @ inputs + penalty + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    *slopes, bias = weights.tolist()
    return Calibration(tuple(means.tolist()), tuple(scales.tolist()), tuple(slopes), bias)
