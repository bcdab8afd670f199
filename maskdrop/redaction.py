"""Keeps secrets out of logs: a URL may have a token in its path or its query, and a message may name a secret."""

from __future__ import annotations

import logging
import re
from typing import Any

URL = re.compile(r"(https?:(?:\\?/){2})(?:[^\s/?#\\\"'<>@]*@)?([^\s/?#\\\"'<>]+)([^\s\"'<>]*)", re.IGNORECASE)
"""A URL in a text, or in JSON, which may escape slashes: scheme, host with port, and the rest."""

SECRET = re.compile(r"(whsec_|maskdrop_)[A-Za-z0-9+/=_-]{16,}")
"""A webhook secret or an API key."""

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def redacted(text: str) -> str:
    """The text with each URL cut after its host, and without secrets of API keys."""
    return SECRET.sub(r"\1...", URL.sub(_cut, text))


def redacted_json(value: Any) -> Any:
    """A JSON value with `redacted` texts. Values of other types are written as text."""
    match value:
        case dict():
            return {name: redacted_json(inner) for name, inner in value.items()}
        case list() | tuple():
            return [redacted_json(inner) for inner in value]
        case None | bool() | int() | float():
            return value
    return redacted(str(value))


def _cut(match: re.Match[str]) -> str:
    scheme, host, rest = match.groups()
    return f"{scheme}{host}{'/...' if rest.strip('/') else rest}"


class RedactingFormatter(logging.Formatter):
    """Formats a record, its traceback included, without the secrets in it."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Configures the logging of a program: to standard error, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
