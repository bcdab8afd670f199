"""The choices of the engine `auto`, with networks that return what a test wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
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
        return SimpleNamespace(evidence=self.evidence, first=self.first, turns=0, image=rgb)

    def matte(self, found: Any) -> Floats:
        return np.full((8, 8), 0.7, np.float32)


@dataclass
class FakeGeneral:
    """Finds this map. passes: the sizes of the images that it received."""

    found: Floats
    passes: list[tuple[int, ...]] = field(default_factory=list)

    def predict_square(self, square: Pixels) -> Floats:
        self.passes.append(square.shape)
        return self.found


def auto(people: FakePeople, general: FakeGeneral, place: float = 0.0) -> Auto:
    """place: probability that the image shows a place."""
    engine = Auto()
    engine._people, engine._general = people, general  # type: ignore[assignment]
    engine._places = SimpleNamespace(share=lambda _: place)  # type: ignore[assignment]
    return engine


def segment(people: FakePeople, general: FakeGeneral, place: float = 0.0) -> Alpha:
    return auto(people, general, place).predict(RGB, ())


def test_a_person_is_segmented_by_the_passes_for_people_alone() -> None:
    general = FakeGeneral(corner(0.9))
    alpha = segment(FakePeople(0.9, corner(0.3)), general)
    assert (alpha.kind, alpha.engine) == ("person", "portrait")
    assert np.allclose(alpha.values, 0.7)
    assert not general.passes


@pytest.mark.parametrize(("salient", "kind"), [(0.05, "person"), (0.2, "person"), (0.8, "thing")])
def test_a_small_person_is_the_subject_unless_a_larger_object_is_salient(salient: float, kind: str) -> None:
    assert segment(FakePeople(0.9, corner(0.05)), FakeGeneral(corner(salient))).kind == kind


def test_a_small_person_is_the_subject_where_the_larger_object_is_none() -> None:
    people = FakePeople(0.9, corner(0.0))
    assert segment(people, FakeGeneral(0.9 * corner(0.01)), place=0.5).kind == "person"


def test_a_scene_is_not_the_subject_where_there_is_a_small_person() -> None:
    scene = FakeGeneral(corner(0.1))
    assert segment(FakePeople(0.0, corner(0)), scene, place=0.2).kind == "thing"
    assert segment(FakePeople(0.9, corner(0)), scene, place=0.2).kind == "person"


def test_without_evidence_of_a_person_the_subject_is_a_thing() -> None:
    alpha = segment(FakePeople(0.4, corner(0.3)), FakeGeneral(corner(1)))
    assert (alpha.kind, alpha.engine) == ("thing", "u2netp")
    assert (alpha.values == 1).all()


def test_a_small_object_that_the_mirrored_pass_and_the_other_network_do_not_see_is_no_subject() -> None:
    alpha = segment(FakePeople(0.0, corner(0)), FakeGeneral(0.9 * corner(0.01)), place=0.5)
    assert (alpha.kind, alpha.score) == ("none", 0)
    assert not alpha.values.any()


def test_a_small_object_is_the_subject_before_a_background_and_not_in_a_place() -> None:
    people, general = FakePeople(0.0, corner(0.1)), FakeGeneral(corner(0.1))
    assert segment(people, general, place=0.01).kind == "thing"
    people, general = FakePeople(0.0, corner(0)), FakeGeneral(corner(0.1))
    assert segment(people, general, place=0.9).kind == "none"


def test_the_mask_on_which_both_networks_agree_is_the_result() -> None:
    middle = np.zeros((SIDE, SIDE), np.float32)
    middle[:, 80:240] = 1
    wider = np.zeros((SIDE, SIDE), np.float32)
    wider[:, 60:260] = 0.8
    alpha = segment(FakePeople(0.0, wider), FakeGeneral(middle))
    found = cv2.resize(alpha.values, (SIDE, SIDE)) >= 0.5
    assert (found[:, 90:230]).all()
    assert not found[:, 61:70].any()


def test_a_salient_part_of_a_thing_that_both_networks_for_people_see_sharply_gives_the_whole() -> None:
    for certainty, whole in ((1.0, True), (0.7, False)):
        found = segment(FakePeople(0.0, certainty * corner(0.5)), FakeGeneral(corner(0.2))).values >= 0.5
        assert found[5, 5]
        assert found[found.shape[0] * 6 // 10, found.shape[1] * 6 // 10] == whole


def test_the_score_is_a_probability_of_the_measurements() -> None:
    engine = auto(FakePeople(0.9, corner(0.3)), FakeGeneral(corner(0)))
    alpha, measured = engine.examine(RGB)
    assert alpha.score is None
    assert measured.shape == (len(engine.measurements),)
    assert 0 <= (engine.predict(RGB, ()).score or 0) <= 1


def test_on_a_gpu_the_best_general_engine_segments_things() -> None:
    better = SimpleNamespace(predict=lambda *_: Alpha(np.ones((2, 2), np.float32)))
    for device, name in (("cuda", "birefnet-general-lite"), ("cpu", "u2netp")):
        engine = auto(FakePeople(0.0, corner(0)), FakeGeneral(corner(1)))
        engine._device = device
        engine.assist({"isnet-imgly": better, "birefnet-general-lite": better})
        alpha = engine.predict(RGB, ())
        assert (alpha.engine, alpha.kind) == (name, "thing")


def test_without_the_weights_that_are_downloaded_the_engine_is_portrait(tmp_path: Path) -> None:
    engine = Auto()
    engine.setup("cpu", tmp_path)
    alpha = engine.predict(RGB, ())
    assert (alpha.kind, alpha.engine) == ("person", "portrait")
