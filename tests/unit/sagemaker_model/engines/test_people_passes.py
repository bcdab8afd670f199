"""Passes for each person over synthetic images: white people on black, and fakes as networks. With the real weights: an
astronaut.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from sagemaker_model.detectors.blaze import BlazeNet, Candidates
from sagemaker_model.detectors.people import Bodies, Body, quarter_turns
from sagemaker_model.engines.people_passes import (
    Network,
    PeoplePasses,
    person_evidence,
    turned,
    without_haze,
    without_passers_by,
)
from sagemaker_model.engines.two_passes import Floats, Predict
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import NotInstalled

SIDE = 64
SIZE = (600, 400)
ASTRONAUT = Path(__file__).parents[4] / "samples" / "default" / "astronaut.png"

Rectangle = tuple[int, int, int, int]


class FakeNetwork:
    """Takes white for a person, with this certainty."""

    def __init__(self, certainty: float = 1.0) -> None:
        self.certainty = np.float32(certainty)
        self.squares: list[Pixels] = []

    def __call__(self, square: Pixels) -> Floats:
        self.squares.append(square)
        return square[..., 0].astype(np.float32) * (self.certainty / np.float32(255))


class FakeBodies:
    """Finds the given bodies, and notes whether it was asked to look closer."""

    def __init__(self, *bodies: Body) -> None:
        self.bodies = list(bodies)
        self.closer = False

    def find(self, image: Pixels, score_min: float, *, closer: Callable[[list[Body]], bool]) -> list[Body]:
        self.closer = closer(self.bodies)
        return [body for body in self.bodies if body.score >= score_min]


class FakeFaces:
    def __init__(self, box: Rectangle = (0, 0, 0, 0), score: float = 0.0) -> None:
        found = int(score > 0)
        self.found = Candidates(
            np.array([box], np.float32)[:found],
            np.array([score], np.float32)[:found],
            np.empty((found, 6, 2), np.float32),
        )

    def detect(self, rgb: Pixels, score_min: float) -> Candidates:
        return self.found


def image(*people: Rectangle) -> Pixels:
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for x0, y0, x1, y1 in people:
        rgb[y0:y1, x0:x1] = 255
    return rgb


def body(person: Rectangle, score: float = 0.9, turns: int = 0) -> Body:
    mask = (image(person)[..., 0] / np.float32(255)).astype(np.float32)
    return Body(mask, np.array(person, np.float32), score, turns)


def passes(
    *bodies: Body,
    faces: FakeFaces | None = None,
    general: Network | None = None,
    certainty: float = 1.0,
    robust: Predict | None = None,
) -> tuple[PeoplePasses, FakeNetwork, FakeBodies]:
    network, found = FakeNetwork(), FakeBodies(*bodies)
    robust = robust or FakeNetwork()
    faces_ = cast(BlazeNet, faces or FakeFaces())
    many = PeoplePasses(Network(network, SIDE), Network(robust, SIDE), cast(Bodies, found), faces_, general)
    return many, network, found


def test_an_image_without_people_has_no_evidence_and_an_empty_matte() -> None:
    many, _, _ = passes()
    found = many.find(image())
    assert found.evidence < 0.01
    assert not many.matte(found).any()
    assert many.matte(found).shape == SIZE[::-1]


def test_a_body_counts_only_where_the_other_network_sees_it_too() -> None:
    here, elsewhere = (200, 100, 300, 350), (450, 100, 550, 350)
    assert passes(body(here))[0].find(image(here)).evidence > 0.5
    found = passes(body(elsewhere))[0].find(image(here))
    assert found.evidence < 0.01
    assert found.people == 0


def test_an_unsure_body_is_evidence_but_no_vote() -> None:
    person = (200, 100, 300, 350)
    found = passes(body(person, score=0.5))[0].find(image(person))
    assert 0.005 < found.evidence < 0.5
    assert found.people == 0


def test_a_face_counts_only_where_the_other_network_sees_a_person() -> None:
    person, face = (200, 100, 300, 350), FakeFaces((220, 110, 280, 170), 0.95)
    assert passes(faces=face)[0].find(image(person)).evidence > 0.5
    assert passes(faces=face)[0].find(image((400, 100, 500, 350))).evidence < 0.01


def test_evidence_grows_with_the_scores() -> None:
    scores = [person_evidence(value, 0) for value in (0.0, 0.5, 0.8, 1.0)]
    assert scores == sorted(scores)
    assert scores[0] < 0.01
    assert scores[-1] > 0.95


@pytest.mark.parametrize(("turns", "top"), [(0, (0, -9)), (1, (9, 1)), (2, (1, 9)), (3, (-9, 0))])
def test_a_turned_person_reaches_the_network_upright_and_the_matte_stays_in_place(
    turns: int, top: tuple[int, int]
) -> None:
    assert quarter_turns(np.zeros(2, np.float32), np.array(top, np.float32)) == turns
    upright = image((250, 150, 350, 390))
    upright[150:200, 250:280] = 0
    rgb = turned(upright, -turns)
    mask = (rgb[..., 0] / np.float32(255)).astype(np.float32)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    many, network, _ = passes(Body(mask, box, 0.9, turns))
    matte = many.matte(many.find(rgb))
    assert matte.shape == rgb.shape[:2]
    assert ((matte >= 0.5) == (mask >= 0.5)).mean() > 0.99
    plain, mirrored = network.squares[-2:]
    assert np.array_equal(mirrored, plain[:, ::-1])
    rows = np.flatnonzero((plain[..., 0] >= 128).any(1))
    middle = SIDE // 2
    top_half, bottom_half = plain[rows[0] : middle], plain[middle : rows[-1]]
    assert top_half[..., 0].mean() < bottom_half[..., 0].mean()  # the notch is at the head


def test_each_person_of_a_group_has_a_pass_and_a_single_one_has_not() -> None:
    group = [(50, 100, 120, 300), (260, 100, 330, 300), (480, 100, 550, 300)]
    many, network, _ = passes(*map(body, group))
    matte = many.matte(many.find(image(*group)))
    together = len(network.squares)
    assert ((matte >= 0.5) == (image(*group)[..., 0] > 0)).mean() > 0.99
    many, network, _ = passes(body(group[0]))
    many.matte(many.find(image(group[0])))
    assert together == len(network.squares) + 2 * len(group)


@pytest.mark.parametrize(
    ("people", "closer"),
    [
        ([], True),
        ([(200, 50, 400, 390)], False),
        ([(200, 100, 240, 200)], True),
        ([(20, 50, 250, 390), (300, 50, 550, 390)], True),
    ],
    ids=["nobody", "one", "one far away", "a group"],
)
def test_tiles_are_searched_for_small_people_and_groups(people: list[Rectangle], closer: bool) -> None:
    many, _, bodies = passes(*map(body, people))
    many.find(image(*people))
    assert bodies.closer is closer


def test_the_robust_network_has_second_passes_only_where_the_two_disagree() -> None:
    person = (200, 100, 300, 350)
    rgb = image(person)
    rgb[250:350, 200:300] = 180  # certain enough for one network, not if the other sees nothing
    for robust, count in ((FakeNetwork(), 1), (FakeNetwork(certainty=0), 3)):
        many, _, _ = passes(body(person), robust=robust)
        many.matte(many.find(rgb))
        assert len(robust.squares) == count


def test_a_general_network_votes_on_the_box_of_people_with_unsure_edges() -> None:
    squares: list[Pixels] = []

    def nothing(square: Pixels) -> Floats:
        squares.append(square)
        return np.zeros(square.shape[:2], np.float32)

    person = (200, 100, 300, 350)
    for unsure in (False, True):
        rgb = image(person)
        if unsure:
            rgb[150:300, 220:280] = 150
        many, _, _ = passes(general=Network(nothing, 48))
        matte = many.matte(many.find(rgb))
        assert [square.shape for square in squares] == [(48, 48, 3)] * unsure
        assert (matte[120, 250] < 1) == unsure


def test_small_regions_without_a_body_are_cleared() -> None:
    person, passer_by, other = (200, 50, 300, 350), (500, 100, 530, 150), (20, 50, 120, 350)
    matte = (image(person, passer_by, other)[..., 0] / np.float32(255)).astype(np.float32)
    without_passers_by(matte, [body(person)])
    assert matte[200, 250] == 1
    assert matte[200, 70] == 1
    assert matte[120, 515] == 0


def test_without_a_body_in_any_region_all_stay() -> None:
    person, elsewhere = (200, 50, 300, 350), (450, 50, 550, 350)
    matte = (image(person)[..., 0] / np.float32(255)).astype(np.float32)
    without_passers_by(matte, [body(elsewhere)])
    assert matte[200, 250] == 1


def test_a_veil_far_from_the_subject_is_cleared_and_the_soft_edge_stays() -> None:
    matte = np.full((200, 200), 0.4, np.float32)
    matte[80:120, 80:120] = 1
    without_haze(matte)
    assert matte[100, 123] == np.float32(0.4)
    assert matte[100, 180] == 0


@pytest.fixture(scope="module")
def real(weights_dir: Path) -> PeoplePasses:
    return PeoplePasses.load(weights_dir)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_the_astronaut_is_found_at_every_turn(real: PeoplePasses, turns: int) -> None:
    rgb = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    upright = real.matte(real.find(rgb)) >= 0.5
    found = real.find(turned(rgb, turns))
    assert found.evidence > 0.9
    assert found.people == 1
    matte = turned(real.matte(found), -turns) >= 0.5
    assert (matte & upright).sum() / (matte | upright).sum() > 0.97


def test_without_the_weights_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled):
        PeoplePasses.load(tmp_path)
