"""POST /v1/uploads and /v1/jobs, DELETE and retry of jobs, engines and presets, with the services in memory."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.http.jobs import UPLOAD_S
from lambdas.http.routes import process
from maskdrop.access import Caller, used
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES
from maskdrop.errors import QueueUnavailable
from maskdrop.flow import admit
from maskdrop.job import folder_of, uploads_of
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
    world: World, method: str, path: str, caller: Caller = SHOP, body: Any = None, **more: Any
) -> tuple[int, Any, dict[str, str]]:
    """As API Gateway hands it on. more: headers, context. Status, body and headers of the answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **more.get("headers", {})}
    event = {
        "httpMethod": method,
        "path": path,
        "resource": "/{proxy+}",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"requestId": "r", **more.get("context", {"authorizer": caller.to_context()})},
        "body": None if body is None else base64.b64encode(text).decode(),
        "isBase64Encoded": body is not None,
    }
    now = more.get("now", NOW)
    answer = process(event, SimpleNamespace(), world.settings, world.services, now)  # type: ignore[arg-type]
    told = {name: ",".join(values) for name, values in answer["multiValueHeaders"].items()}
    return answer["statusCode"], json.loads(answer["body"] or "null"), told


def uploaded(world: World, caller: Caller = SHOP, body: bytes = PHOTO) -> str:
    """The id of an upload that has arrived."""
    asked = {"name": "a photo.jpg", "content_type": "image/jpeg"}
    status, form, _ = call(world, "POST", "/v1/uploads", caller, asked)
    assert status == 201, form
    world.storage.write("inbox-bucket", form["fields"]["key"], body, "image/jpeg")
    return str(form["upload"])


def new_job(world: World, caller: Caller = SHOP, **more: Any) -> tuple[int, Any, dict[str, str]]:
    headers = more.pop("headers", {})
    source = more.pop("source", None) or {"upload": uploaded(world, caller)}
    return call(world, "POST", "/v1/jobs", caller, {"source": source, **more}, headers=headers)


def code(answer: tuple[int, Any, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["code"]


def test_an_upload_is_a_form_for_one_file_of_a_type_and_a_size_in_the_owners_folder() -> None:
    asked = {"name": "Fräulein (1).jpg", "content_type": "image/jpeg"}
    status, form, _ = call(World(), "POST", "/v1/uploads", SHOP, asked)
    assert status == 201
    assert form["fields"]["key"] == uploads_of("shop") + form["upload"]
    assert form["upload"].endswith("/Fräulein (1).jpg")
    assert form["fields"]["Content-Type"] == "image/jpeg"
    assert form["fields"]["max"] == str(form["bytes_max"]) == str(IMAGE_BYTES_MAX)
    assert form["expires_at"] == f"2026-11-20T12:0{UPLOAD_S // 60}:00.000000Z"


@pytest.mark.parametrize(
    "asked",
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
        *({"name": "a", "content_type": kind} for kind in ("text/html", "image/", "image/jpeg; q=1", "IMAGE/JPEG")),
    ],
)
def test_an_upload_that_is_asked_for_wrongly_is_400(asked: Any) -> None:
    assert code(call(World(), "POST", "/v1/uploads", SHOP, asked)) == (400, "invalid_options")


def test_an_upload_becomes_a_job_that_waits_in_the_queue() -> None:
    world = World()
    status, job, headers = new_job(world, preset="webp", engine="grabcut", output={"background": "#fff"})
    assert status == 202
    assert headers["Location"] == f"jobs/{job['id']}"
    assert (job["state"], job["owner"], job["preset"], job["engine"]) == ("queued", "shop", "webp", "grabcut")
    assert (job["output"]["format"], job["source"]["bytes"]) == ("webp", len(PHOTO))
    assert job["source"]["version_id"]
    assert world.queue.sent == [(JobMessage(job["id"], 0).to_body(), 0)]
    assert world.jobs.records[job["id"]].result_key == f"results/jobs/{folder_of('shop')}/{job['id']}.webp"
    assert used(world.registry, "shop", "2026-11")["pictures"] == 1


def test_the_same_result_of_the_same_object_is_one_job_and_counted_once() -> None:
    world = World()
    upload = {"upload": uploaded(world)}
    first, second = (
        call(world, "POST", "/v1/jobs", SHOP, {"source": upload}, now=minutes_later(minute)) for minute in (0, 1)
    )
    assert (first[0], second[0]) == (202, 202)
    assert first[1] == second[1]
    assert used(world.registry, "shop", "2026-11")["pictures"] == 1


def test_a_job_that_has_ended_is_told_at_once() -> None:
    world = World()
    upload = {"upload": uploaded(world)}
    _, job, _ = new_job(world, source=upload)
    world.jobs.records[job["id"]] = replace(world.jobs.records[job["id"]], state="done", finished_at=NOW)
    status, told, _ = new_job(world, source=upload)
    assert (status, told["id"], told["state"]) == (200, job["id"], "done")


def test_a_picture_from_an_address_is_fetched_into_the_owners_folder() -> None:
    world = World()
    world.web.pictures["https://a.example/a.jpg"] = Download(PHOTO, "image/jpeg")
    status, job, _ = new_job(world, source={"url": "https://a.example/a.jpg"})
    assert status == 202
    assert job["source"]["key"].startswith(uploads_of("shop"))
    assert world.storage.read("inbox-bucket", job["source"]["key"]) == PHOTO
    assert code(new_job(world, source={"url": "https://b.example/"})) == (424, "failed_download")


def test_an_object_that_is_replaced_is_another_job() -> None:
    world = World(settings=replace(SETTINGS, source_buckets="archive shop-photos"))
    source = {"bucket": "shop-photos", "key": "2026/a.jpg"}
    ids = set()
    for body in (b"first", b"second"):
        world.storage.write("shop-photos", "2026/a.jpg", body, "image/jpeg")
        ids.add(new_job(world, source=source)[1]["id"])
    assert len(ids) == 2


def test_of_s3_a_caller_has_the_open_buckets_and_its_own_uploads_and_who_sees_all_has_the_inbox() -> None:
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

    def may(caller: Caller) -> set[str]:
        sources = {name: {"bucket": bucket, "key": key} for name, (bucket, key) in places.items()}
        answers = {name: new_job(world, caller, source=source) for name, source in sources.items()}
        assert {code(answer) for answer in answers.values() if answer[0] != 202} == {(403, "not_allowed")}
        return {name for name, answer in answers.items() if answer[0] == 202}

    assert may(SHOP) == {"open", "own"}
    assert may(OPERATOR) == {"open", "own", "theirs", "dropped"}


def test_an_upload_of_anothers_is_not_there() -> None:
    world = World()
    theirs = uploaded(world, OTHER)
    assert code(new_job(world, SHOP, source={"upload": theirs})) == (404, "source_missing")
    escaping = f"../{folder_of('other')}/{theirs}"
    assert code(new_job(world, SHOP, source={"upload": escaping})) == (404, "source_missing")


@pytest.mark.parametrize("state", ["absent", "empty"])
def test_an_upload_that_has_not_come_or_is_empty_makes_no_job(state: str) -> None:
    world = World()
    upload = uploaded(world, body=b"")
    if state == "absent":
        world.storage.objects.clear()
    expected = {"absent": (404, "source_missing"), "empty": (400, "empty_file")}
    assert code(new_job(world, source={"upload": upload})) == expected[state]
    assert not world.jobs.records


@pytest.mark.parametrize(
    ("asked", "expected"),
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
def test_a_job_that_is_asked_for_wrongly_is_refused_before_anything_is_done(
    asked: dict[str, Any], expected: tuple[int, str]
) -> None:
    world = World()
    world.web.pictures["https://a.example/a.jpg"] = Download(PHOTO, "image/jpeg")
    wanted = {"source": {"url": "https://a.example/a.jpg"}, **asked} if asked else {}
    assert code(call(world, "POST", "/v1/jobs", SHOP, wanted)) == expected
    assert not world.jobs.records
    assert not world.storage.objects


@pytest.mark.parametrize("body", [None, b"", b"[]", b"{", b"\xff"])
def test_a_body_that_is_no_object_is_400(body: bytes | None) -> None:
    for path in ("/v1/jobs", "/v1/uploads"):
        assert code(call(World(), "POST", path, SHOP, body)) == (400, "invalid_options")


def test_a_webhook_is_kept_with_the_key_that_signs_it() -> None:
    world = World()
    _, job, _ = new_job(world, webhook="https://hooks.example/maskdrop")
    assert job["webhook"] == {"url": "https://hooks.example/maskdrop", "key": SHOP.key}


def test_a_caller_without_a_key_has_jobs_and_no_webhooks() -> None:
    world = World()
    _, form, _ = call(
        world, "POST", "/iam/v1/uploads", body={"name": "a.jpg", "content_type": "image/jpeg"}, context=ROLE
    )
    world.storage.write("inbox-bucket", form["fields"]["key"], PHOTO, "image/jpeg")
    asked = {"source": {"upload": form["upload"]}}
    status, job, _ = call(world, "POST", "/iam/v1/jobs", body=asked, context=ROLE)
    assert (status, job["owner"]) == (202, "iam:arn:aws:sts::123456789012:assumed-role/Batch")
    hooked = {**asked, "webhook": "https://hooks.example/"}
    assert code(call(world, "POST", "/iam/v1/jobs", body=hooked, context=ROLE)) == (400, "invalid_options")


def test_an_idempotency_key_makes_one_job_of_an_address_that_is_sent_twice() -> None:
    world = World()
    world.web.pictures["https://a.example/a.jpg"] = Download(PHOTO, "image/jpeg")
    asked = {"source": {"url": "https://a.example/a.jpg"}}
    key = {"idempotency-key": "1f2e"}
    first, second = (new_job(world, **asked, headers=key) for _ in range(2))
    assert first[:2] == second[:2]
    assert len(world.jobs.records) == len(world.queue.sent) == 1
    assert new_job(world, OTHER, **asked, headers=key)[1]["owner"] == "other"
    assert code(new_job(world, **asked, preset="webp", headers=key)) == (422, "idempotency_key_reused")


def test_a_job_that_could_not_be_announced_is_announced_when_it_is_asked_for_again() -> None:
    world = World()
    asked = {"source": {"upload": uploaded(world)}}
    send, world.queue.send = world.queue.send, _refuse  # type: ignore[method-assign]
    assert code(new_job(world, **asked, headers={"Idempotency-Key": "k"})) == (503, "queue_unavailable")
    world.queue.send = send  # type: ignore[method-assign]
    status, job, _ = new_job(world, **asked, headers={"Idempotency-Key": "k"})
    assert (status, world.queue.sent) == (202, [(JobMessage(job["id"], 0).to_body(), 0)])


def _refuse(*_: Any, **__: Any) -> None:
    raise QueueUnavailable("Sending to the queue failed: Timeout.")


def test_a_failed_job_is_tried_anew_by_its_owner_alone() -> None:
    world = World()
    _, job, _ = new_job(world)
    path = f"/v1/jobs/{job['id']}/retry"
    world.jobs.records[job["id"]] = replace(world.jobs.records[job["id"]], state="failed", finished_at=NOW)
    assert code(call(world, "POST", path, OTHER)) == (404, "job_not_found")
    status, told, _ = call(world, "POST", path)
    assert (status, told["state"], len(world.queue.sent)) == (202, "queued", 2)
    admit([JobMessage(job["id"], 0)], world.settings, world.services, NOW)
    assert code(call(world, "POST", path)) == (409, "job_not_failed")


def test_a_job_is_deleted_with_its_upload_by_its_owner_alone() -> None:
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
def test_every_engine_is_told_with_what_it_takes_and_whether_it_answers_at_once(mode: Any) -> None:
    world = World(settings=replace(SETTINGS, interactive_mode=mode))
    status, body, _ = call(world, "GET", "/v1/engines")
    assert status == 200
    told = {engine["name"]: engine for engine in body["engines"]}
    assert told.keys() == ENGINES.keys()
    assert [name for name, engine in told.items() if engine["default"]] == [DEFAULT_ENGINE["cutout"]]
    assert told["sam"]["prompts"] == ["box", "points"]
    now = {name for name, engine in told.items() if engine["interactive"]}
    assert now == ({name for name, engine in ENGINES.items() if engine.light} if mode == "serverless" else set())


def test_presets_are_told_with_their_options_and_one_that_cannot_be_used_with_its_error() -> None:
    world = World()
    world.registry.put("preset", "shop", {"engine": "selfie", "output": {"format": "jpg", "background": "white"}})
    world.registry.put("preset", "broken", {"engine": "magic"})
    _, body, _ = call(world, "GET", "/v1/presets")
    told = {preset["name"]: preset for preset in body["presets"]}
    assert told.keys() == {*PRESETS, "shop", "broken"}
    assert (told["shop"]["engine"], told["shop"]["output"]["format"]) == ("selfie", "jpg")
    assert told["broken"]["error"]["code"] == "invalid_preset"
    assert "engine" not in told["broken"]
