"""A detection data set of coloured rectangles, and a detector that finds them by their colour."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskdrop.errors import UnreadableImage
from sagemaker_model.data.detection import IMAGES, DetectionRecord, DetectionSet, write_set
from sagemaker_model.detectors.base import Detections
from sagemaker_model.imaging.pixels import Pixels

COLOURS = {"car": (200, 30, 30), "person": (30, 30, 200)}

SCENES = {
    "one.png": [("car", (10, 10, 60, 50))],
    "two.png": [("car", (5, 5, 45, 45)), ("person", (70, 20, 95, 75))],
    "three.png": [("person", (20, 10, 50, 70)), ("person", (60, 10, 90, 70))],
    "none.png": [],
}


def write_scenes(folder: Path) -> DetectionSet:
    """Writes the data set, of the split val, and returns it."""
    (folder / IMAGES).mkdir(parents=True)
    records = []
    for name, objects in SCENES.items():
        image = np.full((80, 100, 3), 128, np.uint8)
        for label, (x0, y0, x1, y1) in objects:
            image[y0:y1, x0:x1] = COLOURS[label]
        cv2.imwrite(str(folder / IMAGES / name), image[..., ::-1])
        records.append(
            DetectionRecord(
                folder / IMAGES / name,
                100,
                80,
                np.array([box for _, box in objects], np.float32).reshape(-1, 4),
                np.array([list(COLOURS).index(label) for label, _ in objects], np.int64),
                np.zeros(len(objects), np.bool_),
                split="val",
            )
        )
    data = DetectionSet(tuple(COLOURS), tuple(records))
    write_set(data, folder)
    return data


@dataclass
class ColourDetector:
    """Finds the rectangles of some colours. shift: pixels by which its boxes are too far right. fails: whether it
    raises UnreadableImage for an image without rectangles."""

    labels: tuple[str, ...] | None = tuple(COLOURS)
    shift: int = 0
    fails: bool = False
    weights_sha256: str = "ab" * 32

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None: ...

    def detect(
        self, rgb: Pixels, labels: Collection[str] = (), min_confidence: float = 0.0, *, masks: bool = False
    ) -> Detections:
        boxes, names = [], []
        for name in self.labels or ():
            mask = (rgb == COLOURS[name]).all(-1).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
            for x, y, width, height, _ in stats[1:]:
                boxes.append((x + self.shift, y, x + width + self.shift, y + height))
                names.append(name)
        if self.fails and not boxes:
            raise UnreadableImage("The image has no rectangle.")
        corners = np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, (100, 80, 100, 80)).astype(np.float32)
        return Detections(corners, np.full(len(boxes), 0.9, np.float32), tuple(names))
