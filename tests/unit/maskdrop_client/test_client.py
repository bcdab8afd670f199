"""Runs both clients against the routes of the API, in this process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from lambdas.http.openapi import BYTES
from maskdrop.errors import EndpointStarting, QueueFull, RateLimitExceeded, UnreadableImage
from maskdrop.interactive import BYTES_MAX
from maskdrop.options import Options
from maskdrop.services import Download
from maskdrop.wire import Invocation
from maskdrop_client import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    InvalidUsage,
    JobFailed,
    JobTimedOut,
    Maskdrop,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    StoredFile,
)
from maskdrop_client.client import KEY_VARIABLE, METHODS, URL_VARIABLE
from tests.fakes import NOW, World, a_failure, a_success
from tests.unit.maskdrop_client.api import CALLER, KEY, URL, Api

PHOTO = b"\x89PNG not decoded by the fakes"
LARGE = bytes(BYTES_MAX + 1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.jpg"
    path.write_bytes(PHOTO)
    return path


def requested(api: Api) -> tuple[bytes, Options]:
    image, invocation = api.world.interactive.requests[-1]
    assert isinstance(invocation, Invocation)
    return image, invocation.options


def run_jobs(api: Api, outcome: Callable[[str], Any] = a_success) -> Callable[[httpx2.Request], None]:
    """Returns a hook that finishes all queued jobs when a job is requested: it does what queue and endpoint do."""

    def finish(request: httpx2.Request) -> None:
        if request.method == "GET" and "/v1/jobs/" in request.url.path:
            for job in list(api.world.jobs.records.values()):
                if not job.finished_at:
                    made = outcome(job.id)
                    if made.result:
                        api.world.storage.objects[made.result.bucket, made.result.key] = b"a result"
                    if made.error:
                        api.world.jobs.fail(job.id, made.error, bundle=job.bundle, now=NOW)
                    else:
                        api.world.jobs.done(job.id, made, bundle=job.bundle, cost_usd=None, now=NOW)

    return finish


def test_a_cutout_of_a_path_has_the_file_and_the_facts(photo: Path) -> None:
    api = Api()
    result = api.client().cutout(photo, format="webp", crop=True, prompt={"label": "face"}, engine="prompted")
    assert (result.data, result.content_type, result.suffix) == (b"a cut-out", "image/webp", ".webp")
    assert (result.size, result.engine, result.name) == ((640, 480), "prompted", "a photo")
    assert result.subject
    assert (result.subject.kind, result.subject.score, result.subject.box) == ("person", 0.9, (1, 2, 30, 40))
    assert (result.place, result.warnings, result.timings) == ((1, 2, 30, 40), ("a warning",), {"decode": 1})
    image, options = requested(api)
    assert image == PHOTO
    assert options == Options.from_json(
        {"engine": "prompted", "prompt": {"label": "face"}, "output": {"format": "webp", "crop": "true"}}
    )


def test_every_kind_of_image_reaches_the_engine(photo: Path) -> None:
    api = Api()
    api.world.web.images["https://images.example/a.jpg"] = Download(b"fetched", "image/jpeg")
    client = api.client()
    with photo.open("rb") as file:
        for image in (photo, str(photo), PHOTO, bytearray(PHOTO), memoryview(PHOTO), BytesIO(PHOTO), file):
            client.cutout(image)
            assert requested(api)[0] == PHOTO
    assert client.cutout("https://images.example/a.jpg").name == "a"
    assert requested(api)[0] == b"fetched"


def test_a_pillow_image_is_sent_upright_and_without_loss() -> None:
    api = Api()
    image = Image.new("RGB", (3, 2), "red")
    image.putpixel((0, 0), (0, 0, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    api.client().cutout(image)
    sent = Image.open(BytesIO(requested(api)[0]))
    assert sent.size == (2, 3)
    assert sent.getpixel((1, 0)) == (0, 0, 255)
    api.client().cutout(Image.new("CMYK", (2, 2)))
    assert Image.open(BytesIO(requested(api)[0])).mode == "RGB"


def test_an_array_is_sent_as_an_image() -> None:
    numpy = pytest.importorskip("numpy")
    api = Api()
    api.client().mask(numpy.full((2, 3, 3), 7, numpy.uint8))
    assert Image.open(BytesIO(requested(api)[0])).getpixel((2, 1)) == (7, 7, 7)


@pytest.mark.parametrize(
    ("image", "message"),
    [(b"", "0 bytes"), (3, "must be a path, a URL"), (open(__file__), "binary mode")],  # noqa: SIM115, PTH123
)
def test_an_invalid_image_is_refused_without_a_request(image: Any, message: str) -> None:
    api = Api()
    with pytest.raises(InvalidUsage, match=message):
        api.client().cutout(image)
    assert api.requests == []


def test_a_missing_file_raises_the_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Api().client().cutout(tmp_path / "absent.jpg")


def test_an_unknown_option_names_the_options() -> None:
    with pytest.raises(InvalidUsage, match=r"Unknown option 'formt'; the options are preset, .*format"):
        Api().client().cutout(PHOTO, formt="png")  # type: ignore[call-arg]


def test_output_passes_fields_that_this_release_does_not_know() -> None:
    api = Api()
    with pytest.raises(InvalidRequest, match="no field 'hologram'"):
        api.client().cutout(PHOTO, output={"hologram": "on"}, format="webp")
    assert json.loads(api.requests[-1].headers["X-Maskdrop-Options"])["output"] == {"hologram": "on", "format": "webp"}


def test_options_that_are_too_long_for_a_header_are_sent_in_the_body() -> None:
    api = Api()
    api.before = run_jobs(api)
    prompts = [{"box": [number, 0, 640, 480]} for number in range(200)]
    client = api.client()
    assert client.cutout(PHOTO, prompt=prompts[:2]).job is None
    assert api.requests[-1].headers["content-type"] == BYTES
    result = client.cutout(PHOTO, prompt=prompts)
    assert api.requests[1].headers["content-type"] == "application/json"
    assert "X-Maskdrop-Options" not in api.requests[1].headers
    assert result.job  # such options are too long for the interactive endpoint
    assert len(result.job.prompt) == 200


def test_several_instances_are_results_that_can_be_downloaded() -> None:
    api = Api()
    result = None
    for job in ("union", "each"):
        api.world.storage.objects.clear()
        _serve_everything(api)
        result = api.client().cutout(PHOTO, engine="prompted", prompt={"label": "face"}, instances=job)
    assert result
    assert [item.label for item in result.results] == ["face", "face"]
    assert result.data == b"stored"
    assert api.client().download(result.results[1]) == b"stored"


def _serve_everything(api: Api) -> None:
    def before(request: httpx2.Request) -> httpx2.Response | None:
        return httpx2.Response(200, content=b"stored") if request.url.host != "api.test" else None

    api.before = before


def test_a_result_that_is_too_large_for_a_response_is_downloaded_without_the_key() -> None:
    api = Api()
    api.world.interactive.result = bytes(7_000_000)
    _serve_everything(api)
    result = api.client().cutout(PHOTO)
    assert (result.data, result.content_type, result.size) == (b"stored", "image/png", (640, 480))
    first, second = api.requests
    assert first.headers["X-Api-Key"] == KEY
    assert second.url.host == "results-bucket"
    assert KEY not in str(second.headers)


def test_detections_are_typed() -> None:
    api = Api()
    api.world.interactive.detections = [{"label": "car", "score": 0.5, "box": [1, 2.5, 3, 4]}]
    found = api.client().detect(PHOTO, prompt={"label": "car"})
    assert (found.width, found.height, found.labels, found.warnings) == (640, 480, ("car", "airplane"), ("a warning",))
    assert [(one.label, one.score, one.box) for one in found.detections] == [("car", 0.5, (1.0, 2.5, 3.0, 4.0))]


def test_an_image_that_is_too_large_for_a_request_is_uploaded_and_processed_as_a_job() -> None:
    api = Api()
    api.before = run_jobs(api)
    client = api.client()
    result = client.mask(LARGE, engine="u2netp")
    assert (result.data, result.content_type) == (b"a result", "image/png")
    assert result.job
    assert (result.job.task, result.job.engine) == ("mask", "u2netp")
    assert [f"{one.method} {one.url.path}" for one in api.requests[:4]] == [
        "POST /prod/v1/masks", "POST /prod/v1/uploads", "POST /", "POST /prod/v1/jobs",
    ]  # fmt: skip
    assert KEY not in str(api.requests[2].headers)
    client.cutout(LARGE)
    assert [one.url.path for one in api.requests].count("/prod/v1/masks") == 1
    assert "/prod/v1/cutouts" not in [one.url.path for one in api.requests]  # the limit is known now


def test_a_job_in_place_of_a_result_is_awaited(photo: Path) -> None:
    api = Api()
    api.world.interactive.broken = EndpointStarting("No instance is ready.")
    api.before = run_jobs(api)
    result = api.client().cutout(photo)
    assert (result.data, result.name) == (b"a result", "a photo")
    assert result.job
    assert result.job.state == "done"


def test_an_object_in_s3_is_the_source_of_a_job() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/a/b.jpg"] = PHOTO
    job = api.client().submit("s3://inbox-bucket/inbox/a/b.jpg", preset="webp", webhook="https://receiver.example/x")
    assert (job.source.key, job.preset, job.output["format"]) == ("inbox/a/b.jpg", "webp", "webp")
    assert job.webhook
    assert job.webhook.url == "https://receiver.example/x"


def test_a_repeated_request_for_a_job_has_the_same_idempotency_key() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
    lost = iter([httpx2.ReadTimeout("late")])

    def before(request: httpx2.Request) -> None:
        if request.url.path.endswith("/v1/jobs"):
            for error in lost:
                raise error

    api.before = before
    client = api.client()
    client.submit("s3://inbox-bucket/inbox/b.jpg")
    client.submit("s3://inbox-bucket/inbox/b.jpg")
    client.submit("s3://inbox-bucket/inbox/b.jpg", idempotency_key="mine")
    first, repeated, second, chosen = (one.headers["Idempotency-Key"] for one in api.requests)
    assert first == repeated != second
    assert chosen == "mine"


def test_wait_reports_each_state_and_waits_longer_each_time() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
    client = api.client()
    job = client.submit("s3://inbox-bucket/inbox/b.jpg")
    polls = iter(range(4))
    finish = run_jobs(api)

    def before(request: httpx2.Request) -> None:
        if next(polls) == 3:
            finish(request)

    api.before = before
    states: list[str] = []
    assert client.wait(job, on_change=lambda one: states.append(one.state)).state == "done"
    assert states == ["queued", "done"]
    pauses = api.slept[1:]
    assert len(pauses) == 4
    assert 0.4 <= pauses[0] <= 0.6
    assert pauses == sorted(pauses)


def test_a_failed_job_raises_its_error_and_can_be_retried() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
    api.before = run_jobs(api, lambda job_id: a_failure(job_id, retryable=False))
    client = api.client()
    job = client.submit("s3://inbox-bucket/inbox/b.jpg")
    with pytest.raises(JobFailed, match="unreadable_picture: It went wrong") as failed:
        client.wait(job.id)
    assert (failed.value.code, failed.value.retryable, failed.value.job.state) == (
        "unreadable_picture",
        False,
        "failed",
    )
    api.before = lambda _: None
    assert client.retry(job.id).state == "queued"
    api.before = run_jobs(api)
    client.wait(job.id)
    with pytest.raises(ApiError) as conflict:
        client.retry(job.id)
    assert (conflict.value.status, conflict.value.code) == (409, "job_not_failed")


def test_a_job_that_does_not_finish_in_time_is_in_the_error() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
    client = api.client()
    with pytest.raises(JobTimedOut, match="is queued after 5 s") as late:
        client.wait(client.submit("s3://inbox-bucket/inbox/b.jpg"), wait_s=5)
    assert late.value.job.state == "queued"
    assert 5 < sum(api.slept) < 20


def test_jobs_are_listed_page_by_page() -> None:
    api = Api()
    client = api.client()
    for number in range(5):
        api.world.storage.objects["inbox-bucket", f"inbox/{number}.jpg"] = PHOTO
        client.submit(f"s3://inbox-bucket/inbox/{number}.jpg")
    page = client.jobs(limit=2, state="queued", since=datetime(2026, 1, 1, tzinfo=UTC), prefix="inbox/")
    assert len(page.jobs) == 2
    assert page.cursor
    assert len(client.jobs(cursor=page.cursor).jobs) == 3
    assert len(list(client.all_jobs())) == 5
    assert client.jobs(state="failed").jobs == ()


def test_a_deleted_job_is_not_found() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
    client = api.client()
    job = client.submit("s3://inbox-bucket/inbox/b.jpg")
    api.world.jobs.records[job.id] = replace(api.world.jobs.records[job.id], state="done", finished_at=NOW)
    client.delete(job.id)
    with pytest.raises(NotFound) as missing:
        client.job(job.id)
    assert missing.value.code == "job_not_found"
    with pytest.raises(InvalidUsage, match="letters and digits"):
        client.job("../usage")


def test_the_service_is_described() -> None:
    client = Api().client()
    assert {engine.name for engine in client.engines()} >= {"auto", "portrait"}
    assert {preset.name for preset in client.presets()} >= {"default", "webp"}
    assert client.health().status == "ok"
    assert client.openapi()["openapi"] == "3.1.0"
    assert "SwaggerUIBundle" in client.docs()
    assert client.usage("2026-11").owner == "shop"
    form = client.upload_form("a/b$.jpg")
    assert form.upload.endswith("/a_b_.jpg")


def test_the_usage_counts_the_images() -> None:
    api = Api()
    api.client().cutout(PHOTO)
    assert api.client().usage().pictures == 1


# Errors and retries


def test_an_error_of_the_image_is_raised_at_once() -> None:
    api = Api()
    api.world.interactive.broken = UnreadableImage("The file is not an image.")
    with pytest.raises(InvalidRequest, match=r"The file is not an image. \(422 unreadable_picture\)") as error:
        api.client().cutout(PHOTO)
    assert (error.value.status, error.value.code, error.value.retryable) == (422, "unreadable_picture", False)
    assert len(api.requests) == 1
    assert api.slept == []


def test_a_retryable_error_is_retried_after_the_time_that_the_api_states() -> None:
    api = Api()
    errors = iter([QueueFull("Full."), QueueFull("Full.")])

    def before(request: httpx2.Request) -> None:
        api.world.interactive.broken = next(errors, None)

    api.before = before
    assert api.client().cutout(PHOTO).data == b"a cut-out"
    assert len(api.slept) == 2
    assert all(5 <= pause <= 6.25 for pause in api.slept)


def test_the_last_attempt_raises_the_error() -> None:
    api = Api()
    api.world.interactive.broken = QueueFull("Full.")
    with pytest.raises(ServiceUnavailable) as error:
        api.client(retries=1).cutout(PHOTO)
    assert (error.value.code, error.value.retryable, error.value.retry_after) == ("queue_full", True, 5)
    assert len(api.requests) == 2


def test_a_rate_limit_is_awaited() -> None:
    api = Api(caller=replace(CALLER, rate=1))

    def before(_: httpx2.Request) -> None:
        if api.slept:
            api.world.registry.items.clear()

    api.before = before
    api.client().usage()
    with pytest.raises(RateLimited) as limited:
        api.client(retries=0).usage()
    assert (limited.value.code, limited.value.retryable) == (RateLimitExceeded.code, True)
    api.client().usage()
    assert len(api.slept) == 1


def test_the_end_of_the_window_is_read_on_the_clock_of_the_server() -> None:
    headers = {"Date": "Sun, 29 Nov 2026 12:00:00 GMT", "Retry-After": "5"}
    reset = {"X-RateLimit-Reset": str(int(datetime(2026, 11, 29, 12, 0, 40, tzinfo=UTC).timestamp()))}
    error = {"error": {"code": "rate_limit_exceeded", "message": "Slow down.", "retryable": True}}
    responses = iter([httpx2.Response(429, headers={**headers, **reset}, json=error)])
    api = Api(before=lambda _: next(responses, None))
    api.client().usage()
    assert 40 <= api.slept[0] <= 50


def test_a_wait_above_the_limit_is_an_error_at_once() -> None:
    error = {"error": {"code": "queue_full", "message": "Full.", "retryable": True}}
    api = Api(before=lambda _: httpx2.Response(503, headers={"Retry-After": "3600"}, json=error))
    with pytest.raises(ServiceUnavailable) as late:
        api.client().usage()
    assert late.value.retry_after == 3600
    assert api.slept == []


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_error_of_a_gateway_is_retried(status: int) -> None:
    responses = iter([httpx2.Response(status, text="<html>Bad Gateway</html>")])
    api = Api(before=lambda _: next(responses, None))
    assert api.client().cutout(PHOTO).data == b"a cut-out"
    assert 0.25 <= api.slept[0] <= 0.5


def test_a_lost_connection_is_retried_unless_a_second_request_could_change_more() -> None:
    def before(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("reset", request=request)

    api = Api(before=before)
    with pytest.raises(ConnectionFailed, match="No response to POST /v1/cutouts: ReadError"):
        api.client().cutout(PHOTO)
    assert len(api.requests) == 4
    api.requests.clear()
    with pytest.raises(ConnectionFailed):
        api.client().delete("ab" * 16)
    assert len(api.requests) == 1


def test_a_key_that_is_not_valid_is_an_authentication_error() -> None:
    api = Api(caller=None)
    refusals = [
        httpx2.Response(403, json={"message": "Forbidden"}),
        httpx2.Response(401, json={"Message": "Unauthorized"}),
        httpx2.Response(403, json={"error": {"code": "auth_failed", "message": "No.", "retryable": False}}),
    ]
    for refusal in refusals:
        with pytest.raises(AuthenticationFailed):
            Api(before=lambda _, refusal=refusal: refusal).client().usage()  # type: ignore[misc]
    assert api.client().health().status == "ok"


def test_an_expired_url_of_a_result_is_renewed_once() -> None:
    api = Api()
    api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
    finish = run_jobs(api)
    client = api.client()
    job = client.submit("s3://inbox-bucket/inbox/b.jpg")
    expired = iter([httpx2.Response(403, text="<Error><Code>AccessDenied</Code></Error>")])

    def before(request: httpx2.Request) -> httpx2.Response | None:
        finish(request)
        return next(expired, None) if request.url.host == "results-bucket" else None

    api.before = before
    assert client.result(client.wait(job)).data == b"a result"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx2.Response(200, text="<html>Log in</html>"), "not JSON"),
        (httpx2.Response(200, json={"status": "ok"}), "not a Health of this API"),
        (httpx2.Response(200, json=[]), "not an object"),
        (httpx2.Response(301, headers={"Location": "https://elsewhere.example"}), "redirects to"),
    ],
)
def test_a_response_of_another_server_is_named(response: httpx2.Response, message: str) -> None:
    with pytest.raises(InvalidResponse, match=message):
        Api(before=lambda _: response).client().health()


def test_a_file_without_the_headers_of_the_api_is_refused() -> None:
    with pytest.raises(InvalidResponse, match="lacks a header of Maskdrop"):
        Api(before=lambda _: httpx2.Response(200, content=b"x")).client().cutout(PHOTO)


def test_a_file_of_a_list_has_no_url() -> None:
    with pytest.raises(InvalidUsage, match="request its job first"):
        Api().client().download(StoredFile("b", "k", 1, 1, 1, "", "png"))


# Settings


def test_the_url_and_the_key_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"{URL}/v1/")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    api = Api()
    with Maskdrop(transport=httpx2.MockTransport(api)) as client:
        assert client.usage().owner == "shop"
    assert api.requests[0].url == f"{URL}/v1/usage"
    assert api.requests[0].headers["X-Api-Key"] == KEY


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("", "", f"use url=, or set {URL_VARIABLE}"),
        ("api.test", "", r"must be http\(s\)://host"),
        ("ftp://api.test", "", r"must be http\(s\)://host"),
        ("https://api.test?key=1", "", r"must be http\(s\)://host"),
        (URL, "the\nkey", "must be printable ASCII"),
    ],
)
def test_an_invalid_setting_is_named(url: str, key: str, message: str) -> None:
    with pytest.raises(InvalidUsage, match=message) as error:
        Maskdrop(url, key)
    assert not key or key not in str(error.value)


def test_an_api_without_keys_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "of the environment")
    api = Api()
    Maskdrop(URL, "", transport=httpx2.MockTransport(api)).health()
    assert "X-Api-Key" not in api.requests[0].headers


def test_the_key_is_in_no_representation_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api = Api()
    client = api.client(retries=0)
    client.cutout(PHOTO)
    api.world.interactive.broken = QueueFull("Full.")
    with pytest.raises(ServiceUnavailable) as error:
        client.cutout(PHOTO)
    texts = [repr(client), repr(client._api), str(error.value), repr(error.value.__dict__), caplog.text]
    assert KEY not in " ".join(texts)


# Many images


def test_map_yields_each_image_as_it_finishes(photo: Path, tmp_path: Path) -> None:
    api = Api()
    absent = tmp_path / "absent.jpg"
    outcomes = list(api.client().map([photo, absent, PHOTO, b""], workers=2, format="webp"))
    assert {id(outcome.image): outcome for outcome in outcomes}.keys() == {id(photo), id(absent), id(PHOTO), id(b"")}
    by_image = {outcome.image: outcome for outcome in outcomes}
    assert by_image[photo].unwrap().content_type == "image/webp"
    assert isinstance(by_image[absent].error, FileNotFoundError)
    with pytest.raises(InvalidUsage):
        by_image[b""].unwrap()


@pytest.mark.parametrize("workers", [1, 3])
def test_map_takes_an_image_only_when_a_worker_is_free(workers: int) -> None:
    taken = 0

    def images() -> Any:
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield PHOTO

    for number, outcome in enumerate(Api().client().map(images(), "mask", workers=workers)):
        assert outcome.result.data
        assert taken <= number + workers
    assert taken == 20


def test_map_ends_when_the_key_is_not_valid() -> None:
    api = Api(before=lambda _: httpx2.Response(403, json={"message": "Forbidden"}))
    with pytest.raises(AuthenticationFailed):
        list(api.client().map([PHOTO] * 100, workers=2))
    assert len(api.requests) < 10


def test_map_refuses_invalid_arguments() -> None:
    with pytest.raises(InvalidUsage, match="method of map"):
        list(Api().client().map([PHOTO], "delete"))  # type: ignore[arg-type]
    with pytest.raises(InvalidUsage, match="at least 1"):
        list(Api().client().map([PHOTO], workers=0))


# The asynchronous client


def run(call: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await call

    return asyncio.run(main())


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cutout": (PHOTO,), "mask": (PHOTO,), "detect": (PHOTO,), "edit": (PHOTO,), "upload_form": ("a.jpg",),
    "submit": ("s3://inbox-bucket/inbox/b.jpg",), "retry": ("0" * 32,), "delete": ("0" * 32,), "job": ("0" * 32,),
    "source": ("0" * 32,), "review": ("0" * 32, "accepted"),
}  # fmt: skip


@pytest.mark.parametrize("method", sorted(METHODS.values()))
def test_both_clients_send_the_same_request(method: str) -> None:
    def sent(call: Callable[[Api], Any]) -> tuple[list[tuple[str, str, bytes]], Any]:
        api = Api()
        api.world.storage.objects["inbox-bucket", "inbox/b.jpg"] = PHOTO
        try:
            value: Any = call(api)
        except ApiError as error:
            value = str(error)
        requests = [(one.method, str(one.url), one.content) for one in api.requests]
        assert requests
        return requests, value

    options: dict[str, Any] = {"background": "red"} if method == "edit" else {}
    arguments = ARGUMENTS.get(method, ())
    blocking = sent(lambda api: getattr(api.client(), method)(*arguments, **options))
    awaited = sent(lambda api: run(getattr(api.async_client(), method)(*arguments, **options)))
    assert blocking[0] == awaited[0]
    if method not in ("upload_form", "health"):  # their responses have the time or an id
        assert blocking[1] == awaited[1]


def test_the_asynchronous_client_retries_and_waits() -> None:
    api = Api()
    errors = iter([httpx2.ConnectError("refused")])
    finish = run_jobs(api)

    def before(request: httpx2.Request) -> None:
        for error in errors:
            raise error
        finish(request)

    api.before = before

    async def main() -> bytes:
        async with api.async_client() as client:
            job = await client.submit(PHOTO)
            done = await client.wait(job)
            result = await client.result(done)
            assert [one.id async for one in client.all_jobs()] == [done.id]
            return result.data

    assert run(main()) == b"a result"
    assert api.slept


def test_the_asynchronous_map_bounds_the_images_in_work() -> None:
    api = Api()
    taken = 0

    def images() -> Any:
        nonlocal taken
        for number in range(10):
            taken += 1
            yield PHOTO if number else b""

    async def main() -> list[Any]:
        found = []
        outcomes: AsyncIterator[Any] = api.async_client().map(images(), workers=3)
        async for outcome in outcomes:
            found.append(outcome)
            assert taken <= len(found) + 2
        return found

    outcomes = run(main())
    assert len(outcomes) == 10
    assert [type(one.error) for one in outcomes if one.error] == [InvalidUsage]


def test_a_world_of_fakes_is_not_shared() -> None:
    assert Api().world is not Api().world
    assert isinstance(Api().world, World)
