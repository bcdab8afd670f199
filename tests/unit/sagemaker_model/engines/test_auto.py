"""The choices of the engine `auto`, with networks that return what a test wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sagemaker_model.engines.auto import Auto
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.two_passes import Floats
from sagemaker_model.engines.u2netp import SIDE
from sagemaker_model.imaging.pixels import Pixels

RGB = np.zeros((48, 64, 3), np.uint8)


def corner(share: float) -> Floats:
    """Returns a map whose upper left corner, a square of this share of the map, is 1."""
    found = np.zeros((SIDE, SIDE), np.float32)
    side = round(SIDE * share**0.5)
    found[:side, :side] = 1
    return found


@dataclass
class FakePeople:
    """Finds people with this evidence in this map."""

    evidence: float
    first: Floats

    def find(self, rgb: Pixels) -> Any:
        return SimpleNamespace(evidence=self.evidence, first=self.first, turns=0)

    def matte(self, found: Any) -> Floats:
        return np.full((8, 8), 0.75, np.float32)


@dataclass
class FakeGeneral:
    """Finds this map. passes: the sizes of the images that it received."""

    found: Floats
    passes: list[tuple[int, ...]] = field(default_factory=list)

    def predict_square(self, square: Pixels) -> Floats:
        self.passes.append(square.shape)
        return self.found


def segment(people: FakePeople, general: FakeGeneral) -> Alpha:
    engine = Auto()
    engine._people, engine._general = people, general  # type: ignore[assignment]
    return engine.predict(RGB, ())


def test_a_person_is_segmented_by_the_passes_for_people_alone() -> None:
    general = FakeGeneral(corner(0.9))
    alpha = segment(FakePeople(0.9, corner(0.3)), general)
    assert (alpha.kind, alpha.engine) == ("person", "portrait")
    assert (alpha.values == 0.75).all()
    assert not general.passes


@pytest.mark.parametrize(("salient", "kind"), [(0.05, "person"), (0.2, "person"), (0.8, "thing")])
def test_a_small_person_is_the_subject_unless_a_larger_object_is_salient(salient: float, kind: str) -> None:
    assert segment(FakePeople(0.9, corner(0.05)), FakeGeneral(corner(salient))).kind == kind


def test_without_evidence_of_a_person_the_subject_is_a_thing() -> None:
    alpha = segment(FakePeople(0.4, corner(0.3)), FakeGeneral(corner(1)))
    assert (alpha.kind, alpha.engine) == ("thing", "u2netp")
    assert (alpha.values == 1).all()


def test_without_the_weights_that_are_downloaded_the_engine_is_portrait(tmp_path: Path) -> None:
    engine = Auto()
    engine.setup("cpu", tmp_path)
    alpha = engine.predict(RGB, ())
    assert (alpha.kind, alpha.engine) == ("person", "portrait")
