"""The web console of the local stack: the API, uploads and results on its own origin, as through CloudFront in AWS."""

from __future__ import annotations

import io
from pathlib import Path

import httpx2
from PIL import Image

from local.console import console_url
from maskdrop.console import HEADERS
from tests.e2e.conftest import Running

PHOTO = Path(__file__).resolve().parents[2] / "samples" / "default" / "astronaut.png"


def test_an_upload_and_its_result_use_the_origin_of_the_console_only(running: Running) -> None:
    url = console_url(running.config)
    with httpx2.Client(base_url=running.config.sagemaker_url, trust_env=False, timeout=60) as http:
        page = http.get(url)
        assert {name: page.headers[name] for name in HEADERS} == HEADERS
        files = http.get(f"{url}config.json").json()["files"]

        def same_origin(target: str) -> str:
            prefix, path = next(pair for pair in files.items() if target.startswith(pair[0]))
            return str(path + target.removeprefix(prefix))

        http.headers["X-Api-Key"] = running.stack.api_key
        form = http.post("/v1/uploads", json={"name": "astronaut", "content_type": "image/png"}).json()
        sent = http.post(same_origin(form["url"]), data=form["fields"], files={"file": PHOTO.read_bytes()})
        assert sent.is_success, sent.text
        job = http.post("/v1/jobs", json={"source": {"upload": form["upload"]}}).json()
        running.wait_for_end([job["id"]])
        done = http.get(f"/v1/jobs/{job['id']}").json()
        assert done["state"] == "done", done
        result = http.get(same_origin(done["result"]["url"]))
        assert Image.open(io.BytesIO(result.content)).mode == "RGBA"


def test_an_error_of_the_api_reaches_the_console(running: Running) -> None:
    response = httpx2.get(f"{running.config.sagemaker_url}/v1/jobs", headers={"X-Api-Key": "none"}, trust_env=False)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "auth_failed")
