"""Ranges of settings that a search samples."""

from __future__ import annotations

import numpy as np
import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.ranges import is_range, ranges_of


def samples(text: str, name: str = "lr", count: int = 300) -> list[str]:
    random = np.random.default_rng(0)
    return [ranges_of("portrait", {name: text})[name].sample(random) for _ in range(count)]


def test_a_wide_interval_is_sampled_on_a_logarithmic_scale() -> None:
    values = [float(value) for value in samples("0.0001:0.1")]
    assert min(values) >= 0.0001
    assert max(values) <= 0.1
    assert np.median(np.log10(values)) == pytest.approx(-2.5, abs=0.3)


def test_a_narrow_interval_is_sampled_on_a_linear_scale() -> None:
    values = [float(value) for value in samples("0.5:0.9", "ema")]
    assert 0.5 <= min(values) < 0.52
    assert 0.88 < max(values) <= 0.9
    assert np.mean(values) == pytest.approx(0.7, abs=0.02)


def test_an_interval_of_whole_numbers_includes_both_ends() -> None:
    assert set(samples("1:4", "warmup")) == {"1", "2", "3", "4"}


def test_a_choice_is_sampled_from_its_values() -> None:
    assert set(samples("sgd,adamw", "optimiser")) == {"sgd", "adamw"}


@pytest.mark.parametrize(
    ("name", "text", "inside", "outside"),
    [("lr", "0.001:0.1", 0.001, 0.2), ("batch", "8,16", 16, 12), ("clean", "true", True, False)],
)
def test_a_range_contains_its_values(name: str, text: str, inside: object, outside: object) -> None:
    range_ = ranges_of("portrait", {name: text})[name]
    assert range_.contains(inside)
    assert not range_.contains(outside)


def test_a_setting_that_may_be_none_has_choices_but_no_interval() -> None:
    assert set(samples("none,1", "threads")) == {"none", "1"}
    with pytest.raises(InvalidSettings, match="two numbers"):
        ranges_of("portrait", {"threads": "1:2"})


def test_only_intervals_and_choices_are_ranges() -> None:
    assert [is_range(text) for text in ("0.1:1", "8,16", "0.1", "adamw")] == [True, True, False, False]
