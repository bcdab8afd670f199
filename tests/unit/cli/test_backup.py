from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner, Result

from cli import backup
from cli.app import app
from local.tables import PAGE, TRANSIENT
from maskdrop.services import Kind
from tests.unit.cli.aws import Error, FakeAws

Item = dict[str, dict[str, str]]


class Tables:
    """Tables of a stage in memory: name -> items by key."""

    def __init__(self) -> None:
        self.items: dict[str, dict[tuple[str, ...], Item]] = {"jobs": {}, "registry": {}, "restored": {}}

    def put(self, table: str, **attributes: str) -> None:
        item = {name: {"S": value} for name, value in attributes.items()}
        self.items[table][self._key(item)] = item

    @staticmethod
    def _key(item: Item) -> tuple[str, ...]:
        return tuple(item[name]["S"] for name in ("id", "kind", "name") if name in item)

    def responses(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        def scan(request: dict[str, Any]) -> Any:
            items = list(self.items[request["TableName"]].values())
            return {"Items": items, "Count": len(items)}

        def put_item(request: dict[str, Any]) -> Any:
            key, table = self._key(request["Item"]), self.items[request["TableName"]]
            if key in table and "ConditionExpression" in request:
                return Error("ConditionalCheckFailedException")
            table[key] = request["Item"]
            return {}

        return {"dynamodb.Scan": scan, "dynamodb.PutItem": put_item}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Tables:
    """The tables of the stage shop."""
    found = Tables()

    @contextmanager
    def connection(stage: str | None) -> Iterator[tuple[dict[str, str], Callable[[str], Any]]]:
        assert stage == "shop"
        yield {"JobsTable": "jobs", "RegistryTable": "registry"}, FakeAws(found.responses()).client

    monkeypatch.setattr(backup, "connection", connection)
    return found


def run(command: str, file: Path, *words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, [command, str(file), "--stage", "shop", *words])


def test_a_lost_table_is_restored_from_its_backup(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "shop.gz"
    for number in range(PAGE + 1):
        tables.put("jobs", id=f"{number}", state="done")
    tables.put("registry", kind="preset", name="shop")
    before = {name: dict(items) for name, items in tables.items.items()}
    assert f": {PAGE + 1} jobs, 1 items of the registry." in run("backup", file).stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    tables.items["jobs"].clear()
    tables.items["registry"].clear()
    result = run("restore", file)
    assert result.stdout.startswith(f"Written: {PAGE + 1} jobs, 1 items of the registry.")
    assert tables.items == before
    assert "Unchanged: 101 jobs, 1 items of the registry." in run("restore", file).stdout


def test_newer_items_are_replaced_only_on_request(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "shop.gz"
    tables.put("jobs", id="1", state="queued")
    run("backup", file)
    tables.put("jobs", id="1", state="done")
    run("restore", file)
    assert tables.items["jobs"]["1",]["state"] == {"S": "done"}
    run("restore", file, "--overwrite")
    assert tables.items["jobs"]["1",]["state"] == {"S": "queued"}


def test_a_restored_table_can_be_the_source(tables: Tables, tmp_path: Path) -> None:
    tables.put("restored", id="1", state="done")
    run("backup", tmp_path / "shop.gz", "--jobs-table", "restored")
    run("restore", tmp_path / "shop.gz")
    assert tables.items["jobs"] == tables.items["restored"]


def test_items_of_requests_in_progress_are_left_out(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "shop.gz"
    for kind in get_args(Kind):
        tables.put("registry", kind=kind, name="1")
    run("backup", file)
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert {line["item"]["kind"]["S"] for line in lines} == {*get_args(Kind)} - TRANSIENT


@pytest.mark.parametrize("body", [b"text", gzip.compress(b"text"), gzip.compress(b'{"table": "x"}')])
def test_another_file_is_refused(tables: Tables, tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "other"
    file.write_bytes(body)
    result = run("restore", file)
    assert (result.exit_code, "is not a backup" in result.stderr) == (2, True)
    assert not any(tables.items.values())
