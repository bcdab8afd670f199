"""Named sets of options. A photo's preset is the first folder of its key under `inbox/`.

Every stage begins with PRESETS. What its registry holds goes before what is here under the same name, so that presets
are made and changed without a deployment (`maskdrop presets`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from maskdrop.errors import InvalidOptions, InvalidPreset, MaskdropError
from maskdrop.options import Options
from maskdrop.output import Output

DEFAULT_PRESET = "default"

PRESETS: dict[str, Options] = {
    DEFAULT_PRESET: Options(),
    "webp": Options(output=Output(format="webp")),
    "matte": Options(output=Output(channels="alpha")),
    "object": Options(engine="grabcut"),
}

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Of a preset: what can be a folder everywhere."""

FRESH_S = 60.0
"""Seconds for which the registry's presets are kept: so long a change may take, and so seldom they are read."""


class Presets:
    """The presets of a stage.

    own: reads those in the registry: name -> options as JSON. clock: seconds, from anywhere.
    """

    def __init__(
        self, own: Callable[[], Mapping[str, Mapping[str, Any]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._clock = own, clock
        self._own: Mapping[str, Mapping[str, Any]] = {}
        self._stale = -1.0

    def find(self, name: str) -> Options | None:
        """None where there is no such preset. Raises InvalidPreset when it cannot be used, and TableUnavailable."""
        if name not in self._fresh():
            return PRESETS.get(name)
        return parsed(name, self._own[name])

    def of(self, folder: str) -> tuple[str, Options]:
        """Name and options for photos in a folder: the preset of that name, else the default one. Raises as `find`."""
        if options := self.find(folder):
            return folder, options
        return DEFAULT_PRESET, self.find(DEFAULT_PRESET) or PRESETS[DEFAULT_PRESET]

    def names(self) -> list[str]:
        """In the order of the alphabet; those that cannot be used as well. Raises TableUnavailable."""
        return sorted({*PRESETS, *self._fresh()})

    def _fresh(self) -> Mapping[str, Mapping[str, Any]]:
        if self._clock() >= self._stale:
            self._own = self._read()
            self._stale = self._clock() + FRESH_S
        return self._own


BUILT_IN = Presets(dict)
"""PRESETS alone."""


def parsed(name: str, value: Any) -> Options:
    """The options of a preset as it lies in the registry. Raises InvalidPreset."""
    try:
        return Options.from_json(value)
    except MaskdropError as error:
        raise InvalidPreset(f"The preset {name!r} cannot be used: {error.message}") from error


def check_name(name: str) -> None:
    """Raises InvalidOptions."""
    if not NAME.fullmatch(name):
        raise InvalidOptions(
            f"A preset's name is up to 64 letters, digits, '_' and '-', a letter or digit first; not {name!r:.80}."
        )
