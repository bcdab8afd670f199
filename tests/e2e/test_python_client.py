"""The Python client against the stack: API Gateway, presigned forms and URLs of S3, and jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from local.config import ROOT
from local.connect import tls_verify
from maskdrop.interactive import BYTES_MAX
from maskdrop_client import AsyncMaskdrop, AuthenticationFailed, InvalidRequest, Maskdrop, NotFound
from tests.e2e.conftest import Running

PHOTO = ROOT / "samples" / "default" / "astronaut.png"


@pytest.fixture
def client(running: Running) -> Iterator[Maskdrop]:
    stack = running.stack
    with Maskdrop(stack.api_url, stack.api_key, verify=tls_verify(running.config.ca_bundle)) as connected:
        yield connected


def test_a_cutout_and_a_job_have_results(client: Maskdrop) -> None:
    assert client.health().status == "ok"
    result = client.cutout(PHOTO, format="webp")
    assert (result.image().mode, result.size) == ("RGBA", (512, 512))
    job = client.wait(client.submit(PHOTO, preset="webp"))
    assert client.result(job).content_type == "image/webp"
    client.delete(job.id)
    with pytest.raises(NotFound):
        client.job(job.id)


def test_an_image_above_the_limit_of_the_gateway_is_uploaded(client: Maskdrop) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), np.uint8)
    image = Image.fromarray(noise)
    assert noise.nbytes > BYTES_MAX
    result = client.mask(image)
    assert result.job
    assert result.size == (1300, 1300)


def test_errors_are_typed(client: Maskdrop, running: Running) -> None:
    with pytest.raises(InvalidRequest) as error:
        client.cutout(b"not an image")
    assert error.value.code == "unsupported_format"
    with Maskdrop(running.stack.api_url, "no-key") as stranger, pytest.raises(AuthenticationFailed):
        stranger.usage()


def test_the_asynchronous_client_sends_requests_at_the_same_time(running: Running) -> None:
    async def main() -> list[tuple[int, int]]:
        stack = running.stack
        async with AsyncMaskdrop(stack.api_url, stack.api_key) as client:
            results = await asyncio.gather(*(client.cutout(PHOTO, size="preview") for _ in range(3)))
            return [result.size for result in results]

    assert asyncio.run(main()) == [(500, 500)] * 3
