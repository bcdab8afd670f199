from __future__ import annotations

import base64
from typing import Any

import pytest

from lambdas.http.dialects.withoutbg import PATHS, error_response
from maskdrop.access import OPEN_PATHS
from maskdrop.errors import (
    AuthFailed,
    EndpointUnavailable,
    MaskdropError,
    NotAllowed,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.interactive import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import Output
from tests.fakes import World
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Response, call, in_json, multipart

MATTE = Options(output=Output(channels="alpha"))


def alpha(world: World, fields: dict[str, Any]) -> Response:
    body, content_type = in_json(fields)
    return call(world, "POST", "/v1.0/alpha-channel-base64", body=body, content_type=content_type)


def remove(world: World, body: bytes, content_type: str, **query: str) -> Response:
    return call(world, "POST", "/v1/remove-background", body=body, content_type=content_type, query=query)


def requests(world: World) -> list[tuple[bytes, Options]]:
    return [(image, invocation.options) for image, invocation in world.interactive.requests]


def test_a_base64_image_returns_its_matte_in_base64() -> None:
    world = World()
    response = alpha(world, {"image_base64": ENCODED})
    assert (response.status, base64.b64decode(response.json["alpha_base64"])) == (200, b"a cut-out")
    assert requests(world) == [(PHOTO, MATTE)]


@pytest.mark.parametrize(
    "fields", [{}, {"image_base64": ""}, {"image_base64": 1}, {"image_base64": "!"}, {"image": ENCODED}]
)
def test_a_body_without_an_image_returns_400_with_the_field_name(fields: dict[str, Any]) -> None:
    world = World()
    response = alpha(world, fields)
    assert response.status == 400
    assert "image_base64" in response.json["error"]
    assert requests(world) == []


@pytest.mark.parametrize(("output", "expected"), [("", Options()), ("cutout", Options()), ("matte", MATTE)])
@pytest.mark.parametrize("kind", ["body", "form"])
def test_a_body_and_a_form_return_the_requested_output(kind: str, output: str, expected: Options) -> None:
    world = World()
    body, content_type = (PHOTO, "image/jpeg") if kind == "body" else multipart({"image": PHOTO})
    response = remove(world, body, content_type, **({"output": output} if output else {}))
    assert (response.status, response.body, response.headers["content-type"]) == (200, b"a cut-out", "image/png")
    assert response.headers["x-latency-ms"].isdigit()
    assert requests(world) == [(PHOTO, expected)]


def test_json_returns_cutout_and_matte_in_json() -> None:
    world = World()
    response = remove(world, *in_json({"image": ENCODED}))
    assert response.json.keys() == {"processed", "alphaMatte", "latencyMs"}
    assert response.headers["x-latency-ms"] == str(response.json["latencyMs"])
    assert requests(world) == [(PHOTO, Options()), (PHOTO, MATTE)]


def test_an_unknown_output_and_a_missing_image_return_400() -> None:
    assert remove(World(), PHOTO, "image/jpeg", output="both").status == 400
    assert remove(World(), b"", "image/jpeg").status == 400
    assert remove(World(), *multipart({"picture": PHOTO})).status == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AuthFailed, 401),
        (NotAllowed, 403),
        (UnsupportedFormat, 415),
        (UnreadableImage, 422),
        (EndpointUnavailable, 503),
    ],
)
def test_an_error_has_its_message_and_a_status_of_withoutbg(error: type[MaskdropError], status: int) -> None:
    response = error_response(error("It went wrong."))
    assert (response.status_code, response.body) == (status, {"error": "It went wrong."})


def test_a_request_above_the_rate_limit_returns_429_with_retry_after() -> None:
    world = World()
    last = [alpha(world, {"image_base64": ENCODED}) for _ in range(4)][-1]
    assert (last.status, list(last.json)) == (429, ["error"])
    assert last.headers["retry-after"] == "60"


def test_a_result_that_is_too_large_is_an_error_in_json_and_a_redirect_as_a_file() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    assert alpha(world, {"image_base64": ENCODED}).status == 413
    assert remove(world, PHOTO, "image/jpeg").status == 303


def test_the_account_has_credit_and_every_path_requires_a_key() -> None:
    assert call(World(), "GET", "/available-credit").json["credit"] > 0
    assert not set(PATHS) & set(OPEN_PATHS)


def test_the_image_in_json_may_be_a_data_url() -> None:
    world = World()
    assert alpha(world, {"image_base64": f"data:image/png;base64,{ENCODED}"}).status == 200
    assert requests(world) == [(PHOTO, MATTE)]


def test_a_file_in_another_field_is_an_error_that_names_the_right_one() -> None:
    response = remove(World(), *multipart({"file": PHOTO}))
    assert (response.status, response.json["error"].split(": ")[1]) == (400, "rename its field 'file' to \"image\".")
