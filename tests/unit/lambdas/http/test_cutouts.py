from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.http.cutouts import BODY_MAX
from lambdas.http.routes import process
from maskdrop.access import Caller, usage_of
from maskdrop.background import BackgroundImage, Colour
from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import EndpointStarting, EndpointUnavailable, UnreadableImage
from maskdrop.interactive import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.presets import PRESETS
from maskdrop.prompt import Prompt
from maskdrop.services import Download
from maskdrop.wire import Invocation
from tests.fakes import NOW, SETTINGS, World

DEFAULT = DEFAULT_ENGINE["cutout"]

PHOTO = bytes(range(256)) * 4
"""All byte values, including line ends and bytes that are not text."""

BOUNDARY = "the-boundary"

CALLER = Caller(id="k", owner="ann", scope="own", rate=100)


def post(
    world: World,
    body: bytes,
    content_type: str | None = "image/jpeg",
    headers: dict[str, str] | None = None,
    **query: str,
) -> dict[str, Any]:
    """Sends a request as an event of API Gateway, with the body in base64."""
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
    """Returns a multipart body: str values as fields, bytes values as files."""
    body = b""
    for name, value in fields.items():
        file = f'; filename="{name}.jpg"\r\nContent-Type: image/jpeg' if isinstance(value, bytes) else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def post_form(world: World, **fields: str | bytes) -> dict[str, Any]:
    return post(world, form(**fields), f'multipart/form-data; boundary="{BOUNDARY}"')


def header(response: dict[str, Any], name: str) -> str:
    (value,) = response["multiValueHeaders"][name]
    return str(value)


def refusal(response: dict[str, Any]) -> tuple[int, str]:
    return response["statusCode"], json.loads(response["body"])["error"]["code"]


def requested_options(world: World) -> Options:
    (_, invocation) = world.interactive.requests[-1]
    assert isinstance(invocation, Invocation)
    return invocation.options


def test_detections_are_returned_as_the_json_of_the_endpoint() -> None:
    world = World()
    world.interactive.detections = [{"label": "Fußgänger"}]
    response = post(world, PHOTO, task="detect")
    assert (response["statusCode"], header(response, "Content-Type")) == (200, "application/json")
    assert json.loads(response["body"])["detections"] == [{"label": "Fußgänger"}]
    assert not response["isBase64Encoded"]


@pytest.mark.parametrize("kind", ["body", "untyped", "form", "form field", "base64", "base64 in lines", "url"])
def test_every_kind_of_body_passes_the_image_unchanged(kind: str) -> None:
    world = World()
    world.web.images["https://example.com/a.jpg"] = Download(PHOTO, "image/jpeg")
    encoded = base64.b64encode(PHOTO).decode()
    response = {
        "body": lambda: post(world, PHOTO),
        "untyped": lambda: post(world, PHOTO, "application/octet-stream"),
        "form": lambda: post_form(world, image=PHOTO),
        "form field": lambda: post(
            world, form(image=PHOTO).replace(b'; filename="image.jpg"', b""), f"Multipart/Form-Data;boundary={BOUNDARY}"
        ),
        "base64": lambda: post_json(world, image_base64=encoded),
        "base64 in lines": lambda: post_json(world, image_base64=base64.encodebytes(PHOTO).decode()),
        "url": lambda: post_json(world, source={"url": "https://example.com/a.jpg"}),
    }[kind]()
    assert response["statusCode"] == 200
    assert [image for image, _ in world.interactive.requests] == [PHOTO]


def test_the_response_is_the_file_with_the_facts_in_headers() -> None:
    world = World(interactive=replace(World().interactive, result=PHOTO))
    response = post(world, PHOTO, format="webp")
    assert response["isBase64Encoded"]
    assert base64.b64decode(response["body"]) == PHOTO
    assert header(response, "Content-Type") == "image/webp"
    assert [header(response, f"X-Maskdrop-{name}") for name in ("Engine", "Width", "Height")] == [DEFAULT, "640", "480"]
    assert json.loads(header(response, "X-Maskdrop-Subject"))["box"] == [1, 2, 30, 40]
    assert json.loads(header(response, "X-Maskdrop-Place")) == [1, 2, 30, 40]
    assert json.loads(header(response, "X-Maskdrop-Warnings")) == ["a warning"]


def test_a_result_that_is_too_large_is_a_redirect() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    response = post(world, PHOTO)
    body = json.loads(response["body"])
    assert response["statusCode"] == 303
    assert header(response, "Location") == body["result"]["url"]
    assert body["result"]["url"].startswith("https://results-bucket/results/cutouts/")
    assert body["result"]["bytes"] == BYTES_MAX + 1
    assert header(response, "X-Maskdrop-Engine") == DEFAULT


def test_an_endpoint_that_is_starting_creates_a_job_with_a_location() -> None:
    world = World()
    world.interactive.broken = EndpointStarting("It is starting.")
    response = post(world, PHOTO, preset="matte")
    (job,) = world.jobs.records.values()
    assert response["statusCode"] == 202
    assert json.loads(response["body"]) == job.to_json()
    assert header(response, "Location") == f"jobs/{job.id}"
    assert (job.preset, job.options, job.owner) == ("matte", PRESETS["matte"], "ann")


def test_accepted_images_count_in_the_usage_and_rejected_ones_do_not() -> None:
    world = World()
    post(world, PHOTO)
    post(world, PHOTO, engine="sam")
    post(world, b"")
    assert usage_of(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 2


BOX = {"box": [1, 2, 30, 40]}
EXPECTED = Options(engine="grabcut", prompts=(Prompt((1, 2, 30, 40)),), output=Output("webp", "alpha"))


def test_options_have_the_same_meaning_in_query_header_form_and_json() -> None:
    flat: dict[str, Any] = {"preset": "matte", "engine": "grabcut", "prompt": json.dumps(BOX), "format": "webp"}
    nested: dict[str, Any] = {"preset": "matte", "engine": "grabcut", "prompt": BOX, "output": {"format": "webp"}}
    world = World()
    post(world, PHOTO, **flat)
    post(world, PHOTO, headers={"x-maskdrop-options": json.dumps(nested)})
    post_form(world, image=PHOTO, **flat)
    post_json(world, image_base64=base64.b64encode(PHOTO).decode(), **nested)
    assert [invocation.options for _, invocation in world.interactive.requests] == [EXPECTED] * 4


def test_the_body_overrides_the_header_which_overrides_the_query() -> None:
    world = World()
    header = {"x-maskdrop-options": json.dumps({"output": {"format": "webp", "channels": "rgba"}})}
    post(world, form(image=PHOTO, channels="alpha", engine=""), f"multipart/form-data; boundary={BOUNDARY}",
         headers=header, channels="rgba", format="jpg", size="hd")  # fmt: skip
    assert requested_options(world) == Options(output=Output("webp", "alpha", size="hd"))


@pytest.mark.parametrize("query", [{"task": "paint"}, {"size": "huge"}, {"prompt": '{"box": [1]}'}, {"preset": "a b"}])
def test_an_invalid_option_is_rejected_even_if_another_overrides_it(query: dict[str, Any]) -> None:
    options = {"task": "cutout", "preset": "matte", "prompt": {}, "output": {"size": "hd"}}
    body = json.dumps({"image_base64": ENCODED, **options}).encode()
    assert post(World(), body, "application/json")["statusCode"] == 200
    assert post(World(), body, "application/json", **query)["statusCode"] in (400, 422)


def test_an_options_header_that_is_not_an_object_is_rejected() -> None:
    options = {"x-maskdrop-options": '"GeA<H"'}
    body = json.dumps({"image_base64": ENCODED}).encode()
    assert refusal(post(World(), body, "application/json", headers=options)) == (400, "invalid_options")


def test_every_output_field_can_be_text_in_the_query() -> None:
    world = World()
    flat: dict[str, Any] = {
        "format": "jpg",
        "size": "hd",
        "roi": "0 0 50% 100%",
        "crop": "true",
        "scale": "80%",
        "background": "blur",
    }
    post(world, PHOTO, **flat)
    assert requested_options(world) == Options.from_json({"output": flat})


WALL = {"bucket": "inbox-bucket", "key": "backgrounds/wall.png"}


def test_a_preset_can_name_a_background_image() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "jpg", "background": WALL}})
    post(world, PHOTO, preset="shop", size="hd")
    wall = BackgroundImage(WALL["bucket"], WALL["key"])
    assert requested_options(world).output == Output("jpg", size="hd", background=wall)
    post(world, PHOTO, preset="shop", background="red")
    assert requested_options(world).output == Output("jpg", background=Colour(255, 0, 0))


@pytest.mark.parametrize("kind", ["query", "header", "form", "json"])
@pytest.mark.parametrize("background", ["s3://inbox-bucket/inbox/another-owners.jpg", WALL])
def test_a_caller_cannot_name_a_background_image_in_s3(kind: str, background: str | dict[str, str]) -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"background": WALL}})
    text = background if isinstance(background, str) else f"s3://{WALL['bucket']}/{WALL['key']}"
    options = {"preset": "shop", "output": {"background": background}}
    response = {
        "query": lambda: post(world, PHOTO, preset="shop", background=text),
        "header": lambda: post(world, PHOTO, headers={"x-maskdrop-options": json.dumps(options)}),
        "form": lambda: post_form(world, image=PHOTO, preset="shop", background=text),
        "json": lambda: post_json(world, image_base64=ENCODED, **options),
    }[kind]()
    assert refusal(response) == (400, "invalid_options")
    assert "a preset can name an image" in response["body"]
    assert (world.interactive.requests, world.jobs.records) == ([], {})


def test_an_invalid_preset_is_rejected_with_the_invalid_field() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "bmp"}})
    response = post(world, PHOTO, preset="shop")
    assert refusal(response) == (422, "invalid_preset")
    assert "output.format" in response["body"]


@pytest.mark.parametrize(
    ("size", "status"), [(BYTES_MAX, 200), (BYTES_MAX + 1, 413), (BODY_MAX, 413), (BODY_MAX + 1, 413)]
)
def test_an_image_above_the_limit_is_rejected_with_the_alternative(size: int, status: int) -> None:
    world = World()
    response = post(world, b"x" * size)
    assert response["statusCode"] == status
    if status == 413:
        assert refusal(response) == (413, "file_too_large")
        assert "POST /v1/uploads" in response["body"]
    assert len(world.interactive.requests) == (status == 200)


def test_a_large_image_from_a_url_creates_a_job() -> None:
    world = World()
    world.web.images["https://example.com/a.jpg"] = Download(b"x" * (BYTES_MAX + 1), "image/jpeg")
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
        ({"image_base64": ENCODED, "engine": "selfie", "prompt": BOX}, (422, "invalid_prompt")),
        ({"image_base64": ENCODED, "colour": "red"}, (400, "invalid_options")),
    ],
)
def test_invalid_json_fields_are_rejected(data: dict[str, Any], refused: tuple[int, str]) -> None:
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
def test_a_body_without_an_image_is_rejected(body: bytes, content_type: str | None, refused: tuple[int, str]) -> None:
    world = World()
    assert refusal(post(world, body, content_type)) == refused
    assert world.interactive.requests == []


@pytest.mark.parametrize("query", [{"task": "paint"}, {"colour": "red"}, {"format": "bmp"}, {"prompt": "{"}])
def test_an_invalid_query_is_rejected(query: dict[str, Any]) -> None:
    assert refusal(post(World(), PHOTO, **query)) == (400, "invalid_options")


def test_only_retryable_errors_of_the_container_have_a_retry_after_header() -> None:
    world = World()
    world.interactive.broken = UnreadableImage("It is damaged.")
    response = post(world, PHOTO)
    assert refusal(response) == (422, "unreadable_picture")
    assert "Retry-After" not in response["multiValueHeaders"]
    world.interactive.broken = EndpointUnavailable("It is busy.")
    response = post(world, PHOTO)
    assert refusal(response) == (503, "endpoint_unavailable")
    assert header(response, "Retry-After").isdigit()


def test_without_an_interactive_endpoint_every_image_creates_a_job() -> None:
    world = World(settings=replace(SETTINGS, interactive="", interactive_mode="off"))
    assert post(world, PHOTO)["statusCode"] == 202


@pytest.mark.parametrize(
    "fields",
    [
        {"x" * 100_000: 1},
        {f"option{n}": n for n in range(20_000)},
        {"engine": "x" * 100_000},
        {"preset": "x" * 100_000},
        {"output": {"x" * 100_000: 1}},
        {"output": {"format": "x" * 100_000}},
        {"output": {"background": "x" * 100_000}},
        {"prompts": [{"x" * 100_000: 1}]},
        {"prompts": "x" * 100_000},
        {"refine": "x" * 100_000},
        {"image": "x" * 100_000},
        {"url": "x" * 100_000},
    ],
)
def test_an_error_repeats_at_most_a_short_part_of_the_request(fields: dict[str, object]) -> None:
    response = post_json(World(), **fields)
    assert response["statusCode"] in range(400, 500)
    assert len(response["body"]) < 4_000


def test_an_image_in_json_may_be_a_data_url() -> None:
    data_url = f"data:image/jpeg;base64,{base64.b64encode(PHOTO).decode()}"
    for data in ({"image_base64": data_url}, {"source": {"url": data_url}}):
        world = World()
        assert post_json(world, **data)["statusCode"] == 200
        assert world.interactive.requests[0][0] == PHOTO


def test_a_file_in_another_field_is_an_error_that_names_the_right_one() -> None:
    response = post(World(), form(image_file=PHOTO), f"multipart/form-data; boundary={BOUNDARY}")
    assert refusal(response) == (400, "empty_file")
    assert "rename its field 'image_file' to \\\"image\\\"" in response["body"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"crop": "True"}, {"crop": "true"}),
        ({"crop": "1"}, {"crop": "true"}),
        ({"crop": "FALSE"}, {}),
        ({"crop": "off"}, {}),
        ({"crop": "0"}, {"crop": "0px"}),
        ({"size": "50MP", "format": "WebP"}, {"format": "webp"}),
        ({"size": "HD", "channels": "Alpha"}, {"size": "hd", "channels": "alpha"}),
    ],
)
def test_values_may_be_in_any_case_and_booleans_any_word(query: dict[str, Any], expected: dict[str, str]) -> None:
    world = World()
    assert post(world, PHOTO, **query)["statusCode"] == 200
    assert world.interactive.requests[0][1].options.output == Output.from_json(expected)


def test_a_body_may_be_compressed_with_gzip() -> None:
    world = World()
    assert post(world, gzip.compress(PHOTO), headers={"Content-Encoding": "GZIP"})["statusCode"] == 200
    assert world.interactive.requests[0][0] == PHOTO
