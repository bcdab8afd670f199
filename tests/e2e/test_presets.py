"""Tests presets that an operator creates on a running stack."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from PIL import Image

from cli import presets
from cli.options import PromptFlags, options_of
from lambdas.adapters.registry import DynamoDBRegistry
from local.config import LocalError
from maskdrop.job import BACKGROUNDS_PREFIX
from tests.e2e.conftest import Running

SHOP = ["format=jpg", "size=preview", "crop=10%"]
BLUE = (0x81, 0xD4, 0xFA)


@pytest.fixture
def registry(running: Running) -> Iterator[DynamoDBRegistry]:
    yield running.registry
    running.registry.delete("preset", "shop")


@pytest.fixture
def wall(running: Running) -> str:
    """S3 URI of a blue background image."""
    to = io.BytesIO()
    Image.new("RGB", (64, 64), BLUE).save(to, "PNG")
    key = f"{BACKGROUNDS_PREFIX}wall.png"
    running.images.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=to.getvalue())
    return f"s3://{running.stack.inbox}/{key}"


def is_blue(image: Image.Image) -> bool:
    """Returns whether the corner of the image is blue, with a tolerance for JPEG."""
    corner: Any = image.convert("RGB").getpixel((3, 3))
    return all(abs(found - wanted) <= 4 for found, wanted in zip(corner, BLUE, strict=True))


def test_a_preset_is_created_read_and_deleted(registry: DynamoDBRegistry) -> None:
    options = options_of("cutout", PromptFlags(), engine="grabcut", output=SHOP)
    presets.put(registry, "shop", options)
    assert presets.get(registry, "shop") == options
    presets.delete(registry, "shop")
    with pytest.raises(LocalError):
        presets.get(registry, "shop")


def test_a_photo_in_the_folder_of_a_new_preset_is_processed_with_its_options(
    running: Running, registry: DynamoDBRegistry, photo: bytes, wall: str
) -> None:
    running.wait_for_end([running.put(photo)])  # now the function has cached the presets
    options = options_of("cutout", PromptFlags(), output=[*SHOP, f"background={wall}"])
    presets.put(registry, "shop", options)
    running.restart("ingest")
    job_id = running.put(photo, "shop/astronaut.png")
    job = running.wait_for_end([job_id])[job_id]
    assert (job.preset, job.options, job.error) == ("shop", options, None)
    assert job.result
    assert job.result.key == "results/shop/astronaut.png.jpg"
    with running.result(job) as result:
        assert (result.format, result.size) == ("JPEG", (job.result.width, job.result.height))
        assert result.width * result.height <= 250_000
        assert is_blue(result)


def test_a_synchronous_request_can_use_a_new_preset_but_not_name_a_background_image(
    running: Running, registry: DynamoDBRegistry, photo: bytes, wall: str
) -> None:
    options = options_of("cutout", PromptFlags(), output=["format=jpg", f"background={wall}"])
    presets.put(registry, "shop", options)
    running.restart("api")

    def post(**query: str) -> httpx2.Response:
        headers = {"Content-Type": "image/png"}
        return running.images.http.post("/v1/cutouts", content=photo, headers=headers, params=query, timeout=60)

    response = post(preset="shop", size="preview")
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as image:
        assert image.format == "JPEG"
        assert image.width * image.height <= 250_000
        assert is_blue(image)
    refused = post(background=wall)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_options")
