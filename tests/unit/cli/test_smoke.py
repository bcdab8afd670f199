"""`maskdrop smoke` against fakes of S3, the jobs table and the API."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from cli import smoke
from cli.app import app
from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Result, Source, dropped
from tests.fakes import minutes_later

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 30, 20) + bytes(5)


class FakeS3:
    """A bucket that gives a version to every object, and contains the results of all jobs."""

    def __init__(self, result: bytes = PNG) -> None:
        self.result = result
        self.objects: dict[str, bytes] = {}
        self.deleted: list[str] = []

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> dict[str, Any]:  # noqa: N803  names of S3
        self.objects[Key] = Body
        return {"VersionId": "v1", "ETag": '"etag"'}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        return {"Body": io.BytesIO(self.result)}

    def delete_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803
        self.deleted.append(Key)


class FakeTable:
    """Returns the jobs of `states` one after the other, for the job of the only upload."""

    def __init__(self, s3: FakeS3, states: list[Callable[[Job], Job | None]]) -> None:
        self.s3, self.states = s3, states

    def get(self, job_id: str) -> Job | None:
        (key,) = self.s3.objects
        job = dropped(Source(bucket="inbox", key=key, version_id="v1"), minutes_later(0))
        assert job.id == job_id
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return state(job)


def missing(_: Job) -> None:
    return None


def submitted(job: Job) -> Job:
    return replace(job, state="submitted")


def done(job: Job) -> Job:
    result = Result(bucket="results", key="results/a.png", width=30, height=20, bytes=len(PNG), sha256="", format="png")
    return replace(job, state="done", result=result)


def failed(job: Job) -> Job:
    return replace(job, state="failed", error=ErrorInfo(code="bad_image", message="The file is broken."))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads jobs without a pause in between."""
    monkeypatch.setattr(smoke, "POLL_S", 0.0)


def run(
    monkeypatch: pytest.MonkeyPatch,
    states: list[Callable[[Job], Job | None]],
    *words: str,
    s3: FakeS3 | None = None,
    api: Callable[[httpx2.Request], httpx2.Response] | None = None,
) -> Any:
    bucket = s3 or FakeS3()

    @contextmanager
    def target(_: str | None, key: str) -> Iterator[smoke.Target]:
        transport = httpx2.MockTransport(api) if api else None
        with httpx2.Client(base_url="https://api.example/dev/", transport=transport) as http:
            yield smoke.Target(bucket, FakeTable(bucket, states), "inbox", http, key)  # type: ignore[arg-type]

    monkeypatch.setattr(smoke, "_target", target)
    return CliRunner(env={"MASKDROP_API_KEY": ""}).invoke(app, ["smoke", "--stage", "dev", *words])


def test_a_processed_image_passes_and_is_deleted_with_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = FakeS3()
    result = run(monkeypatch, [missing, submitted, done], s3=s3)
    assert result.exit_code == 0, result.output
    assert [line.split("s  ")[1].split()[0] for line in result.output.splitlines()] == [
        "uploaded",
        "processed",
        "fetched",
    ]
    assert s3.deleted == ["results/a.png", *s3.objects]


@pytest.mark.parametrize(
    ("states", "words", "message"),
    [
        ([failed], [], "bad_image: The file is broken."),
        ([missing], ["--wait", "1"], "does not exist after 1 s. Read the log of the function ingest"),
        ([submitted], ["--wait", "1"], "is submitted after 1 s. Read the log of the endpoint"),
    ],
)
def test_a_job_that_fails_or_is_late_exits_1_and_the_image_is_deleted(
    monkeypatch: pytest.MonkeyPatch, states: list[Callable[[Job], Job | None]], words: list[str], message: str
) -> None:
    seconds = count()
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)), sleep=lambda _: None)
    monkeypatch.setattr(smoke, "time", clock)
    s3 = FakeS3()
    result = run(monkeypatch, states, *words, s3=s3)
    assert (result.exit_code, message in result.output) == (1, True), result.output
    assert s3.deleted == list(s3.objects)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"<Error/>", "must be a PNG file; got no image"),
        (b"\xff\xd8\xff" + bytes(20), "got image/jpeg"),
        (PNG.replace(struct.pack(">II", 30, 20), struct.pack(">II", 30, 21)), "30 x 21 pixels; its job states 30 x 20"),
    ],
)
def test_a_result_that_is_not_the_stated_png_exits_1(
    monkeypatch: pytest.MonkeyPatch, file: bytes, message: str
) -> None:
    result = run(monkeypatch, [done], s3=FakeS3(file))
    assert (result.exit_code, message in result.output) == (1, True), result.output


def test_without_a_key_no_synchronous_request_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def api(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(request.url)

    assert run(monkeypatch, [done], api=api).exit_code == 0


def test_with_a_key_the_image_is_cut_out_synchronously(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[httpx2.Request] = []

    def api(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, content=PNG)

    result = run(monkeypatch, [done], "--key", "secret", api=api)
    assert (result.exit_code, "synchronous cut-out" in result.output) == (0, True), result.output
    (request,) = requests
    assert str(request.url) == "https://api.example/dev/v1/cutouts"
    assert (request.headers["X-Api-Key"], request.headers["Content-Type"]) == ("secret", "image/png")
    assert "Accept" not in request.headers
    assert "secret" not in result.output


def test_a_large_result_is_fetched_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def api(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            assert "X-Api-Key" not in request.headers
            return httpx2.Response(200, content=PNG)
        return httpx2.Response(303, headers={"Location": "https://bucket.example/a.png?signature"})

    assert run(monkeypatch, [done], "--key", "secret", api=api).exit_code == 0


@pytest.mark.parametrize(("states", "exit_code"), [([404, "queued", "done"], 0), ([404, "failed"], 1)])
def test_a_job_instead_of_an_image_is_awaited(
    monkeypatch: pytest.MonkeyPatch, states: list[Any], exit_code: int
) -> None:
    def api(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(202, headers={"Location": "jobs/b2"})
        assert str(request.url) == "https://api.example/dev/v1/jobs/b2"
        state = states.pop(0)
        if state == 404:
            return httpx2.Response(404)
        error = {"code": "bad_image", "message": "The file is broken."}
        return httpx2.Response(200, json={"id": "b2", "state": state, "error": error})

    result = run(monkeypatch, [done], "--key", "secret", api=api)
    assert result.exit_code == exit_code, result.output
    assert states == []


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx2.Response(403, text="auth_failed"), "returned 403: auth_failed"),
        (httpx2.Response(200, text="<html>"), "no image"),
    ],
)
def test_another_response_of_the_api_exits_1(
    monkeypatch: pytest.MonkeyPatch, response: httpx2.Response, message: str
) -> None:
    result = run(monkeypatch, [done], "--key", "secret", api=lambda _: response)
    assert (result.exit_code, message in result.output) == (1, True), result.output


def test_an_image_that_does_not_exist_is_rejected_before_any_call() -> None:
    assert CliRunner().invoke(app, ["smoke", "--image", "/nowhere.jpg"]).exit_code == 2


def test_without_a_running_stack_the_command_names_the_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKDROP_LOCAL_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["smoke"])
    assert (result.exit_code, "--stage" in result.output) == (3, True)
