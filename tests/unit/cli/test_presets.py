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
    """A fake registry of the stage that every command uses."""
    fake = FakeRegistry()

    @contextmanager
    def deployment(_: str | None) -> Iterator[Deployment]:
        yield Deployment(fake, None, "", "dev")

    monkeypatch.setattr(presets, "deployment", deployment)
    return fake


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["presets", *words])


def rows(text: str) -> dict[str, list[str]]:
    """Returns the cells of a table by the cell of the first column."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return {cells[0]: cells[1:] for cells in lines}


def test_set_stores_a_preset_that_list_and_show_print(registry: FakeRegistry) -> None:
    result = run("set", "shop", "format=jpg", "crop=10%", "background=White", "--engine", "grabcut")
    assert result.exit_code == 0, result.output
    output = {"format": "jpg", "channels": "rgba", "crop": "10%", "background": "#ffffff"}
    options = Options.from_json({"engine": "grabcut", "output": output})
    assert registry.get("preset", "shop") == json.loads(run("show", "shop").output) == options.to_json()
    description = "format=jpg channels=rgba crop=10% background=#ffffff"
    assert rows(run("list").output)["shop"] == ["custom", "cutout", "grabcut", description]


def test_a_preset_has_a_task_prompts_instances_and_an_edit(registry: FakeRegistry) -> None:
    words = ("--task", "mask", "--label", "face", "--select", "largest", "--min-confidence", "60")
    assert run("set", "faces", *words, "--instances", "each").exit_code == 0
    prompt = {"label": "face", "select": "largest", "min_confidence": 60}
    options = Options.from_json({"task": "mask", "prompt": prompt, "instances": "each"})
    assert registry.get("preset", "faces") == options.to_json()
    listed = run("list").output
    assert '"label": "face"' in listed
    assert "instances=each" in listed
    words = ("--task", "replace", "--text", "white studio", "--seed", "7", "--negative-text", "people")
    assert run("set", "studio", *words).exit_code == 0
    edit = {"prompts": ["white studio"], "seeds": [7], "negative_prompt": "people"}
    assert '"prompts": ["white studio"]' in run("list").output
    assert registry.get("preset", "studio") == Options.from_json({"task": "replace", "edit": edit}).to_json()


def test_the_built_in_presets_are_listed_and_shown(registry: FakeRegistry) -> None:
    assert set(PRESETS) <= set(rows(run("list").output))
    assert json.loads(run("show", "webp").output) == PRESETS["webp"].to_json()


def test_a_custom_preset_overrides_a_built_in_one_until_it_is_removed(registry: FakeRegistry) -> None:
    run("set", "webp", "format=zip")
    assert rows(run("list").output)["webp"][0] == "custom"
    assert "built-in preset with this name applies again" in run("remove", "webp").output
    assert rows(run("list").output)["webp"][0] == "built-in"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "shop", "format=bmp"), "output.format"),
        (("set", "shop", "colour=red"), "colour"),
        (("set", "shop", "format"), "FIELD=VALUE"),
        (("set", "shop", "--engine", "magic"), "magic"),
        (("set", "a/b", "format=jpg"), "letters"),
        (("set", "shop", "--text", "white studio"), "edit"),
        (("set", "shop", "--seed", "7"), "--text"),
        (("set", "shop", "--prompt", "face"), "JSON"),
        (("show", "shop"), "does not exist"),
        (("remove", "shop"), "does not exist"),
        (("remove", "webp"), "does not exist"),
    ],
)
def test_an_invalid_command_prints_a_message_and_changes_no_preset(
    registry: FakeRegistry, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == (1 if message == "does not exist" else 2)
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert registry.items == {}


def test_an_invalid_preset_is_listed_with_its_error(registry: FakeRegistry) -> None:
    registry.put("preset", "shop", {"output": {"format": "bmp"}})
    assert "output.format" in rows(run("list").output)["shop"][3]
    assert run("show", "shop").exit_code == 2
