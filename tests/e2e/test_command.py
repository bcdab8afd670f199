"""The commands that use a stack through its API and its logs, on the local stack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli.app import app
from local.config import ROOT
from tests.e2e.conftest import Running


def invoke(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words])


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_photos_are_submitted_fetched_and_found_in_lists_and_logs(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in running.config.to_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASKDROP_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    shutil.copy(ROOT / "samples" / "default" / "astronaut.png", "photos/astronaut.png")
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    first = invoke("submit", "photos", "--json", "--output", "format=webp")
    assert first.exit_code == 0, first.output
    ids = {Path(record["photo"]).name: record["job"] for record in records(first)}
    fetched = invoke("fetch", "-o", "out", "--json")
    assert (fetched.exit_code, len(records(fetched))) == (1, 2)
    with Image.open("out/astronaut.png.webp") as result:
        assert (result.format, result.size) == ("WEBP", (512, 512))
    assert "broken.jpg" in Path("out/failed.csv").read_text()
    assert invoke("status", ids["astronaut.png"]).exit_code == 0
    assert ids["broken.jpg"] in [record["job"] for record in records(invoke("list", "--state", "failed", "--json"))]
    assert "foreground" in invoke("status").output
    assert invoke("costs", "--json").exit_code == 0
    functions = {record["function"] for record in records(invoke("logs", "api", "ingest", "--since", "10m", "--json"))}
    assert functions == {"api", "ingest"}
