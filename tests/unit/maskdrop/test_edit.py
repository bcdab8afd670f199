"""Edits: the size of the image for each editor."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.edit import EDITORS, EditorName

SIDES = st.integers(1, 30_000)
ANY_EDITOR = st.sampled_from(sorted(EDITORS))


@given(ANY_EDITOR, SIDES, SIDES)
def test_every_image_of_an_accepted_aspect_ratio_has_a_size_within_the_limits(
    name: EditorName, width: int, height: int
) -> None:
    editor = EDITORS[name]
    size = editor.fit(width, height)
    ratio = max(width, height) / min(width, height)
    assert (size is None) == (ratio > editor.ratio_max)
    if size is None:
        return
    short, long = sorted(size)
    assert editor.side_min <= short <= long <= editor.side_max
    assert short * long <= editor.pixels_max
    assert long <= editor.aspect_max * short
    assert (size[0] <= size[1]) == (width <= height) or size[0] == size[1]
    # One pixel of each side, and the factor of images that are enlarged to the minimum, bound the change of the ratio.
    assert long / short == pytest.approx(ratio, rel=2 / short + 2 / long)


@pytest.mark.parametrize("size", [(4032, 3024), (8000, 6000), (4558, 6733), (6821, 5911)])
def test_photos_of_12_to_48_mp_fit_every_editor(size: tuple[int, int]) -> None:
    for editor in EDITORS.values():
        fitted = editor.fit(*size)
        assert fitted
        assert math.prod(fitted) > 0.99 * min(editor.pixels_max, math.prod(size)) or max(fitted) == editor.side_max


def test_an_image_within_the_limits_keeps_its_size() -> None:
    for editor in EDITORS.values():
        assert editor.fit(1000, 900) == (1000, 900)
    assert EDITORS["stability"].fit(2500, 1000) == (2500, 1000)
    assert EDITORS["stability"].fit(2501, 1000) is None
