from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from maskdrop.background import Blur
from maskdrop.output import PIXELS_MAX, Output
from sagemaker_model.imaging.layout import Layout, lay_out, plan, visible_box
from sagemaker_model.imaging.pixels import DecodedImage
from tests.unit.maskdrop.test_output import OUTPUTS

RED, GREEN, BLUE = (250, 10, 20), (0, 255, 0), (10, 20, 250)


def scene(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Colours and alpha of a red subject that fills `box` of a green image."""
    x0, y0, x1, y1 = box
    rgb, alpha = np.full((height, width, 3), GREEN, np.uint8), np.zeros((height, width), np.uint8)
    rgb[y0:y1, x0:x1], alpha[y0:y1, x0:x1] = RED, 255
    return rgb, alpha


def laid_out(
    rgb: np.ndarray, alpha: np.ndarray, image: DecodedImage | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    output = Output.from_json(options)
    return lay_out(rgb, alpha, output, plan(output, alpha), DecodedImage(rgb), image)


def planned(width: int, height: int, box: tuple[int, int, int, int], **options: object) -> Layout:
    return plan(Output.from_json(options), scene(width, height, box)[1])


def test_by_default_the_arrays_are_returned_unchanged() -> None:
    rgb, alpha = scene(40, 30, (10, 5, 20, 25))
    colours, alpha_out = laid_out(rgb, alpha)
    assert colours is rgb
    assert alpha_out is alpha


@pytest.mark.parametrize(
    ("options", "size", "place"),
    [
        ({}, (400, 300), (0, 0, 400, 300)),
        ({"crop": True}, (100, 200), (0, 0, 100, 200)),
        ({"crop": "30px"}, (160, 260), (30, 30, 130, 230)),
        ({"crop": "10% 20%"}, (140, 240), (20, 20, 120, 220)),
        ({"crop": "1px 2px 3px 4px"}, (106, 204), (4, 1, 104, 201)),
        ({"scale": "100%"}, (400, 300), (125, 0, 275, 300)),
        ({"scale": "50%"}, (400, 300), (162, 75, 237, 225)),
        ({"scale": "50%", "position": "0%"}, (400, 300), (0, 0, 75, 150)),
        ({"scale": "50%", "position": "100%"}, (400, 300), (325, 150, 400, 300)),
        ({"position": "center"}, (400, 300), (150, 50, 250, 250)),
        ({"position": "0% 100%"}, (400, 300), (0, 100, 100, 300)),
        ({"crop": "50%", "scale": "10%"}, (200, 400), (90, 180, 110, 220)),
        ({"crop": "50%", "position": "100% 0%"}, (200, 400), (100, 0, 200, 200)),
    ],
)
def test_the_layout_of_a_100_by_200_subject_in_a_400_by_300_image(
    options: dict[str, object], size: tuple[int, int], place: tuple[int, int, int, int]
) -> None:
    layout = planned(400, 300, (60, 40, 160, 240), **options)
    assert (layout.size, layout.place) == (size, place)


@pytest.mark.parametrize(
    ("options", "image_size", "size"),
    [
        ({"size": "preview"}, (4000, 3000), (577, 433)),
        ({"size": "preview"}, (1250, 800), (625, 400)),
        ({"size": "medium"}, (4000, 3000), (1414, 1060)),
        ({"size": "hd"}, (2000, 2000), (2000, 2000)),
        ({"size": "preview"}, (300, 200), (300, 200)),
        ({"size": "preview", "crop": True}, (4000, 3000), (400, 300)),
    ],
)
def test_the_size_limits_the_pixels_of_the_result_and_never_enlarges_it(
    options: dict[str, object], image_size: tuple[int, int], size: tuple[int, int]
) -> None:
    width, height = image_size
    assert planned(width, height, (0, 0, width // 10, height // 10), **options).size == size


def test_the_full_size_is_the_size_of_the_result_without_a_limit() -> None:
    box = (1000, 500, 3000, 2500)
    for options in ({}, {"crop": "10%"}, {"scale": "50%"}):
        limited, unlimited = (planned(4000, 3000, box, **options, size=size) for size in ("preview", "original"))
        assert limited.full_size == unlimited.full_size == unlimited.size
        assert limited.size < limited.full_size


def test_a_line_of_a_million_pixels_is_limited_too() -> None:
    for shape in ((1, 1_000_000), (1_000_000, 1)):
        width, height = plan(Output(size="preview"), np.full(shape, 255, np.uint8)).size
        assert 1 <= width * height <= 250_000


@given(
    OUTPUTS,
    st.integers(1, 90),
    st.integers(1, 90),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@example(Output(background=Blur()), 1, 1, (0, 0, 0, 0))
def test_any_output_has_the_planned_size_with_the_subject_inside_it(
    output: Output, width: int, height: int, corners: tuple[float, float, float, float]
) -> None:
    x0, x1 = sorted((int(corners[0] * width), int(corners[1] * width)))
    y0, y1 = sorted((int(corners[2] * height), int(corners[3] * height)))
    rgb, alpha = scene(width, height, (x0, y0, x1, y1))
    layout = plan(output, alpha)
    left, top, right, bottom = layout.place
    assert 0 <= left < right <= layout.size[0]
    assert 0 <= top < bottom <= layout.size[1]
    assert layout.size[0] * layout.size[1] <= (PIXELS_MAX[output.size] or layout.size[0] * layout.size[1])
    colours, alpha_out = lay_out(rgb, alpha, output, layout, DecodedImage(rgb), DecodedImage(rgb))
    assert colours.shape == (*alpha_out.shape, 3)
    assert alpha_out.shape == layout.size[::-1]


def test_pixels_that_are_only_moved_are_copied_exactly() -> None:
    rng = np.random.default_rng(3)
    rgb, alpha = rng.integers(0, 256, (50, 60, 3), np.uint8), np.zeros((50, 60), np.uint8)
    alpha[10:30, 20:50] = rng.integers(20, 256, (20, 30), np.uint8)
    cases: tuple[tuple[dict[str, Any], tuple[slice, slice]], ...] = (
        ({"crop": "5px"}, (slice(5, 25), slice(5, 35))),
        ({"position": "100%"}, (slice(30, 50), slice(30, 60))),
    )
    for options, place in cases:
        colours, alpha_out = laid_out(rgb, alpha, **options)
        assert np.array_equal(alpha_out[place], alpha[10:30, 20:50])
        assert np.array_equal(colours[place], rgb[10:30, 20:50])
        assert np.count_nonzero(alpha_out) == np.count_nonzero(alpha)


def test_a_crop_keeps_faint_pixels_and_drops_invisible_ones() -> None:
    alpha = np.zeros((100, 100), np.uint8)
    alpha[10:90, 10:90], alpha[20:80, 20:80], alpha[30:70, 30:70] = 12, 13, 255
    assert visible_box(alpha) == (20, 20, 80, 80)
    assert visible_box(np.full((9, 9), 12, np.uint8)) is None


def test_a_subject_that_fills_the_image_gets_its_margins() -> None:
    assert planned(40, 30, (0, 0, 40, 30), crop="5px").size == (50, 40)


def test_without_a_subject_only_the_size_applies() -> None:
    empty = np.zeros((1000, 1000), np.uint8)
    layout = plan(Output.from_json({"crop": "5px", "scale": "50%", "position": "0%", "size": "preview"}), empty)
    assert layout == Layout((0, 0, 1000, 1000), (0, 0, 1000, 1000), (500, 500), (0, 0, 500, 500))


def test_a_box_is_converted_to_pixels_of_the_result() -> None:
    layout = planned(400, 300, (60, 40, 160, 240), crop="50%", scale="50%")
    assert layout.to_result((60, 40, 160, 240)) == layout.place == (50, 100, 150, 300)
    assert layout.to_result((110, 140, 160, 240)) == (100, 200, 150, 300)


def test_a_matte_is_laid_out_like_the_cut_out() -> None:
    rgb, alpha = scene(400, 300, (60, 40, 160, 240))
    cases: list[dict[str, Any]] = [{}, {"crop": "7%"}, {"scale": "73%"}, {"size": "preview"}, {"position": "20%"}]
    for options in cases:
        _, matte = laid_out(rgb, alpha, channels="alpha", **options)
        assert np.array_equal(matte, laid_out(rgb, alpha, **options)[1])


@pytest.mark.parametrize("options", [{}, {"scale": "37%"}, {"crop": "11px", "scale": "80%"}, {"size": "preview"}])
def test_no_edge_contains_the_old_background(options: dict[str, Any]) -> None:
    rgb, alpha = scene(900, 700, (60, 40, 560, 640))
    colours, alpha_out = laid_out(rgb, alpha, background="#0a14fa", **options)
    assert (alpha_out == 255).all()
    assert colours[..., 1].max() <= 21, "green is in neither the subject nor the new background"


def test_a_half_transparent_colour_stays_half_transparent() -> None:
    rgb, alpha = scene(40, 30, (10, 5, 20, 25))
    colours, alpha_out = laid_out(rgb, alpha, background="#0a14fa80")
    assert (alpha_out[alpha == 0] == 128).all()
    assert (colours[alpha == 0] == BLUE).all()
    assert (colours[alpha == 255] == RED).all()


def stripes(width: int, height: int) -> DecodedImage:
    """Three vertical stripes: red, green, blue."""
    rgb = np.zeros((height, width, 3), np.uint8)
    for stripe, colour in enumerate((RED, GREEN, BLUE)):
        rgb[:, stripe * width // 3 : (stripe + 1) * width // 3] = colour
    return DecodedImage(rgb)


def test_a_background_image_of_the_same_size_is_used_unchanged() -> None:
    image = DecodedImage(np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8))
    rgb, alpha = scene(40, 30, (10, 5, 20, 25))
    colours, alpha_out = laid_out(rgb, alpha, image, background={"bucket": "b", "key": "k"})
    assert np.array_equal(colours, np.where(alpha[..., None] == 255, rgb, image.rgb))
    assert (alpha_out == 255).all()


@pytest.mark.parametrize("image", [stripes(90, 30), stripes(900, 300), stripes(30, 10)])
def test_a_background_image_covers_the_canvas_with_its_centre(image: DecodedImage) -> None:
    rgb, alpha = scene(30, 30, (0, 0, 3, 3))
    colours, _ = laid_out(rgb, alpha, image, background={"bucket": "b", "key": "k"})
    assert (colours[4:] == GREEN).all()


def test_a_transparent_background_image_stays_transparent() -> None:
    image = DecodedImage(np.full((60, 60, 3), BLUE, np.uint8), np.full((60, 60), 100, np.uint8))
    rgb, alpha = scene(30, 30, (10, 10, 20, 20))
    colours, alpha_out = laid_out(rgb, alpha, image, background={"bucket": "b", "key": "k"})
    assert (alpha_out[alpha == 0] == 100).all()
    assert (colours[alpha == 0] == BLUE).all()


def test_a_blurred_background_is_opaque_and_without_the_subject() -> None:
    rng = np.random.default_rng(5)
    alpha = scene(600, 400, (200, 100, 400, 300))[1]
    rgb = np.zeros((400, 600, 3), np.uint8)
    rgb[..., 1] = rng.integers(100, 156, (400, 600))
    rgb[alpha == 255] = RED
    colours, alpha_out = laid_out(rgb, alpha, background="blur 2%")
    behind = colours[alpha == 0]
    assert (alpha_out == 255).all()
    assert (colours[alpha == 255] == RED).all()
    assert behind[:, 1].std() < 0.1 * rgb[alpha == 0][:, 1].std()
    assert behind[:, 0].max() <= 2, "a plain blur would spread the subject's red at up to half its strength"


def test_a_blurred_background_keeps_its_position_in_the_image() -> None:
    image = stripes(600, 300).rgb.copy()
    alpha = scene(600, 300, (250, 100, 350, 200))[1]
    colours, _ = laid_out(image, alpha, background="blur", crop="50px")
    assert colours.shape == (200, 200, 3)
    assert (np.abs(colours[5:40, 40:160].astype(int) - GREEN) <= 2).all()
    wide, _ = laid_out(image, alpha, background="blur", crop="500px")
    assert wide.shape == (1100, 1100, 3)
    assert (np.abs(wide[:, :100].astype(int) - RED) <= 2).all(), "beyond the image its border is repeated"
    assert (np.abs(wide[:, -100:].astype(int) - BLUE) <= 2).all()


def test_a_very_long_image_gets_a_background() -> None:
    rgb, alpha = scene(40_000, 20, (100, 5, 200, 15))
    for background in ("blur", "red"):
        assert laid_out(rgb, alpha, background=background)[1].shape == (20, 40_000)
