"""API keys in a registry: that of `maskdrop serve`, or of a stage."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from maskdrop.access import CALLS_A_MINUTE, Key, Scope, digest
from maskdrop.errors import MaskdropError
from maskdrop.services import Registry

SECRET_BYTES = 32
"""Random bytes (256 bits) of a key and of its webhook secret."""


class UnknownKey(MaskdropError):
    """No key has this ID."""

    code = "unknown_key"


def create_key(
    registry: Registry,
    name: str,
    *,
    owner: str = "",
    scope: Scope | None = None,
    rate: int = CALLS_A_MINUTE,
    make_id: Callable[[str], str] = lambda _digest: secrets.token_hex(5),
) -> tuple[str, Key]:
    """Creates an API key. Returns its text, which is not stored, and its stored record.

    owner: "" for the ID of the key. scope: None for "all" of the first key, "own" of later ones. rate: requests a
    minute. make_id: returns the ID of a key with this digest.
    """
    text = f"maskdrop_{secrets.token_urlsafe(SECRET_BYTES)}"
    key_id = make_id(digest(text))
    key = Key(
        id=key_id,
        name=name,
        owner=owner or key_id,
        scope=scope or ("own" if registry.list("key") else "all"),
        rate=rate,
        created_at=datetime.now(UTC),
        webhook_secret=f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}",
    )
    registry.put("secret", digest(text), {"webhook_secret": key.webhook_secret})
    registry.put("key", digest(text), replace(key, webhook_secret="").to_json())
    return text, key


def list_keys(registry: Registry) -> dict[str, Key]:
    """Returns the keys by digest."""
    return {name: Key.from_json(value) for name, value in registry.list("key").items()}


def revoke_key(registry: Registry, key_id: str) -> None:
    """Deletes an API key. Raises UnknownKey."""
    names = [name for name, key in list_keys(registry).items() if key.id == key_id]
    if not names:
        raise UnknownKey(f"Key {key_id!r} does not exist; list keys with `maskdrop keys list`.")
    for name in names:
        registry.delete("key", name)
        registry.delete("secret", name)
