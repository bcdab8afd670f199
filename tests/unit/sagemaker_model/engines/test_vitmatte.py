"""ViTMatte with a tiny network of random weights, in the layout of the published checkpoints."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskdrop.errors import UnknownEngine
from maskdrop.options import Options
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines import vitmatte
from sagemaker_model.engines.vitmatte import VitMatte, load_refiner, make_trimap
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half

LIMITS = ServerSettings().limits


def disc(height: int, width: int) -> tuple[Pixels, Pixels]:
    """Noise, and the alpha of a disc."""
    alpha = np.zeros((height, width), np.uint8)
    cv2.circle(alpha, (width // 2, height // 2), height // 4, 255, -1)
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8), alpha


def test_the_trimap_is_unknown_only_near_the_edge() -> None:
    _, alpha = disc(200, 300)
    trimap = make_trimap(alpha)
    assert set(np.unique(trimap)) == {0, 0.5, 1}
    assert (trimap[alpha > 0] >= 0.5).all()
    assert (trimap[alpha == 0] <= 0.5).all()
    assert (trimap == 0.5).mean() < 0.1


class InvertingRefiner:
    """Inverts alpha."""

    def refine(self, rgb: Pixels, alpha: Pixels) -> Pixels:
        assert rgb.shape[:2] == alpha.shape
        return 255 - alpha


def test_the_result_has_the_refined_alpha() -> None:
    image = cv2.imencode(".png", np.full((40, 60, 3), 90, np.uint8))[1].tobytes()
    guided = cut_out(image, Options(), Half(), LIMITS)
    refined = cut_out(image, Options(refine="vitmatte"), Half(), LIMITS, refiner=InvertingRefiner())
    before, after = (decode(result.data, LIMITS).alpha for result in (guided, refined))
    assert before is not None
    assert after is not None
    assert before.any()
    assert (before == 255 - after).all()


def test_a_refinement_that_is_not_installed_is_an_error_before_the_network_runs() -> None:
    engine = Half()
    with pytest.raises(UnknownEngine, match="vitmatte-small"):
        cut_out(b"", Options(refine="vitmatte"), engine, LIMITS)
    assert not engine.entered.acquire(blocking=False)


@pytest.fixture
def tiny() -> VitMatte:
    pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    refiner = VitMatte()
    refiner.use(vitmatte.build(32, 2, layers=3))
    return refiner


@pytest.mark.parametrize("shape", [(70, 90), (64, 1100), (1, 1)])
def test_pixels_far_from_the_edge_keep_their_alpha(tiny: VitMatte, shape: tuple[int, int]) -> None:
    rgb, alpha = disc(*shape)
    result = tiny.refine(rgb, alpha)
    assert result.shape == alpha.shape
    assert result.dtype == np.uint8
    x, y = shape[1] // 2, shape[0] // 2
    assert result[y, x] == 255 or shape == (1, 1)
    assert result[0, 0] == 0 or shape == (1, 1)


def test_an_alpha_without_subject_is_unchanged(tiny: VitMatte) -> None:
    rgb, alpha = disc(40, 40)
    assert not tiny.refine(rgb, np.zeros_like(alpha)).any()


def test_the_network_has_the_layout_of_the_published_checkpoints() -> None:
    pytest.importorskip("transformers")
    net = vitmatte.build(*vitmatte.WIDTHS["small"])
    state = net.state_dict()
    assert len(state) == 258
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 2) == 25.81


def test_no_refiner_is_loaded_without_weights(tmp_path: Path) -> None:
    assert load_refiner("cpu", tmp_path) is None
