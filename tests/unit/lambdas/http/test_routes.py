import base64
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.http.routes import process
from maskdrop.access import OPEN_PATHS, Caller, add_usage
from maskdrop.errors import TableUnavailable
from maskdrop.flow import admit, new_jobs, record_bundle
from tests.fakes import NOW, SETTINGS, World, a_source, a_success, minutes_later

OPERATOR = Caller(id="k0", owner="operator", scope="all", rate=1000)
SHOP = Caller(id="k1", owner="shop", scope="own", rate=3)
OTHER = Caller(id="k2", owner="other", scope="own", rate=100)


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


def call(
    world: World,
    path: str,
    *,
    context: dict[str, Any],
    method: str = "GET",
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    now: datetime = NOW,
) -> Response:
    """Sends a request as an event of API Gateway, at the time `now`."""
    world.registry.now = now
    event = {
        "httpMethod": method,
        "path": path,
        "resource": "/{proxy+}",
        "headers": headers or {},
        "multiValueHeaders": {name: [value] for name, value in (headers or {}).items()},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in (query or {}).items()} or None,
        "requestContext": {"stage": "v1", "requestId": "r", **context},
        "body": None,
        "isBase64Encoded": False,
    }
    response = process(event, SimpleNamespace(), world.settings, world.services, now)  # type: ignore[arg-type]
    joined = {name: ",".join(values) for name, values in response["multiValueHeaders"].items()}
    return Response(response["statusCode"], joined, response["body"])


def by(caller: Caller) -> dict[str, Any]:
    return {"authorizer": caller.to_context()}


def get(world: World, path: str, caller: Caller = OPERATOR, **query: str) -> tuple[int, Any]:
    response = call(world, path, context=by(caller), query=query)
    return response.status, response.body


def a_world(count: int) -> World:
    """Returns a world with `count` submitted jobs, one minute apart; the first one is done."""
    world = World()
    for number in range(count):
        now = minutes_later(number)
        admit(new_jobs([a_source(f"inbox/default/{number}.jpg")], now), world.settings, world.services, now)
    if count:
        first = world.bundles()[0]
        record_bundle(world.completed(first, [a_success(first.items[0].id)]), world.settings, world.services, NOW)
    return world


def test_health_returns_ok() -> None:
    status, body = get(World(), "/v1/health")
    assert (status, body["status"], body["stage"]) == (200, "ok", "test")


def test_a_finished_job_has_a_presigned_url_of_its_result() -> None:
    world = a_world(1)
    (job_id,) = world.jobs.records
    status, body = get(world, f"/v1/jobs/{job_id}")
    assert status == 200
    assert body["state"] == "done"
    assert body["result"]["url"].endswith(f"?valid={world.settings.link_s}")


def test_a_submitted_job_has_no_result() -> None:
    world = a_world(2)
    job_id = next(job.id for job in world.jobs.records.values() if job.state == "submitted")
    status, body = get(world, f"/v1/jobs/{job_id}")
    assert (status, body["state"], body["result"]) == (200, "submitted", None)


def test_an_unknown_job_returns_404_with_a_code() -> None:
    status, body = get(World(), "/v1/jobs/nope")
    assert status == 404
    assert body["error"]["code"] == "job_not_found"


def test_an_unknown_path_returns_404_with_a_code() -> None:
    status, body = get(World(), "/v1/nothing")
    assert (status, body["error"]["code"]) == (404, "not_found")


def test_jobs_are_listed_newest_first() -> None:
    status, body = get(a_world(5), "/v1/jobs", state="submitted")
    assert status == 200
    keys = [job["source"]["key"] for job in body["jobs"]]
    assert keys == [f"inbox/default/{number}.jpg" for number in (4, 3, 2, 1)]
    assert body["cursor"] is None


@pytest.mark.parametrize("state", [None, "submitted"])
def test_the_pages_together_are_the_list_without_duplicates(state: str | None) -> None:
    world = a_world(8)
    query: dict[str, Any] = {"state": state} if state else {}
    _, complete = get(world, "/v1/jobs", **query)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        _, page = get(world, "/v1/jobs", **{"limit": "3", **query, **({"cursor": cursor} if cursor else {})})
        assert len(page["jobs"]) <= 3
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
    assert seen == [job["id"] for job in complete["jobs"]]
    assert len(seen) == (7 if state else 8)


def test_jobs_changed_in_the_same_microsecond_are_all_listed() -> None:
    world = World()
    admit(new_jobs([a_source(f"inbox/{n}.jpg") for n in range(7)], NOW), world.settings, world.services, NOW)
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
        {"since": "yesterday"},
        {"since": "2026-11-20T12:00:00"},
        {"until": "0001-01-01T00:00:00+23:00"},
        {"cursor": "?"},
    ],
)
def test_an_invalid_query_parameter_returns_400_with_its_name(query: dict[str, Any]) -> None:
    status, body = get(a_world(1), "/v1/jobs", **query)
    assert (status, body["error"]["code"]) == (400, "invalid_options")
    assert next(iter(query)) in body["error"]["message"]


@pytest.mark.parametrize("cursor", [b"2026", b"\xff\xfe"])
def test_an_unknown_cursor_returns_422(cursor: bytes) -> None:
    encoded = base64.urlsafe_b64encode(cursor).decode()
    status, body = get(a_world(1), "/v1/jobs", cursor=encoded)
    assert (status, body["error"]["code"]) == (422, "unknown_cursor")


def test_a_job_without_an_s3_version_is_listed() -> None:
    world = a_world(1)
    (job,) = world.jobs.records.values()
    world.jobs.records[job.id] = replace(job, source=replace(job.source, version_id="", bytes=None))
    _, body = get(world, "/v1/jobs")
    assert body["jobs"][0]["source"]["bytes"] is None


def test_jobs_are_filtered_by_key_prefix_and_time() -> None:
    world = a_world(5)
    _, body = get(world, "/v1/jobs", prefix="inbox/default/3")
    assert [job["source"]["key"] for job in body["jobs"]] == ["inbox/default/3.jpg"]
    times: dict[str, Any] = {"since": "2026-11-20T12:01:00Z", "until": "2026-11-20T13:03:00+01:00"}
    _, body = get(world, "/v1/jobs", **times)
    assert [job["source"]["key"] for job in body["jobs"]] == [f"inbox/default/{number}.jpg" for number in (2, 1)]


def owned(world: World, **owners: str) -> None:
    """Sets the owners of jobs: jN is the owner of inbox/default/N.jpg."""
    for job in list(world.jobs.records.values()):
        owner = owners.get(f"j{job.source.key.removeprefix('inbox/default/').removesuffix('.jpg')}", "")
        world.jobs.records[job.id] = replace(job, owner=owner)


def test_a_caller_sees_only_the_jobs_of_its_owner() -> None:
    world = a_world(4)
    owned(world, j1="shop", j2="other", j3="shop")
    _, body = get(world, "/v1/jobs", SHOP)
    assert [job["source"]["key"] for job in body["jobs"]] == ["inbox/default/3.jpg", "inbox/default/1.jpg"]
    statuses = {job.owner: get(world, f"/v1/jobs/{job.id}", OTHER)[0] for job in world.jobs.records.values()}
    assert statuses == {"": 404, "shop": 404, "other": 200}


def test_a_job_of_another_owner_gives_the_same_response_as_an_unknown_job() -> None:
    world = a_world(1)
    (job_id,) = world.jobs.records
    gone = job_id[::-1]
    _, hidden = get(world, f"/v1/jobs/{job_id}", SHOP)
    _, missing = get(world, f"/v1/jobs/{gone}", SHOP)
    assert json.dumps(hidden).replace(job_id, gone) == json.dumps(missing)


def test_the_operator_sees_the_jobs_of_all_owners_and_of_the_drop_folder() -> None:
    world = a_world(3)
    owned(world, j1="shop")
    _, body = get(world, "/v1/jobs", OPERATOR)
    assert {job["owner"] for job in body["jobs"]} == {"", "shop"}


@pytest.mark.parametrize(
    ("arn", "owner"),
    [
        ("arn:aws:sts::123456789012:assumed-role/Batch/session-1", "iam:arn:aws:sts::123456789012:assumed-role/Batch"),
        ("arn:aws:iam::123456789012:user/team/ann", "iam:arn:aws:iam::123456789012:user/team/ann"),
    ],
)
def test_a_signed_request_belongs_to_its_iam_role_or_user(arn: str, owner: str) -> None:
    world = a_world(2)
    owned(world, j1=owner)
    response = call(world, "/iam/v1/jobs", context={"identity": {"userArn": arn}})
    assert [job["owner"] for job in response.body["jobs"]] == [owner]
    assert response.headers["X-RateLimit-Remaining"] == "599"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/usage", "/iam/v1/jobs", "/v1/nothing", "/v1/health/../jobs"])
def test_an_anonymous_request_can_reach_only_the_open_paths(path: str) -> None:
    response = call(a_world(1), path, context={"identity": {"userArn": None}})
    assert (response.status, response.body["error"]["code"]) == (403, "auth_failed")


def test_the_health_check_needs_no_key_and_is_not_counted() -> None:
    world = World()
    assert "/v1/health" in OPEN_PATHS
    response = call(world, "/v1/health", context={})
    assert response.status == 200
    assert not [name for name in response.headers if name.startswith("X-RateLimit")]
    assert not world.registry.items


def test_every_response_has_the_rate_limit_headers() -> None:
    world = World()
    reset = str(int((NOW + timedelta(seconds=60)).timestamp()))
    for seconds, path, remaining in ((0, "/v1/usage", "2"), (20, "/v1/jobs/nope", "1"), (59, "/v1/nothing", "0")):
        response = call(world, path, context=by(SHOP), now=NOW + timedelta(seconds=seconds))
        limits = {name: value for name, value in response.headers.items() if name.startswith("X-RateLimit-")}
        assert limits == {
            "X-RateLimit-Limit": "3", "X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": reset,
        }  # fmt: skip
        assert "Retry-After" not in response.headers


def test_a_request_above_the_limit_returns_429_until_the_window_ends() -> None:
    world = World()
    for _ in range(3):
        assert call(world, "/v1/usage", context=by(SHOP)).status == 200
    response = call(world, "/v1/usage", context=by(SHOP), now=NOW + timedelta(seconds=18.5))
    assert (response.status, response.body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert response.headers["Retry-After"] == "42"
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert call(world, "/v1/usage", context=by(OTHER)).status == 200
    assert call(world, "/v1/usage", context=by(SHOP), now=NOW + timedelta(seconds=60)).status == 200


NOTHING_GENERATED = {"generated": 0, "generated_usd": 0.0}


def test_usage_counts_the_images_and_rejected_requests_of_a_month() -> None:
    world = World()
    add_usage(world.registry, "shop", NOW, pictures=2)
    add_usage(world.registry, "shop", NOW, pictures=1)
    add_usage(world.registry, "other", NOW, pictures=7)
    for _ in range(4):
        call(world, "/v1/usage", context=by(SHOP))
    response, none = call(world, "/v1/usage", context=by(SHOP), now=minutes_later(2)), NOTHING_GENERATED
    assert response.body == {"owner": "shop", "month": "2026-11", "pictures": 3, "refused": 1, **none}
    response = call(world, "/v1/usage", context=by(SHOP), query={"month": "2026-10"}, now=minutes_later(2))
    assert response.body == {"owner": "shop", "month": "2026-10", "pictures": 0, "refused": 0, **none}


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-11#", "november"])
def test_an_invalid_month_returns_400(month: str) -> None:
    status, body = get(World(), "/v1/usage", month=month)
    assert (status, body["error"]["code"]) == (400, "invalid_options")


def test_an_unavailable_registry_returns_503() -> None:
    world = World()
    world.registry.broken = TableUnavailable("Counting in the registry failed: Timeout.")
    status, body = get(world, "/v1/usage")
    assert (status, body["error"]["code"], body["error"]["retryable"]) == (503, "table_unavailable", True)


def test_no_origin_is_allowed_by_default() -> None:
    response = call(World(), "/v1/health", context={}, headers={"Origin": "https://a.example"})
    assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [("https://a.example https://b.example", "https://b.example"), ("*", "*"), ("https://a.example", None)],
)
def test_preflight_and_response_have_cors_headers_for_an_allowed_origin(origins: str, allowed: str | None) -> None:
    world = World(settings=replace(SETTINGS, cors_origins=origins))
    origin = {"Origin": "https://b.example"}
    preflight = call(world, "/v1/jobs", method="OPTIONS", context={}, headers=origin)
    assert preflight.status == 204
    refused = call(world, "/v1/jobs", context={}, headers=origin)
    for response in (preflight, refused):
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
    if allowed:
        assert "GET" in preflight.headers["Access-Control-Allow-Methods"]
        assert "X-Api-Key" in preflight.headers["Access-Control-Allow-Headers"]
        assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
