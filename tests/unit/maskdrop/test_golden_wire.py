"""Every JSON form that leaves a process, compared byte for byte with a recording (tests/golden/wire, tests/golden/api).

Records in DynamoDB, messages in queues and callers' code hold these forms: a change here breaks an upgrade.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.http.routes import process
from maskdrop.access import Caller, Key
from maskdrop.job import Job
from maskdrop.options import Options
from maskdrop.webhook import event_of
from maskdrop.wire import Bundle, BundleMessage, BundleResponse, Facts, Invocation, JobMessage, Notification
from tests.fakes import NOW, World

GOLDEN = Path(__file__).parents[2] / "golden"


def _json(cls: Any) -> Callable[[str], str]:
    return lambda text: json.dumps(cls.from_json(json.loads(text)).to_json())


def _event(text: str) -> str:
    data = json.loads(text)["data"]
    webhook = data["webhook"] and {**data["webhook"], "key": "k"}
    return json.dumps(event_of(Job.from_json({**data, "webhook": webhook})))


ROUND_TRIPS: dict[str, Callable[[str], str]] = {
    "answer": lambda text: BundleResponse.from_bytes(text.encode()).to_bytes().decode(),
    "answer-unpriced": lambda text: BundleResponse.from_bytes(text.encode()).to_bytes().decode(),
    "bundle": lambda text: Bundle.from_bytes(text.encode()).to_bytes().decode(),
    "bundle-message": lambda text: BundleMessage.from_body(text).to_body(),
    "event-done": _event,
    "event-failed": _event,
    "facts": lambda text: Facts.from_header(text).to_header(),
    "facts-no-subject": lambda text: Facts.from_header(text).to_header(),
    "invocation": lambda text: Invocation.from_header(text).to_header(),
    "invocation-default": lambda text: Invocation.from_header(text).to_header(),
    "job-done": _json(Job),
    "job-failed": _json(Job),
    "job-message": lambda text: JobMessage.from_body(text).to_body(),
    "job-queued": _json(Job),
    "key": _json(Key),
    "notification-completed": lambda text: Notification.from_body(text).to_body(),
    "notification-failed": lambda text: Notification.from_body(text).to_body(),
    "options": _json(Options),
    "options-strokes": _json(Options),
}


def test_every_recording_is_compared() -> None:
    assert {path.stem for path in (GOLDEN / "wire").iterdir()} == set(ROUND_TRIPS)


@pytest.mark.parametrize("name", sorted(ROUND_TRIPS))
def test_a_recorded_form_is_read_and_written_byte_for_byte(name: str) -> None:
    text = (GOLDEN / "wire" / f"{name}.json").read_text()
    assert ROUND_TRIPS[name](text) == text


REQUESTS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "engines": ("GET", "/v1/engines", {}, ""),
    "job": ("GET", "/v1/jobs/a7974de70a35a7736524071c62993e9b", {}, ""),
    "job-failed": ("GET", "/v1/jobs/9ceab1acce5d69cea84d57931e8f1f1f", {}, ""),
    "jobs": ("GET", "/v1/jobs", {}, ""),
    "jobs-first-page": ("GET", "/v1/jobs", {"limit": "1"}, ""),
    "new-job": ("POST", "/v1/jobs", {}, '{"source": {"bucket": "inbox-bucket", "key": "inbox/default/photo.jpg"}}'),
    "presets": ("GET", "/v1/presets", {}, ""),
    "retry": ("POST", "/v1/jobs/9ceab1acce5d69cea84d57931e8f1f1f/retry", {}, ""),
    "usage": ("GET", "/v1/usage", {}, ""),
}


def response_to(name: str) -> str:
    """The status, the headers and the body of the API's response to a request by an operator."""
    world = World()
    for form in ("job-done", "job-failed"):
        job = Job.from_json(json.loads((GOLDEN / "wire" / f"{form}.json").read_text()))
        world.jobs.records[job.id] = job
    world.storage.objects["inbox-bucket", "inbox/default/photo.jpg"] = b"bytes"
    world.registry.now = NOW
    method, path, query, body = REQUESTS[name]
    event = {
        "httpMethod": method,
        "path": path,
        "resource": "/{proxy+}",
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {key: [value] for key, value in query.items()} or None,
        "requestContext": {
            "stage": "v1",
            "requestId": "r",
            "authorizer": Caller(id="k0", owner="operator", scope="all", rate=1000).to_context(),
        },
        "body": body or None,
        "isBase64Encoded": False,
    }
    response = process(event, SimpleNamespace(), world.settings, world.services, NOW)  # type: ignore[arg-type]
    headers = json.dumps(response["multiValueHeaders"], sort_keys=True)
    return f"{response['statusCode']}\n{headers}\n{response['body']}\n"


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_recorded_response_of_the_api_is_the_same_byte_for_byte(name: str) -> None:
    assert response_to(name) == (GOLDEN / "api" / f"{name}.txt").read_text()


if __name__ == "__main__":  # records the responses again, after an intended change
    for request in REQUESTS:
        (GOLDEN / "api" / f"{request}.txt").write_text(response_to(request))
