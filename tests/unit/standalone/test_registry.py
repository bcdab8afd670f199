"""Tests the choice of the registry: the database of the server, or the table of a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambdas.adapters.registry import DynamoDBRegistry
from standalone.database import Database
from standalone.registry import SqliteRegistry, open_registry
from standalone.settings import ServeSettings


def test_the_registry_is_the_table_of_a_stage_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    settings = ServeSettings.from_env({"SERVE_DATA": str(tmp_path), "SERVE_REGISTRY": "Maskdrop-dev-Registry"})

    assert isinstance(open_registry(settings.registry, Database(tmp_path)), DynamoDBRegistry)


def test_without_a_table_the_registry_is_the_database(tmp_path: Path) -> None:
    settings = ServeSettings.from_env({"SERVE_DATA": str(tmp_path)})

    assert isinstance(open_registry(settings.registry, Database(tmp_path)), SqliteRegistry)
