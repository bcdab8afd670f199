"""Tests POST /detect-airplane as the older system's client calls it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lambdas.http.cutouts import BODY_MAX
from lambdas.http.dialects.airplanes import PATHS, THRESHOLD, error_response
from maskdrop.access import OPEN_PATHS, usage_of
from maskdrop.errors import (
    AuthFailed,
    EndpointStarting,
    EndpointUnavailable,
    MaskdropError,
    UnknownEngine,
    UnreadableImage,
)
from maskdrop.interactive import BYTES_MAX
from maskdrop.options import Options
from tests.fakes import NOW, SETTINGS, World
from tests.unit.lambdas.http.vendors import PHOTO, Response, call

DETECTIONS: list[dict[str, Any]] = [
    {"label": "airplane", "score": 0.9, "box": [64, 48, 320, 240]},
    {"label": "car", "score": THRESHOLD, "box": [0, 0, 640, 480]},
    {"label": "car", "score": 0.1, "box": [1, 2, 3, 4]},
]


def detect(world: World, body: bytes = PHOTO, content_type: str = "application/jpeg", **query: str) -> Response:
    return call(world, "POST", "/detect-airplane", body=body, content_type=content_type, query=query)


def a_world() -> World:
    world = World()
    world.interactive.detections = DETECTIONS
    return world


def parsed_twice(response: Response) -> Any:
    """Returns the body as the older system's client parses it: JSON inside JSON, which names the status too."""
    assert response.headers["content-type"] == "application/json"
    assert response.json.keys() == {"statusCode", "body"}
    assert response.json["statusCode"] == response.status
    return json.loads(response.json["body"])


@pytest.mark.parametrize("content_type", ["application/jpeg", "image/jpeg", "image/png", "application/octet-stream"])
def test_a_client_that_parses_the_body_twice_gets_classes_scores_and_ratios(content_type: str) -> None:
    world = a_world()
    assert parsed_twice(detect(world, content_type=content_type)) == {
        "detections": [[1.0, 0.9, 0.1, 0.1, 0.5, 0.5], [0.0, THRESHOLD, 0.0, 0.0, 1.0, 1.0]]
    }
    ((image, invocation),) = world.interactive.requests
    assert (image, invocation.options) == (PHOTO, Options(task="detect", engine="detector"))


def test_an_image_without_an_airplane_is_a_list_and_not_null() -> None:
    """The older system's function returned null for every image."""
    assert parsed_twice(detect(World())) == {"detections": []}


@pytest.mark.parametrize(("threshold", "count"), [("", 2), ("0.05", 3), ("0.5", 1), ("1", 0)])
def test_the_threshold_is_the_lowest_score(threshold: str, count: int) -> None:
    assert len(parsed_twice(detect(a_world(), threshold=threshold))["detections"]) == count


@pytest.mark.parametrize("threshold", ["-0.1", "1.1", "nan", "inf", "half"])
def test_an_invalid_threshold_is_rejected(threshold: str) -> None:
    world = a_world()
    response = detect(world, threshold=threshold)
    assert (response.status, parsed_twice(response)["error"]["code"]) == (400, "invalid_options")
    assert world.interactive.requests == []


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "application/jpeg", 400, "empty_file"),
        (PHOTO, "", 415, "unsupported_format"),
        (PHOTO, "application/json", 415, "unsupported_format"),
        (b"x" * (BYTES_MAX + 1), "application/jpeg", 413, "file_too_large"),
        (b"x" * (BODY_MAX + 1), "application/jpeg", 413, "file_too_large"),
    ],
)
def test_an_invalid_request_is_an_error_in_the_same_envelope(
    body: bytes, content_type: str, status: int, code: str
) -> None:
    response = detect(World(), body, content_type)
    assert (response.status, parsed_twice(response)["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnreadableImage, 422, "unreadable_picture"),
        (UnknownEngine, 400, "unknown_engine"),
        (EndpointStarting, 503, "endpoint_unavailable"),
        (EndpointUnavailable, 503, "endpoint_unavailable"),
    ],
)
def test_an_error_of_the_endpoint_is_in_the_envelope(error: type[MaskdropError], status: int, code: str) -> None:
    world = a_world()
    world.interactive.broken = error("It went wrong.")
    response = detect(world)
    assert (response.status, parsed_twice(response)["error"]["code"]) == (status, code)
    assert ("retry-after" in response.headers) == error.retryable


def test_a_stage_without_an_interactive_endpoint_returns_503() -> None:
    world = World(settings=replace(SETTINGS, interactive="", interactive_mode="off"))
    assert detect(world).status == 503
    assert world.jobs.records == {}


def test_each_image_counts_in_the_usage_and_the_path_requires_a_key() -> None:
    world = a_world()
    detect(world)
    assert usage_of(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 1
    assert not set(PATHS) & set(OPEN_PATHS)
    assert error_response(AuthFailed("No key.")).status_code == 403


def test_another_method_is_rejected_in_the_envelope() -> None:
    response = call(World(), "GET", "/detect-airplane")
    assert response.status in (404, 405)
    assert parsed_twice(response)["error"]["code"] in ("not_found", "method_not_allowed")
