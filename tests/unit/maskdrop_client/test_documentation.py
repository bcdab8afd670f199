"""Runs the code of docs/python.md against the API, over HTTP and with a real socket."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from cli import engines
from maskdrop.wire import Outcome
from maskdrop_client import client
from tests.fakes import FakeStorage, World, a_success
from tests.unit.maskdrop_client.api import KEY, Api
from tests.unit.maskdrop_client.test_client import run_jobs

ROOT = Path(__file__).parents[3]

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


class ServedStorage(FakeStorage):
    """Storage whose presigned URLs lead to the server `base`."""

    base = ""

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Any:
        form = super().form(bucket, key, content_type, bytes_max=bytes_max, seconds=seconds)
        return type(form)(f"{self.base}/s3/{bucket}", form.fields)

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        return f"{self.base}/s3/{bucket}/{key}?valid={seconds}"


def in_webp(job_id: str) -> Outcome:
    made = a_success(job_id)
    assert made.result
    return replace(made, result=replace(made.result, format="webp"))


@contextmanager
def served(api: Api, storage: ServedStorage) -> Iterator[str]:
    """Serves the API at /prod and its storage at /s3. Yields the URL of the API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            in_storage = self.path.startswith("/s3/")
            url = f"https://{self.path.removeprefix('/s3/')}" if in_storage else f"https://api.test{self.path}"
            request = httpx2.Request(self.command, url, headers=dict(self.headers), content=body)
            response = api(request)
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name not in ("content-length", "transfer-encoding", "content-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        do_GET = do_POST = do_DELETE = handle_request  # noqa: N815  the names of the standard library

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        storage.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{storage.base}/prod"
        server.shutdown()
        thread.join()


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ServedStorage()
    api = Api(World(storage=storage))
    api.before = run_jobs(api, in_webp)
    photo = BytesIO()
    Image.open(ROOT / "samples" / "default" / "astronaut.png").convert("RGB").save(photo, "JPEG")
    api.world.interactive.result = photo.getvalue()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo.getvalue())
    (tmp_path / "notes.txt").write_text("not an image")
    monkeypatch.setattr(engines, "fetch_missing", lambda _: None)  # no download in a test
    monkeypatch.chdir(tmp_path)
    with served(api, storage) as url:
        monkeypatch.setenv(client.URL_VARIABLE, url)
        monkeypatch.setenv(client.KEY_VARIABLE, KEY)
        names: dict[str, Any] = {}
        assert len(BLOCKS) == 7
        for block in BLOCKS:
            exec(compile(block, "docs/python.md", "exec"), names)  # noqa: S102  the page under test
        names["maskdrop"].close()
    assert {path.name for path in Path("results").iterdir()} == {"photo.webp", "a.webp", "b.webp"}
    with Image.open("photo.webp") as opened:
        assert opened.mode == "RGBA"
    printed = capsys.readouterr().out
    assert "done" in printed
    assert "auto" in printed
