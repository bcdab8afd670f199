from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.engines import fetch_missing
from maskdrop.access import digest
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights import store
from sagemaker_model.weights.download import DownloadFailed
from standalone.database import Database
from standalone.registry import SqliteRegistry
from standalone.settings import ServeSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[ServeSettings, ServerSettings]]:
    """The settings of each server that a command starts; no server runs."""
    started: list[tuple[ServeSettings, ServerSettings]] = []
    monkeypatch.setattr("cli.serve.run_server", lambda settings, model, _: started.append((settings, model)))
    monkeypatch.setattr("cli.serve.fetch_missing", lambda _: None)
    monkeypatch.setenv("SERVE_DATA", str(tmp_path))
    return started


def test_options_override_the_environment(
    served: list[tuple[ServeSettings, ServerSettings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVE_PORT", "9000")
    monkeypatch.setenv("SERVE_REQUESTS_MAX", "7")
    command = [
        "serve",
        "--port",
        "9001",
        "--max-mb",
        "22",
        "--workers",
        "3",
        "--cors",
        "https://a.test",
        "--no-auth",
    ]
    assert CliRunner().invoke(app, command).exit_code == 0
    ((settings, model),) = served
    assert (settings.port, settings.requests_max, settings.image_bytes) == (9001, 7, 22_000_000)
    assert (settings.cors_origins, settings.no_auth, settings.host) == ("https://a.test", True, "127.0.0.1")
    assert model.workers == 3


def test_a_server_without_keys_is_refused_on_other_ip_addresses(
    served: list[tuple[ServeSettings, ServerSettings]],
) -> None:
    refused = CliRunner().invoke(app, ["serve", "--no-auth", "--host", "192.0.2.1"])
    assert refused.exit_code == 1
    assert "--anyone" in " ".join(refused.output.split())
    assert CliRunner().invoke(app, ["serve", "--no-auth", "--host", "192.0.2.1", "--anyone"]).exit_code == 0
    assert [settings.host for settings, _ in served] == ["192.0.2.1"]


def test_a_missing_network_does_not_stop_the_first_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(*_: object) -> Path:
        raise DownloadFailed("The package index cannot be reached.")

    monkeypatch.setattr(store, "fetch", fetch)
    fetch_missing(tmp_path)
    written = " ".join(capsys.readouterr().err.split())
    assert "Downloading the weights selfie" in written
    assert "The package index cannot be reached. The engines work without these weights" in written


def test_keys_of_the_server_are_created_listed_and_revoked(tmp_path: Path) -> None:
    where = ["--serve", "--data", str(tmp_path)]
    created = CliRunner().invoke(app, ["keys", "create", "shop", *where])
    assert created.exit_code == 0, created.output
    text = created.output.split()[1]
    registry = SqliteRegistry(Database(tmp_path))
    key = registry.get("key", digest(text))
    assert key
    assert key["name"] == "shop"
    assert key["id"] in CliRunner().invoke(app, ["keys", "list", *where]).output
    assert CliRunner().invoke(app, ["keys", "revoke", key["id"], *where]).exit_code == 0
    assert registry.list("key") == {}
    assert CliRunner().invoke(app, ["keys", "revoke", key["id"], *where]).exit_code == 1
