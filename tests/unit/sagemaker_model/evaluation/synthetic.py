"""A synthetic dataset of light discs on a dark background, and engines of known quality that detect them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskdrop import catalog
from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.evaluation.cases import read_dataset
from sagemaker_model.evaluation.run import Run, RunInfo, engine_predictor, evaluate, write_run
from sagemaker_model.evaluation.summary import Result, Unscored
from sagemaker_model.imaging.pixels import Pixels

ROW = catalog.Engine("synthetic", ("cutout",), "alpha", "discs", "", frozenset({"box"}))

SIDES = (96, 128)
"""Height and width."""

DISCS: dict[str, tuple[str, int]] = {
    "near_1": ("near", 40),
    "near_2": ("near", 36),
    "near_3": ("near", 30),
    "far_1": ("far", 15),
    "far_2": ("far", 12),
    "nothing": ("no_person", 0),
}
"""Part and radius of the disc, in pixels, by image id."""


def disc(radius: int) -> Pixels:
    """Returns a true mask: a disc in the centre, or no subject for a radius of 0."""
    mask = np.zeros(SIDES, np.uint8)
    if radius:
        cv2.circle(mask, (SIDES[1] // 2, SIDES[0] // 2), radius, 255, -1)
    return mask


def write_dataset(folder: Path) -> Path:
    """Writes six images of the split val, and one of the split train."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for name, (part, radius) in (DISCS | {"of_train": ("near", 20)}).items():
        mask = disc(radius)
        photo = np.where(mask[..., None] > 0, (200, 180, 160), (30, 40, 50)) + noise.integers(0, 20, (*SIDES, 3))
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), photo[..., ::-1].astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
        rows.append({"id": name, "split": "train" if name == "of_train" else "val", "part": part, "size": radius > 30})
    write_manifest(folder, rows)
    return folder


def write_manifest(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@dataclass
class DiscEngine:
    """Detects the light disc by brightness, then changes the result by `distort`."""

    distort: Callable[[Pixels], Pixels] = lambda mask: mask
    weights_sha256: str = "ab" * 32

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Loads no weights."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        mask = (rgb.mean(axis=2) > 110).astype(np.uint8) * 255
        return Alpha((self.distort(mask) / 255).astype(np.float32))


def shifted(pixels: int) -> Callable[[Pixels], Pixels]:
    """Returns a distortion that shifts the result to the right."""
    return lambda mask: np.roll(mask, pixels, axis=1)


def evaluate_run(data: Path, engine: DiscEngine, name: str = "synthetic", folder: Path | None = None) -> Run:
    dataset = read_dataset(data, "val")
    outcomes = list(evaluate(dataset.cases, engine_predictor(engine, ROW), workers=2, folder=folder))
    run = Run(
        RunInfo.of(name, engine.weights_sha256, dataset),
        [one for one in outcomes if isinstance(one, Result)],
        [one for one in outcomes if isinstance(one, Unscored)],
        folder,
    )
    if folder:
        write_run(run, folder)
    return run
