"""The protocol of a detector, and the boxes that it returns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging.pixels import Pixels

Floats = NDArray[np.float32]

LISTED_MAX = 30
"""Labels that an error message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The instances that a detector found in one image, the highest score first.

    boxes: Nx4 float32, x0, y0, x1, y1 in pixels of the upright image and inside it, x0 < x1 and y0 < y1.
    scores: N float32, confidence in 0..1.
    labels: N labels.
    masks: the alpha of each instance over the whole image, None for an instance without one; () where none has one.
    cost_usd: price of the call to a paid service in US dollars.
    warnings: what the result lacks, each as "code: sentence".
    """

    boxes: Floats
    scores: Floats
    labels: tuple[str, ...]
    masks: tuple[Alpha | None, ...] = ()
    cost_usd: float = 0.0
    warnings: tuple[str, ...] = ()


class Detector(Protocol):
    """One detector. `setup` is called once, then `detect` from as many threads as there are workers.

    weights_sha256: SHA-256 of the file that `setup` reads; "" without a file.
    labels: the labels that it knows, as its weights spell them; callers may use other letter cases. None: any label.
    """

    weights_sha256: str

    @property
    def labels(self) -> tuple[str, ...] | None: ...

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Reads and verifies the weights.

        Raises InvalidWeights for weights that cannot be used, NotInstalled if the weights or a package are missing.
        """

    def detect(
        self, rgb: Pixels, labels: Collection[str] = (), min_confidence: float = 0.0, *, masks: bool = False
    ) -> Detections:
        """Returns the instances in `rgb`, HxWx3 uint8 sRGB, upright, of any size from 1x1.

        labels: the labels to find; empty for all that the detector knows. min_confidence: lowest score, 0..1; 0 for the
        detector's own threshold. masks: also returns masks, where the detector can. Raises Unavailable where a service
        cannot be reached.
        """


def listed(labels: Collection[str]) -> str:
    """Returns the first labels for an error message, and the number of the others."""
    names = ", ".join(list(labels)[:LISTED_MAX]) or "none"
    return names if len(labels) <= LISTED_MAX else f"{names} and {len(labels) - LISTED_MAX} more"
