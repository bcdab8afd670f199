import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.errors import InvalidOptions, InvalidPrompt, MaskdropError, UnknownEngine
from maskdrop.options import Options, Output
from maskdrop.prompt import Prompt


def test_nothing_said_means_the_defaults() -> None:
    assert Options.from_json({}) == Options.from_json(None) == Options()


def test_options_survive_a_round_trip() -> None:
    options = Options(engine="grabcut", prompt=Prompt((1, 2, 3, 4)), output=Output("webp", "alpha"))
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    ("said", "kind", "names"),
    [
        ([], InvalidOptions, "object"),
        ({"colour": 1}, InvalidOptions, "colour"),
        ({"task": "paint"}, InvalidOptions, "paint"),
        ({"engine": "magic"}, UnknownEngine, "selfie"),
        ({"output": {"format": "jpg"}}, InvalidOptions, "png, webp"),
        ({"output": {"size": 1}}, InvalidOptions, "size"),
        ({"output": 1}, InvalidOptions, "output"),
        ({"prompt": {"box": [1, 2, 3]}}, InvalidPrompt, "four"),
        ({"engine": "grabcut", "prompt": {"box": [1, 2, 1, 9]}}, InvalidPrompt, "no area"),
        ({"engine": "grabcut", "prompt": {"box": [1, 2, math.nan, 9]}}, InvalidPrompt, "finite"),
        ({"prompt": {"box": [1, 2, 3, 9]}}, InvalidPrompt, "takes no box"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence_that_names_it(
    said: object, kind: type[MaskdropError], names: str
) -> None:
    with pytest.raises(kind, match=names):
        Options.from_json(said)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["task", "engine", "prompt", "output", "box", "format", "channels", "x"]), x
            )
        ),
    )
)
def test_whatever_is_said_the_answer_is_options_or_an_error_of_ours(said: object) -> None:
    try:
        options: Options | MaskdropError = Options.from_json(said)
    except MaskdropError as error:
        options = error
    assert isinstance(options, Options) or (options.status, options.retryable) == (400, False)


def test_a_box_is_clipped_to_the_picture() -> None:
    assert Prompt((-5, 10, 700, 90)).inside(640, 480).box == (0, 10, 640, 90)


def test_a_box_outside_the_picture_is_refused() -> None:
    with pytest.raises(InvalidPrompt, match="outside the picture of 640 x 480"):
        Prompt((700, 10, 800, 90)).inside(640, 480)
