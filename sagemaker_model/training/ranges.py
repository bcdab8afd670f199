"""Ranges of settings to search: "lr=0.001:0.1" is an interval, "batch=8,16" a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.settings import settings_of

LOG_SCALE_RATIO = 10.0
"""A range whose ends differ by this factor or more is searched on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Values of a setting, as text."""

    values: tuple[str, ...]

    def sample(self, random: np.random.Generator) -> str:
        """Returns one of the values; all have the same probability."""
        return self.values[int(random.integers(len(self.values)))]

    def contains(self, value: Any) -> bool:
        """Returns whether a value of the setting is one of the choice."""
        return str(value).lower() in self.values


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of numbers that includes both ends. low, high: as text. integer: only whole numbers."""

    low: str
    high: str
    integer: bool

    @property
    def logarithmic(self) -> bool:
        """Whether the search uses a logarithmic scale."""
        return float(self.low) > 0 and float(self.high) / float(self.low) >= LOG_SCALE_RATIO

    def sample(self, random: np.random.Generator) -> str:
        """Returns a number of the interval as text, with 4 significant digits, uniform on its scale."""
        low, high = float(self.low), float(self.high)
        if self.logarithmic:
            value = float(np.exp(random.uniform(np.log(low), np.log(high))))
        else:
            value = float(random.uniform(low, high))
        return f"{round(value)}" if self.integer else f"{min(max(float(f'{value:.4g}'), low), high):g}"

    def contains(self, value: Any) -> bool:
        """Returns whether a value of the setting is in the interval."""
        return value is not None and float(self.low) <= value <= float(self.high)


Range = Choice | Interval


def is_range(text: str) -> bool:
    """Returns whether a setting's value is a range or a choice to search."""
    return ":" in text or "," in text


def ranges_of(network: str, texts: Mapping[str, str]) -> dict[str, Range]:
    """Returns the ranges by the names of the settings. Raises InvalidSettings, also for ends that a setting rejects."""
    if not texts:
        raise InvalidSettings("Name at least one setting to tune: lr=0.001:0.1 for a range, batch=8,16 for a choice.")
    return {name: _range(network, name, text) for name, text in texts.items()}


def _range(network: str, name: str, text: str) -> Range:
    values = text.split(":" if ":" in text else ",")
    for value in values:
        settings = settings_of(network, {name: value})
    if ":" not in text:
        return Choice(tuple(values))
    type_ = get_type_hints(type(settings))[name]
    numbers = [float(value) for value in values] if type_ in (int, float) else []
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise InvalidSettings(f"A range must be two numbers, the smaller first; got {name}={text}.")
    return Interval(values[0], values[1], integer=type_ is int)
