"""Tests POST /v1/cutouts on the stack: all sizes of bodies and results, and a cold endpoint."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable

import httpx2
import numpy as np
import pytest
from PIL import Image, ImageChops

from local import processes
from maskdrop.catalog import DEFAULT_ENGINE
from tests.e2e.conftest import Running, wait_until
from tests.web import served

MB = 1_000_000


@pytest.fixture
def post(running: Running) -> Callable[..., httpx2.Response]:
    def post(body: bytes, content_type: str = "image/jpeg", **query: str) -> httpx2.Response:
        return running.images.http.post(
            "/v1/cutouts", content=body, headers={"Content-Type": content_type}, params=query, timeout=60
        )

    return post


def jpeg(rgb: np.ndarray, quality: int = 95) -> bytes:
    to = io.BytesIO()
    Image.fromarray(rgb).save(to, "JPEG", quality=quality)
    return to.getvalue()


def padded(photo: bytes, size: int) -> bytes:
    """Returns the image padded to `size` bytes: decoders ignore bytes after the end of a JPEG."""
    return photo + bytes(size - len(photo))


@pytest.fixture(scope="module")
def portrait(photo: bytes) -> bytes:
    return jpeg(np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")))


def opened(response: httpx2.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def test_a_photo_returns_a_cutout_synchronously(
    running: Running, post: Callable[..., httpx2.Response], portrait: bytes
) -> None:
    response = post(portrait)
    image = opened(response)
    assert (response.headers["content-type"], image.mode, image.size) == ("image/png", "RGBA", (512, 512))
    assert response.headers["x-maskdrop-engine"] == DEFAULT_ENGINE["cutout"]
    assert (response.headers["x-maskdrop-width"], response.headers["x-maskdrop-height"]) == ("512", "512")
    x0, y0, x1, y1 = json.loads(response.headers["x-maskdrop-subject"])["box"]
    alpha = np.asarray(image)[..., 3] >= 128
    assert (alpha.any(axis=0).argmax(), alpha.any(axis=1).argmax()) == (x0, y0)
    assert np.count_nonzero(alpha[y0:y1, x0:x1]) == np.count_nonzero(alpha)


def test_body_form_and_json_return_the_same_image(
    running: Running, post: Callable[..., httpx2.Response], portrait: bytes
) -> None:
    raw = post(portrait, format="webp", channels="alpha")
    form = running.images.http.post(
        "/v1/cutouts", files={"image": ("a.jpg", portrait)}, data={"format": "webp", "channels": "alpha"}
    )
    data = {"image_base64": base64.b64encode(portrait).decode(), "output": {"format": "webp", "channels": "alpha"}}
    in_json = running.images.http.post("/v1/cutouts", json=data)
    assert opened(raw).format == "WEBP"
    assert raw.content == form.content == in_json.content


def test_an_image_is_fetched_from_a_trusted_url_and_not_from_a_loopback_ip_address(
    running: Running, portrait: bytes
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(portrait)}\r\n\r\n".encode()
    with served({"/a.jpg": head + portrait}) as host:
        accepted, refused = (
            running.images.http.post("/v1/cutouts", json={"source": {"url": f"http://{name}:{host.port}/a.jpg"}})
            for name in ("localhost", "127.0.0.1")
        )
        assert opened(accepted).size == (512, 512)
        assert refused.status_code == 422, refused.text
        assert len(host.requests) == 1


@pytest.mark.parametrize(("megabytes", "status"), [(3.9, 200), (4.1, 413), (9.9, 413), (10.1, 413)])
def test_a_body_above_the_limit_returns_413(
    post: Callable[..., httpx2.Response], portrait: bytes, megabytes: float, status: int
) -> None:
    response = post(padded(portrait, int(megabytes * MB)))
    assert response.status_code == status, response.text
    if status == 413:
        assert response.json()["error"]["code"] == "file_too_large"
        assert "POST /v1/uploads" in response.json()["error"]["message"]
    else:
        assert opened(response).size == (512, 512)


def test_a_result_too_large_for_a_response_is_fetched_from_its_presigned_url(
    post: Callable[..., httpx2.Response], portrait: bytes
) -> None:
    response = post(grainy(portrait))
    assert response.status_code == 303, response.text
    result = response.json()["result"]
    assert result["bytes"] > 30 * MB
    fetched = httpx2.get(response.headers["location"], trust_env=False, timeout=60)
    assert hashlib.sha256(fetched.content).hexdigest() == result["sha256"]
    assert Image.open(io.BytesIO(fetched.content)).size == (5000, 5000)


def grainy(photo: bytes) -> bytes:
    """Returns a 25 MP image with a grain of 5 pixels: a JPEG of 2.3 MB, whose PNG has 33 MB."""
    large = Image.open(io.BytesIO(photo)).convert("RGB").resize((5000, 5000))
    grain = np.random.default_rng(0).integers(68, 188, (1000, 1000, 3), np.uint8)
    return jpeg(np.asarray(ImageChops.add(large, Image.fromarray(grain).resize((5000, 5000)), offset=-128)), quality=30)


def test_a_body_that_is_not_an_image_returns_the_error_of_the_container(post: Callable[..., httpx2.Response]) -> None:
    response = post(b"This is no image.")
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_format")


def test_an_engine_that_the_endpoint_does_not_run_creates_a_job(
    running: Running, post: Callable[..., httpx2.Response], portrait: bytes
) -> None:
    response = post(portrait, engine="sam")
    assert response.status_code == 202, response.text
    fetched_job = running.images.http.get(str(response.url.join(response.headers["location"])))
    assert fetched_job.json()["id"] == response.json()["id"]
    job = running.wait_for_end([response.json()["id"]])[response.json()["id"]]
    assert job.error
    assert job.error.code == "unknown_engine"  # its weights are not installed


def test_a_request_waits_for_a_container_that_restarts(
    running: Running, post: Callable[..., httpx2.Response], portrait: bytes
) -> None:
    before = running.model()
    before.kill()

    def starts() -> bool:
        found = processes.find("model", running.config.state)
        return found is not None and found.pid != before.pid

    wait_until(starts, "a new container")
    assert opened(post(portrait)).size == (512, 512)


def test_a_container_that_does_not_respond_in_time_creates_a_job(
    running: Running, post: Callable[..., httpx2.Response], portrait: bytes
) -> None:
    with running.model_suspended():
        response = post(portrait)
        assert response.status_code == 202, response.text
    job = running.wait_for_end([response.json()["id"]])[response.json()["id"]]
    assert job.state == "done", job.error
    assert running.result(job).size == (512, 512)
