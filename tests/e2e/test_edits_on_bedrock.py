"""Tests generated backgrounds with a model on the emulated Amazon Bedrock: nothing is lost or paid twice."""

from __future__ import annotations

import io
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image

from lambdas.adapters.editors.bedrock import StabilityEditor
from lambdas.adapters.events import EventBus
from lambdas.adapters.queue import SqsQueue
from lambdas.adapters.storage import S3Storage
from local import keys, processes
from local.connect import client
from maskdrop.access import usage_of
from maskdrop.edit import EDITORS, Edit, candidate_key, image_key, mask_key
from maskdrop.editing import Progress, edit_job
from maskdrop.job import Job, Source, queued
from maskdrop.options import Options
from maskdrop.services import Services
from maskdrop.spending import set_cap
from maskdrop.wire import JobMessage
from tests.ai import RunningAi
from tests.e2e.conftest import Running, wait_until
from tests.e2e.test_edits import assert_subject_kept, stored_alpha
from tests.e2e.test_jobs import a_job
from tests.fakes import SETTINGS, FakeQueue, World

MODEL, PRICE = EDITORS["stability"].model, EDITORS["stability"].usd_per_image
THROTTLED = "ThrottlingException"
FILTERED = "Filter reason: output image"


@pytest.fixture(scope="module", autouse=True)
def _editor(running: Running) -> Iterator[None]:
    with running.settings(("api", "ingest", "edit"), editor="stability"):
        yield


def submit(http: httpx2.Client, image: bytes, *texts: str, seeds: tuple[int, ...] = (1,), **options: Any) -> str:
    """Creates a job with an edit. The texts get a unique ending, so that the usage shows what they cost."""
    unique = uuid.uuid4().hex[:8]
    edit = {"prompts": [f"{text} {unique}" for text in texts], "seeds": list(seeds)}
    return str(a_job(http, image, task="replace", edit=edit, **options)["id"])


def ended(running: Running, job_id: str) -> Job:
    return running.wait_for_end([job_id])[job_id]


def retried(running: Running, job_id: str) -> None:
    response = running.images.http.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == 202, response.text


def billed(ai: RunningAi, job: Job) -> Counter[tuple[str, int]]:
    """Returns how many images of each candidate of a job Bedrock has billed."""
    assert job.options.edit
    prompts = job.options.edit.prompts
    return Counter((one["prompt"], one["seed"]) for one in ai.billed("InvokeModel") if one["prompt"] in prompts)


def once_each(job: Job) -> Counter[tuple[str, int]]:
    assert job.options.edit
    return Counter(job.options.edit.candidates)


def code_of(job: Job) -> str | None:
    return job.error.code if job.error else None


def test_candidates_that_are_throttled_are_generated_later_and_each_is_paid_once(
    running: Running, ai: RunningAi, photo: bytes
) -> None:
    ai.control(script={"InvokeModel": ["succeed", THROTTLED, "succeed", THROTTLED]})
    before = ai.calls("InvokeModel")
    job = ended(running, submit(running.images.http, photo, "a beach", "a forest", seeds=(1, 2)))
    assert job.state == "done", job.error
    assert ai.calls("InvokeModel") == before + 6
    assert billed(ai, job) == once_each(job)
    assert [(one.prompt, one.seed) for one in job.results] == list(job.options.edit.candidates)  # type: ignore[union-attr]
    assert [one.cost_usd for one in job.candidates] == [PRICE] * 4
    assert job.cost_usd is not None
    assert job.cost_usd == pytest.approx(4 * PRICE, abs=0.01)
    alpha, files = stored_alpha(running, job.id), running.files(job)
    for file in files:
        assert_subject_kept(photo, file, alpha)
    assert len(set(files)) == 4


def test_a_refused_candidate_is_omitted_with_a_warning(running: Running, ai: RunningAi, photo: bytes) -> None:
    ai.control(script={"InvokeModel": [FILTERED, "succeed"]})
    job = ended(running, submit(running.images.http, photo, "a beach", "a forest"))
    assert job.state == "done", job.error
    assert job.options.edit
    assert [one.prompt for one in job.results] == [job.options.edit.prompts[1]]
    [warning] = [one for one in job.warnings if one.startswith("edit_filtered")]
    assert "1 of 2" in warning
    assert sum(billed(ai, job).values()) == 1


def test_a_job_whose_candidates_are_all_refused_is_retried_without_segmenting_again(
    running: Running, ai: RunningAi, photo: bytes
) -> None:
    ai.control(script={"InvokeModel": [FILTERED, FILTERED]})
    job_id = submit(running.images.http, photo, "a beach", "a forest")
    failed = ended(running, job_id)
    assert (failed.state, failed.stage, code_of(failed)) == ("failed", "edit", "edit_filtered")
    assert not billed(ai, failed)
    retried(running, job_id)
    job = ended(running, job_id)
    assert (job.state, len(job.results)) == ("done", 2), job.error
    assert billed(ai, job) == once_each(job)
    assert running.stages(job) == ["segment", "compose"]


def test_each_failure_of_the_service_has_its_code_and_a_killed_container_loses_no_image(
    running: Running, ai: RunningAi, photo: bytes
) -> None:
    failures: list[tuple[str, dict[str, Any]]] = [
        ("model_retired", {"lifecycle": {MODEL: "EOL"}}),
        ("model_not_in_region", {"lifecycle": {MODEL: "ELSEWHERE"}}),
        ("not_allowed", {"script": {"InvokeModel": ["AccessDeniedException"]}}),
        ("edit_refused", {"script": {"InvokeModel": ["succeed", "ValidationException"]}}),
    ]
    job_id = ""
    for code, conditions in failures:
        ai.reset()
        ai.control(**conditions).raise_for_status()
        if job_id:
            retried(running, job_id)
        else:
            job_id = submit(running.images.http, photo, "a beach", "a forest")
        job = ended(running, job_id)
        assert (job.state, job.stage, code_of(job)) == ("failed", "edit", code), job.error
    ai.reset()
    with running.model_suspended():
        retried(running, job_id)

        def is_composing() -> bool:
            job = running.jobs.get(job_id)
            return job is not None and (job.stage, job.state) == ("compose", "submitted")

        wait_until(is_composing, "the stage compose")
        running.model().kill()
    job = ended(running, job_id)
    assert (job.state, len(job.results)) == ("done", 2), job.error
    assert billed(ai, job) == once_each(job)
    assert Counter(running.stages(job))["segment"] == 1


def test_a_killed_function_generates_only_the_image_again_that_it_lost(
    running: Running, ai: RunningAi, photo: bytes
) -> None:
    ai.control(script={"InvokeModel": ["succeed", "hang"]})
    before = ai.calls("InvokeModel")
    job_id = submit(running.images.http, photo, "a beach", seeds=(1, 2, 3))
    wait_until(lambda: ai.calls("InvokeModel") == before + 2, "the second call")
    for process in executions(running, "edit"):
        process.kill()
    # SQS delivers the message again after the lease of the candidate has ended. The table keeps whole seconds.
    running.registry.put("edit", f"{job_id}#2", {}, expires_at=datetime.now(UTC) - timedelta(seconds=2))
    running.send(running.edits_queue_url, JobMessage(job_id, 0).to_body())
    job = ended(running, job_id)
    assert (job.state, len(job.results)) == ("done", 3), job.error
    assert sorted(billed(ai, job).values()) == [1, 1, 2]  # Bedrock billed the response that was lost


def test_the_spending_cap_of_an_owner_stops_before_the_call_and_a_retry_pays_only_the_rest(
    running: Running, ai: RunningAi, photo: bytes
) -> None:
    with a_caller(running) as (http, owner):
        set_cap(running.registry, owner, 1.5 * PRICE)
        before = ai.calls("InvokeModel")
        job_id = submit(http, photo, "a beach", "a forest")
        failed = ended(running, job_id)
        assert (failed.state, failed.stage, code_of(failed)) == ("failed", "edit", "spending_cap_reached")
        assert ai.calls("InvokeModel") == before + 1
        set_cap(running.registry, owner, 2 * PRICE)
        assert http.post(f"/v1/jobs/{job_id}/retry").status_code == 202
        job = ended(running, job_id)
        assert (job.state, len(job.results)) == ("done", 2), job.error
        assert billed(ai, job) == once_each(job)
        usage = http.get("/v1/usage").json()
        assert usage["generated"] == 2, usage


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
    running: Running, ai: RunningAi
) -> None:
    owner = uuid.uuid4().hex
    job, edits = an_edit(running, owner), FakeQueue()
    make = partial(client, running.config)
    services: Services = replace(
        World().services,
        jobs=running.jobs,
        storage=S3Storage(make("s3")),
        registry=running.registry,
        events=EventBus(make("events"), running.stack.event_bus),
        jobs_queue=SqsQueue(make("sqs"), running.stack.jobs_queue_url),
        edits_queue=edits,
        editor=StabilityEditor(lambda: ai.client("bedrock-runtime"), "us-east-1"),
    )
    settings = replace(SETTINGS, results=running.stack.results, editor="stability")
    script = {"InvokeModel": ["succeed", "ThrottlingException", "ThrottlingException", "cut", "Filter reason: prompt"]}
    ai.control(script=script).raise_for_status()
    calls, billed = ai.calls("InvokeModel"), len(ai.billed("InvokeModel"))
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
    assert ai.calls("InvokeModel") - calls == 6  # two images, two throttled, a lost response, a refused text
    assert [one["prompt"] for one in ai.billed("InvokeModel")[billed:]] == ["a beach", "a forest", "a city"]
    used = usage_of(running.registry, owner, f"{datetime.now(UTC):%Y-%m}")
    assert used["generated_usd"] == pytest.approx(3 * 0.07)  # the lost response may have been billed
    for number, exists in ((1, True), (2, False), (3, True)):
        stored = services.storage.head(running.stack.results, candidate_key(job.id, number))
        assert (stored is not None) == exists


def test_a_png_of_20_mb_above_the_limits_of_the_model_keeps_its_size_and_the_pixels_of_its_subject(
    running: Running, photo: bytes
) -> None:
    side, random = 3100, np.random.default_rng(0)
    large = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((side, side)))
    noisy = Image.fromarray(large // 2 + random.integers(0, 128, large.shape, np.uint8))
    to = io.BytesIO()
    noisy.save(to, "PNG", compress_level=1)
    assert to.tell() > 20_000_000
    job = ended(running, submit(running.images.http, to.getvalue(), "a beach"))
    assert job.state == "done", job.error
    sent = Image.open(io.BytesIO(running.object(running.stack.results, image_key(job.id))))
    assert sent.width * sent.height <= EDITORS["stability"].pixels_max < side * side
    assert job.result
    assert (job.result.width, job.result.height) == (side, side)
    assert_subject_kept(to.getvalue(), running.files(job)[0], stored_alpha(running, job.id))


@contextmanager
def a_caller(running: Running) -> Iterator[tuple[httpx2.Client, str]]:
    """A client of the API with a key of its own, and the owner of the key."""
    connected = partial(client, running.config)
    [stack] = connected("cloudformation").describe_stacks(StackName=running.config.app_stack)["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    deployment = keys.Deployment.from_outputs(outputs, connected)
    text, created = keys.create_key(deployment, "an artist", rate=100_000)
    with httpx2.Client(
        base_url=running.stack.api_url, headers={"X-Api-Key": text}, timeout=30, trust_env=False
    ) as http:
        yield http, created.owner
    keys.revoke_key(deployment, created.id)


def executions(running: Running, function: str) -> list[psutil.Process]:
    """Returns the processes in which the emulator executes a function."""
    emulator = processes.find("emulator", running.config.state)
    assert emulator
    name = running.configuration(function)["FunctionName"]
    found = []
    for process in psutil.Process(emulator.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == name:
                found.append(process)
    return found
