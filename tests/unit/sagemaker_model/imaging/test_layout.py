from __future__ import annotations

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskdrop.background import Blur
from maskdrop.output import PIXELS_MAX, Output
from maskdrop.studio import BACKDROPS
from sagemaker_model.imaging import composite
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.geometry import Box, Layout, plan, visible_box
from sagemaker_model.imaging.layout import lay_out
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode
from tests.unit.maskdrop.test_output import OUTPUTS

RED, GREEN, BLUE = (250, 10, 20), (0, 255, 0), (10, 20, 250)


def scene(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Colours and alpha of a red subject that fills `box` of a green image."""
    x0, y0, x1, y1 = box
    rgb, alpha = np.full((height, width, 3), GREEN, np.uint8), np.zeros((height, width), np.uint8)
    rgb[y0:y1, x0:x1], alpha[y0:y1, x0:x1] = RED, 255
    return rgb, alpha


def soft(alpha: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(alpha, (0, 0), 3), np.uint8)


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


@settings(deadline=None)  # margins of 500 pixels make canvases of 1 MP
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
    whole, half = (0, 0, 1000, 1000), (0, 0, 500, 500)
    assert layout == Layout(Box(*whole), whole, (1000, 1000), (500, 500), half, scale=0.5)


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


def test_a_blurred_background_covers_a_canvas_that_extends_beyond_the_image() -> None:
    image = stripes(600, 300).rgb.copy()
    alpha = scene(600, 300, (250, 100, 350, 200))[1]
    wide, _ = laid_out(image, alpha, background="blur", canvas="1200x300")
    assert wide.shape == (300, 1200, 3)
    assert (np.abs(wide[:, :300].astype(int) - RED) <= 2).all(), "the whole width of the image"
    assert (np.abs(wide[:, -300:].astype(int) - BLUE) <= 2).all()
    tall, _ = laid_out(image, alpha, background="blur", crop="500px")
    assert tall.shape == (1100, 1100, 3)
    assert [tuple(tall[50, x]) for x in (30, 550, 1070)] == [RED, GREEN, BLUE], "the middle of the image, enlarged"


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_a_blurred_background_of_an_extreme_canvas_takes_little_memory(size: tuple[int, int]) -> None:
    width, height = size
    rgb, alpha = scene(height, width, (0, 0, 1, 1))
    tracemalloc.start()
    assert laid_out(rgb, alpha, background="blur", canvas=f"{width}x{height}")[1].shape == (height, width)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_very_long_image_gets_a_background_and_a_shadow() -> None:
    rgb, alpha = scene(40_000, 20, (100, 5, 200, 15))
    for background in ("blur", "red", "gradient red blue", "studio grey"):
        assert laid_out(rgb, alpha, background=background, shadow="drop")[1].shape == (20, 40_000)


OPAQUE_BACKGROUNDS: tuple[Any, ...] = (
    "red",
    "gradient white navy",
    "gradient radial white 20% navy",
    "studio grey",
    "blur",
    "s3://b/k",
    "contain red s3://b/k",
)


@pytest.mark.parametrize("background", OPAQUE_BACKGROUNDS)
@pytest.mark.parametrize("shadow", [None, "drop", "contact"])
def test_every_opaque_pixel_of_the_subject_keeps_its_value(background: str, shadow: str | None) -> None:
    rng = np.random.default_rng(11)
    source = rng.integers(0, 256, (150, 130, 3), np.uint8)
    alpha = soft(scene(130, 150, (30, 40, 100, 120))[1])
    image = DecodedImage(rng.integers(0, 256, (60, 200, 3), np.uint8))
    foreground = estimate_foreground(source, alpha)
    laid = laid_out(foreground, alpha, image, background=background, shadow=shadow)
    png = decode(encode(*laid, Output(), None, {}), Limits(10**6, 10**6))
    colours = png.rgb
    assert png.alpha is None, "an opaque PNG"
    assert np.array_equal(colours[alpha == 255], source[alpha == 255])
    assert 1000 < np.count_nonzero(alpha == 255) < np.count_nonzero(alpha)


@pytest.mark.parametrize("background", ["white", "gradient white navy", "studio white"])
def test_the_edge_of_a_subject_has_no_halo_of_its_old_background(background: str) -> None:
    alpha = soft(scene(200, 200, (60, 60, 140, 140))[1])
    share = alpha[..., None] / 255
    source = np.rint(share * np.array(RED) + (1 - share) * np.array(GREEN)).astype(np.uint8)
    colours, _ = laid_out(estimate_foreground(source, alpha), alpha, background=background)
    plain, _ = laid_out(source, np.zeros_like(alpha), background=background)
    expected = share * np.array(RED) + (1 - share) * plain
    edge = (alpha > 40) & (alpha < 255)
    assert np.abs(colours[edge].astype(float) - expected[edge]).mean() < 3


# Gradients and studio backdrops


def drawn(background: str, width: int, height: int) -> np.ndarray:
    """The background alone, HxWx3 as numbers that can be negative."""
    rgb, alpha = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    colours, alpha_out = laid_out(rgb, alpha, background=background)
    assert (alpha_out == 255).all()
    return colours.astype(int)


@pytest.mark.parametrize(
    ("background", "dark", "light"),
    [
        ("gradient black white", (0, 50), (-1, 50)),
        ("gradient 0deg black white", (-1, 50), (0, 50)),
        ("gradient 90deg black white", (50, 0), (50, -1)),
        ("gradient 135deg black white", (0, 0), (-1, -1)),
        ("gradient 315deg black white", (-1, -1), (0, 0)),
        ("gradient radial black white", (50, 50), (0, 0)),
        ("gradient radial black white", (50, 50), (-1, -1)),
    ],
)
def test_a_gradient_begins_and_ends_where_that_of_css_does(
    background: str, dark: tuple[int, int], light: tuple[int, int]
) -> None:
    colours = drawn(background, 101, 101)
    assert colours[dark].max() <= 3
    assert colours[light].min() >= 252


def test_the_places_of_a_gradient_are_shares_of_the_canvas() -> None:
    column = drawn("gradient red 25% lime 50% black 50% black", 3, 200)[:, 1]
    assert (column[:50] == (255, 0, 0)).all()
    assert np.abs(column[75] - (127, 128, 0)).max() <= 2
    assert np.abs(column[99] - (0, 255, 0)).max() <= 6
    assert (column[100:] == 0).all()


@pytest.mark.parametrize("background", ["gradient #fff #f8f8f8", "studio white", "studio black"])
def test_a_slow_transition_has_no_bands(background: str) -> None:
    """The mean of 16 x 16 pixels follows the exact colour; without dithering it jumps by a whole level."""
    colours = drawn(background, 64, 3200)[..., 1]
    means = colours.reshape(200, 16, 4, 16).mean((1, 3))[:, 2]
    assert np.unique(colours).size < means.size / 2
    steps = np.abs(np.diff(means))
    assert steps.max() < 0.6
    assert np.count_nonzero(steps) > 180


@pytest.mark.parametrize("name", BACKDROPS)
def test_a_backdrop_is_paper_of_its_colour_with_a_lighter_floor_and_darker_corners(name: str) -> None:
    colours, recipe = drawn(f"studio {name}", 320, 240), BACKDROPS[name]
    wall, floor = (np.array([*bytes.fromhex(digits)]) for digits in (recipe.wall, recipe.floor))
    assert np.abs(colours.mean((0, 1)) - (wall + floor) / 2).max() < 18
    assert colours[225, 160].sum() > colours[225, 2].sum()
    assert colours[100, 160].sum() > colours[3, 3].sum()
    assert colours[225, 2].sum() > colours[15, 2].sum(), "the floor is lighter than the wall"


@pytest.mark.parametrize("background", ["gradient 45deg white navy", "gradient radial white navy", "studio beige"])
def test_a_drawn_background_is_the_same_in_strips_and_at_once(background: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strips = drawn(background, 70, 300)
    monkeypatch.setattr(composite, "STRIP_ROWS", 1000)
    assert np.array_equal(drawn(background, 70, 300), strips)


# Background images


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, GREEN),
        ({"position": "0%"}, RED),
        ({"position": "100% 0%"}, BLUE),
        ({"position": "50% 100%", "fit": "cover"}, GREEN),
    ],
)
def test_the_position_selects_the_part_of_an_image_that_covers_the_canvas(
    options: dict[str, str], seen: tuple[int, int, int]
) -> None:
    rgb, alpha = scene(30, 30, (0, 0, 3, 3))
    colours, _ = laid_out(rgb, alpha, stripes(900, 300), background={"bucket": "b", "key": "k", **options})
    assert (colours[4:] == seen).all()


@pytest.mark.parametrize(("position", "top"), [("center", 20), ("0%", 0), ("50% 100%", 40), ("50% 25%", 10)])
@pytest.mark.parametrize("image", [stripes(60, 20), stripes(900, 300), stripes(30, 10)])
def test_a_contained_image_is_whole_and_the_rest_is_filled(image: DecodedImage, position: str, top: int) -> None:
    options = {"bucket": "b", "key": "k", "fit": "contain", "position": position}
    rgb, alpha = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.uint8)
    colours, alpha_out = laid_out(rgb, alpha, image, background={**options, "fill": "#0a0b0c"})
    assert (alpha_out == 255).all()
    inside = np.zeros((60, 60), bool)
    inside[top : top + 20] = True
    assert (colours[~inside] == (10, 11, 12)).all()
    assert [tuple(colours[top + 10, x]) for x in (8, 30, 52)] == [RED, GREEN, BLUE]
    _, transparent = laid_out(rgb, alpha, image, background=options)
    assert np.array_equal(transparent == 255, inside)
    assert np.array_equal(transparent == 0, ~inside)


def test_the_fill_is_visible_behind_a_transparent_image() -> None:
    image = DecodedImage(np.full((20, 60, 3), BLUE, np.uint8), np.full((20, 60), 51, np.uint8))
    rgb, alpha = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.uint8)
    colours, alpha_out = laid_out(rgb, alpha, image, background="contain white s3://b/k")
    assert (alpha_out == 255).all()
    assert np.abs(colours[30].astype(int) - (206, 208, 254)).max() <= 1


# Shadows


def test_a_drop_shadow_is_the_moved_outline_in_the_alpha() -> None:
    rgb, alpha = scene(200, 160, (60, 40, 100, 80))
    colours, alpha_out = laid_out(rgb, alpha, shadow="drop 50% 25% 0% 40% navy")
    shadow = np.zeros_like(alpha)
    shadow[50:90, 80:120] = 102
    assert np.array_equal(alpha_out, np.maximum(alpha, shadow))
    assert (colours[(alpha == 0) & (shadow > 0)] == (0, 0, 128)).all()
    assert (colours[alpha == 255] == RED).all()


def test_a_shadow_darkens_an_opaque_background_by_its_opacity() -> None:
    rgb, alpha = scene(200, 160, (60, 40, 100, 80))
    colours, alpha_out = laid_out(rgb, alpha, shadow="drop 50% 25% 0% 40%", background="#c8c8c8")
    assert (alpha_out == 255).all()
    assert (np.abs(colours[82:90, 102:120].astype(int) - 120) <= 1).all()
    assert (colours[100:] == 200).all()


def test_a_drop_shadow_is_as_soft_as_a_gaussian() -> None:
    rgb, alpha = scene(600, 600, (200, 200, 400, 400))
    _, alpha_out = laid_out(rgb, alpha, shadow="drop 0% 0% 10% 100%")
    exact = cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), 20, borderType=cv2.BORDER_CONSTANT)
    outside = alpha == 0
    assert np.abs(alpha_out[outside] - exact[outside]).max() < 6


@pytest.mark.parametrize("shadow", ["drop", "contact"])
def test_a_shadow_keeps_its_place_at_its_subject(shadow: str) -> None:
    """Half the size, or half the scale, gives half the shadow."""
    rgb, alpha = scene(800, 800, (200, 200, 600, 600))
    full = laid_out(rgb, alpha, shadow=shadow)[1]
    half = laid_out(rgb, alpha, shadow=shadow, scale="25%")[1]
    small = laid_out(rgb[::2, ::2].copy(), alpha[::2, ::2].copy(), shadow=shadow)[1]
    assert np.abs(small.astype(int) - cv2.resize(full, (400, 400), interpolation=cv2.INTER_AREA)).mean() < 1
    quarter = cv2.resize(full, (400, 400), interpolation=cv2.INTER_AREA)
    assert np.abs(half[200:600, 200:600].astype(int) - quarter).mean() < 1


@pytest.mark.parametrize("shadow", ["drop", "drop 20% 30% 5% 100%", "drop -20% -30% 5%", "contact"])
def test_a_crop_keeps_the_whole_shadow(shadow: str) -> None:
    rgb, alpha = scene(800, 800, (300, 300, 500, 420))
    whole = laid_out(rgb, alpha, shadow=shadow)[1]
    cropped = laid_out(rgb, alpha, shadow=shadow, crop=True)[1]
    frame = plan(Output.from_json({"crop": True, "shadow": shadow}), alpha).frame
    x0, y0, x1, y1 = frame.x0, frame.y0, frame.x1, frame.y1
    assert cropped.shape == (y1 - y0, x1 - x0)
    assert (x0, y0, x1, y1) != (300, 300, 500, 420)
    assert abs(int(whole.sum()) - int(cropped.sum())) < 1e-3 * whole.sum()
    assert max(edge.max() for edge in (cropped[0], cropped[-1], cropped[:, 0], cropped[:, -1])) in (0, 1, 2, 255)


def test_margins_contain_the_shadow() -> None:
    plain, shaded = ({"crop": "100px", **more} for more in ({}, {"shadow": "drop"}))
    layouts = [planned(800, 800, (300, 300, 500, 420), **options) for options in (plain, shaded)]
    assert layouts[0] == layouts[1]


def test_a_contact_shadow_is_on_the_floor_below_the_feet() -> None:
    rgb, alpha = scene(400, 400, (140, 100, 260, 250))
    for x in (150, 230):
        alpha[250:330, x : x + 20] = 255
    _, alpha_out = laid_out(rgb, alpha, shadow="contact")
    shadow = np.where(alpha == 0, alpha_out, 0).astype(int)
    assert shadow[332, 150:170].min() > 40
    assert shadow[332, 230:250].min() > 40
    assert shadow[332, 200] < shadow[332, 160] / 2, "between the feet"
    assert shadow[:270].max() < 10, "not at the body"
    assert shadow[370:].max() < 3


def test_each_part_of_the_subject_has_its_contact_shadow() -> None:
    rgb, alpha = scene(400, 400, (60, 150, 140, 300))
    alpha[100:220, 260:340] = 255
    _, alpha_out = laid_out(rgb, alpha, shadow="contact")
    assert alpha_out[302, 100] > 40
    assert alpha_out[222, 300] > 40


NOT_CROPPED_AND_CROPPED: tuple[dict[str, Any], ...] = ({}, {"crop": True})


def test_a_subject_cut_off_by_the_lower_border_has_no_contact_shadow() -> None:
    rgb, alpha = scene(400, 400, (100, 150, 300, 400))
    for options in NOT_CROPPED_AND_CROPPED:
        layout = planned(400, 400, (100, 150, 300, 400), **options)
        _, alpha_out = laid_out(rgb, alpha, shadow="contact", **options)
        assert alpha_out.shape == layout.size[::-1]
        assert np.array_equal(np.unique(alpha_out), np.unique(laid_out(rgb, alpha, **options)[1]))


def test_without_a_subject_there_is_no_shadow() -> None:
    rgb, alpha = np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 5, np.uint8)
    assert laid_out(rgb, alpha, shadow="drop", crop=True)[1] is alpha
