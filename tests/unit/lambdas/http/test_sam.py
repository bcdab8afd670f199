"""Tests POST /invocations as the clients of the older endpoint call it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from lambdas.http.cutouts import BODY_MAX
from lambdas.http.dialects.sam import PATHS
from maskdrop.access import OPEN_PATHS, usage_of
from maskdrop.errors import EndpointStarting, EndpointUnavailable, MaskdropError, UnreadableImage
from maskdrop.interactive import BYTES_MAX
from tests.fakes import NOW, SETTINGS, World
from tests.load.mix import box_request
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Response, call, in_json, multipart

REQUEST = {"encode_image": ENCODED, "input_box": [1, 2, 30, 40]}


def segment(world: World, payload: Any) -> Response:
    body, content_type = in_json(payload)
    return call(world, "POST", "/invocations", body=body, content_type=content_type)


def error_code(response: Response) -> tuple[int, str]:
    return response.status, response.json["error"]["code"]


def test_the_request_is_forwarded_and_the_response_is_that_of_the_endpoint() -> None:
    world = World()
    response = segment(world, REQUEST)
    assert (response.status, response.json) == (200, {"mask_image": "AAAA"})
    assert [json.loads(body) for body in world.interactive.boxes] == [REQUEST]
    assert usage_of(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 1


def test_the_load_test_sends_a_valid_request() -> None:
    assert segment(World(), box_request(PHOTO)).status == 200


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, (400, "invalid_options")),
        ([], (400, "invalid_options")),
        ({"encode_image": ENCODED}, (400, "invalid_options")),
        ({"input_box": [1, 2, 3, 4]}, (400, "invalid_options")),
        ({**REQUEST, "encode_image": 1}, (400, "invalid_options")),
        ({**REQUEST, "encode_image": "!"}, (400, "invalid_options")),
        ({**REQUEST, "encode_image": ""}, (400, "empty_file")),
        ({**REQUEST, "input_box": [1, 2, 1, 2]}, (422, "invalid_prompt")),
        ({**REQUEST, "input_box": "1,2,3,4"}, (422, "invalid_prompt")),
        ({**REQUEST, "point": [1, 2]}, (400, "invalid_options")),
    ],
)
def test_an_invalid_request_is_rejected_without_calling_the_endpoint(payload: Any, expected: tuple[int, str]) -> None:
    world = World()
    assert error_code(segment(world, payload)) == expected
    assert world.interactive.boxes == []


@pytest.mark.parametrize("more", [{}, {"input_box": [1, 2, 30, 40]}])
def test_the_misspelt_field_of_the_older_load_test_gets_the_right_name(more: dict[str, Any]) -> None:
    response = segment(World(), {"encode_face_image": ENCODED, **more})
    assert error_code(response) == (400, "invalid_options")
    assert "'encode_face_image'. Send the image as \"encode_image\"." in response.json["error"]["message"]


def test_a_bundle_which_names_s3_objects_is_never_forwarded() -> None:
    world = World()
    bundle = {"bundle": "b", "items": [{"source": {"bucket": "inbox-bucket", "key": "inbox/another-owners.jpg"}}]}
    for payload in (bundle, {**bundle, **REQUEST}):
        assert error_code(segment(world, payload)) == (400, "invalid_options")
    assert world.interactive.boxes == []


@pytest.mark.parametrize("body", [(PHOTO, "image/jpeg"), multipart({"encode_image": PHOTO}), (b"{", "text/plain")])
def test_a_body_that_is_not_json_is_rejected(body: tuple[bytes, str]) -> None:
    response = call(World(), "POST", "/invocations", body=body[0], content_type=body[1])
    assert error_code(response) == (415, "unsupported_format")


def test_a_body_above_the_limit_is_rejected_with_the_alternative() -> None:
    world = World()
    envelope = len(json.dumps({**REQUEST, "encode_image": ""}))
    longest = BYTES_MAX - envelope - (BYTES_MAX - envelope) % 4
    allowed, above = ({**REQUEST, "encode_image": "A" * length} for length in (longest, longest + 4))
    assert segment(world, allowed).status == 200
    response = segment(world, above)
    assert error_code(response) == (413, "file_too_large")
    assert "POST /v1/uploads" in response.json["error"]["message"]
    assert error_code(segment(world, {**REQUEST, "encode_image": "A" * BODY_MAX})) == (413, "file_too_large")
    assert len(world.interactive.boxes) == 1


def test_a_mask_that_is_too_large_for_a_response_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    mask = base64.b64encode(bytes(BODY_MAX))
    monkeypatch.setattr(world.interactive, "segment_box", lambda _: b'{"mask_image": "%s"}' % mask)
    assert error_code(segment(world, REQUEST)) == (413, "resolution_too_high")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnreadableImage, (422, "unreadable_picture")),
        (EndpointStarting, (503, "endpoint_unavailable")),
        (EndpointUnavailable, (503, "endpoint_unavailable")),
    ],
)
def test_an_error_of_the_endpoint_keeps_its_code(error: type[MaskdropError], expected: tuple[int, str]) -> None:
    world = World()
    world.interactive.broken = error("It went wrong.")
    response = segment(world, REQUEST)
    assert error_code(response) == expected
    assert ("retry-after" in response.headers) == error.retryable
    assert usage_of(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 0


def test_a_stage_without_an_interactive_endpoint_returns_503_and_the_path_requires_a_key() -> None:
    world = World(settings=replace(SETTINGS, interactive="", interactive_mode="off"))
    assert segment(world, REQUEST).status == 503
    assert not set(PATHS) & set(OPEN_PATHS)
