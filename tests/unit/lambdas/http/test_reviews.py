"""Tests POST /v1/jobs/{id}/review and GET /v1/jobs/{id}/source with in-memory services."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from maskdrop.access import Caller
from maskdrop.job import Job, Source, dropped, uploads_of
from maskdrop.png import GREY, write_png
from maskdrop.settings import Settings
from tests.fakes import NOW, SETTINGS, World, a_success
from tests.unit.lambdas.http.test_jobs import OPERATOR, OTHER, PHOTO, SHOP, call, code, new_job, uploaded

KEEPING = replace(SETTINGS, keep_corrections_days=365)
MASK = write_png(2, 1, GREY, [b"\xff\x00"])


def a_world(settings: Settings = KEEPING) -> World:
    return World(settings=settings)


def done_job(world: World, caller: Caller = SHOP, **options: Any) -> str:
    """Creates a job and finishes it. Returns its id."""
    _, job, _ = new_job(world, caller, **options)
    finished = world.jobs.done(job["id"], a_success(job["id"]), bundle="b", cost_usd=None, now=NOW)
    assert finished
    return str(job["id"])


def review(world: World, job_id: str, caller: Caller = SHOP, **body: Any) -> tuple[int, Any, dict[str, str]]:
    return call(world, "POST", f"/v1/jobs/{job_id}/review", caller, body)


def source(world: World, job_id: str, caller: Caller = SHOP) -> tuple[int, Any, dict[str, str]]:
    return call(world, "GET", f"/v1/jobs/{job_id}/source", caller)


def training(world: World) -> dict[str, bytes]:
    """The training records by the end of their keys."""
    keys = [key for _, key in world.storage.objects if key.startswith("training/")]
    return {key.removeprefix("training/"): world.storage.objects["results-bucket", key] for key in keys}


def test_an_accepted_result_keeps_its_state_and_names_the_reviewer() -> None:
    world = a_world()
    job_id = done_job(world)
    status, job, _ = review(world, job_id, verdict="accepted")
    assert (status, job["state"]) == (200, "done")
    assert job["review"] == {
        "verdict": "accepted",
        "reviewer": "k1",
        "reviewed_at": "2026-11-20T12:00:00.000000Z",
        "training": False,
    }
    assert world.jobs.records[job_id].review is not None
    assert training(world) == {}


def test_a_correction_becomes_a_training_record_and_its_upload_is_deleted() -> None:
    world = a_world()
    job_id = done_job(world, engine="u2netp")
    upload = uploaded(world, body=MASK)
    status, job, _ = review(world, job_id, verdict="corrected", upload=upload)
    assert (status, job["review"]["verdict"], job["review"]["training"]) == (200, "corrected", True)
    record = training(world)
    assert (record[f"images/{job_id}.jpg"], record[f"masks/{job_id}.png"]) == (PHOTO, MASK)
    described = json.loads(record[f"records/{job_id}.json"])
    assert (described["owner"], described["review"]["reviewer"]) == ("shop", "k1")
    assert described["options"]["engine"] == "u2netp"
    assert ("inbox-bucket", uploads_of("shop") + upload) not in world.storage.objects


def test_corrections_are_refused_by_default_and_nothing_is_stored() -> None:
    world = a_world(SETTINGS)
    job_id = done_job(world)
    refused = review(world, job_id, verdict="corrected", upload=uploaded(world, body=MASK))
    assert code(refused) == (403, "not_allowed")
    assert (training(world), world.jobs.records[job_id].review) == ({}, None)
    status, job, _ = review(world, job_id, verdict="corrected")
    assert (status, job["review"]["training"]) == (200, False)


def test_only_callers_that_see_a_job_review_it_and_get_its_source() -> None:
    world = a_world()
    job_id = done_job(world)
    assert code(review(world, job_id, OTHER, verdict="accepted")) == (404, "job_not_found")
    assert code(source(world, job_id, OTHER)) == (404, "job_not_found")
    assert review(world, job_id, OPERATOR, verdict="accepted")[0] == 200


def test_the_upload_of_another_owner_is_no_correction() -> None:
    world = a_world()
    job_id = done_job(world)
    assert code(review(world, job_id, verdict="corrected", upload=uploaded(world, OTHER, MASK))) == (
        404,
        "source_missing",
    )
    assert training(world) == {}


@pytest.mark.parametrize("body", [MASK[:-8], MASK[:16] + bytes(8) + MASK[24:], b"\xff\xd8\xff"])
def test_a_correction_that_is_no_complete_png_is_refused_and_the_earlier_one_stays(body: bytes) -> None:
    world = a_world()
    job_id = done_job(world)
    review(world, job_id, verdict="corrected", upload=uploaded(world, body=MASK))
    refused = review(world, job_id, verdict="corrected", upload=uploaded(world, body=body))
    assert code(refused) == (422, "unreadable_picture")
    assert training(world)[f"masks/{job_id}.png"] == MASK


def test_the_source_of_a_job_is_no_correction_of_it() -> None:
    world = a_world()
    upload = uploaded(world, body=MASK)
    _, job, _ = new_job(world, source={"upload": upload})
    world.jobs.done(job["id"], a_success(job["id"]), bundle="b", cost_usd=None, now=NOW)
    assert code(review(world, job["id"], verdict="corrected", upload=upload)) == (422, "options_conflict")
    assert source(world, job["id"])[0] == 200


def dropped_job(world: World) -> Job:
    """The finished job of a photo in the drop folder."""
    world.storage.objects["inbox-bucket", "inbox/default/a.JPG"] = PHOTO
    stored = world.storage.head("inbox-bucket", "inbox/default/a.JPG")
    assert stored
    job = dropped(Source("inbox-bucket", "inbox/default/a.JPG", stored.version_id), NOW)
    world.jobs.records[job.id] = replace(job, state="done", finished_at=NOW)
    return job


def test_an_operator_corrects_a_dropped_photo() -> None:
    world = a_world()
    job = dropped_job(world)
    status, response, _ = source(world, job.id, OPERATOR)
    assert (status, response) == (200, {"url": "https://inbox-bucket/inbox/default/a.JPG?valid=900"})
    upload = uploaded(world, OPERATOR, MASK)
    assert review(world, job.id, OPERATOR, verdict="corrected", upload=upload)[0] == 200
    assert training(world)[f"images/{job.id}.jpg"] == PHOTO


def test_a_source_that_was_replaced_is_neither_returned_nor_stored() -> None:
    world = a_world()
    job = dropped_job(world)
    world.storage.objects["inbox-bucket", "inbox/default/a.JPG"] = b"another photo"
    assert code(source(world, job.id, OPERATOR)) == (409, "source_replaced")
    upload = uploaded(world, OPERATOR, MASK)
    assert code(review(world, job.id, OPERATOR, verdict="corrected", upload=upload)) == (409, "source_replaced")
    assert training(world) == {}
    del world.storage.objects["inbox-bucket", "inbox/default/a.JPG"]
    assert code(source(world, job.id, OPERATOR)) == (404, "source_missing")


def test_the_source_in_a_bucket_that_callers_may_not_use_any_more_is_refused() -> None:
    world = a_world(replace(KEEPING, source_buckets="photos"))
    world.storage.objects["photos", "a.jpg"] = PHOTO
    job_id = done_job(world, source={"bucket": "photos", "key": "a.jpg"})
    assert source(world, job_id)[0] == 200
    world.settings = KEEPING
    assert code(source(world, job_id)) == (403, "not_allowed")
    upload = uploaded(world, body=MASK)
    assert code(review(world, job_id, verdict="corrected", upload=upload)) == (403, "not_allowed")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, (400, "invalid_options")),
        ({"verdict": "good"}, (400, "invalid_options")),
        ({"verdict": "accepted", "mask": "x"}, (400, "invalid_options")),
        ({"verdict": "corrected", "upload": 1}, (400, "invalid_options")),
        ({"verdict": "corrected", "upload": "../a"}, (404, "source_missing")),
        ({"verdict": "accepted", "upload": f"{'0' * 32}/a.png"}, (422, "options_conflict")),
    ],
)
def test_other_bodies_are_refused(body: dict[str, Any], error: tuple[int, str]) -> None:
    world = a_world()
    assert code(review(world, done_job(world), **body)) == error


def test_a_correction_that_is_no_png_is_refused() -> None:
    world = a_world()
    job_id = done_job(world)
    assert code(review(world, job_id, verdict="corrected", upload=uploaded(world))) == (422, "unreadable_picture")
    assert (training(world), world.jobs.records[job_id].review) == ({}, None)


def test_a_job_without_a_result_has_no_review() -> None:
    world = a_world()
    _, job, _ = new_job(world)
    assert code(review(world, job["id"], verdict="accepted")) == (409, "job_not_done")


@pytest.mark.parametrize("way", ["accept", "delete"])
def test_a_later_acceptance_and_the_deletion_of_the_job_delete_the_training_record(way: str) -> None:
    world = a_world()
    job_id = done_job(world)
    review(world, job_id, verdict="corrected", upload=uploaded(world, body=MASK))
    assert len(training(world)) == 3
    if way == "accept":
        assert review(world, job_id, verdict="accepted")[0] == 200
    else:
        assert call(world, "DELETE", f"/v1/jobs/{job_id}")[0] == 204
    assert training(world) == {}
