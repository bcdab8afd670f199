"""The detector `labels`: sends each label to the detector that knows it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from maskdrop.catalog import ENGINES
from maskdrop.catalog import Engine as Row
from maskdrop.errors import UnknownLabel
from sagemaker_model.detectors.base import Detections, Detector, listed
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import NotInstalled

log = logging.getLogger(__name__)


class Labels:
    """The first detector that knows a label finds it: `faces`, `people`, the user's `detector`, Amazon Rekognition.

    Without labels it finds all labels of the detectors that list theirs. Amazon Rekognition lists none: a call costs
    money, so that it finds labels by name only.
    """

    weights_sha256 = ""

    def __init__(self, detectors: Mapping[str, Detector] | None = None) -> None:
        self._detectors = dict(detectors or {})

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of all installed detectors; None if one of them knows any label."""
        if any(one.labels is None for one in self._detectors.values()):
            return None
        return self._listed()

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Does nothing: the detectors are set up on their own."""

    def detect(
        self, rgb: Pixels, labels: Collection[str] = (), min_confidence: float = 0.0, *, masks: bool = False
    ) -> Detections:
        """Raises UnknownLabel for a label that no installed detector knows, and what the detectors raise."""
        found = [
            self._detectors[name].detect(rgb, own, min_confidence, masks=masks)
            for name, own in self._by_detector(labels or self._listed()).items()
        ]
        return merged(found)

    def _by_detector(self, labels: Iterable[str]) -> dict[str, list[str]]:
        """Groups labels by the name of the detector that finds them. Raises UnknownLabel."""
        groups: dict[str, list[str]] = {}
        for label in labels:
            names = (name for name, one in self._detectors.items() if knows(one, label))
            name = next(names, None)
            if name is None:
                raise UnknownLabel(
                    f"No detector of this server knows the label {label!r:.80}; known labels: "
                    f"{listed(self._listed())}. Other labels need your own detector or Amazon Rekognition (the "
                    "stage's option rekognition, or --rekognition)."
                )
            groups.setdefault(name, []).append(label)
        return groups

    def _listed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(label for one in self._detectors.values() for label in one.labels or ()))


def knows(detector: Detector, label: str) -> bool:
    """Whether a detector knows a label, in any letter case."""
    return detector.labels is None or label.casefold() in map(str.casefold, detector.labels)


def merged(parts: Iterable[Detections]) -> Detections:
    """The instances of several detectors, the highest score first."""
    found = list(parts)
    if len(found) == 1:
        return found[0]
    boxes = np.concatenate([part.boxes for part in found] or [np.zeros((0, 4), np.float32)])
    scores = np.concatenate([part.scores for part in found] or [np.zeros(0, np.float32)])
    order = np.argsort(-scores, kind="stable")
    labels = [label for part in found for label in part.labels]
    masks = [mask for part in found for mask in part.masks or (None,) * len(part.labels)]
    return Detections(
        boxes[order],
        scores[order],
        tuple(labels[index] for index in order),
        tuple(masks[index] for index in order) if any(mask is not None for mask in masks) else (),
        sum(part.cost_usd for part in found),
        tuple(warning for part in found for warning in part.warnings),
    )


def load_detector(row: Row, device: str, weights_dir: Path, threads: int = 1) -> Detector:
    """Sets up the detector of a row of the catalogue. Raises InvalidWeights, and NotInstalled if its weights or a
    package are missing."""
    module, _, name = row.factory.partition(":")
    detector = cast(Detector, getattr(importlib.import_module(module), name)())
    detector.setup(device, weights_dir, threads)
    return detector


def load_detectors(device: str, weights_dir: Path, threads: int = 1, *, paid: bool = False) -> dict[str, Detector]:
    """Sets up every detector of the catalogue that is installed and returns them by name, in the catalogue's order.

    paid: also Amazon Rekognition, whose calls cost money. Raises InvalidWeights.
    """
    detectors: dict[str, Detector] = {}
    for row in ENGINES.values():
        if row.returns != "boxes" or row.name == "labels" or (row.paid and not paid):
            continue
        try:
            detectors[row.name] = load_detector(row, device, weights_dir, threads)
        except NotInstalled as error:
            log.info("detector %s is not installed: %s", row.name, error)
    return {"labels": Labels(detectors), **detectors}
