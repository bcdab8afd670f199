"""The engine `u2netp`: the passes with a fake network, and the weights of the set-up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdrop.catalog import ENGINES
from sagemaker_model.engines import u2netp
from sagemaker_model.engines.base import load
from sagemaker_model.engines.two_passes import Floats
from sagemaker_model.engines.u2netp import SALIENCE_MIN, SIDE, U2Netp, find_salient, network_input
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, named


def photo() -> Pixels:
    """A white square on black, 600 x 400."""
    rgb = np.zeros((400, 600, 3), np.uint8)
    rgb[100:300, 200:400] = 255
    return rgb


def bright(square: Pixels) -> Floats:
    """A network that finds bright pixels."""
    return (square.max(2) > 127).astype(np.float32)


def left_half(square: Pixels) -> Floats:
    """A network that finds bright pixels of the left half of its input only, and is not certain."""
    found = 0.9 * bright(square)
    found[:, SIDE // 2 :] = 0
    return found


@pytest.fixture
def engine(weights_dir: Path) -> U2Netp:
    loaded = U2Netp()
    loaded.setup("cpu", weights_dir)
    return loaded


def test_a_view_adds_the_parts_that_another_misses() -> None:
    rgb = np.zeros((400, 600, 3), np.uint8)
    rgb[50:350, 100:500] = 255
    found = find_salient(rgb, left_half).values
    assert found[60:340, 110:490].min() == 1
    assert found[:40].max() == 0


@pytest.mark.parametrize(("certainty", "side", "runs"), [(1.0, 300, 1), (0.9, 300, 2), (1.0, 80, 2), (0.9, 80, 3)])
def test_a_sharp_object_needs_one_view_and_a_small_one_a_second_pass(certainty: float, side: int, runs: int) -> None:
    rgb = np.zeros((400, 600, 3), np.uint8)
    rgb[50 : 50 + side, 100 : 100 + side] = 255
    squares: list[Pixels] = []

    def network(square: Pixels) -> Floats:
        squares.append(square)
        return np.float32(certainty) * bright(square)

    found = find_salient(rgb, network)
    assert len(squares) == runs
    assert found.values[60, 110] > 0.9
    assert found.values[0, 0] == 0


def test_a_sharp_object_has_more_salience_than_a_faint_scene() -> None:
    faint = find_salient(photo(), lambda square: np.full((SIDE, SIDE), 0.3, np.float32) * (square.max(2) > 127))
    assert faint.salience < SALIENCE_MIN < find_salient(photo(), bright).salience


@pytest.mark.parametrize("picture", ["wall", "gradient", "noise"])
def test_an_image_without_an_object_has_no_subject(engine: U2Netp, picture: str) -> None:
    random = np.random.default_rng(0)
    wall = np.full((300, 400, 3), (200, 190, 180), np.uint8)
    images = {
        "wall": wall,
        "gradient": np.broadcast_to(np.linspace(60, 220, 400).astype(np.uint8)[None, :, None], wall.shape).copy(),
        "noise": random.integers(0, 256, wall.shape, np.uint8),
    }
    alpha = engine.predict(images[picture], ())
    assert (alpha.values >= 0.5).mean() <= 0.01
    assert alpha.kind == "none"


def test_a_cup_on_a_table_is_the_subject(engine: U2Netp) -> None:
    with Image.open(Path(__file__).parents[4] / "samples" / "object" / "coffee.png") as file:
        found = find_salient(np.array(file.convert("RGB")), engine.predict_square)
    assert found.values[200, 300] == 1  # the coffee
    assert found.values[5, 5] == 0
    assert found.salience > SALIENCE_MIN


def test_an_image_is_divided_by_its_largest_value() -> None:
    dark = (photo() // 5).astype(np.uint8)
    assert np.allclose(network_input(dark), network_input(photo()))


def test_a_cpu_with_other_results_in_8_bits_runs_the_original(
    weights_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    differences = iter([0.3, 0.0])
    monkeypatch.setattr(U2Netp, "_difference", lambda _: next(differences))
    loaded = U2Netp()
    loaded.setup("cpu", weights_dir)
    assert "float32" in caplog.text
    monkeypatch.undo()
    assert loaded._difference() <= u2netp.DIFFERENCE_MAX


def test_a_network_of_another_form_is_rejected(weights_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(U2Netp, "_difference", lambda _: float("inf"))
    with pytest.raises(InvalidWeights, match="is not U2-Net-p"):
        U2Netp().setup("cpu", weights_dir)


def test_without_the_file_of_the_wheel_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="maskdrop models pull"):
        U2Netp().setup("cpu", tmp_path)
    assert "u2netp" not in load([ENGINES["u2netp"]], "cpu", tmp_path)


def test_it_names_the_weights_of_the_original(engine: U2Netp) -> None:
    assert engine.weights_sha256 == named("u2netp").sha256
