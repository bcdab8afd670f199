from __future__ import annotations

import cv2
import numpy as np
import pytest

from sagemaker_model.data.records import Record
from sagemaker_model.training.augment import Warp, augment, random_box, random_crop, random_placement, recolour
from tests.unit.sagemaker_model.training.conftest import blob


def record(number: int = 0) -> Record:
    image, mask = blob(number, 90, 120)
    return Record(id=str(number), image=image, mask=mask, width=120, height=90)


def record_of_its_mask(number: int) -> Record:
    """Returns a record whose image is its mask, so that tests can compare how both change."""
    mask = record(number).mask
    return Record(id="", image=np.dstack([mask] * 3), mask=mask, width=120, height=90)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(8))
def test_an_image_and_its_mask_are_warped_alike(seed: int) -> None:
    warp = random_crop((90, 120), 48, generator(seed))
    given = record_of_its_mask(seed)
    assert np.array_equal(warp(given.image), np.dstack([warp(given.mask)] * 3))


def test_an_identity_warp_changes_no_pixel() -> None:
    image, mask = blob(1, 40, 40)
    identity = Warp(np.array(((1.0, 0, 0), (0, 1, 0))), 40)
    assert np.array_equal(identity(image), image)
    assert np.array_equal(identity(mask), mask)


def test_a_mirroring_warp_is_exact_to_the_pixel() -> None:
    image, _ = blob(1, 40, 40)
    mirrored = Warp(np.array(((-1.0, 0, 40), (0, 1, 0))), 40)
    assert np.array_equal(mirrored(image), image[:, ::-1])


def test_shrinking_by_half_averages_four_pixels() -> None:
    image, _ = blob(1, 40, 40)
    halved = Warp(np.array(((0.5, 0, 0), (0, 0.5, 0))), 20)(image)
    means = image.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(halved - means).max() <= 0.5


def test_recolouring_keeps_shape_type_and_input() -> None:
    image, _ = blob(2)
    before = image.copy()
    variants = [recolour(image, generator(seed)) for seed in range(20)]
    assert {variant.shape for variant in variants} == {image.shape}
    assert {variant.dtype for variant in variants} == {image.dtype}
    assert np.array_equal(image, before)
    assert sum(not np.array_equal(variant, image) for variant in variants) > 15


def sample(
    seed: int, composed: float, source: Record | None = None, empty: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    black = np.zeros((50, 70, 3), np.uint8)
    return augment(
        source or record(seed),
        64,
        generator(seed),
        composed=composed,
        empty=empty,
        backgrounds=[lambda: black],
        another=lambda: record(9),
    )


@pytest.mark.parametrize("composed", [0.0, 1.0])
def test_the_same_seed_gives_the_same_sample(composed: float) -> None:
    for first, second in zip(sample(3, composed), sample(3, composed), strict=True):
        assert np.array_equal(first, second)
    assert not np.array_equal(sample(3, composed)[0], sample(4, composed)[0])


@pytest.mark.parametrize("seed", range(20))
def test_the_alpha_of_a_composed_sample_matches_its_subject(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagemaker_model.training.augment.recolour", lambda image, _: image)
    white, black = np.full((90, 120, 3), 255, np.uint8), np.zeros((50, 70, 3), np.uint8)
    given = Record(id="", image=white, mask=record(seed).mask, width=120, height=90)
    image, alpha = augment(
        given, 64, generator(seed), composed=1, empty=0, backgrounds=[lambda: black], another=lambda: given
    )
    # A white subject on black has the colour of its alpha.
    assert np.abs(image[..., 0].astype(int) - alpha).max() <= 2


def test_composed_samples_have_near_or_distant_subjects_one_or_two() -> None:
    alphas = [sample(seed, 1.0)[1] for seed in range(60)]
    shares = [float((alpha > 127).mean()) for alpha in alphas]
    counts = [cv2.connectedComponents((alpha > 127).astype(np.uint8))[0] - 1 for alpha in alphas]
    assert min(shares) < 0.03
    assert max(shares) > 0.3
    assert {1, 2} <= set(counts)


def test_a_subject_cut_off_at_the_bottom_stays_at_the_bottom() -> None:
    mask = np.zeros((60, 40), np.uint8)
    mask[20:, 10:30] = 255
    for seed in range(10):
        assert random_placement(mask, 64, generator(seed))(mask)[-1].any()


@pytest.mark.parametrize(
    "box", [(50, 10, 62, 80), (0, 40, 120, 50), (100, 5, 120, 85)], ids=["tall", "wide", "cut off"]
)
def test_a_subject_fills_its_box_except_for_the_margin(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    mask = np.zeros((90, 120), np.uint8)
    mask[y0:y1, x0:x1] = 255
    for seed in range(20):
        share = float((random_box(mask, 64, generator(seed))(mask, cv2.BORDER_CONSTANT) > 127).mean())
        assert 0.33 < share <= 1  # 1 / 1.6², less the parts that a rotation cuts off


def test_some_samples_are_a_background_alone() -> None:
    empty = [not sample(seed, 0.3, empty=0.2)[1].any() for seed in range(100)]
    assert 8 < sum(empty) < 35
    assert all(sample(seed, 1.0)[1].any() for seed in range(50))


def test_a_record_without_a_subject_gives_an_empty_alpha() -> None:
    empty = Record(id="", image=record().image, mask=np.zeros((90, 120), np.uint8), width=120, height=90)
    for composed in (0.0, 1.0):
        assert not sample(0, composed, empty)[1].any()
