"""Process one image with a deployed stage, as its users do."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import urljoin

import httpx2
import typer
from botocore.exceptions import BotoCoreError, ClientError

from cli.keys import Stage
from cli.terminal import console, print_errors
from lambdas.adapters.jobs import JobsTable
from local import stack
from local.account import client_in, region_of_environment
from local.config import ROOT, LocalConfig, NotRunning
from local.connect import client, tls_verify
from local.images import ENDED
from maskdrop.errors import MaskdropError
from maskdrop.job import INBOX_PREFIX, Source, dropped
from maskdrop.presets import DEFAULT_PRESET
from maskdrop.sniff import HEAD, image_type

SAMPLE = ROOT / "samples" / "default" / "astronaut.png"

WAIT_S = 1200
"""Default time for the job, in seconds: a GPU instance takes 5 to 10 minutes to start."""

POLL_S = 2.0
"""Interval between two reads of the job, in seconds."""

RESPONSE_S = 40.0
"""Timeout of a response of the API in seconds. API Gateway's is 29."""

PNG_SIZE = slice(16, 24)
"""Width and height in a PNG file: the first fields of its header (PNG specification, 11.2.2)."""


class SmokeFailed(MaskdropError):
    """The stage did not process the image."""

    code = "smoke_failed"


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a deployment that the test uses. api_key: ""; no synchronous request is sent without one."""

    s3: Any
    jobs: JobsTable
    inbox: str
    http: httpx2.Client
    api_key: str


def smoke(
    stage: Stage = None,
    key: Annotated[
        str,
        typer.Option(envvar="MASKDROP_API_KEY", help="API key for a synchronous request.", show_default="no request"),
    ] = "",
    image: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Image to process.")] = SAMPLE,
    wait: Annotated[int, typer.Option(min=1, help="Timeout of the job in seconds.")] = WAIT_S,
) -> None:
    """Process one image: drop it into the inbox, wait for its job, fetch the result. With an API key, also request a
    synchronous cut-out. Exits 1 when a step fails; deletes the image and the result."""
    with print_errors(), _target(stage, key) as target:
        for step, seconds in process(target, image.read_bytes(), image.suffix, wait):
            console.print(f"ok {seconds:6.1f} s  {step}", markup=False, soft_wrap=True)


def process(target: Target, body: bytes, suffix: str, wait_s: float) -> Iterator[tuple[str, float]]:
    """Processes an image. Yields each step that succeeded, with its duration in seconds. Raises SmokeFailed."""
    key = f"{INBOX_PREFIX}{DEFAULT_PRESET}/smoke-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}{suffix}"
    start = time.monotonic()
    uploaded = target.s3.put_object(Bucket=target.inbox, Key=key, Body=body)
    version = uploaded.get("VersionId") or uploaded["ETag"].strip('"')
    yield f"uploaded s3://{target.inbox}/{key}", time.monotonic() - start
    job_id = dropped(Source(bucket=target.inbox, key=key, version_id=version), datetime.now(UTC)).id
    try:
        start = time.monotonic()
        job = _ended(job_id, lambda: _record(target, job_id), wait_s)
        yield f"processed by {job['engine']}, job {job_id}", time.monotonic() - start
        start = time.monotonic()
        place = {"Bucket": job["result"]["bucket"], "Key": job["result"]["key"]}
        _check(target.s3.get_object(**place)["Body"].read(), job["result"])
        target.s3.delete_object(**place)
        yield f"fetched s3://{place['Bucket']}/{place['Key']}", time.monotonic() - start
    finally:
        target.s3.delete_object(Bucket=target.inbox, Key=key)
    if target.api_key:
        start = time.monotonic()
        yield _cutout(target, body, wait_s), time.monotonic() - start


def _record(target: Target, job_id: str) -> dict[str, Any] | None:
    job = target.jobs.get(job_id)
    return job.to_json() if job else None


def _ended(job_id: str, get: Callable[[], dict[str, Any] | None], wait_s: float) -> dict[str, Any]:
    """Returns the job when it is done. Raises SmokeFailed when it fails, or has not ended after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while (job := get()) is None or job["state"] not in ENDED:
        if time.monotonic() > deadline:
            state = f"is {job['state']}" if job else "does not exist"
            log = "the endpoint" if job else "the function ingest"
            raise SmokeFailed(
                f"Job {job_id} {state} after {wait_s:.0f} s. Read the log of {log}; run `maskdrop doctor --stage …`."
            )
        time.sleep(POLL_S)
    if job["state"] == "failed":
        raise SmokeFailed(f"Job {job_id} failed: {job['error']['code']}: {job['error']['message']}")
    return job


def _check(file: bytes, result: dict[str, Any]) -> None:
    """Raises SmokeFailed unless the file is a PNG image of the size that the job states."""
    kind = image_type(file[:HEAD])
    if kind != "image/png":
        raise SmokeFailed(f"The result must be a PNG file; got {kind or 'no image'}, {len(file)} bytes.")
    width, height = struct.unpack(">II", file[PNG_SIZE])
    if (width, height) != (result["width"], result["height"]):
        stated = f"{result['width']} x {result['height']}"
        raise SmokeFailed(f"The result has {width} x {height} pixels; its job states {stated}.")


def _cutout(target: Target, body: bytes, wait_s: float) -> str:
    """Requests a synchronous cut-out and returns how it was processed. Raises SmokeFailed."""
    headers = {"X-Api-Key": target.api_key}
    content_type = image_type(body[:HEAD]) or "application/octet-stream"
    request = target.http.build_request(
        "POST", "v1/cutouts", content=body, headers={**headers, "Content-Type": content_type}
    )
    del request.headers["Accept"]  # the clients of Go, Java and .NET send none; API Gateway must decode the base64
    response = target.http.send(request)
    location = urljoin(str(response.url), response.headers.get("Location", ""))
    if response.status_code == 202:  # the endpoint is off, or was not ready within 25 s

        def get() -> dict[str, Any] | None:
            status = target.http.get(location, headers=headers)
            return cast(dict[str, Any], status.json()) if status.status_code == 200 else None

        job = _ended(location.rpartition("/")[2], get, wait_s)
        return f"synchronous request, processed as job {job['id']}: no endpoint was ready"
    if response.status_code == 303:
        response = target.http.get(location)
    if response.status_code != 200:
        raise SmokeFailed(f"POST /v1/cutouts returned {response.status_code}: {response.text[:300]}")
    if image_type(response.content[:HEAD]) is None:
        raise SmokeFailed(f"POST /v1/cutouts without an Accept header returned no image: {response.content[:100]!r}.")
    return "synchronous cut-out"


@contextmanager
def _target(stage: str | None, key: str) -> Iterator[Target]:
    """Yields a stage in AWS, or the running local stack with its own key. Converts errors of AWS to SmokeFailed."""
    config = LocalConfig.of_running_stack(os.environ)
    try:
        if stage:
            make_client = partial(client_in, region_of_environment())
            found = make_client("cloudformation").describe_stacks(StackName=f"Maskdrop-{stage}")["Stacks"][0]
            outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
            inbox, table, url = outputs["InboxBucket"], outputs["JobsTable"], outputs["ApiUrl"]
            http = httpx2.Client(base_url=url, timeout=RESPONSE_S)
        else:
            running = stack.find(config)
            if running is None:
                raise NotRunning
            make_client = partial(client, config)
            inbox, table, key = running.inbox, running.table, key or running.api_key
            verify = tls_verify(config.ca_bundle)
            http = httpx2.Client(base_url=running.api_url, timeout=RESPONSE_S, verify=verify, trust_env=False)
        jobs = JobsTable(make_client("dynamodb"), table, keep_days=1)  # keep_days applies to writes
        with http:
            yield Target(make_client("s3"), jobs, inbox, http, key)
    except (BotoCoreError, ClientError) as error:
        check = f"maskdrop doctor --stage {stage}" if stage else "maskdrop doctor"
        raise SmokeFailed(
            f"AWS request failed: {str(error).rstrip('.')}. Check the account and the stage: {check}"
        ) from error
    except httpx2.TransportError as error:
        raise SmokeFailed(f"The API did not respond: {error}") from error
