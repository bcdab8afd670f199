"""A data set of discs on noise, from which a network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 120, 160

TRAIN, VAL = 24, 8


def disc(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (image HxWx3, mask HxW) of a light disc on dark noise, which no trained network detects as a person."""
    random = np.random.default_rng(number)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    center = int(random.integers(50, WIDTH - 50)), int(random.integers(45, HEIGHT - 45))
    cv2.circle(mask, center, int(random.integers(25, 40)), 255, cv2.FILLED)
    image = random.integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
    image[mask > 0] += 130
    return image, mask


def write_discs(folder: Path) -> Path:
    """Writes a data folder with images, masks and manifest, and returns it."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["id,split"]
    for number in range(TRAIN + VAL):
        image, mask = disc(number)
        cv2.imwrite(str(folder / "images" / f"disc{number}.jpg"), image)
        cv2.imwrite(str(folder / "masks" / f"disc{number}.png"), mask)
        rows.append(f"disc{number},{'train' if number < TRAIN else 'val'}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder
