"""The classifier of places, with its own weights."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_model.engines.places import Places

ROOT = Path(__file__).parents[4]
SAMPLES = ROOT / "samples"
PEOPLE = ROOT.parent / "shared" / "data" / "people"


@pytest.mark.parametrize("sample", ["object/coffee.png", "default/astronaut.png"])
def test_a_thing_and_a_portrait_are_no_places(tmp_path: Path, sample: str) -> None:
    rgb = np.asarray(Image.open(SAMPLES / sample).convert("RGB"))
    assert Places(tmp_path).share(rgb) < 0.2


@pytest.mark.skipif(not PEOPLE.is_dir(), reason="the folder shared/data/people is missing")
def test_scenes_without_people_are_places(tmp_path: Path) -> None:
    with (PEOPLE / "manifest.csv").open() as file:
        scenes = [row["id"] for row in csv.DictReader(file) if row["part"] == "no_person" and row["split"] == "val"]
    places = Places(tmp_path)
    images = (next((PEOPLE / "images").glob(f"{scene}.*")) for scene in scenes)
    assert np.median([places.share(np.asarray(Image.open(path).convert("RGB"))) for path in images]) > 0.2
