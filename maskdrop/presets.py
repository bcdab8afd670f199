"""Presets: named sets of options. The first folder of a photo's key under `inbox/` names its preset.

Every stage has the built-in PRESETS. A preset in its registry overrides the built-in one of the same name, so that
presets are created and changed without a deployment (`maskdrop presets`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from maskdrop.background import Colour
from maskdrop.canvas import AspectRatio, Canvas
from maskdrop.errors import InvalidOptions, InvalidPreset, MaskdropError
from maskdrop.lengths import Length, Margins
from maskdrop.options import Options
from maskdrop.outline import Outline
from maskdrop.output import Output

DEFAULT_PRESET = "default"

PRESETS: dict[str, Options] = {
    DEFAULT_PRESET: Options(),
    "webp": Options(output=Output(format="webp")),
    "matte": Options(output=Output(channels="alpha")),
    "object": Options(engine="u2netp"),
    "people": Options(engine="portrait"),
    "product": Options(
        output=Output(
            format="jpg",
            canvas=AspectRatio(1, 1),
            padding=Margins(*[Length(10, "%")] * 4),
            background=Colour(255, 255, 255),
        )
    ),
    "sticker": Options(
        output=Output(format="webp", canvas=Canvas(512, 512), padding=Margins(), outline=Outline(Length(8)))
    ),
}

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Pattern of a preset's name: valid as a folder name on every system."""

FRESH_S = 60.0
"""Seconds for which presets of the registry are cached: a change takes effect after at most this time."""


class Presets:
    """The presets of a stage: built-in ones and those of the registry.

    own: reads the registry's presets: name -> options as JSON. clock: monotonic time in seconds.
    """

    def __init__(
        self, own: Callable[[], Mapping[str, Mapping[str, Any]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._clock = own, clock
        self._own: Mapping[str, Mapping[str, Any]] = {}
        self._stale = -1.0

    def find(self, name: str) -> Options | None:
        """The options of a preset; None for an unknown name. Raises InvalidPreset and TableUnavailable."""
        if name not in self._fresh():
            return PRESETS.get(name)
        return parsed(name, self._own[name])

    def of(self, folder: str) -> tuple[str, Options]:
        """Name and options of a folder's preset: the preset of that name, else the default. Raises as `find` does."""
        if options := self.find(folder):
            return folder, options
        return DEFAULT_PRESET, self.find(DEFAULT_PRESET) or PRESETS[DEFAULT_PRESET]

    def names(self) -> list[str]:
        """Names in alphabetical order, invalid presets included. Raises TableUnavailable."""
        return sorted({*PRESETS, *self._fresh()})

    def _fresh(self) -> Mapping[str, Mapping[str, Any]]:
        if self._clock() >= self._stale:
            self._own = self._read()
            self._stale = self._clock() + FRESH_S
        return self._own


BUILT_IN = Presets(dict)
"""The built-in presets only."""


def parsed(name: str, value: Any) -> Options:
    """The options of a preset stored in the registry. Raises InvalidPreset."""
    try:
        return Options.from_json(value)
    except MaskdropError as error:
        raise InvalidPreset(f"The preset {name!r} is invalid: {error.message}") from error


def check_name(name: str) -> None:
    """Raises InvalidOptions."""
    if not NAME.fullmatch(name):
        raise InvalidOptions(
            f"A preset's name must be 1 to 64 letters, digits, '_' or '-', a letter or digit first; got {name!r:.80}."
        )
