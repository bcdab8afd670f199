from __future__ import annotations

import cv2
import numpy as np
import pytest

from sagemaker_model.data.records import Record
from sagemaker_model.training.augment import Warp, augmented, boxed, crop, placed, recoloured
from tests.unit.sagemaker_model.training.conftest import blob


def record(number: int = 0) -> Record:
    picture, mask = blob(number, 90, 120)
    return Record(id=str(number), image=picture, mask=mask, width=120, height=90)


def of_its_mask(number: int) -> Record:
    """A record whose image is its mask, so that what happens to the one can be seen on the other."""
    given = record(number)
    return Record(id="", image=np.dstack([given.mask] * 3), mask=given.mask, width=120, height=90)


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_picture_and_its_mask_are_moved_alike(seed: int) -> None:
    warp = crop((90, 120), 48, drawn(seed))
    given = of_its_mask(seed)
    assert np.array_equal(warp(given.image), np.dstack([warp(given.mask)] * 3))


def test_a_warp_that_moves_nothing_changes_nothing() -> None:
    picture, mask = blob(1, 40, 40)
    still = Warp(np.array(((1.0, 0, 0), (0, 1, 0))), 40)
    assert np.array_equal(still(picture), picture)
    assert np.array_equal(still(mask), mask)


def test_a_mirror_is_a_mirror_to_the_pixel() -> None:
    picture, _ = blob(1, 40, 40)
    mirrored = Warp(np.array(((-1.0, 0, 40), (0, 1, 0))), 40)
    assert np.array_equal(mirrored(picture), picture[:, ::-1])


def test_half_the_size_is_the_mean_of_four_pixels() -> None:
    picture, _ = blob(1, 40, 40)
    halved = Warp(np.array(((0.5, 0, 0), (0, 0.5, 0))), 20)(picture)
    means = picture.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(halved - means).max() <= 0.5


def test_other_colours_leave_the_shape_alone() -> None:
    picture, _ = blob(2)
    before = picture.copy()
    variants = [recoloured(picture, drawn(seed)) for seed in range(20)]
    assert {variant.shape for variant in variants} == {picture.shape}
    assert {variant.dtype for variant in variants} == {picture.dtype}
    assert np.array_equal(picture, before)
    assert sum(not np.array_equal(variant, picture) for variant in variants) > 15


def one(seed: int, composed: float, given: Record | None = None, empty: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    black = np.zeros((50, 70, 3), np.uint8)
    return augmented(
        given or record(seed),
        64,
        drawn(seed),
        composed=composed,
        empty=empty,
        backgrounds=[lambda: black],
        another=lambda: record(9),
    )


@pytest.mark.parametrize("composed", [0.0, 1.0])
def test_the_same_chances_give_the_same_sample(composed: float) -> None:
    for first, second in zip(one(3, composed), one(3, composed), strict=True):
        assert np.array_equal(first, second)
    assert not np.array_equal(one(3, composed)[0], one(4, composed)[0])


@pytest.mark.parametrize("seed", range(20))
def test_on_another_background_the_mask_says_where_the_subject_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagemaker_model.training.augment.recoloured", lambda picture, _: picture)
    white, black = np.full((90, 120, 3), 255, np.uint8), np.zeros((50, 70, 3), np.uint8)
    given = Record(id="", image=white, mask=record(seed).mask, width=120, height=90)
    picture, alpha = augmented(
        given, 64, drawn(seed), composed=1, empty=0, backgrounds=[lambda: black], another=lambda: given
    )
    # White on black: what is seen of the subject is its alpha.
    assert np.abs(picture[..., 0].astype(int) - alpha).max() <= 2


def test_composed_subjects_are_near_or_far_and_one_or_two() -> None:
    alphas = [one(seed, 1.0)[1] for seed in range(60)]
    shares = [float((alpha > 127).mean()) for alpha in alphas]
    counts = [cv2.connectedComponents((alpha > 127).astype(np.uint8))[0] - 1 for alpha in alphas]
    assert min(shares) < 0.03
    assert max(shares) > 0.3
    assert {1, 2} <= set(counts)


def test_what_was_cut_off_below_stays_at_the_lower_border() -> None:
    mask = np.zeros((60, 40), np.uint8)
    mask[20:, 10:30] = 255
    for seed in range(10):
        assert placed(mask, 64, drawn(seed))(mask)[-1].any()


@pytest.mark.parametrize(
    "box", [(50, 10, 62, 80), (0, 40, 120, 50), (100, 5, 120, 85)], ids=["tall", "wide", "cut off"]
)
def test_a_subject_is_seen_in_its_box_with_some_margin(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    mask = np.zeros((90, 120), np.uint8)
    mask[y0:y1, x0:x1] = 255
    for seed in range(20):
        share = float((boxed(mask, 64, drawn(seed))(mask, cv2.BORDER_CONSTANT) > 127).mean())
        assert 0.33 < share <= 1  # 1 / 1.6² and what a turn cuts off


def test_some_samples_are_a_background_alone() -> None:
    empty = [not one(seed, 0.3, empty=0.2)[1].any() for seed in range(100)]
    assert 8 < sum(empty) < 35
    assert all(one(seed, 1.0)[1].any() for seed in range(50))


def test_without_a_subject_there_is_nothing_to_compose() -> None:
    empty = Record(id="", image=record().image, mask=np.zeros((90, 120), np.uint8), width=120, height=90)
    for composed in (0.0, 1.0):
        assert not one(0, composed, empty)[1].any()
