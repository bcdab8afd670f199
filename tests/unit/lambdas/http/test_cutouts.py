from __future__ import annotations

import base64
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.http.cutouts import BODY_MAX
from lambdas.http.routes import process
from maskdrop.access import Caller, used
from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import EndpointStarting, EndpointUnavailable, UnreadablePicture
from maskdrop.now import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import BackgroundImage, Colour, Output
from maskdrop.presets import PRESETS
from maskdrop.prompt import Prompt
from maskdrop.services import Download
from maskdrop.wire import Invocation
from tests.fakes import NOW, SETTINGS, World

DEFAULT = DEFAULT_ENGINE["cutout"]

PHOTO = bytes(range(256)) * 4
"""With every byte there is, line ends and what is no text among them."""

BOUNDARY = "the-boundary"

CALLER = Caller(id="k", owner="ann", scope="own", rate=100)


def post(
    world: World,
    body: bytes,
    content_type: str | None = "image/jpeg",
    headers: dict[str, str] | None = None,
    **query: str,
) -> dict[str, Any]:
    """As API Gateway hands it on: every body in base64."""
    named = {"Content-Type": content_type} if content_type else {}
    event = {
        "httpMethod": "POST",
        "path": "/v1/cutouts",
        "resource": "/v1/cutouts",
        "headers": {**named, **(headers or {})},
        "multiValueHeaders": {},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
        "requestContext": {"stage": "v1", "requestId": "r", "authorizer": CALLER.to_context()},
        "body": base64.b64encode(body).decode() if body else None,
        "isBase64Encoded": bool(body),
    }
    return process(event, SimpleNamespace(), world.settings, world.services, NOW)  # type: ignore[arg-type]


def post_json(world: World, **data: object) -> dict[str, Any]:
    return post(world, json.dumps(data).encode(), "application/json")


def form(**fields: str | bytes) -> bytes:
    """Text as fields, bytes as files."""
    body = b""
    for name, value in fields.items():
        file = f'; filename="{name}.jpg"\r\nContent-Type: image/jpeg' if isinstance(value, bytes) else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def post_form(world: World, **fields: str | bytes) -> dict[str, Any]:
    return post(world, form(**fields), f'multipart/form-data; boundary="{BOUNDARY}"')


def header(answer: dict[str, Any], name: str) -> str:
    (value,) = answer["multiValueHeaders"][name]
    return str(value)


def refusal(answer: dict[str, Any]) -> tuple[int, str]:
    return answer["statusCode"], json.loads(answer["body"])["error"]["code"]


def asked(world: World) -> Options:
    (_, invocation) = world.interactive.asked[-1]
    assert isinstance(invocation, Invocation)
    return invocation.options


@pytest.mark.parametrize("way", ["body", "untyped", "form", "form field", "base64", "base64 in lines", "address"])
def test_a_picture_comes_in_unchanged_whichever_way_it_is_sent(way: str) -> None:
    world = World()
    world.web.pictures["https://example.com/a.jpg"] = Download(PHOTO, "image/jpeg")
    encoded = base64.b64encode(PHOTO).decode()
    answer = {
        "body": lambda: post(world, PHOTO),
        "untyped": lambda: post(world, PHOTO, "application/octet-stream"),
        "form": lambda: post_form(world, image=PHOTO),
        "form field": lambda: post(
            world, form(image=PHOTO).replace(b'; filename="image.jpg"', b""), f"Multipart/Form-Data;boundary={BOUNDARY}"
        ),
        "base64": lambda: post_json(world, image_base64=encoded),
        "base64 in lines": lambda: post_json(world, image_base64=base64.encodebytes(PHOTO).decode()),
        "address": lambda: post_json(world, source={"url": "https://example.com/a.jpg"}),
    }[way]()
    assert answer["statusCode"] == 200
    assert [picture for picture, _ in world.interactive.asked] == [PHOTO]


def test_the_answer_is_the_file_and_its_headers_say_what_was_found() -> None:
    world = World(interactive=replace(World().interactive, result=PHOTO))
    answer = post(world, PHOTO, format="webp")
    assert answer["isBase64Encoded"]
    assert base64.b64decode(answer["body"]) == PHOTO
    assert header(answer, "Content-Type") == "image/webp"
    assert [header(answer, f"X-Maskdrop-{name}") for name in ("Engine", "Width", "Height")] == [DEFAULT, "640", "480"]
    assert json.loads(header(answer, "X-Maskdrop-Subject"))["box"] == [1, 2, 30, 40]
    assert json.loads(header(answer, "X-Maskdrop-Place")) == [1, 2, 30, 40]
    assert json.loads(header(answer, "X-Maskdrop-Warnings")) == ["a warning"]


def test_a_result_that_is_too_large_is_to_be_fetched_elsewhere() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    answer = post(world, PHOTO)
    body = json.loads(answer["body"])
    assert answer["statusCode"] == 303
    assert header(answer, "Location") == body["result"]["url"]
    assert body["result"]["url"].startswith("https://results-bucket/results/cutouts/")
    assert body["result"]["bytes"] == BYTES_MAX + 1
    assert header(answer, "X-Maskdrop-Engine") == DEFAULT


def test_a_picture_that_cannot_be_had_now_is_a_job_and_the_answer_says_where() -> None:
    world = World()
    world.interactive.broken = EndpointStarting("It is starting.")
    answer = post(world, PHOTO, preset="matte")
    (job,) = world.jobs.records.values()
    assert answer["statusCode"] == 202
    assert json.loads(answer["body"]) == job.to_json()
    assert header(answer, "Location") == f"jobs/{job.id}"
    assert (job.preset, job.options, job.owner) == ("matte", PRESETS["matte"], "ann")


def test_a_picture_that_was_taken_on_is_counted_for_its_owner_and_one_that_was_refused_is_not() -> None:
    world = World()
    post(world, PHOTO)
    post(world, PHOTO, engine="sam")
    post(world, b"")
    assert used(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 2


BOX = {"box": [1, 2, 30, 40]}
MEANT = Options(engine="grabcut", prompts=(Prompt((1, 2, 30, 40)),), output=Output("webp", "alpha"))


def test_options_are_the_same_in_the_query_in_a_header_in_a_form_and_in_json() -> None:
    flat = {"preset": "matte", "engine": "grabcut", "prompt": json.dumps(BOX), "format": "webp"}
    nested = {"preset": "matte", "engine": "grabcut", "prompt": BOX, "output": {"format": "webp"}}
    world = World()
    post(world, PHOTO, **flat)
    post(world, PHOTO, headers={"x-maskdrop-options": json.dumps(nested)})
    post_form(world, image=PHOTO, **flat)
    post_json(world, image_base64=base64.b64encode(PHOTO).decode(), **nested)
    assert [invocation.options for _, invocation in world.interactive.asked] == [MEANT] * 4


def test_the_body_counts_more_than_the_header_and_that_more_than_the_query_and_an_empty_field_is_none() -> None:
    world = World()
    header = {"x-maskdrop-options": json.dumps({"output": {"format": "webp", "channels": "rgba"}})}
    post(world, form(image=PHOTO, channels="alpha", engine=""), f"multipart/form-data; boundary={BOUNDARY}",
         headers=header, channels="rgba", format="jpg", size="hd")  # fmt: skip
    assert asked(world) == Options(output=Output("webp", "alpha", size="hd"))


@pytest.mark.parametrize("query", [{"task": "mask"}, {"size": "huge"}, {"prompt": '{"box": [1]}'}, {"preset": "a b"}])
def test_what_is_said_wrongly_is_refused_even_where_something_else_counts_more(query: dict[str, str]) -> None:
    said = {"task": "cutout", "preset": "matte", "prompt": {}, "output": {"size": "hd"}}
    body = json.dumps({"image_base64": ENCODED, **said}).encode()
    assert post(World(), body, "application/json")["statusCode"] == 200
    assert post(World(), body, "application/json", **query)["statusCode"] in (400, 422)


def test_a_header_of_options_that_is_none_is_refused_whatever_the_body() -> None:
    said = {"x-maskdrop-options": '"GeA<H"'}
    body = json.dumps({"image_base64": ENCODED}).encode()
    assert refusal(post(World(), body, "application/json", headers=said)) == (400, "invalid_options")


def test_every_field_of_the_output_may_be_a_text_in_the_query() -> None:
    world = World()
    flat = {"format": "jpg", "size": "hd", "roi": "0 0 50% 100%", "crop": "true", "scale": "80%", "background": "blur"}
    post(world, PHOTO, **flat)
    assert asked(world) == Options.from_json({"output": flat})


WALL = {"bucket": "inbox-bucket", "key": "backgrounds/wall.png"}


def test_a_preset_of_the_stage_is_followed_and_may_name_an_image_for_behind_the_subject() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "jpg", "background": WALL}})
    post(world, PHOTO, preset="shop", size="hd")
    assert asked(world).output == Output("jpg", size="hd", background=BackgroundImage(**WALL))
    post(world, PHOTO, preset="shop", background="red")
    assert asked(world).output == Output("jpg", background=Colour(255, 0, 0))


@pytest.mark.parametrize("way", ["query", "header", "form", "json"])
@pytest.mark.parametrize("background", ["s3://inbox-bucket/inbox/another-owners.jpg", WALL])
def test_a_caller_may_not_name_an_image_in_s3_whichever_way_it_is_said(
    way: str, background: str | dict[str, str]
) -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"background": WALL}})
    text = background if isinstance(background, str) else f"s3://{WALL['bucket']}/{WALL['key']}"
    said = {"preset": "shop", "output": {"background": background}}
    answer = {
        "query": lambda: post(world, PHOTO, preset="shop", background=text),
        "header": lambda: post(world, PHOTO, headers={"x-maskdrop-options": json.dumps(said)}),
        "form": lambda: post_form(world, image=PHOTO, preset="shop", background=text),
        "json": lambda: post_json(world, image_base64=ENCODED, **said),
    }[way]()
    assert refusal(answer) == (400, "invalid_options")
    assert "a preset can name an image" in answer["body"]
    assert (world.interactive.asked, world.jobs.records) == ([], {})


def test_a_preset_that_cannot_be_used_is_refused_with_the_reason() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "bmp"}})
    answer = post(world, PHOTO, preset="shop")
    assert refusal(answer) == (422, "invalid_preset")
    assert "output.format" in answer["body"]


@pytest.mark.parametrize(
    ("size", "status"), [(BYTES_MAX, 200), (BYTES_MAX + 1, 413), (BODY_MAX, 413), (BODY_MAX + 1, 413)]
)
def test_a_picture_above_the_bound_is_refused_with_what_to_do_instead(size: int, status: int) -> None:
    world = World()
    answer = post(world, b"x" * size)
    assert answer["statusCode"] == status
    if status == 413:
        assert refusal(answer) == (413, "file_too_large")
        assert "POST /v1/uploads" in answer["body"]
    assert len(world.interactive.asked) == (status == 200)


def test_a_large_picture_that_was_fetched_becomes_a_job() -> None:
    world = World()
    world.web.pictures["https://example.com/a.jpg"] = Download(b"x" * (BYTES_MAX + 1), "image/jpeg")
    assert post_json(world, source={"url": "https://example.com/a.jpg"})["statusCode"] == 202


ENCODED = base64.b64encode(PHOTO).decode()


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ({}, (400, "invalid_options")),
        ({"image_base64": ENCODED, "source": {"url": "https://example.com/a.jpg"}}, (400, "invalid_options")),
        ({"image_base64": "!" + ENCODED}, (400, "invalid_options")),
        ({"image_base64": "ü"}, (400, "invalid_options")),
        ({"image_base64": 1}, (400, "invalid_options")),
        ({"image_base64": ""}, (400, "empty_file")),
        ({"source": "https://example.com/a.jpg"}, (400, "invalid_options")),
        ({"source": {"url": "https://nowhere.example/"}}, (424, "failed_download")),
        ({"source": {"url": "https://example.com/a.jpg", "more": 1}}, (400, "invalid_options")),
        ({"image_base64": ENCODED, "output": []}, (400, "invalid_options")),
        ({"image_base64": ENCODED, "output": [1]}, (400, "invalid_options")),
        ({"image_base64": ENCODED, "preset": ["webp"]}, (400, "invalid_options")),
        ({"image_base64": ENCODED, "preset": "none"}, (422, "unknown_preset")),
        ({"image_base64": ENCODED, "engine": 7}, (400, "invalid_options")),
        ({"image_base64": ENCODED, "engine": "none"}, (400, "unknown_engine")),
        ({"image_base64": ENCODED, "prompt": BOX}, (422, "invalid_prompt")),
        ({"image_base64": ENCODED, "colour": "red"}, (400, "invalid_options")),
    ],
)
def test_json_that_makes_no_sense_is_refused(data: dict[str, Any], refused: tuple[int, str]) -> None:
    assert refusal(post_json(World(), **data)) == refused


@pytest.mark.parametrize(
    ("body", "content_type", "refused"),
    [
        (b"", "image/jpeg", (400, "empty_file")),
        (form(format="png"), f"multipart/form-data; boundary={BOUNDARY}", (400, "empty_file")),
        (form(image=PHOTO), "multipart/form-data", (400, "invalid_options")),
        (form(image=PHOTO), "multipart/form-data; boundary=another", (400, "invalid_options")),
        (form(image=PHOTO)[:-30], f"multipart/form-data; boundary={BOUNDARY}", (400, "invalid_options")),
        (form(image=PHOTO, engine=b"\xff"), f"multipart/form-data; boundary={BOUNDARY}", (400, "invalid_options")),
        (b"[1]", "application/json", (400, "invalid_options")),
        (b"[" * 100_000, "application/json", (400, "invalid_options")),
        (b"{", "application/json; charset=utf-8", (400, "invalid_options")),
        (b"\xff", "application/json", (400, "invalid_options")),
        (PHOTO, "application/x-www-form-urlencoded", (415, "unsupported_format")),
        (PHOTO, None, (415, "unsupported_format")),
    ],
)
def test_a_body_that_holds_no_picture_is_refused(
    body: bytes, content_type: str | None, refused: tuple[int, str]
) -> None:
    world = World()
    assert refusal(post(world, body, content_type)) == refused
    assert world.interactive.asked == []


@pytest.mark.parametrize("query", [{"task": "mask"}, {"colour": "red"}, {"format": "bmp"}, {"prompt": "{"}])
def test_a_query_that_makes_no_sense_is_refused(query: dict[str, str]) -> None:
    assert refusal(post(World(), PHOTO, **query)) == (400, "invalid_options")


def test_what_is_wrong_with_the_picture_is_said_and_what_may_pass_says_when_to_come_again() -> None:
    world = World()
    world.interactive.broken = UnreadablePicture("It is damaged.")
    answer = post(world, PHOTO)
    assert refusal(answer) == (422, "unreadable_picture")
    assert "Retry-After" not in answer["multiValueHeaders"]
    world.interactive.broken = EndpointUnavailable("It is busy.")
    answer = post(world, PHOTO)
    assert refusal(answer) == (503, "endpoint_unavailable")
    assert header(answer, "Retry-After").isdigit()


def test_without_an_interactive_endpoint_every_picture_is_a_job() -> None:
    world = World(settings=replace(SETTINGS, interactive="", interactive_mode="off"))
    assert post(world, PHOTO)["statusCode"] == 202
