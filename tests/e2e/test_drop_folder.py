"""Tests the processing of dropped images on the stack."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import httpx2
import numpy as np
import pytest

from maskdrop.errors import JobNotFound
from maskdrop.job import Source, dropped
from tests.e2e.conftest import Running, inbox_key, wait_until

LONG = "default/" + "/".join(["ü" * 60] * 8) + "/a.jpg"

AWKWARD = [
    "default/a b.jpg",
    "default/a+b.jpg",
    "default/a%2Fb.jpg",
    "default/ä ö+ü.jpg",
    "default/😀.jpg",
    "default/.hidden.jpg",
    "default/'\"&=?#;,:@$!().jpg",
    LONG + "x" * (1024 - len(f"inbox/{LONG}".encode())),
]


def test_a_dropped_photo_is_done_and_its_result_has_an_alpha_channel(running: Running, photo: bytes) -> None:
    job_id = running.put(photo)
    job = running.wait_for_end([job_id])[job_id]
    assert job.state == "done", job.error
    image = running.result(job)
    assert (image.mode, image.size) == ("RGBA", (512, 512))
    alpha = np.asarray(image)[..., 3]
    assert alpha.min() == 0
    assert alpha.max() == 255
    assert job.result
    assert job.result.key == f"results/{job.source.key.removeprefix('inbox/')}.png"
    assert len(running.object(job.result.bucket, job.result.key)) == job.result.bytes


def test_the_api_returns_a_job_with_a_presigned_url_of_its_result(running: Running, photo: bytes) -> None:
    job_id = running.put(photo)
    job = running.wait_for_end([job_id])[job_id]
    data = running.images.job(job_id)
    assert data
    url = data["result"].pop("url")
    assert data == job.to_json()
    body = httpx2.get(url, trust_env=False).content
    assert job.result
    assert body == running.object(job.result.bucket, job.result.key)
    listed = running.images.http.get("/v1/jobs", params={"state": "done", "limit": "200"}).json()["jobs"]
    assert job_id in [one["id"] for one in listed]


@pytest.mark.parametrize("name", AWKWARD, ids=lambda name: name[:20])
def test_an_image_with_an_awkward_key_is_processed(running: Running, photo: bytes, name: str) -> None:
    assert len(inbox_key(name).encode()) <= 1024
    job_id = running.put(photo, name)
    job = running.wait_for_end([job_id])[job_id]
    assert job.state == "done", job.error
    assert job.source.key == inbox_key(name)
    assert running.result(job).mode == "RGBA"


def test_the_folder_of_a_photo_selects_its_preset(running: Running, photo: bytes) -> None:
    ids = {preset: running.put(photo, f"{preset}/preset.png") for preset in ("webp", "matte", "nonsense")}
    jobs = running.wait_for_end(ids.values())
    assert {name: jobs[one].state for name, one in ids.items()} == dict.fromkeys(ids, "done")
    assert running.result(jobs[ids["webp"]]).format == "WEBP"
    assert running.result(jobs[ids["matte"]]).mode == "L"
    assert jobs[ids["nonsense"]].preset == "default"


def test_dropping_the_same_photo_twice_creates_two_jobs(running: Running, photo: bytes) -> None:
    first, second = running.put(photo, "default/twice.jpg"), running.put(photo, "default/twice.jpg")
    jobs = running.wait_for_end([first, second])
    # Two versions of one key: the newer one is done; the older one is done or replaced, depending on timing.
    assert jobs[second].state == "done"
    older = jobs[first]
    assert older.state == "done" or (older.error and older.error.code == "source_replaced")


def test_a_duplicate_s3_event_causes_no_second_attempt(running: Running, photo: bytes) -> None:
    job_id = running.put(photo)
    job = running.wait_for_end([job_id])[job_id]
    running.send(running.stack.jobs_queue_url, json.dumps({"Records": [created(job.source)]}))
    wait_until(running.queues_empty, "empty queues")
    assert running.jobs.get(job_id) == job


def test_a_job_with_a_deleted_source_fails_once_with_source_missing(running: Running, photo: bytes) -> None:
    with running.model_suspended():
        job_id = running.put(photo)
        wait_until(lambda: running.jobs.get(job_id) is not None, "the job")
        job = running.jobs.get(job_id)
        assert job
        running.images.s3.delete_object(Bucket=job.source.bucket, Key=job.source.key, VersionId=job.source.version_id)
    job = running.wait_for_end([job_id])[job_id]
    assert job.state == "failed"
    assert job.error
    assert (job.error.code, job.attempts) == ("source_missing", 1)


def test_replacing_a_queued_source_fails_the_older_job_and_finishes_the_newer_one(
    running: Running, photo: bytes
) -> None:
    with running.model_suspended():
        older = running.put(photo, "default/replaced.jpg")
        newer = running.put(photo + b" ", "default/replaced.jpg")
        wait_until(lambda: None not in (running.jobs.get(older), running.jobs.get(newer)), "the jobs")
    jobs = running.wait_for_end([older, newer])
    error = jobs[older].error
    assert error
    assert error.code == "source_replaced"
    assert jobs[newer].state == "done", jobs[newer].error
    result = jobs[newer].result
    assert result
    head = running.images.s3.head_object(Bucket=result.bucket, Key=result.key)
    assert head["ContentLength"] == result.bytes


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("default/folder/", b"", "directory_marker"),
        ("default/empty.jpg", b"", "empty_file"),
        ("default/text.jpg", b"This is no image.", "unsupported_format"),
    ],
)
def test_a_file_that_is_not_an_image_fails_once_with_a_code(
    running: Running, name: str, body: bytes, code: str
) -> None:
    job_id = running.put(body, name)
    job = running.wait_for_end([job_id])[job_id]
    assert job.error
    assert (job.state, job.error.code, job.error.retryable) == ("failed", code, False)
    assert job.attempts <= 1


def test_every_job_finishes_after_the_model_server_is_killed(running: Running, photo: bytes) -> None:
    before = running.model()
    ids = bundle(running, photo, 24)
    wait_until(lambda: running.images_in_model() > 4, "a bundle in progress")
    before.kill()
    jobs = running.wait_for_end(ids)
    assert {job.state for job in jobs.values()} == {"done"}
    assert min(job.attempts for job in jobs.values()) > 1
    assert running.model().pid != before.pid


def bundle(running: Running, photo: bytes, size: int, prefix: str = "elsewhere/") -> list[str]:
    """Creates jobs by one message. prefix: key prefix of the photos, other than inbox/, which has notifications."""
    records, ids = [], []
    for number in range(size):
        key = f"{prefix}{number}.png"
        written = running.images.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=photo)
        source = Source(running.stack.inbox, key, written["VersionId"], len(photo))
        records.append(created(source))
        ids.append(dropped(source, datetime.now(UTC)).id)
    running.send(running.stack.jobs_queue_url, json.dumps({"Records": records}))
    return ids


def created(source: Source) -> dict[str, Any]:
    """Returns the record of an S3 event for a new object."""
    s3_object = {"key": quote_plus(source.key), "size": source.bytes, "versionId": source.version_id}
    return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": source.bucket}, "object": s3_object}}


def test_the_api_requires_a_key_except_for_the_health_check(api: httpx2.Client) -> None:
    assert api.get("/v1/health").json()["status"] == "ok"
    assert api.get("/v1/jobs").status_code == 403
    assert api.get("/v1/jobs", headers={"x-api-key": "wrong"}).status_code == 403


def test_an_unknown_job_returns_404(running: Running) -> None:
    response = running.images.http.get(f"/v1/jobs/{'0' * 32}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, JobNotFound.code)


def test_photos_that_arrive_while_the_endpoint_does_not_exist_are_processed_when_it_does(
    running: Running, photo: bytes
) -> None:
    with running.conditions(deployed=False):
        ids = [running.put(photo) for _ in range(3)]
        wait_until(lambda: all(queued_again(running, job_id) for job_id in ids), "queued jobs")
    # Submissions pause for a minute, and the messages are delayed by one or two.
    jobs = running.wait_for_end(ids)
    assert {(job.state, job.attempts) for job in jobs.values()} == {("done", 1)}


def queued_again(running: Running, job_id: str) -> bool:
    """Returns whether a job is queued and has its attempt back."""
    job = running.jobs.get(job_id)
    return job is not None and (job.state, job.attempts) == ("queued", 0)
