import pytest

from maskdrop.settings import InvalidSettings, Settings
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
