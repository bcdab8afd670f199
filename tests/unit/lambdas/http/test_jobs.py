"""Tests /v1/uploads, /v1/jobs, /v1/engines and /v1/presets with in-memory services."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.http.jobs import UPLOAD_S
from lambdas.http.routes import process
from maskdrop.access import Caller, usage_of
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES
from maskdrop.errors import QueueUnavailable
from maskdrop.flow import admit
from maskdrop.job import Webhook, folder_of, group_of, uploads_of
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.presets import PRESETS
from maskdrop.services import Download
from maskdrop.wire import JobMessage
from tests.fakes import NOW, SETTINGS, World, minutes_later

SHOP = Caller(id="k1", owner="shop", scope="own", rate=1000, key="ab" * 32)
OTHER = Caller(id="k2", owner="other", scope="own", rate=1000, key="cd" * 32)
OPERATOR = Caller(id="k0", owner="operator", scope="all", rate=1000, key="ef" * 32)
ROLE = {"identity": {"userArn": "arn:aws:sts::123456789012:assumed-role/Batch/session-1"}}

PHOTO = b"\xff\xd8\xff a photo"


def call(
    world: World, method: str, path: str, caller: Caller = SHOP, body: Any = None, **options: Any
) -> tuple[int, Any, dict[str, str]]:
    """Sends an event of API Gateway and returns (status, body, headers). options: headers, context, now."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **options.get("headers", {})}
    event = {
        "httpMethod": method,
        "path": path,
        "resource": "/{proxy+}",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"requestId": "r", **options.get("context", {"authorizer": caller.to_context()})},
        "body": None if body is None else base64.b64encode(text).decode(),
        "isBase64Encoded": body is not None,
    }
    now = options.get("now", NOW)
    response = process(event, SimpleNamespace(), world.settings, world.services, now)  # type: ignore[arg-type]
    found = {name: ",".join(values) for name, values in response["multiValueHeaders"].items()}
    return response["statusCode"], json.loads(response["body"] or "null"), found


def uploaded(world: World, caller: Caller = SHOP, body: bytes = PHOTO) -> str:
    """Creates an upload, stores its file and returns its id."""
    payload = {"name": "a photo.jpg", "content_type": "image/jpeg"}
    status, form, _ = call(world, "POST", "/v1/uploads", caller, payload)
    assert status == 201, form
    world.storage.write("inbox-bucket", form["fields"]["key"], body, "image/jpeg")
    return str(form["upload"])


def new_job(world: World, caller: Caller = SHOP, **options: Any) -> tuple[int, Any, dict[str, str]]:
    headers = options.pop("headers", {})
    source = options.pop("source", None) or {"upload": uploaded(world, caller)}
    return call(world, "POST", "/v1/jobs", caller, {"source": source, **options}, headers=headers)


def code(response: tuple[int, Any, dict[str, str]]) -> tuple[int, str]:
    return response[0], response[1]["error"]["code"]


def test_an_upload_form_fixes_the_key_type_and_size_of_the_file() -> None:
    payload = {"name": "Fräulein (1).jpg", "content_type": "image/jpeg"}
    status, form, _ = call(World(), "POST", "/v1/uploads", SHOP, payload)
    assert status == 201
    assert form["fields"]["key"] == uploads_of("shop") + form["upload"]
    assert form["upload"].endswith("/Fräulein (1).jpg")
    assert form["fields"]["Content-Type"] == "image/jpeg"
    assert form["fields"]["max"] == str(form["bytes_max"]) == str(IMAGE_BYTES_MAX)
    assert form["expires_at"] == f"2026-11-20T12:0{UPLOAD_S // 60}:00.000000Z"


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {},
        {"name": "a.jpg"},
        {"name": "a.jpg", "content_type": "image/jpeg", "key": "inbox/a.jpg"},
        {"name": 1, "content_type": "image/jpeg"},
        *(
            {"name": name, "content_type": "image/jpeg"}
            for name in ("", ".", "..", "a/b", "a\\b", "${filename}", "a\n")
        ),
        *({"name": name, "content_type": "image/jpeg"} for name in ("x" * 129, "\ud800")),
        *(
            {"name": f"photo{character}gpj.exe", "content_type": "image/jpeg"}
            for character in "\u202e\u2066\u200e\u200b\u061c\ufeff\u2028\x85\x9b"
        ),
        *({"name": "a", "content_type": kind} for kind in ("text/html", "image/", "image/jpeg; q=1", "IMAGE/JPEG")),
    ],
)
def test_an_invalid_upload_request_returns_400(payload: Any) -> None:
    assert code(call(World(), "POST", "/v1/uploads", SHOP, payload)) == (400, "invalid_options")


def test_the_trace_of_the_caller_is_in_the_job_its_message_and_its_bundle() -> None:
    world, trace_id = World(), "4bf92f3577b34da6a3ce929d0e0e4736"
    _, job, _ = new_job(world, headers={"Traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert (job["trace_id"], job["id"] != trace_id) == (trace_id, True)
    message = JobMessage.from_body(world.queue.sent[0][0])
    assert message.trace_id == trace_id
    admit([message], world.settings, world.services, NOW)
    assert [item.trace_id for bundle in world.bundles() for item in bundle.items] == [trace_id]


def test_a_job_of_an_upload_is_queued() -> None:
    world = World()
    status, job, headers = new_job(world, preset="webp", engine="grabcut", output={"background": "#fff"})
    assert status == 202
    assert headers["Location"] == f"jobs/{job['id']}"
    assert (job["state"], job["owner"], job["preset"], job["engine"]) == ("queued", "shop", "webp", "grabcut")
    assert (job["output"]["format"], job["source"]["bytes"]) == ("webp", len(PHOTO))
    assert job["source"]["version_id"]
    assert world.queue.sent == [(JobMessage(job["id"], 0, job["trace_id"], group_of("shop")).to_body(), 0)]
    assert world.jobs.records[job["id"]].result_key == f"results/jobs/{folder_of('shop')}/{job['id']}.webp"
    assert usage_of(world.registry, "shop", "2026-11")["pictures"] == 1


def test_the_same_object_with_the_same_options_is_one_job_and_counts_once() -> None:
    world = World()
    upload = {"upload": uploaded(world)}
    first, second = (
        call(world, "POST", "/v1/jobs", SHOP, {"source": upload}, now=minutes_later(minute)) for minute in (0, 1)
    )
    assert (first[0], second[0]) == (202, 202)
    assert first[1] == second[1]
    assert usage_of(world.registry, "shop", "2026-11")["pictures"] == 1


def test_a_request_for_a_finished_job_returns_200() -> None:
    world = World()
    upload = {"upload": uploaded(world)}
    _, job, _ = new_job(world, source=upload)
    world.jobs.records[job["id"]] = replace(world.jobs.records[job["id"]], state="done", finished_at=NOW)
    status, found, _ = new_job(world, source=upload)
    assert (status, found["id"], found["state"]) == (200, job["id"], "done")


def test_an_image_from_a_url_is_stored_in_the_folder_of_the_owner() -> None:
    world = World()
    world.web.images["https://a.example/a.jpg"] = Download(PHOTO, "image/jpeg")
    status, job, _ = new_job(world, source={"url": "https://a.example/a.jpg"})
    assert status == 202
    assert job["source"]["key"].startswith(uploads_of("shop"))
    assert world.storage.read("inbox-bucket", job["source"]["key"]) == PHOTO
    assert code(new_job(world, source={"url": "https://b.example/"})) == (424, "failed_download")


def test_a_replaced_object_creates_another_job() -> None:
    world = World(settings=replace(SETTINGS, source_buckets="archive shop-photos"))
    source = {"bucket": "shop-photos", "key": "2026/a.jpg"}
    ids = set()
    for body in (b"first", b"second"):
        world.storage.write("shop-photos", "2026/a.jpg", body, "image/jpeg")
        ids.add(new_job(world, source=source)[1]["id"])
    assert len(ids) == 2


def test_a_caller_can_use_source_buckets_and_its_own_uploads_and_scope_all_the_inbox() -> None:
    world = World(settings=replace(SETTINGS, source_buckets="archive"))
    places = {
        "open": ("archive", "a.jpg"),
        "own": ("inbox-bucket", f"{uploads_of('shop')}a.jpg"),
        "theirs": ("inbox-bucket", f"{uploads_of('other')}a.jpg"),
        "dropped": ("inbox-bucket", "inbox/default/a.jpg"),
        "background": ("inbox-bucket", "backgrounds/a.jpg"),
        "result": ("results-bucket", "results/default/a.jpg.png"),
        "closed": ("arch", "a.jpg"),
    }
    for place in places.values():
        world.storage.write(*place, PHOTO, "image/jpeg")

    def allowed(caller: Caller) -> set[str]:
        sources = {name: {"bucket": bucket, "key": key} for name, (bucket, key) in places.items()}
        responses = {name: new_job(world, caller, source=source) for name, source in sources.items()}
        assert {code(response) for response in responses.values() if response[0] != 202} == {(403, "not_allowed")}
        return {name for name, response in responses.items() if response[0] == 202}

    assert allowed(SHOP) == {"open", "own"}
    assert allowed(OPERATOR) == {"open", "own", "theirs", "dropped"}


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("shop/2026/a.jpg", True),
        ("shop/2026/summer/a b.jpg", True),
        ("shop/2026/é.jpg", True),
        ("shop/2026/a..jpg", True),
        ("shop/2026", False),
        ("shop/2026-old/a.jpg", False),
        ("shop/a.jpg", False),
        ("Shop/2026/a.jpg", False),
        ("/shop/2026/a.jpg", False),
        ("shop//2026/a.jpg", False),
        ("shop/2026/../secret/a.jpg", False),
        ("shop/2026/..", False),
        ("shop/2026/./a.jpg", False),
        ("shop%2F2026/a.jpg", False),
        ("shop\uff0f2026/a.jpg", False),  # a full-width solidus
        ("other/shop/2026/a.jpg", False),
    ],
)
def test_a_caller_can_use_only_the_keys_below_a_prefix_of_a_source_bucket(key: str, *, allowed: bool) -> None:
    world = World(settings=replace(SETTINGS, source_buckets="photos/shop/2026/ archive"))
    world.storage.write("photos", key, PHOTO, "image/jpeg")
    response = new_job(world, source={"bucket": "photos", "key": key})
    if allowed:
        assert response[0] == 202
    else:
        assert code(response) == (403, "not_allowed")


def test_a_prefix_with_an_accent_is_compared_as_s3_does() -> None:
    composed, decomposed = "caf\u00e9/a.jpg", "cafe\u0301/a.jpg"
    world = World(settings=replace(SETTINGS, source_buckets="photos/caf\u00e9/"))
    for key in (composed, decomposed):
        world.storage.write("photos", key, PHOTO, "image/jpeg")
    assert new_job(world, source={"bucket": "photos", "key": composed})[0] == 202
    assert code(new_job(world, source={"bucket": "photos", "key": decomposed})) == (403, "not_allowed")


def test_a_caller_cannot_leave_its_own_uploads_by_a_relative_path() -> None:
    world = World()
    key = f"{uploads_of('shop')}../{folder_of('other')}/a.jpg"
    world.storage.write("inbox-bucket", key, PHOTO, "image/jpeg")
    assert code(new_job(world, SHOP, source={"bucket": "inbox-bucket", "key": key})) == (403, "not_allowed")


def test_an_upload_of_another_owner_is_missing() -> None:
    world = World()
    foreign = uploaded(world, OTHER)
    assert code(new_job(world, SHOP, source={"upload": foreign})) == (404, "source_missing")
    escaping = f"../{folder_of('other')}/{foreign}"
    assert code(new_job(world, SHOP, source={"upload": escaping})) == (404, "source_missing")


@pytest.mark.parametrize("state", ["absent", "empty"])
def test_a_missing_or_empty_upload_creates_no_job(state: str) -> None:
    world = World()
    upload = uploaded(world, body=b"")
    if state == "absent":
        world.storage.objects.clear()
    expected = {"absent": (404, "source_missing"), "empty": (400, "empty_file")}
    assert code(new_job(world, source={"upload": upload})) == expected[state]
    assert not world.jobs.records


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, (400, "invalid_options")),
        ({"source": "a.jpg"}, (400, "invalid_options")),
        ({"source": {"upload": "1", "url": "https://a.example"}}, (400, "invalid_options")),
        ({"source": {"bucket": "archive"}}, (400, "invalid_options")),
        ({"source": {"bucket": "inbox-bucket", "key": ""}}, (400, "invalid_options")),
        ({"source": {"bucket": "inbox-bucket", "key": "a\n.jpg"}}, (400, "invalid_options")),
        ({"source": {"bucket": "inbox-bucket", "key": "\ud800.jpg"}}, (400, "invalid_options")),
        ({"source": {"upload": 7}}, (400, "invalid_options")),
        ({"engine": "magic"}, (400, "unknown_engine")),
        ({"preset": "none"}, (422, "unknown_preset")),
        ({"prompt": {"box": [5, 5, 1, 1]}, "engine": "grabcut"}, (422, "invalid_prompt")),
        ({"output": {"background": "s3://inbox-bucket/backgrounds/a.jpg"}}, (400, "invalid_options")),
        ({"colour": "red"}, (400, "invalid_options")),
        ({"webhook": {"url": "https://hooks.example"}}, (400, "invalid_options")),
        ({"webhook": "hooks.example"}, (400, "invalid_url")),
        ({"webhook": "http://hooks.example/"}, (422, "blocked_url")),
        ({"webhook": "https://169.254.169.254/"}, (422, "blocked_url")),
    ],
)
def test_an_invalid_job_request_is_rejected_without_effects(payload: dict[str, Any], expected: tuple[int, str]) -> None:
    world = World()
    world.web.images["https://a.example/a.jpg"] = Download(PHOTO, "image/jpeg")
    request = {"source": {"url": "https://a.example/a.jpg"}, **payload} if payload else {}
    assert code(call(world, "POST", "/v1/jobs", SHOP, request)) == expected
    assert not world.jobs.records
    assert not world.storage.objects


@pytest.mark.parametrize("body", [None, b"", b"[]", b"{", b"\xff"])
def test_a_body_that_is_not_a_json_object_returns_400(body: bytes | None) -> None:
    for path in ("/v1/jobs", "/v1/uploads"):
        assert code(call(World(), "POST", path, SHOP, body)) == (400, "invalid_options")


def test_a_job_stores_its_webhook_with_the_key_that_signs_it_and_callers_see_the_url_alone() -> None:
    world = World()
    _, job, _ = new_job(world, webhook="https://hooks.example/maskdrop")
    stored = world.jobs.records[job["id"]]
    assert stored.webhook == Webhook("https://hooks.example/maskdrop", SHOP.key)
    listed = call(world, "GET", "/v1/jobs", SHOP)[1]["jobs"][0]
    one = call(world, "GET", f"/v1/jobs/{job['id']}", SHOP)[1]
    world.jobs.records[job["id"]] = replace(stored, state="failed")
    again = call(world, "POST", f"/v1/jobs/{job['id']}/retry", SHOP)[1]
    for shown in (job, listed, one, again):
        assert shown["webhook"] == {"url": "https://hooks.example/maskdrop"}
        assert SHOP.key not in json.dumps(shown)


def test_a_caller_without_a_key_can_create_jobs_but_no_webhooks() -> None:
    world = World()
    _, form, _ = call(
        world, "POST", "/iam/v1/uploads", body={"name": "a.jpg", "content_type": "image/jpeg"}, context=ROLE
    )
    world.storage.write("inbox-bucket", form["fields"]["key"], PHOTO, "image/jpeg")
    payload = {"source": {"upload": form["upload"]}}
    status, job, _ = call(world, "POST", "/iam/v1/jobs", body=payload, context=ROLE)
    assert (status, job["owner"]) == (202, "iam:arn:aws:sts::123456789012:assumed-role/Batch")
    with_webhook = {**payload, "webhook": "https://hooks.example/"}
    assert code(call(world, "POST", "/iam/v1/jobs", body=with_webhook, context=ROLE)) == (400, "invalid_options")


def test_a_url_sent_twice_with_one_idempotency_key_creates_one_job() -> None:
    world = World()
    world.web.images["https://a.example/a.jpg"] = Download(PHOTO, "image/jpeg")
    payload: dict[str, Any] = {"source": {"url": "https://a.example/a.jpg"}}
    key = {"idempotency-key": "1f2e"}
    first, second = (new_job(world, **payload, headers=key) for _ in range(2))
    assert first[:2] == second[:2]
    assert len(world.jobs.records) == len(world.queue.sent) == 1
    assert new_job(world, OTHER, **payload, headers=key)[1]["owner"] == "other"
    assert code(new_job(world, **payload, preset="webp", headers=key)) == (422, "idempotency_key_reused")


def test_a_repeated_request_queues_a_job_that_could_not_be_queued_before() -> None:
    world = World()
    payload: dict[str, Any] = {"source": {"upload": uploaded(world)}}
    send, world.queue.send = world.queue.send, _refuse  # type: ignore[method-assign]
    assert code(new_job(world, **payload, headers={"Idempotency-Key": "k"})) == (503, "queue_unavailable")
    world.queue.send = send  # type: ignore[method-assign]
    status, job, _ = new_job(world, **payload, headers={"Idempotency-Key": "k"})
    assert (status, world.queue.sent) == (
        202,
        [(JobMessage(job["id"], 0, job["trace_id"], group_of("shop")).to_body(), 0)],
    )


def _refuse(*_: Any, **__: Any) -> None:
    raise QueueUnavailable("Sending to the queue failed: Timeout.")


def test_only_the_owner_can_retry_a_failed_job() -> None:
    world = World()
    _, job, _ = new_job(world)
    path = f"/v1/jobs/{job['id']}/retry"
    world.jobs.records[job["id"]] = replace(world.jobs.records[job["id"]], state="failed", finished_at=NOW)
    assert code(call(world, "POST", path, OTHER)) == (404, "job_not_found")
    status, found, _ = call(world, "POST", path)
    assert (status, found["state"], len(world.queue.sent)) == (202, "queued", 2)
    admit([JobMessage(job["id"], 0)], world.settings, world.services, NOW)
    assert code(call(world, "POST", path)) == (409, "job_not_failed")


def test_only_the_owner_can_delete_a_job_and_its_upload() -> None:
    world = World()
    _, job, _ = new_job(world)
    path = f"/v1/jobs/{job['id']}"
    assert code(call(world, "DELETE", path, OTHER)) == (404, "job_not_found")
    admit([JobMessage(job["id"], 0)], world.settings, world.services, NOW)
    assert code(call(world, "DELETE", path)) == (409, "job_in_work")
    world.jobs.records[job["id"]] = replace(world.jobs.records[job["id"]], state="failed", finished_at=NOW)
    assert call(world, "DELETE", path)[:2] == (204, None)
    assert code(call(world, "GET", path)) == (404, "job_not_found")
    assert ("inbox-bucket", job["source"]["key"]) not in world.storage.objects


@pytest.mark.parametrize("mode", ["serverless", "off"])
def test_engines_are_listed_with_their_prompts_and_whether_they_are_interactive(mode: Any) -> None:
    world = World(settings=replace(SETTINGS, interactive_mode=mode))
    status, body, _ = call(world, "GET", "/v1/engines")
    assert status == 200
    found = {engine["name"]: engine for engine in body["engines"]}
    assert found.keys() == ENGINES.keys()
    assert [name for name, engine in found.items() if engine["default"]] == [
        DEFAULT_ENGINE["cutout"],
        DEFAULT_ENGINE["detect"],
    ]
    assert found["sam"]["prompts"] == ["box", "label", "points"]
    now = {name for name, engine in found.items() if engine["interactive"]}
    assert now == ({name for name, engine in ENGINES.items() if engine.light} if mode == "serverless" else set())


def test_only_callers_who_see_all_jobs_see_the_s3_objects_of_presets() -> None:
    world = World()
    secret = {"bucket": "inbox-bucket", "key": "backgrounds/next-campaign.jpg"}
    world.registry.put("preset", "campaign", {"output": {"background": secret}})
    for caller, shown in ((SHOP, {"bucket": "", "key": ""}), (replace(SHOP, scope="all"), secret)):
        _, body, _ = call(world, "GET", "/v1/presets", caller)
        (preset,) = [preset for preset in body["presets"] if preset["name"] == "campaign"]
        assert preset["output"]["background"] == shown


@pytest.mark.parametrize("path", ["/v1/health", "/v1/presets", "/v1/jobs", "/v1/nothing", "/v1.0/account"])
def test_no_response_may_be_cached_or_read_as_another_type(path: str) -> None:
    _, _, headers = call(World(), "GET", path, SHOP)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_presets_are_listed_with_their_options_and_invalid_ones_with_their_error() -> None:
    world = World()
    world.registry.put("preset", "shop", {"engine": "selfie", "output": {"format": "jpg", "background": "white"}})
    world.registry.put("preset", "broken", {"engine": "magic"})
    _, body, _ = call(world, "GET", "/v1/presets")
    found = {preset["name"]: preset for preset in body["presets"]}
    assert found.keys() == {*PRESETS, "shop", "broken"}
    assert (found["shop"]["engine"], found["shop"]["output"]["format"]) == ("selfie", "jpg")
    assert found["broken"]["error"]["code"] == "invalid_preset"
    assert "engine" not in found["broken"]
