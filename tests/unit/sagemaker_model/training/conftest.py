"""A small data folder: bright blobs on noise, with their masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sagemaker_model.training.settings import TrainingSettings

TINY = TrainingSettings(
    side=32, batch=4, steps=60, lr=0.01, warmup=5, ema=0.9, validate_every=20, log_every=5, workers=0, threads=1,
    filters=4,
)  # fmt: skip
"""Settings of a run that takes seconds on one CPU core."""


def blob(number: int, height: int = 40, width: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Returns (image HxWx3, mask HxW) of a random blob."""
    random = np.random.default_rng(number)
    mask = np.zeros((height, width), np.uint8)
    centre = int(random.integers(12, width - 12)), int(random.integers(12, height - 12))
    cv2.circle(mask, centre, int(random.integers(7, 12)), 255, cv2.FILLED)
    image = random.integers(0, 120, (height, width, 3), np.uint8)
    image[mask > 0] += 110
    return image, mask


def write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    cv2.imwrite(str(folder / "images" / f"{name}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)


def write_manifest(folder: Path, splits: dict[str, str], licence_class: str = "clean") -> None:
    rows = [f"{name},{split},{licence_class}" for name, split in splits.items()]
    (folder / "manifest.csv").write_text("\n".join(["id,split,licence_class", *rows]) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with 24 training records, 8 validation records and 2 backgrounds."""
    folder = tmp_path / "data"
    for name in ("images", "masks", "backgrounds"):
        (folder / name).mkdir(parents=True)
    for number in range(32):
        write(folder, f"blob{number}", *blob(number))
    write_manifest(folder, {f"blob{number}": "train" if number < 24 else "val" for number in range(32)})
    for number in range(2):
        background = np.random.default_rng(100 + number).integers(0, 120, (60, 80, 3), np.uint8)
        cv2.imwrite(str(folder / "backgrounds" / f"{number}.png"), background)
    return folder
