"""Made detection data: bright squares and discs on dark noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sagemaker_model.data.detection import IMAGES, DetectionRecord, DetectionSet, write_set

NAMES = ("square", "disc")

WIDTH, HEIGHT = 96, 72


def scene(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (image HxWx3, boxes Nx4, labels N) with one square in the left half or one disc in the right, or both."""
    random = np.random.default_rng(number)
    image = random.integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
    boxes, labels = [], []
    for label in (0, 1) if number % 3 == 2 else (number % 3,):
        half = int(random.integers(10, 18))
        x = int(random.integers(20, 28)) + label * WIDTH // 2
        y = int(random.integers(22, HEIGHT - 22))
        if label == 0:
            image[y - half : y + half, x - half : x + half] += 130
        else:
            mask = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (x, y), half, 1, cv2.FILLED)
            image[mask > 0] += 130
        boxes.append((max(0, x - half), y - half, min(WIDTH, x + half), y + half))
        labels.append(label)
    return image, np.array(boxes, np.float32), np.array(labels, np.int64)


def write_shapes(folder: Path, train: int = 12, val: int = 6, names: tuple[str, ...] = NAMES) -> Path:
    """Writes a detection data set with these numbers of images, and returns its folder."""
    (folder / IMAGES).mkdir(parents=True)
    records = []
    for number in range(train + val):
        image, boxes, labels = scene(number)
        file = folder / IMAGES / f"scene{number}.png"
        cv2.imwrite(str(file), image[..., ::-1])
        split = "train" if number < train else "val"
        records.append(
            DetectionRecord(file, WIDTH, HEIGHT, boxes, labels, np.zeros(len(labels), np.bool_), split=split)
        )
    write_set(DetectionSet(names, tuple(records)), folder)
    return folder
