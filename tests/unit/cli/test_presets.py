from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner, Result

from cli import presets
from cli.app import app
from local.keys import Deployment
from maskdrop.options import Options
from maskdrop.presets import PRESETS
from tests.fakes import FakeRegistry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """That of the stage that every command reaches."""
    fake = FakeRegistry()

    @contextmanager
    def deployment(_: str | None) -> Iterator[Deployment]:
        yield Deployment(fake, None, "")

    monkeypatch.setattr(presets, "deployment", deployment)
    return fake


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["presets", *words])


def rows(text: str) -> dict[str, list[str]]:
    """Of a table, by the first column."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return {cells[0]: cells[1:] for cells in lines}


def test_a_preset_that_is_set_is_shown_listed_and_kept_in_one_form(registry: FakeRegistry) -> None:
    made = run("set", "shop", "format=jpg", "crop=10%", "background=White", "--engine", "grabcut")
    assert made.exit_code == 0, made.output
    output = {"format": "jpg", "channels": "rgba", "crop": "10%", "background": "#ffffff"}
    options = Options.from_json({"engine": "grabcut", "output": output})
    assert registry.get("preset", "shop") == json.loads(run("show", "shop").output) == options.to_json()
    said = "format=jpg channels=rgba crop=10% background=#ffffff"
    assert rows(run("list").output)["shop"] == ["custom", "grabcut", said]


def test_the_built_in_presets_are_listed_and_shown(registry: FakeRegistry) -> None:
    assert set(PRESETS) <= set(rows(run("list").output))
    assert json.loads(run("show", "webp").output) == PRESETS["webp"].to_json()


def test_one_s_own_preset_hides_a_built_in_one_until_it_is_removed(registry: FakeRegistry) -> None:
    run("set", "webp", "format=zip")
    assert rows(run("list").output)["webp"][0] == "custom"
    assert "built-in preset with this name applies again" in run("remove", "webp").output
    assert rows(run("list").output)["webp"][0] == "built-in"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("set", "shop", "format=bmp"), "output.format"),
        (("set", "shop", "colour=red"), "colour"),
        (("set", "shop", "format"), "FIELD=VALUE"),
        (("set", "shop", "--engine", "magic"), "magic"),
        (("set", "a/b", "format=jpg"), "letters"),
        (("show", "shop"), "does not exist"),
        (("remove", "shop"), "does not exist"),
        (("remove", "webp"), "does not exist"),
    ],
)
def test_what_cannot_be_is_explained_and_changes_nothing(
    registry: FakeRegistry, words: tuple[str, ...], names: str
) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert names in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert registry.items == {}


def test_a_broken_preset_is_listed_with_its_fault(registry: FakeRegistry) -> None:
    registry.put("preset", "shop", {"output": {"format": "bmp"}})
    assert "output.format" in rows(run("list").output)["shop"][2]
    assert run("show", "shop").exit_code == 1
