from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from maskdrop.background import Colour
from maskdrop.errors import InvalidOptions, InvalidPreset
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.presets import FRESH_S, PRESETS, Presets, check_name


@dataclass
class Shelf:
    """What the registry holds, and what time it is."""

    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0
    reads: int = 0

    def read(self) -> dict[str, dict[str, Any]]:
        self.reads += 1
        return dict(self.own)

    def presets(self) -> Presets:
        return Presets(self.read, lambda: self.seconds)


SHOP = {"output": {"format": "jpg", "background": "white"}}


def test_a_new_stage_has_the_built_in_presets() -> None:
    presets = Shelf().presets()
    assert {name: presets.find(name) for name in presets.names()} == PRESETS
    assert presets.find("holiday") is None


def test_a_preset_of_the_registry_overrides_a_built_in_one() -> None:
    presets = Shelf({"shop": SHOP, "webp": SHOP}).presets()
    white = Options(output=Output("jpg", background=Colour(255, 255, 255)))
    assert presets.find("shop") == presets.find("webp") == white
    assert presets.names() == sorted({*PRESETS, "shop"})


def test_a_folder_without_a_preset_gets_the_changed_default() -> None:
    shelf = Shelf()
    assert shelf.presets().of("holiday") == ("default", Options())
    shelf.own["default"] = SHOP
    assert shelf.presets().of("holiday")[1].output.format == "jpg"


def test_presets_are_cached_for_a_minute() -> None:
    shelf = Shelf()
    presets = shelf.presets()
    shelf.seconds = FRESH_S - 1
    presets.find("shop")
    shelf.own["shop"] = SHOP
    shelf.seconds = 2 * FRESH_S - 2
    assert presets.find("shop") is None
    assert shelf.reads == 1
    shelf.seconds = 2 * FRESH_S - 1
    assert presets.find("shop") is not None
    assert shelf.reads == 2


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"output": {"format": "bmp"}}, "output.format"),
        ({"engine": "magic"}, "magic"),
        ({"colour": "red"}, "colour"),
        ({"engine": "selfie", "prompt": {"box": [0, 0, 1, 1]}}, "does not support boxes"),
    ],
)
def test_an_invalid_preset_is_named_and_does_not_affect_others(value: dict[str, Any], names: str) -> None:
    presets = Shelf({"shop": value, "good": SHOP}).presets()
    with pytest.raises(InvalidPreset, match=names) as refused:
        presets.of("shop")
    assert "'shop'" in refused.value.message
    assert presets.find("good") is not None
    assert "shop" in presets.names()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "-a", "ü", "a b", "x" * 65])
def test_a_name_that_is_not_a_portable_folder_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidOptions):
        check_name(name)


def test_the_names_of_built_in_presets_are_valid() -> None:
    for name in PRESETS:
        check_name(name)
