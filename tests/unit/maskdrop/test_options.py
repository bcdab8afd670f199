import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.errors import InvalidOptions, InvalidPrompt, MaskdropError, UnknownEngine
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import MARKS_MAX, Prompt


def test_an_empty_object_means_the_defaults() -> None:
    assert Options.from_json({}) == Options.from_json(None) == Options()


def test_options_survive_a_round_trip() -> None:
    options = Options(engine="grabcut", prompts=(Prompt((1, 2, 3, 4)),), output=Output("webp", "alpha"))
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    "prompts",
    [
        (),
        (Prompt(points=((5, 6, 1),)),),
        (Prompt((1, 2, 3, 4), ((2, 3, 1), (9, 9, 0))),),
        (Prompt((1, 2, 3, 4)), Prompt(points=((5, 6, 1),))),
    ],
)
def test_prompts_survive_a_round_trip(prompts: tuple[Prompt, ...]) -> None:
    options = Options(engine="sam2", prompts=prompts)
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_one_prompt_is_an_object_and_several_are_a_list() -> None:
    box, point = Prompt((1, 2, 3, 4)), Prompt(points=((5, 6, 1), (7, 8, 0)))
    assert Options(prompts=(box,)).to_json()["prompt"] == {"box": [1, 2, 3, 4]}
    assert Options(prompts=(box, point)).to_json()["prompt"] == [
        {"box": [1, 2, 3, 4]},
        {"points": [[5, 6], [7, 8]], "labels": [1, 0]},
    ]


def test_points_without_labels_are_on_the_subject() -> None:
    options = Options.from_json({"engine": "sam", "prompt": {"points": [[1, 2], [3, 4]]}})
    assert options.prompts == (Prompt(points=((1, 2, 1), (3, 4, 1))),)


def test_empty_prompts_are_omitted() -> None:
    assert Options.from_json({"engine": "sam", "prompt": [{}, {"points": []}, {"box": None}]}).prompts == ()


def test_a_thousand_points_are_the_maximum() -> None:
    places = [[i, 1] for i in range(MARKS_MAX)]
    assert len(Options.from_json({"engine": "sam", "prompt": {"points": places}}).prompts[0].points) == MARKS_MAX
    with pytest.raises(InvalidPrompt, match="at most 1,000"):
        Options.from_json({"engine": "sam", "prompt": [{"points": places}, {"box": [0, 0, 1, 1]}]})


@pytest.mark.parametrize(
    ("value", "kind", "names"),
    [
        ([], InvalidOptions, "object"),
        ({"colour": 1}, InvalidOptions, "colour"),
        ({"task": "paint"}, InvalidOptions, "paint"),
        ({"engine": "magic"}, UnknownEngine, "selfie"),
        ({"output": {"format": "bmp"}}, InvalidOptions, "png, webp, avif, jpg, zip"),
        ({"output": {"size": 1}}, InvalidOptions, "size"),
        ({"refine": "sharp"}, InvalidOptions, "guided, vitmatte"),
        ({"review_below": 1.01}, InvalidOptions, "from 0 to 1"),
        ({"review_below": "0.5"}, InvalidOptions, "from 0 to 1"),
        ({"review_below": True}, InvalidOptions, "from 0 to 1"),
        ({"review_below": math.nan}, InvalidOptions, "from 0 to 1"),
        ({"output": 1}, InvalidOptions, "output"),
        ({"prompt": {"box": [1, 2, 3]}}, InvalidPrompt, "four"),
        ({"engine": "grabcut", "prompt": {"box": [1, 2, 1, 9]}}, InvalidPrompt, "no area"),
        ({"engine": "grabcut", "prompt": {"box": [1, 2, math.nan, 9]}}, InvalidPrompt, "from -1000000"),
        ({"engine": "portrait", "prompt": {"box": [1, 2, 3, 9]}}, InvalidPrompt, "does not support boxes"),
        ({"engine": "grabcut", "prompt": {"points": [[1, 2]]}}, InvalidPrompt, "does not support points"),
        ({"engine": "sam", "prompt": 1}, InvalidPrompt, "object"),
        ({"engine": "sam", "prompt": [[1, 2]]}, InvalidPrompt, "object"),
        ({"engine": "sam", "prompt": {"points": 1}}, InvalidPrompt, "list of pairs"),
        ({"engine": "sam", "prompt": {"points": [[1, 2, 3]]}}, InvalidPrompt, "list of pairs"),
        ({"engine": "sam", "prompt": {"points": [[1, math.inf]]}}, InvalidPrompt, "from -1000000"),
        ({"engine": "sam", "prompt": {"points": [[1, 2]], "labels": []}}, InvalidPrompt, "one label per"),
        ({"engine": "sam", "prompt": {"points": [[1, 2]], "labels": [2]}}, InvalidPrompt, "label must be 1"),
        ({"engine": "sam", "prompt": {"points": [[1, 2]], "labels": [True]}}, InvalidPrompt, "label must be 1"),
        ({"engine": "sam", "prompt": {"points": [[1, 2]], "labels": [0]}}, InvalidPrompt, "No point has the label 1"),
    ],
)
def test_invalid_options_are_refused_with_a_message_that_names_them(
    value: object, kind: type[MaskdropError], names: str
) -> None:
    with pytest.raises(kind, match=names):
        Options.from_json(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["task", "engine", "prompt", "output", "box", "points", "labels", "format", "x", "strokes"]
                ),
                x,
            )
        ),
    )
)
def test_any_json_is_parsed_or_refused_with_an_input_error(value: object) -> None:
    try:
        options: Options | MaskdropError = Options.from_json(value)
    except MaskdropError as error:
        options = error
    assert isinstance(options, Options) or (options.status in (400, 422) and not options.retryable)


def test_a_box_is_clipped_to_the_image() -> None:
    assert Prompt((-5, 10, 700, 90)).inside(640, 480).box == (0, 10, 640, 90)


def test_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(InvalidPrompt, match="outside the image of 640 x 480"):
        Prompt((700, 10, 800, 90)).inside(640, 480)


def test_points_on_the_border_are_accepted() -> None:
    prompt = Prompt((-5, 10, 700, 90), ((0, 0, 1), (640, 480, 0)))
    assert prompt.inside(640, 480).points == prompt.points


@pytest.mark.parametrize(("given", "kept"), [(5e-324, 0.0), (0.91239, 0.9124), (1, 1.0)])
def test_the_threshold_of_a_review_has_the_decimals_of_a_score(given: float, kept: float) -> None:
    assert Options.from_json({"review_below": given}).to_json()["review_below"] == kept


@pytest.mark.parametrize("point", [(-1, 5), (5, -0.5), (641, 5), (5, 481)])
def test_a_point_outside_the_image_is_refused(point: tuple[float, float]) -> None:
    with pytest.raises(InvalidPrompt, match="outside the image of 640 x 480"):
        Prompt(points=((*point, 1),)).inside(640, 480)
