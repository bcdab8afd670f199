from __future__ import annotations

import string
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskdrop.background import Background, Colour, Studio, gradient_of
from maskdrop.colours import NAMES
from maskdrop.composer import CONNECTORS, DIRECTIONS, FILLERS, backdrop_of, draw_png
from maskdrop.errors import TextNotSupported
from maskdrop.output import Output
from maskdrop.studio import ALIASES, BACKDROPS
from sagemaker_model.imaging.geometry import plan
from sagemaker_model.imaging.layout import lay_out
from sagemaker_model.imaging.pixels import DecodedImage

WHITE, GREY, BLUE = Colour(255, 255, 255), Colour(128, 128, 128), Colour(0, 0, 255)
KNOWN = {*FILLERS, *CONNECTORS, *DIRECTIONS, *NAMES, *BACKDROPS, *ALIASES, "studio", "gradient"}


@pytest.mark.parametrize(
    ("text", "background"),
    [
        ("white", WHITE),
        ("White background.", WHITE),
        ("on a plain light golden rod yellow colour", Colour(0xFA, 0xFA, 0xD2)),
        ("studio white", Studio("white")),
        ("a plain light grey studio backdrop", Studio("lightgrey")),
        ("Dark-gray studio", Studio("charcoal")),
        ("seamless pink studio paper", Studio("blush")),
        ("blue gradient", gradient_of([Colour(127, 127, 255), BLUE])),
        ("a gradient from white to grey", gradient_of([WHITE, GREY])),
        ("radial gradient, white and grey", gradient_of([WHITE, GREY], None)),
        ("horizontal white to grey to blue gradient", gradient_of([WHITE, GREY, BLUE], 90)),
    ],
)
def test_a_text_of_known_words_is_a_background(text: str, background: Background) -> None:
    assert backdrop_of(text) == background


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a beach at sunset",
        "no background",
        "not white",
        "white with a tree",
        "a studio",
        "studio tomato",
        "gradient",
        "white grey",
        "white to grey",
        "white studio gradient",
        "radial vertical white gradient",
        "radial white",
        "red blue red blue red blue gradient",
        "blurred background",
        "белый фон",
    ],
)
def test_any_other_text_is_refused_with_what_can_be_drawn(text: str) -> None:
    with pytest.raises(TextNotSupported, match="This stage draws") as refused:
        backdrop_of(text)
    assert all(name in refused.value.message for name in BACKDROPS)


@given(st.lists(st.sampled_from(sorted(KNOWN)), max_size=6), st.text(string.ascii_lowercase, min_size=1))
def test_a_text_with_an_unknown_word_is_never_guessed(words: list[str], word: str) -> None:
    joined = [word[start:stop] for start in range(len(word)) for stop in range(start + 1, len(word) + 1)]
    if any(part in KNOWN for part in joined) or any(name.endswith(word) or word in name for name in KNOWN):
        return
    with pytest.raises(TextNotSupported):
        backdrop_of(" ".join([*words, word]))


@given(st.lists(st.sampled_from(sorted(KNOWN)), max_size=6))
def test_every_background_of_a_text_can_be_written_as_an_output(words: list[str]) -> None:
    try:
        background = backdrop_of(" ".join(words))
    except TextNotSupported:
        return
    assert Output.from_json({"background": str(background)}).background == background


@pytest.mark.parametrize(
    "text", ["tomato", "blue gradient", "radial red to lime gradient", "white studio", "black studio"]
)
@pytest.mark.parametrize("size", [(1, 1), (70, 3), (33, 90)])
def test_the_png_of_a_text_has_the_pixels_that_the_container_draws(text: str, size: tuple[int, int]) -> None:
    background = backdrop_of(text)
    drawn = Image.open(BytesIO(draw_png(background, *size)))
    drawn.load()
    alpha = np.zeros(size[::-1], np.uint8)
    rgb, output = np.zeros((*alpha.shape, 3), np.uint8), Output(background=background)
    expected, _ = lay_out(rgb, alpha, output, plan(output, alpha), DecodedImage(rgb), None)
    assert (drawn.mode, drawn.size) == ("RGB", size)
    assert np.abs(np.asarray(drawn).astype(int) - expected).max() <= 1
