"""Reads the settings of a function from its environment."""

from __future__ import annotations

import os
from functools import lru_cache

from maskdrop.bot import BotSettings
from maskdrop.settings import Settings


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Read at the first call. Raises InvalidSettings."""
    return Settings.from_env(os.environ)


@lru_cache(maxsize=1)
def bot_settings() -> BotSettings:
    """Read at the first call. Raises InvalidSettings."""
    return BotSettings.from_env(os.environ)
