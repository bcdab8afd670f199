"""Fixtures of the commands that process images: a photo of two people, a fake detector and a fake editor."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner, Result

from cli import images, processing, repaint
from cli.app import app
from cli.processing import Paint, load_processor
from local.config import ROOT
from maskdrop.edit import EDITORS, EditorName
from maskdrop.options import Options
from maskdrop.services import EditedImage, EditRequest
from sagemaker_model.detectors.labels import Labels
from tests.fakes import FakeEditor
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector

LEFT, RIGHT = (170.0, 60.0, 280.0, 200.0), (744.0, 60.0, 856.0, 200.0)
"""Boxes of the faces in the photo of two people, in pixels. The right one is larger."""

Run = Callable[..., Result]


@dataclass
class ColourEditor(FakeEditor):
    """Returns a plain image whose red channel is the seed. chosen: name and Region of the editors of the commands."""

    chosen: list[tuple[EditorName, str | None]] = field(default_factory=list)

    def edit(self, request: EditRequest) -> EditedImage:
        made = super().edit(request)
        buffer = io.BytesIO()
        Image.new("RGB", (request.width, request.height), (request.seed, 0, 255)).save(buffer, "PNG")
        return EditedImage(buffer.getvalue(), "image/png", made.model, made.cost_usd)


@pytest.fixture
def two_people(tmp_path: Path) -> Path:
    """A photo of 1024 x 512 pixels with a person on the left and her mirror image on the right."""
    with Image.open(ROOT / "samples" / "default" / "astronaut.png") as opened:
        person = opened.convert("RGB")
    photo = Image.new("RGB", (1024, 512))
    photo.paste(person, (0, 0))
    photo.paste(ImageOps.mirror(person), (512, 0))
    path = tmp_path / "photos" / "two.png"
    path.parent.mkdir()
    photo.save(path)
    return path


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> FakeDetector:
    fake = FakeDetector((("face", 0.9, LEFT), ("face", 0.6, RIGHT)))
    monkeypatch.setattr(processing, "load_detectors", lambda *_, **__: {"labels": Labels({"faces": fake})})
    return fake


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch) -> ColourEditor:
    """The editor of every command, with the limits of Stability. Waits take no time."""
    fake = ColourEditor()

    def paint_of(name: EditorName, usd_max: float, region: str | None = None) -> Paint:
        fake.chosen.append((name, region))
        return Paint(fake, EDITORS["stability"], usd_max, lambda _: None)

    monkeypatch.setattr(images, "paint_of", paint_of)
    monkeypatch.setattr(repaint, "paint_of", paint_of)
    return fake


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Returns a function that runs `maskdrop` with an empty weights folder and the folder `out`."""
    (tmp_path / "weights").mkdir()

    def call(*words: object) -> Result:
        more = ("--folder", tmp_path / "weights", "--out", tmp_path / "out")
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*map(str, words), *map(str, more)])

    return call


def subject_alpha(photo: Path, weights: Path) -> Any:
    """The alpha of the subject of a photo, HxW."""
    options = Options.from_json({"task": "replace", "edit": "white studio"})
    paint = processing.paint_of("local", 0)
    segmented = load_processor(options, weights, paint=paint).segment(photo.read_bytes(), options)
    assert segmented.edit
    with Image.open(io.BytesIO(segmented.edit.alpha)) as opened:
        return np.asarray(opened)


def pixels(path: Path) -> Any:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))
