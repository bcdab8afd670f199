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
    UnreadablePicture,
    UnsupportedFormat,
)
from maskdrop.now import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import Output
from tests.fakes import World
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Answer, call, in_json, multipart

MATTE = Options(output=Output(channels="alpha"))


def alpha(world: World, fields: dict[str, Any]) -> Answer:
    body, content_type = in_json(fields)
    return call(world, "POST", "/v1.0/alpha-channel-base64", body=body, content_type=content_type)


def remove(world: World, body: bytes, content_type: str, **query: str) -> Answer:
    return call(world, "POST", "/v1/remove-background", body=body, content_type=content_type, query=query)


def asked(world: World) -> list[tuple[bytes, Options]]:
    return [(picture, invocation.options) for picture, invocation in world.interactive.asked]


def test_a_picture_in_base64_gives_its_matte_in_base64() -> None:
    world = World()
    answer = alpha(world, {"image_base64": ENCODED})
    assert (answer.status, base64.b64decode(answer.json["alpha_base64"])) == (200, b"a cut-out")
    assert asked(world) == [(PHOTO, MATTE)]


@pytest.mark.parametrize(
    "fields", [{}, {"image_base64": ""}, {"image_base64": 1}, {"image_base64": "!"}, {"image": ENCODED}]
)
def test_a_body_without_a_picture_is_refused_in_a_sentence(fields: dict[str, Any]) -> None:
    world = World()
    answer = alpha(world, fields)
    assert answer.status == 400
    assert "image_base64" in answer.json["error"]
    assert asked(world) == []


@pytest.mark.parametrize(("output", "meant"), [("", Options()), ("cutout", Options()), ("matte", MATTE)])
@pytest.mark.parametrize("way", ["body", "form"])
def test_a_body_and_a_form_give_the_file_that_is_asked_for(way: str, output: str, meant: Options) -> None:
    world = World()
    body, content_type = (PHOTO, "image/jpeg") if way == "body" else multipart({"image": PHOTO})
    answer = remove(world, body, content_type, **({"output": output} if output else {}))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"a cut-out", "image/png")
    assert answer.headers["x-latency-ms"].isdigit()
    assert asked(world) == [(PHOTO, meant)]


def test_json_gives_cut_out_and_matte_in_json() -> None:
    world = World()
    answer = remove(world, *in_json({"image": ENCODED}))
    assert answer.json.keys() == {"processed", "alphaMatte", "latencyMs"}
    assert answer.headers["x-latency-ms"] == str(answer.json["latencyMs"])
    assert asked(world) == [(PHOTO, Options()), (PHOTO, MATTE)]


def test_an_output_that_there_is_not_and_an_empty_body_are_refused() -> None:
    assert remove(World(), PHOTO, "image/jpeg", output="both").status == 400
    assert remove(World(), b"", "image/jpeg").status == 400
    assert remove(World(), *multipart({"picture": PHOTO})).status == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AuthFailed, 401),
        (NotAllowed, 403),
        (UnsupportedFormat, 415),
        (UnreadablePicture, 422),
        (EndpointUnavailable, 503),
    ],
)
def test_an_error_is_a_sentence_with_a_status_that_their_client_knows(error: type[MaskdropError], status: int) -> None:
    answer = error_response(error("It went wrong."))
    assert (answer.status_code, answer.body) == (status, {"error": "It went wrong."})


def test_a_call_too_many_is_told_when_to_come_again() -> None:
    world = World()
    last = [alpha(world, {"image_base64": ENCODED}) for _ in range(4)][-1]
    assert (last.status, list(last.json)) == (429, ["error"])
    assert last.headers["retry-after"] == "60"


def test_a_result_that_json_does_not_hold_is_refused_and_a_file_redirected_to() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    assert alpha(world, {"image_base64": ENCODED}).status == 413
    assert remove(world, PHOTO, "image/jpeg").status == 303


def test_credit_is_left_and_no_address_is_open() -> None:
    assert call(World(), "GET", "/available-credit").json["credit"] > 0
    assert not set(PATHS) & set(OPEN_PATHS)
