"""The registry in SQLite: keys, rate-limit windows, usage, presets and responses of idempotent requests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any

from botocore.session import get_session

from lambdas.adapters.registry import DynamoDBRegistry
from lambdas.connect import CLIENT
from maskdrop.services import Count, Kind, Registry
from standalone.database import Database


class SqliteRegistry:
    """Implements `maskdrop.services.Registry`. clock: returns the current time in Unix seconds."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        with self._database.reading() as connection:
            row = connection.execute(_GET, (kind, name, self._clock())).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> None:
        with self._database.transaction() as connection:
            connection.execute(_PUT, (kind, name, json.dumps(value), _seconds(expires_at)))

    def put_new(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> bool:
        with self._database.transaction() as connection:
            if connection.execute(_GET, (kind, name, self._clock())).fetchone():
                return False
            connection.execute(_PUT, (kind, name, json.dumps(value), _seconds(expires_at)))
        return True

    def delete(self, kind: Kind, name: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM registry WHERE kind = ? AND name = ?", (kind, name))

    def list(self, kind: Kind) -> dict[str, dict[str, Any]]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT name, value FROM registry WHERE kind = ? AND ifnull(expires_at > ?, 1) ORDER BY name",
                (kind, self._clock()),
            ).fetchall()
        return {name: json.loads(value) for name, value in rows}

    def add(self, kind: Kind, name: str, amounts: Mapping[str, int], *, expires_at: datetime | None = None) -> Count:
        with self._database.transaction() as connection:
            row = connection.execute(_GET, (kind, name, self._clock())).fetchone()
            counters, end = (json.loads(row[0]), row[1]) if row else ({}, _seconds(expires_at))
            for counter, amount in amounts.items():
                counters[counter] = counters.get(counter, 0) + amount
            connection.execute(_PUT, (kind, name, json.dumps(counters), end))
        return Count(counters, None if end is None else datetime.fromtimestamp(end, UTC))

    def delete_expired(self) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM registry WHERE expires_at <= ?", (self._clock(),))


def open_registry(table: str, database: Database) -> Registry:
    """Returns the registry of a stage, with the credentials and the Region of the environment; without the name of its
    table that of the database. Reads no item."""
    if not table:
        return SqliteRegistry(database)
    client: Any = get_session().create_client("dynamodb", config=CLIENT)
    return DynamoDBRegistry(client, table)


_GET = "SELECT value, expires_at FROM registry WHERE kind = ? AND name = ? AND ifnull(expires_at > ?, 1)"
_PUT = "INSERT OR REPLACE INTO registry (kind, name, value, expires_at) VALUES (?, ?, ?, ?)"


def _seconds(moment: datetime | None) -> float | None:
    """Rounds up to a whole second, as the registry in DynamoDB does."""
    return None if moment is None else float(ceil(moment.timestamp()))
