from dataclasses import dataclass
from typing import Literal

import pytest

from maskdrop.settings import InvalidSettings, Settings, read
from tests.fakes import SETTINGS


def test_settings_survive_the_environment() -> None:
    assert Settings.from_env(SETTINGS.to_env()) == SETTINGS


def test_every_fault_is_named_at_once() -> None:
    env = SETTINGS.to_env()
    del env["MASKDROP_TABLE"]
    env |= {"MASKDROP_INBOX": "", "MASKDROP_LINK_S": "soon"}
    with pytest.raises(InvalidSettings) as raised:
        Settings.from_env(env)
    for name in ("MASKDROP_TABLE", "MASKDROP_INBOX", "MASKDROP_LINK_S"):
        assert name in str(raised.value)


def test_limits_have_defaults() -> None:
    env = {name: value for name, value in SETTINGS.to_env().items() if not name.endswith("_S")}
    assert Settings.from_env(env) == SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    count: int = 1
    share: float = 0.5
    side: Literal["l", "r"] | None = None


@pytest.mark.parametrize("name", ["count", "share"])
def test_numbers_have_ascii_digits(name: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{name} must be a"):
        read(Example, {name: "\N{ARABIC-INDIC DIGIT THREE}"})


def test_an_optional_choice_is_one_of_its_values_or_none() -> None:
    assert read(Example, {"side": "l"}) == {"side": "l"}
    assert read(Example, {"side": "none"}) == {"side": None}
    with pytest.raises(InvalidSettings, match="side must be one of l, r, or none; got 'x'"):
        read(Example, {"side": "x"})
