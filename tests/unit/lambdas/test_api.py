import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.api import work
from maskdrop.flow import admit, arrivals, settle
from tests.fakes import NOW, World, a_source, a_success, minutes_later


def get(world: World, path: str, resource: str | None = None, **query: str) -> tuple[int, dict[str, Any]]:
    event = {
        "httpMethod": "GET",
        "path": path,
        "resource": resource or path,
        "headers": {},
        "multiValueHeaders": {},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
        "requestContext": {"stage": "v1", "requestId": "r"},
        "body": None,
        "isBase64Encoded": False,
    }
    answer = work(event, SimpleNamespace(), world.settings, world.services)  # type: ignore[arg-type]
    return answer["statusCode"], json.loads(answer["body"])


def a_world(count: int) -> World:
    """`count` jobs submitted, a minute between them; the first is done."""
    world = World()
    for number in range(count):
        now = minutes_later(number)
        admit(arrivals([a_source(f"inbox/default/{number}.jpg")], now), world.settings, world.services, now)
    if count:
        first = world.bundles()[0]
        settle(world.answered(first, [a_success(first.items[0].id)]), world.settings, world.services, NOW)
    return world


def test_health_says_ok() -> None:
    status, body = get(World(), "/v1/health")
    assert (status, body["status"], body["stage"]) == (200, "ok", "test")


def test_a_done_job_comes_with_an_address_of_its_result() -> None:
    world = a_world(1)
    (job_id,) = world.jobs.records
    status, body = get(world, f"/v1/jobs/{job_id}")
    assert status == 200
    assert body["state"] == "done"
    assert body["result"]["url"].endswith(f"?valid={world.settings.link_s}")


def test_a_job_on_its_way_has_no_result() -> None:
    world = a_world(2)
    job_id = next(job.id for job in world.jobs.records.values() if job.state == "submitted")
    status, body = get(world, f"/v1/jobs/{job_id}")
    assert (status, body["state"], body["result"]) == (200, "submitted", None)


def test_an_unknown_job_is_404_with_a_code() -> None:
    status, body = get(World(), "/v1/jobs/nope")
    assert status == 404
    assert body["error"]["code"] == "job_not_found"


def test_an_unknown_address_is_404_with_a_code() -> None:
    status, body = get(World(), "/v1/nothing")
    assert (status, body["error"]["code"]) == (404, "not_found")


def test_jobs_are_listed_newest_first() -> None:
    status, body = get(a_world(5), "/v1/jobs", state="submitted")
    assert status == 200
    keys = [job["source"]["key"] for job in body["jobs"]]
    assert keys == [f"inbox/default/{number}.jpg" for number in (4, 3, 2, 1)]
    assert body["cursor"] is None


@pytest.mark.parametrize("state", [None, "submitted"])
def test_pages_together_are_the_whole_list_without_repeats(state: str | None) -> None:
    world = a_world(8)
    query = {"state": state} if state else {}
    _, whole = get(world, "/v1/jobs", **query)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        _, page = get(world, "/v1/jobs", limit="3", **query, **({"cursor": cursor} if cursor else {}))
        assert len(page["jobs"]) <= 3
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
    assert seen == [job["id"] for job in whole["jobs"]]
    assert len(seen) == (7 if state else 8)


def test_jobs_changed_in_the_same_microsecond_are_all_listed() -> None:
    world = World()
    admit(arrivals([a_source(f"inbox/{n}.jpg") for n in range(7)], NOW), world.settings, world.services, NOW)
    _, first = get(world, "/v1/jobs", limit="4")
    _, second = get(world, "/v1/jobs", limit="4", cursor=first["cursor"])
    assert len({job["id"] for job in first["jobs"] + second["jobs"]}) == 7


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "ten"},
        {"limit": "²"},
        {"cursor": "?"},
        {"cursor": base64.urlsafe_b64encode(b"2026").decode()},
        {"cursor": base64.urlsafe_b64encode(b"\xff\xfe").decode()},
    ],
)
def test_a_wrong_question_is_400_and_says_what_is_wrong(query: dict[str, str]) -> None:
    status, body = get(a_world(1), "/v1/jobs", **query)
    assert (status, body["error"]["code"]) == (400, "invalid_options")
    assert next(iter(query)) in body["error"]["message"]


def test_a_record_without_a_version_of_s3_is_listed_like_any_other() -> None:
    world = a_world(1)
    (job,) = world.jobs.records.values()
    world.jobs.records[job.id] = replace(job, source=replace(job.source, version_id="", bytes=None))
    _, body = get(world, "/v1/jobs")
    assert body["jobs"][0]["source"]["bytes"] is None
