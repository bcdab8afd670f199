"""Replays the recorded requests of remove.bg's clients, byte for byte, as API Gateway passes them to the function."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.services import Download
from tests.fakes import World
from tests.recorded import FOLDER, IMAGE, IMAGE_URL, NAMES, Recorded, recorded
from tests.unit.lambdas.http.vendors import Response, call, in_json, multipart

PATH = "/v1.0/removebg"

CROPPED = Options(output=Output.from_json({"crop": "true"}))

OPTIONS: dict[str, Options] = {
    "curl-expect": Options(output=Output(size="preview")),  # with type=product
    "curl-json": CROPPED,
    "node-axios-url": CROPPED,
    "php-curl": CROPPED,
    "php-guzzle-url": CROPPED,
    "python-httpx": CROPPED,
    "python-requests": CROPPED,
    "ruby-faraday": Options(output=Output(format="zip")),
    "ruby-restclient": CROPPED,
    "wget-json": Options(output=Output(size="preview")),
}
"""The options of the samples that send more, or less, than size=auto."""

JSON_RESPONSES = {"curl-json"}


def replayed(request: Recorded, world: World) -> Response:
    headers = {name: value for name, value in request.headers if name.lower() != "content-type"}
    content_type = request.header("content-type") or ""
    return call(world, request.method, request.path, body=request.body, content_type=content_type, headers=headers)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_request_gets_a_result_with_the_options_that_it_has(name: str) -> None:
    world = World()
    world.interactive.kind = "thing"
    world.web.images[IMAGE_URL] = Download(IMAGE, "image/jpeg")
    response = replayed(recorded(name), world)
    assert response.status == 200, response.body
    [(image, invocation)] = world.interactive.requests
    assert (image, invocation.options) == (IMAGE, OPTIONS.get(name, Options()))
    if name in JSON_RESPONSES:
        assert base64.b64decode(response.json["data"]["result_b64"]) == b"a cut-out"
    else:
        kind = "application/zip" if invocation.options.output.format == "zip" else "image/png"
        assert (response.headers["content-type"], response.body) == (kind, b"a cut-out")


def test_the_recorded_clients_cover_ten_languages_and_every_way_to_send_a_body() -> None:
    assert {name.partition("-")[0] for name in NAMES} >= {
        "curl",
        "python",
        "node",
        "php",
        "ruby",
        "go",
        "java",
        "dotnet",
    }
    requests = [recorded(name) for name in NAMES]
    assert {(request.header("content-type") or "").partition(";")[0] for request in requests} == {
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "application/json",
    }
    assert any(request.chunked for request in requests)
    assert any(request.header("accept") is None for request in requests)
    for name, request in zip(NAMES, requests, strict=True):
        if not request.chunked:
            assert request.to(request.header("host") or "") == (FOLDER / f"{name}.http").read_bytes()


# Callers that were not recorded: their bodies follow their documentation.

CLI_FIELDS = dict.fromkeys(
    ("type_level", "roi", "crop", "crop_margin", "scale", "position", "add_shadow", "semitransparency", "bg_color"), ""
)


@pytest.mark.parametrize(
    ("body", "accept", "options"),
    [
        # The official command line remove-bg-cli 2.0.3: empty fields, and a zip.
        (
            multipart(
                {"image_file": IMAGE, "size": "auto", "type": "auto", "format": "zip", "channels": "rgba", **CLI_FIELDS}
            ),
            None,
            Options(output=Output(format="zip")),
        ),
        # Webhooks by Zapier, and Make's HTTP module: values are JSON of any type.
        (in_json({"image_url": IMAGE_URL, "size": "auto", "crop": "True", "roi": ""}), "*/*", CROPPED),
        (
            in_json({"image_url": IMAGE_URL, "size": "auto", "crop": 1, "bg_color": None}),
            "application/json, */*",
            CROPPED,
        ),
        # n8n's HTTP node with the response format "file".
        (
            in_json({"image_url": IMAGE_URL, "size": "auto"}),
            "application/json,text/html,application/xhtml+xml,application/xml,text/*;q=0.9, image/*;q=0.8, */*;q=0.7",
            Options(),
        ),
        # A browser's canvas.toDataURL().
        (
            in_json({"image_file_b64": f"data:image/png;base64,{base64.b64encode(IMAGE).decode()}", "size": "full"}),
            "*/*",
            Options(),
        ),
    ],
)
def test_callers_without_code_get_the_file(body: tuple[bytes, str], accept: str | None, options: Options) -> None:
    world = World()
    world.web.images[IMAGE_URL] = Download(IMAGE, "image/jpeg")
    headers = {"accept": accept} if accept else {}
    response = call(world, "POST", PATH, body=body[0], content_type=body[1], headers=headers)
    assert (response.status, response.body) == (200, b"a cut-out")
    assert world.interactive.requests[0][1].options == options


# The syntax of multipart/form-data beyond the recorded clients


def form(parts: list[tuple[str, bytes]], boundary: str = "b", first: bytes = b"", last: bytes = b"\r\n") -> bytes:
    joined = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return first + joined + f"--{boundary}--".encode() + last


FILE = 'Content-Disposition: form-data; name="image_file"; filename="a.png"'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form([(FILE, IMAGE)]), "multipart/form-data; boundary=b"),
        (form([(FILE, IMAGE)]), 'multipart/form-data; boundary="b"'),
        (form([(FILE, IMAGE)]), "Multipart/Form-Data; charset=utf-8; BOUNDARY=b"),
        (form([(FILE, IMAGE)], boundary="a b:c"), 'multipart/form-data; boundary="a b:c"'),
        (form([(FILE, IMAGE)], last=b""), "multipart/form-data; boundary=b"),
        (form([(FILE, IMAGE)], first=b"preamble\r\n", last=b"\r\nepilogue"), "multipart/form-data; boundary=b"),
        (form([(FILE.lower(), IMAGE)]), "multipart/form-data; boundary=b"),
        (form([(FILE.replace('"', ""), IMAGE)]), "multipart/form-data; boundary=b"),
        (form([(FILE + "; filename*=UTF-8''%e5%9b%be.png", IMAGE)]), "multipart/form-data; boundary=b"),
        (
            form([('Content-Disposition: form-data; filename="a;b.png"; name=image_file', IMAGE)]),
            "multipart/form-data; boundary=b",
        ),
        (form([("Content-Type: image/png\r\n" + FILE, IMAGE)]), "multipart/form-data; boundary=b"),
        (form([(FILE + "\r\nContent-Transfer-Encoding: binary", IMAGE)]), "multipart/form-data; boundary=b"),
        (form([('Content-Disposition: form-data; name="image_file"', IMAGE)]), "multipart/form-data; boundary=b"),
    ],
)
def test_every_valid_syntax_of_a_form_is_accepted(body: bytes, content_type: str) -> None:
    world = World()
    response = call(world, "POST", PATH, body=body, content_type=content_type)
    assert response.status == 200, response.body
    assert world.interactive.requests[0][0] == IMAGE


def test_names_in_a_urlencoded_form_may_be_percent_encoded() -> None:
    world = World()
    encoded = base64.b64encode(IMAGE).decode().replace("+", "%2B").replace("=", "%3D")
    body = f"image%5Ffile%5Fb64={encoded}&size=full&crop=1".encode()
    assert call(world, "POST", PATH, body=body, content_type="application/x-www-form-urlencoded").status == 200
    assert world.interactive.requests[0] == (IMAGE, world.interactive.requests[0][1])
    assert world.interactive.requests[0][1].options == CROPPED


@pytest.mark.parametrize("kind", ["", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "text/json"])
def test_json_is_recognised_without_its_content_type(kind: str) -> None:
    world = World()
    body, _ = in_json({"image_file_b64": base64.b64encode(IMAGE).decode(), "size": "full"})
    assert call(world, "POST", PATH, body=b" \n" + body, content_type=kind).status == 200
    assert world.interactive.requests[0][0] == IMAGE


def test_the_keys_of_an_error_are_those_of_remove_bg() -> None:
    body, content_type = in_json({"size": "auto"})
    response: Any = json.loads(call(World(), "POST", PATH, body=body, content_type=content_type).body)
    assert response == {
        "errors": [
            {
                "title": "No image given",
                "code": "missing_source",
                "detail": "Please provide the source image in the image_url, image_file or image_file_b64 parameter.",
            }
        ]
    }
