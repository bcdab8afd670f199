"""POST /v1/cutouts through the whole stack: every size of body and of result, and an endpoint that is cold."""

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
        return running.pictures.http.post(
            "/v1/cutouts", content=body, headers={"Content-Type": content_type}, params=query, timeout=60
        )

    return post


def jpeg(rgb: np.ndarray, quality: int = 95) -> bytes:
    to = io.BytesIO()
    Image.fromarray(rgb).save(to, "JPEG", quality=quality)
    return to.getvalue()


def padded(photo: bytes, size: int) -> bytes:
    """The same image in so many bytes: what follows the end of a JPEG is not read."""
    return photo + bytes(size - len(photo))


@pytest.fixture(scope="module")
def person(photo: bytes) -> bytes:
    return jpeg(np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")))


def opened(answer: httpx2.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_photo_comes_back_at_once_as_a_cut_out(
    running: Running, post: Callable[..., httpx2.Response], person: bytes
) -> None:
    answer = post(person)
    picture = opened(answer)
    assert (answer.headers["content-type"], picture.mode, picture.size) == ("image/png", "RGBA", (512, 512))
    assert answer.headers["x-maskdrop-engine"] == DEFAULT_ENGINE["cutout"]
    assert (answer.headers["x-maskdrop-width"], answer.headers["x-maskdrop-height"]) == ("512", "512")
    x0, y0, x1, y1 = json.loads(answer.headers["x-maskdrop-subject"])["box"]
    alpha = np.asarray(picture)[..., 3] >= 128
    assert (alpha.any(axis=0).argmax(), alpha.any(axis=1).argmax()) == (x0, y0)
    assert np.count_nonzero(alpha[y0:y1, x0:x1]) == np.count_nonzero(alpha)


def test_the_three_ways_in_give_the_same_picture(
    running: Running, post: Callable[..., httpx2.Response], person: bytes
) -> None:
    raw = post(person, format="webp", channels="alpha")
    form = running.pictures.http.post(
        "/v1/cutouts", files={"image": ("a.jpg", person)}, data={"format": "webp", "channels": "alpha"}
    )
    data = {"image_base64": base64.b64encode(person).decode(), "output": {"format": "webp", "channels": "alpha"}}
    in_json = running.pictures.http.post("/v1/cutouts", json=data)
    assert opened(raw).format == "WEBP"
    assert raw.content == form.content == in_json.content


def test_a_picture_may_be_fetched_from_an_address_and_not_from_this_machines_own(
    running: Running, person: bytes
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(person)}\r\n\r\n".encode()
    with served({"/a.jpg": head + person}) as host:
        taken, refused = (
            running.pictures.http.post("/v1/cutouts", json={"source": {"url": f"http://{name}:{host.port}/a.jpg"}})
            for name in ("localhost", "127.0.0.1")
        )
        assert opened(taken).size == (512, 512)
        assert refused.status_code == 422, refused.text
        assert len(host.requests) == 1


@pytest.mark.parametrize(("megabytes", "status"), [(3.9, 200), (4.1, 413), (9.9, 413), (10.1, 413)])
def test_a_body_of_any_size_gets_its_answer(
    post: Callable[..., httpx2.Response], person: bytes, megabytes: float, status: int
) -> None:
    answer = post(padded(person, int(megabytes * MB)))
    assert answer.status_code == status, answer.text
    if status == 413:
        assert answer.json()["error"]["code"] == "file_too_large"
        assert "POST /v1/uploads" in answer.json()["error"]["message"]
    else:
        assert opened(answer).size == (512, 512)


def test_a_result_that_no_answer_holds_is_fetched_from_its_address(
    post: Callable[..., httpx2.Response], person: bytes
) -> None:
    answer = post(grained(person))
    assert answer.status_code == 303, answer.text
    result = answer.json()["result"]
    assert result["bytes"] > 30 * MB
    fetched = httpx2.get(answer.headers["location"], trust_env=False, timeout=60)
    assert hashlib.sha256(fetched.content).hexdigest() == result["sha256"]
    assert Image.open(io.BytesIO(fetched.content)).size == (5000, 5000)


def grained(photo: bytes) -> bytes:
    """25 MP, with a grain of 5 pixels: coarse enough for a JPEG of 2.3 MB, and its PNG has 33."""
    large = Image.open(io.BytesIO(photo)).convert("RGB").resize((5000, 5000))
    grain = np.random.default_rng(0).integers(68, 188, (1000, 1000, 3), np.uint8)
    return jpeg(np.asarray(ImageChops.add(large, Image.fromarray(grain).resize((5000, 5000)), offset=-128)), quality=30)


def test_what_is_no_picture_is_refused_in_the_containers_words(post: Callable[..., httpx2.Response]) -> None:
    answer = post(b"This is no image.")
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_format")


def test_an_engine_that_the_endpoint_does_not_run_gets_a_job(
    running: Running, post: Callable[..., httpx2.Response], person: bytes
) -> None:
    answer = post(person, engine="sam")
    assert answer.status_code == 202, answer.text
    told = running.pictures.http.get(str(answer.url.join(answer.headers["location"])))
    assert told.json()["id"] == answer.json()["id"]
    job = running.wait_for_end([answer.json()["id"]])[answer.json()["id"]]
    assert job.error
    assert job.error.code == "unknown_engine"  # its weights are not there either


def test_a_container_that_has_to_start_first_is_waited_for(
    running: Running, post: Callable[..., httpx2.Response], person: bytes
) -> None:
    before = running.model()
    before.kill()

    def starts() -> bool:
        found = processes.find("model", running.config.state)
        return found is not None and found.pid != before.pid

    wait_until(starts, "another container")
    assert opened(post(person)).size == (512, 512)


def test_a_start_that_takes_too_long_makes_a_job_of_the_picture(
    running: Running, post: Callable[..., httpx2.Response], person: bytes
) -> None:
    with running.model_held():
        answer = post(person)
        assert answer.status_code == 202, answer.text
    job = running.wait_for_end([answer.json()["id"]])[answer.json()["id"]]
    assert job.state == "done", job.error
    assert running.result(job).size == (512, 512)
