"""Edits on the running stack: a dropped photo gets generated backgrounds; the emulated Bedrock throttles and fails."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest
from PIL import Image

from lambdas.adapters.editors.bedrock import StabilityEditor
from lambdas.adapters.events import EventBus
from lambdas.adapters.queue import SqsQueue
from lambdas.adapters.registry import DynamoDBRegistry
from lambdas.adapters.storage import S3Storage
from local.connect import client
from maskdrop.access import usage_of
from maskdrop.edit import Edit, alpha_key, candidate_key, image_key, mask_key
from maskdrop.editing import Progress, edit_job
from maskdrop.job import Job, Source, queued
from maskdrop.options import Options
from maskdrop.services import Services
from maskdrop.wire import JobMessage
from tests.ai import RunningAi
from tests.e2e.conftest import Running
from tests.e2e.test_presets import restart
from tests.fakes import SETTINGS, FakeQueue, World

PRESET = "studio"
PROMPTS = ("white studio", "blue gradient")


@pytest.fixture
def registry(running: Running) -> Iterator[DynamoDBRegistry]:
    found = DynamoDBRegistry(client(running.config, "dynamodb"), running.stack.registry)
    yield found
    found.delete("preset", PRESET)


def pixels(running: Running, key: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(running.object(running.stack.results, key))).convert("RGB"))


def test_a_dropped_photo_gets_one_result_for_each_text_and_keeps_the_pixels_of_its_subject(
    running: Running, registry: DynamoDBRegistry, photo: bytes
) -> None:
    options = replace(Options(task="replace"), edit=Edit(PROMPTS))
    registry.put("preset", PRESET, options.to_json())
    restart(running, "ingest")
    job_id = running.put(photo, f"{PRESET}/{uuid.uuid4().hex}.png")
    job = running.wait_for_end([job_id])[job_id]
    assert job.state == "done", job.error
    assert [(one.prompt, one.seed) for one in job.results] == [(prompt, 0) for prompt in PROMPTS]
    assert [(one.model, one.cost_usd) for one in job.candidates] == [("local", 0)] * 2
    source = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
    alpha = np.asarray(Image.open(io.BytesIO(running.object(running.stack.results, alpha_key(job_id)))))
    inside = alpha == 255
    assert inside.mean() > 0.1
    backgrounds = []
    for item in job.results:
        found = pixels(running, item.result.key)
        assert (found[inside] == source[inside]).all()
        backgrounds.append(found[alpha == 0].mean(axis=0))
    assert np.abs(backgrounds[0] - backgrounds[1]).max() > 20
    assert usage_of(registry, "", f"{datetime.now(UTC):%Y-%m}")["generated"] >= 2


@pytest.fixture
def bedrock(running: Running) -> Iterator[RunningAi]:
    emulator = RunningAi(running.config)
    yield emulator
    emulator.reset()


def an_edit(running: Running, owner: str) -> Job:
    """A segmented job in the table, with its files."""
    edit = Edit(("a beach", "a forest", "a city"), seeds=(1,))
    source = Source(running.stack.inbox, f"uploads/{uuid.uuid4().hex}.png")
    job = queued(source, "default", replace(Options(task="replace"), edit=edit), datetime.now(UTC), owner=owner)
    job = replace(job, stage="edit", bundle="b1")
    assert running.jobs.claim(job)
    mask = np.zeros((128, 192), np.uint8)
    mask[32:96, 48:144] = 255
    for key, array, form in (
        (image_key(job.id), np.full((128, 192, 3), 200, np.uint8), "JPEG"),
        (mask_key(job.id), mask, "PNG"),
    ):
        to = io.BytesIO()
        Image.fromarray(array).save(to, form)
        running.images.s3.put_object(Bucket=running.stack.results, Key=key, Body=to.getvalue())
    return job


def test_throttled_calls_and_a_lost_response_lose_no_image_and_none_is_paid_twice(
    running: Running, registry: DynamoDBRegistry, bedrock: RunningAi
) -> None:
    owner = uuid.uuid4().hex
    job, edits = an_edit(running, owner), FakeQueue()
    make = partial(client, running.config)
    services: Services = replace(
        World().services,
        jobs=running.jobs,
        storage=S3Storage(make("s3")),
        registry=registry,
        events=EventBus(make("events"), running.stack.event_bus),
        jobs_queue=SqsQueue(make("sqs"), running.stack.jobs_queue_url),
        edits_queue=edits,
        editor=StabilityEditor(lambda: bedrock.client("bedrock-runtime"), "us-east-1"),
    )
    settings = replace(SETTINGS, results=running.stack.results, editor="stability")
    script = {"InvokeModel": ["succeed", "ThrottlingException", "ThrottlingException", "cut", "Filter reason: prompt"]}
    bedrock.control(script=script).raise_for_status()
    calls, billed = bedrock.calls("InvokeModel"), len(bedrock.billed("InvokeModel"))
    progress: list[Progress] = []
    bodies = [JobMessage(job.id, 0).to_body()]
    while bodies:
        message = JobMessage.from_body(bodies.pop(0))
        progress.append(edit_job(message, settings, services, lambda: datetime.now(UTC) + timedelta(seconds=1)))
        bodies += [body for body, _ in edits.sent]
        edits.sent.clear()
    done = running.jobs.get(job.id)
    assert done
    assert progress == ["delayed", "delayed", "delayed", "composing"]
    assert [(one.number, one.prompt, one.cost_usd) for one in done.candidates] == [
        (1, "a beach", 0.07),
        (3, "a city", 0.07),
    ]
    assert [one for one in done.warnings if one.startswith("edit_filtered")]
    assert bedrock.calls("InvokeModel") - calls == 6  # two images, two throttled, a lost response, a refused text
    assert [one["prompt"] for one in bedrock.billed("InvokeModel")[billed:]] == ["a beach", "a forest", "a city"]
    used = usage_of(registry, owner, f"{datetime.now(UTC):%Y-%m}")
    assert used["generated_usd"] == pytest.approx(3 * 0.07)  # the lost response may have been billed
    for number, exists in ((1, True), (2, False), (3, True)):
        stored = services.storage.head(running.stack.results, candidate_key(job.id, number))
        assert (stored is not None) == exists
