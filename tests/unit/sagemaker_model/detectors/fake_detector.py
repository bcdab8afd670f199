from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sagemaker_model.detectors.base import Detections
from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging.pixels import Pixels

Row = tuple[str, float, tuple[float, float, float, float]]


@dataclass
class FakeDetector:
    """Finds `rows` (label, score, box) in every image, with masks that fill the box. calls: the requested labels."""

    rows: tuple[Row, ...] = ()
    labels: tuple[str, ...] | None = ("face", "person")
    cost_usd: float = 0.0
    weights_sha256: str = ""
    calls: list[tuple[tuple[str, ...], float, bool]] = field(default_factory=list)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None: ...

    def detect(
        self, rgb: Pixels, labels: Collection[str] = (), min_confidence: float = 0.0, *, masks: bool = False
    ) -> Detections:
        self.calls.append((tuple(labels), min_confidence, masks))
        wanted = {label.casefold() for label in labels}
        rows = [row for row in self.rows if row[1] >= min_confidence and (not wanted or row[0].casefold() in wanted)]
        return Detections(
            np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[1] for row in rows], np.float32),
            tuple(row[0] for row in rows),
            tuple(_filled(rgb, row[2]) for row in rows) if masks else (),
            self.cost_usd,
        )


def _filled(rgb: Pixels, box: tuple[float, float, float, float]) -> Alpha:
    values = np.zeros(rgb.shape[:2], np.float32)
    x0, y0, x1, y1 = map(round, box)
    values[y0:y1, x0:x1] = 1
    return Alpha(values)
