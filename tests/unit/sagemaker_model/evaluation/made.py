"""A made dataset, and engines whose quality is known: light discs on a dark ground, found by their brightness."""

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
from sagemaker_model.evaluation.run import About, Run, by_engine, evaluate, write_run
from sagemaker_model.evaluation.summary import Fault, Result
from sagemaker_model.imaging.pixels import Pixels

ROW = catalog.Engine("made", "cutout", "alpha", "discs", "", frozenset({"box"}))

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
"""The id of each image, its part, and the radius of its disc in pixels."""


def disc(radius: int) -> Pixels:
    """The truth of an image: a disc in its middle, nothing for a radius of 0."""
    mask = np.zeros(SIDES, np.uint8)
    return cv2.circle(mask, (SIDES[1] // 2, SIDES[0] // 2), radius, 255, -1) if radius else mask


def a_dataset(folder: Path) -> Path:
    """Six images to validate with, and one of another split."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0)
    rows = []
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
class Finder:
    """Finds the light disc, then spoils what it found."""

    spoil: Callable[[Pixels], Pixels] = lambda found: found
    weights_sha256: str = "ab" * 32

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Nothing to read."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        found = (rgb.mean(axis=2) > 110).astype(np.uint8) * 255
        return Alpha((self.spoil(found) / 255).astype(np.float32))


def shifted(pixels: int) -> Callable[[Pixels], Pixels]:
    return lambda found: np.roll(found, pixels, axis=1)


def a_run(data: Path, engine: Finder, name: str = "made", folder: Path | None = None) -> Run:
    dataset = read_dataset(data, "val")
    ended = list(evaluate(dataset.cases, by_engine(engine, ROW), workers=2, folder=folder))
    run = Run(
        About.of(name, engine.weights_sha256, dataset),
        [one for one in ended if isinstance(one, Result)],
        [one for one in ended if isinstance(one, Fault)],
        folder,
    )
    if folder:
        write_run(run, folder)
    return run
