"""The Python client and the MCP server against a real process of `maskdrop serve`, with the engine `portrait`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from mcp import Client
from PIL import Image

from cli.mcp.backends import ApiBackend, Purse
from cli.mcp.files import Files
from cli.mcp.server import server_of
from maskdrop_client import AsyncMaskdrop, ConnectionFailed, InvalidRequest, Maskdrop, NotFound
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]

PHOTO = ROOT / "samples" / "default" / "astronaut.png"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server without keys. Its retries of refused connections replace a wait for its start."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "weights").mkdir()
    [port] = free_ports(1)
    settings = {
        "SERVE_PORT": str(port),
        "SERVE_NO_AUTH": "1",
        "SERVE_DATA": str(folder / "data"),
        "MODEL_WEIGHTS_DIR": str(folder / "weights"),
        "MODEL_WORKERS": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", "standalone"], cwd=ROOT, env={**os.environ, **settings})
    try:
        with Maskdrop(f"http://127.0.0.1:{port}", "", retries=12) as client:
            client.health()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def client(url: str) -> Iterator[Maskdrop]:
    with Maskdrop(url, "") as connected:
        yield connected


def test_each_task_returns_its_result(client: Maskdrop) -> None:
    cutout = client.cutout(PHOTO, engine="portrait", format="webp")
    with cutout.image() as image:
        assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (512, 512))
    assert cutout.subject
    assert (cutout.subject.kind, cutout.engine) == ("person", "portrait")
    mask = np.asarray(client.mask(Image.open(PHOTO)).image())
    assert {*np.unique(mask)} == {0, 255}
    red = client.edit(PHOTO.read_bytes(), background="red", format="jpg").image()
    assert red.format == "JPEG"
    assert client.detect(PHOTO).width == 512


def test_a_generated_background_is_a_job_whose_results_are_downloaded(client: Maskdrop) -> None:
    result = client.edit(PHOTO, "white studio", wait_s=60)
    assert result.job
    assert [item.prompt for item in result.results] == ["white studio"]
    assert Image.open(BytesIO(client.download(result.results[0]))).size == (512, 512)


def test_a_job_runs_from_its_upload_to_its_deletion(client: Maskdrop) -> None:
    states: list[str] = []
    job = client.wait(client.submit(PHOTO, preset="webp"), wait_s=60, on_change=lambda one: states.append(one.state))
    assert states[-1] == "done"
    assert client.result(job).content_type == "image/webp"
    assert job.id in [one.id for one in client.all_jobs()]
    client.delete(job.id)
    with pytest.raises(NotFound):
        client.job(job.id)
    assert client.usage().pictures > 0


def test_errors_have_their_codes(client: Maskdrop) -> None:
    for image, code in ((b"not an image", "unsupported_format"), ("https://127.0.0.1/a.png", "blocked_url")):
        with pytest.raises(InvalidRequest) as error:
            client.cutout(image)
        assert error.value.code == code
    [port] = free_ports(1)
    with pytest.raises(ConnectionFailed):
        Maskdrop(f"http://127.0.0.1:{port}", "", retries=0).health()


def test_many_images_are_processed_by_both_clients(client: Maskdrop, url: str) -> None:
    assert all(outcome.result.size == (512, 512) for outcome in client.map([PHOTO] * 4, workers=2))

    async def main() -> list[tuple[int, int]]:
        async with AsyncMaskdrop(url, "") as asynchronous:
            return [outcome.result.size async for outcome in asynchronous.map([PHOTO] * 4, "mask", workers=2)]

    assert asyncio.run(main()) == [(512, 512)] * 4


def test_the_tools_of_the_mcp_server_use_the_api(url: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PHOTO.read_bytes())

    async def main() -> None:
        backend = ApiBackend(AsyncMaskdrop(url, ""), Purse(0.0))
        async with Client(server_of(backend, Files.of([tmp_path], None))) as tools:
            result = await tools.call_tool("cutout", {"image": "photo.png", "output": {"canvas": "1:1"}})
            assert not result.is_error, result.content
            detected = await tools.call_tool("detect", {"image": "photo.png"})
            assert not detected.is_error, detected.content

    asyncio.run(main())
    assert Image.open(tmp_path / "photo-cutout.png").mode == "RGBA"
