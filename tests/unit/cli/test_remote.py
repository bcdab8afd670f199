"""The commands submit, status, fetch, list and retry, with the API in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from cli import profiles
from cli.app import app
from cli.profiles import Api as ApiOf
from cli.profiles import api_of
from cli.terminal import Unreachable, UsageError
from local import stack
from maskdrop.errors import ErrorInfo
from maskdrop.job import Result as StoredResult
from tests.fakes import NOW
from tests.unit.maskdrop_client.api import Api


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Api:
    """The API of every command; the current folder has two photos."""
    api = Api()
    monkeypatch.setattr(profiles, "Maskdrop", lambda *_, **__: api.client())
    monkeypatch.setenv("MASKDROP_API_URL", "https://api.test/prod")
    monkeypatch.setenv("MASKDROP_API_KEY", "the-key")
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    Path("photos/a.jpg").write_bytes(b"\xff\xd8\xff a")
    Path("photos/sub/b.jpg").write_bytes(b"\xff\xd8\xff b")
    return api


def invoke(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words])


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def submitted() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("maskdrop-jobs.jsonl").read_text().splitlines()]


def finish(api: Api, job_id: str, body: bytes = b"result") -> None:
    key = f"results/{job_id}.png"
    api.world.storage.objects["results", key] = body
    result = StoredResult(bucket="results", key=key, width=4, height=4, bytes=len(body), sha256="0" * 64, format="png")
    jobs = api.world.jobs.records
    jobs[job_id] = replace(jobs[job_id], state="done", result=result, finished_at=NOW)


def break_(api: Api, job_id: str) -> None:
    jobs, error = api.world.jobs.records, ErrorInfo("unreadable_picture", "The file is broken.", False)
    jobs[job_id] = replace(jobs[job_id], state="failed", error=error, finished_at=NOW)


def test_submitted_photos_are_recorded_and_not_submitted_twice(api: Api) -> None:
    first = invoke("submit", "photos", "--workers", "1", "--output", "format=webp")
    assert (first.exit_code, "2 submitted" in first.output) == (0, True), first.output
    assert [row["photo"] for row in submitted()] == ["photos/a.jpg", "photos/sub/b.jpg"]
    assert {job.options.output.format for job in api.world.jobs.records.values()} == {"webp"}
    Path("photos/c.jpg").write_bytes(b"\xff\xd8\xff c")
    second = invoke("submit", "photos", "--workers", "1", "--output", "format=webp", "--json")
    assert [record["state"] for record in records(second)] == ["skipped", "skipped", "submitted"]
    assert len(api.world.jobs.records) == 3
    other = invoke("submit", "photos/a.jpg", "--json")
    assert [record["state"] for record in records(other)] == ["submitted"]  # other options are another job


def test_an_interrupted_line_of_the_file_of_jobs_is_ignored(api: Api) -> None:
    invoke("submit", "photos", "--workers", "1")
    with Path("maskdrop-jobs.jsonl").open("r+") as file:
        file.truncate(Path("maskdrop-jobs.jsonl").stat().st_size - 20)
    again = invoke("submit", "photos", "--workers", "1", "--json")
    assert [record["state"] for record in records(again)] == ["skipped", "submitted"]


def test_results_are_fetched_under_the_names_of_the_photos_once(api: Api) -> None:
    invoke("submit", "photos", "--workers", "1")
    for row in submitted():
        finish(api, row["job"])
    first = invoke("fetch", "-o", "out", "--workers", "1")
    assert first.exit_code == 0, first.output
    assert Path("out/a.jpg.png").read_bytes() == Path("out/sub/b.jpg.png").read_bytes() == b"result"
    Path("out/a.jpg.png").write_bytes(b"cut")  # another size: incomplete
    second = invoke("fetch", "-o", "out", "--workers", "1", "--json")
    assert {record["photo"]: record["state"] for record in records(second)} == {
        "photos/a.jpg": "done",
        "photos/sub/b.jpg": "skipped",
    }


def test_failed_and_unfinished_jobs_are_listed_and_exit_1(api: Api) -> None:
    invoke("submit", "photos", "--workers", "1")
    first, second = (row["job"] for row in submitted())
    break_(api, first)
    result = invoke("fetch", "-o", "out", "--workers", "1", "--wait", "5")
    assert result.exit_code == 1
    text = Path("out/failed.csv").read_text()
    assert "photos/a.jpg,unreadable_picture" in text
    assert "photos/sub/b.jpg,job_timed_out" in text
    assert invoke("status", first).exit_code == 1
    assert invoke("status", second).exit_code == 0
    assert "unreadable_picture" in invoke("status", first).output


def test_failed_jobs_of_the_file_are_retried(api: Api) -> None:
    invoke("submit", "photos", "--workers", "1")
    first, second = (row["job"] for row in submitted())
    break_(api, first)
    result = invoke("retry")
    assert (result.exit_code, first in result.output, second in result.output) == (0, True, False)
    assert api.world.jobs.records[first].state == "queued"
    finish(api, second)
    refused = invoke("retry", second)
    assert (refused.exit_code, second in refused.stderr) == (1, True)


def test_jobs_are_listed_by_state(api: Api) -> None:
    invoke("submit", "photos", "--workers", "1")
    first = submitted()[0]["job"]
    break_(api, first)
    assert [record["job"] for record in records(invoke("list", "--state", "failed", "--json"))] == [first]
    assert len(records(invoke("list", "--limit", "1", "--json"))) == 1


def test_an_api_that_does_not_respond_ends_the_command_with_3(api: Api) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    api.before = refuse
    result = invoke("submit", "photos", "--workers", "1")
    assert (result.exit_code, "https://api.test/prod" in result.stderr) == (3, True)
    api.before = lambda _: httpx2.Response(403, json={"error": {"code": "auth_failed", "message": "No key."}})
    assert invoke("list").exit_code == 3


def test_the_api_is_that_of_the_profile_the_environment_the_local_stack_or_the_default_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "find", lambda _: None)
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(Unreachable, match="no profile `default`"):
        api_of(None, env)
    file = tmp_path / "maskdrop" / "profiles.toml"
    file.parent.mkdir()
    file.write_text('[default]\napi_url = "https://a/"\napi_key = "k"\n[shop]\napi_url = "https://b/"\n[bad]\n')
    file.chmod(0o600)
    assert api_of(None, env) == ApiOf("https://a/", "k")
    assert api_of("shop", {**env, "MASKDROP_API_URL": "https://c"}) == ApiOf("https://b/", "")
    assert api_of(None, {**env, "MASKDROP_API_URL": "https://c", "MASKDROP_API_KEY": "x"}) == ApiOf("https://c", "x")
    for name in ("bad", "none"):
        with pytest.raises(UsageError):
            api_of(name, env)
    file.write_text("[default")
    with pytest.raises(UsageError, match="cannot be read"):
        api_of(None, env)
