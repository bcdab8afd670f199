"""Tests the jobs of the API on the stack, as a caller with scope own."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2
import pytest
from botocore.exceptions import ClientError
from PIL import Image
from standardwebhooks.webhooks import Webhook as Receiver

from local import keys
from local.connect import client
from maskdrop.access import Key
from maskdrop.job import folder_of, uploads_of
from tests.e2e.conftest import Running, wait_until
from tests.web import served


@pytest.fixture(scope="module")
def key(running: Running) -> Iterator[tuple[str, Key]]:
    """A key with its own owner: its text, and its record."""
    connected = partial(client, running.config)
    [stack] = connected("cloudformation").describe_stacks(StackName=running.config.app_stack)["Stacks"]
    deployment = keys.Deployment.from_outputs(
        {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}, connected
    )
    text, created = keys.create_key(deployment, "a shop", rate=100_000)
    yield text, created
    keys.revoke_key(deployment, created.id)


@pytest.fixture
def shop(running: Running, key: tuple[str, Key]) -> Iterator[httpx2.Client]:
    """A client of the API with that key."""
    headers = {"X-Api-Key": key[0]}
    with httpx2.Client(base_url=running.stack.api_url, headers=headers, timeout=30, trust_env=False) as http:
        yield http


def posted(
    http: httpx2.Client, body: bytes, name: str = "a photo.png", content_type: str = "image/png", verify: Any = True
) -> tuple[dict[str, Any], httpx2.Response]:
    """Creates an upload form, posts `body` with it, and returns the form and the response of S3."""
    response = http.post("/v1/uploads", json={"name": name, "content_type": "image/png"})
    assert response.status_code == 201, response.text
    form: dict[str, Any] = response.json()
    fields = {**form["fields"], "Content-Type": content_type}
    return form, httpx2.post(form["url"], data=fields, files={"file": (name, body)}, verify=verify, trust_env=False)


def a_job(http: httpx2.Client, body: bytes, verify: Any = True, **payload: Any) -> dict[str, Any]:
    form, response = posted(http, body, verify=verify)
    assert response.is_success, response.text
    created = http.post("/v1/jobs", json={"source": {"upload": form["upload"]}, **payload})
    assert created.status_code == 202, created.text
    job: dict[str, Any] = created.json()
    return job


def exists(running: Running, bucket: str, key: str) -> bool:
    try:
        running.images.s3.head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True


def test_deleting_a_job_of_an_upload_deletes_its_source_and_result(
    running: Running, shop: httpx2.Client, key: tuple[str, Key], photo: bytes
) -> None:
    form, response = posted(shop, photo, name="Zoë (1).png")
    assert response.is_success, response.text
    created = shop.post("/v1/jobs", json={"source": {"upload": form["upload"]}, "output": {"format": "webp"}})
    job, url = created.json(), str(created.url.join(created.headers["location"]))
    running.wait_for_end([job["id"]])

    fetched = shop.get(url).json()
    assert (fetched["state"], fetched["owner"]) == ("done", key[1].owner), fetched["error"]
    result = fetched["result"]
    assert result["key"] == f"results/jobs/{folder_of(key[1].owner)}/{job['id']}.webp"
    fetched = Image.open(io.BytesIO(httpx2.get(result["url"], trust_env=False).content))
    assert (fetched.format, fetched.size) == ("WEBP", (512, 512))

    assert shop.delete(url).status_code == 204
    assert shop.get(url).status_code == 404
    assert not exists(running, result["bucket"], result["key"])
    assert not exists(running, job["source"]["bucket"], job["source"]["key"])


def test_the_owner_of_a_job_gets_its_source_and_reviews_its_result(
    running: Running, shop: httpx2.Client, photo: bytes
) -> None:
    job = a_job(shop, photo)
    running.wait_for_end([job["id"]])
    url = shop.get(f"/v1/jobs/{job['id']}/source").json()["url"]
    assert httpx2.get(url, trust_env=False).content == photo
    reviewed = shop.post(f"/v1/jobs/{job['id']}/review", json={"verdict": "accepted"})
    assert (reviewed.status_code, reviewed.json()["review"]["verdict"]) == (200, "accepted")
    assert shop.get(f"/v1/jobs/{job['id']}").json()["review"] == reviewed.json()["review"]
    form, _ = posted(shop, photo)
    refused = shop.post(f"/v1/jobs/{job['id']}/review", json={"verdict": "corrected", "upload": form["upload"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")


def test_s3_rejects_an_upload_with_another_type_or_size_than_the_form_allows(
    running: Running, shop: httpx2.Client, key: tuple[str, Key]
) -> None:
    for body, content_type in ((b"<html>", "text/html"), (b"", "image/png"), (bytes(34_000_000), "image/png")):
        form, response = posted(shop, body, content_type=content_type)
        assert response.is_client_error, f"{content_type}, {len(body)} bytes"
        assert not exists(running, running.stack.inbox, uploads_of(key[1].owner) + form["upload"])
        created = shop.post("/v1/jobs", json={"source": {"upload": form["upload"]}})
        assert (created.status_code, created.json()["error"]["code"]) == (404, "source_missing")


def test_only_a_caller_with_scope_all_can_create_jobs_of_dropped_images(
    running: Running, shop: httpx2.Client, photo: bytes
) -> None:
    dropped = f"inbox/kept/{uuid.uuid4().hex}.png"
    running.images.s3.put_object(Bucket=running.stack.inbox, Key=dropped, Body=photo)
    payload = {"source": {"bucket": running.stack.inbox, "key": dropped}, "preset": "matte"}
    refused, created = shop.post("/v1/jobs", json=payload), running.images.http.post("/v1/jobs", json=payload)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")
    job = running.wait_for_end([created.json()["id"]])[created.json()["id"]]
    assert running.result(job).mode == "L"
    assert running.images.http.delete(f"/v1/jobs/{job.id}").status_code == 204
    assert exists(running, running.stack.inbox, dropped)


def test_a_url_sent_twice_with_one_idempotency_key_is_fetched_once(
    running: Running, shop: httpx2.Client, photo: bytes
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
    with served({"/a.png": head + photo}) as host:
        payload = {"source": {"url": f"http://localhost:{host.port}/a.png"}}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        first, second = (shop.post("/v1/jobs", json=payload, headers=headers) for _ in range(2))
        other = shop.post("/v1/jobs", json={**payload, "preset": "webp"}, headers=headers)
        assert len(host.requests) == 1
    assert (first.status_code, first.json()) == (second.status_code, second.json()) == (202, first.json())
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert running.wait_for_end([first.json()["id"]])[first.json()["id"]].state == "done"


def test_a_retried_job_posts_its_webhook_at_each_end(
    running: Running, shop: httpx2.Client, key: tuple[str, Key]
) -> None:
    with served({"/hook": b"HTTP/1.1 204 Taken\r\n\r\n"}) as receiver:
        job = a_job(shop, b"This is no image.", webhook=f"http://localhost:{receiver.port}/hook")
        url = f"/v1/jobs/{job['id']}"
        wait_until(lambda: len(receiver.requests) == 1, "the first webhook")
        first = shop.get(url).json()
        assert shop.post(f"{url}/retry").status_code == 202
        wait_until(lambda: len(receiver.requests) == 2, "the second webhook")
        second = shop.get(url).json()
    for fetched in (first, second):
        assert (fetched["state"], fetched["error"]["code"], fetched["attempts"]) == ("failed", "unsupported_format", 1)
    assert first["bundle"] != second["bundle"]
    for head, body in receiver.requests:
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert Receiver(key[1].webhook_secret).verify(body, headers)["data"]["id"] == job["id"]


def test_a_submitted_job_can_be_neither_deleted_nor_retried(
    running: Running, shop: httpx2.Client, photo: bytes
) -> None:
    with running.model_suspended():
        job = a_job(shop, photo)
        url = f"/v1/jobs/{job['id']}"
        wait_until(lambda: shop.get(url).json()["state"] == "submitted", "a submitted job")
        deleted, retried = shop.delete(url), shop.post(f"{url}/retry")
    assert (deleted.status_code, deleted.json()["error"]["code"]) == (409, "job_in_work")
    assert (retried.status_code, retried.json()["error"]["code"]) == (409, "job_not_failed")
    assert running.wait_for_end([job["id"]])[job["id"]].state == "done"


def test_engines_and_presets_are_listed(shop: httpx2.Client) -> None:
    engines = {engine["name"]: engine for engine in shop.get("/v1/engines").json()["engines"]}
    assert engines["portrait"]["interactive"]
    assert not engines["sam"]["interactive"]
    assert {"default", "webp"} <= {preset["name"] for preset in shop.get("/v1/presets").json()["presets"]}
