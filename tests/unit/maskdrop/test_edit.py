"""Edits: their texts, and the size of the image for each editor."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.edit import CANDIDATES_MAX, EDITORS, Candidate, Edit, EditorName
from maskdrop.errors import InvalidOptions, OptionsConflict
from maskdrop.job import Result, ResultItem, queued
from maskdrop.options import Options
from maskdrop.webhook import event_of
from maskdrop.wire import bundle_of
from tests.fakes import NOW, a_source

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


EVENT_MAX = 256 * 1024
"""Maximum bytes of an entry of PutEvents (Amazon EventBridge user guide, "Calculating PutEvents event entry size")."""


@given(
    st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=CANDIDATES_MAX, unique=True),
    st.integers(1, 12),
    st.integers(1, 10_000),
)
def test_every_accepted_edit_fits_into_an_event_and_a_bundle(texts: list[str], seeds: int, times: int) -> None:
    try:
        edit = Edit.from_json({"prompts": [text * times for text in texts], "seeds": list(range(seeds))})
    except (InvalidOptions, OptionsConflict):  # a blank text, or too many of them
        return
    assert Edit.from_json(edit.to_json()) == edit
    candidates = [Candidate(n, text, seed, "m" * 60, 0.07) for n, (text, seed) in enumerate(edit.candidates, 1)]
    file = Result("b" * 63, "k" * 1024, 1, 1, 1, "0" * 64, "png")
    items = [ResultItem(file, prompt=one.prompt, seed=one.seed) for one in candidates]
    job = queued(a_source(), "default", Options(task="replace", edit=edit), NOW)
    done = replace(job, candidates=tuple(candidates), results=tuple(items))
    assert len(json.dumps(event_of(done))) < EVENT_MAX
    assert bundle_of("b", [job], "results").to_bytes()


def test_a_text_that_cannot_be_encoded_is_refused() -> None:
    for edit in ("\ud800", {"prompts": "a", "negative_prompt": "\udfff"}):
        with pytest.raises(InvalidOptions, match="Unicode"):
            Edit.from_json(edit)
    for background in ("s3://b/\ud800", {"bucket": "b", "key": "\ud800"}):
        with pytest.raises(InvalidOptions, match="background"):
            Options.from_json({"output": {"background": background}})


def test_prompts_that_do_not_fit_into_an_event_are_refused() -> None:
    with pytest.raises(OptionsConflict, match="at most 60,000 bytes"):
        Edit.from_json({"prompts": "a" * 10_000, "seeds": list(range(12))})
