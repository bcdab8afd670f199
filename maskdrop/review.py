"""Reviews: a person accepts the result of a job, or corrects it. Corrections are training records.

A training record has three objects in the results bucket. Together they are a data folder, which `maskdrop data prepare
folders` reads (docs/training.md):

    training/images/<job id>.<extension>  the source of the job
    training/masks/<job id>.png           the corrected cut-out; its alpha is the mask
    training/records/<job id>.json        owner, review, engine, options and subject of the job
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from maskdrop.errors import JobNotDone, JobNotFound, NotAllowed, SourceMissing, SourceReplaced, UnreadableImage
from maskdrop.job import Job, Review, Source, Verdict
from maskdrop.png import png_size
from maskdrop.services import Services, Storage
from maskdrop.settings import Settings

TRAINING_PREFIX = "training/"
"""Key prefix of the training records, in the results bucket."""

PNG_END = b"IEND\xae\x42\x60\x82"
"""Last chunk of a PNG with its checksum: a file without it was cut off during the upload."""

PNG_TAIL = 65_536
"""Bytes at the end of a file in which it is searched: some programs append data of their own."""

EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}$")


def review_job(
    job: Job, verdict: Verdict, correction: str, reviewer: str, settings: Settings, services: Services, now: datetime
) -> Job:
    """Writes the review of a finished job and returns the job. A later review replaces an earlier one.

    correction: key of the uploaded cut-out in the inbox bucket, which is moved to the training record; "" for none,
        which deletes the record of an earlier review. reviewer: as in `Review`.

    Raises JobNotDone, JobNotFound, NotAllowed where the operator does not keep corrections, SourceMissing,
    SourceReplaced, UnreadableImage where the correction is not a complete PNG, StorageUnavailable, TableUnavailable.
    """
    if job.state != "done":
        raise JobNotDone(f"The job is {job.state}; only the result of a job that is done can be reviewed.")
    if correction and not settings.keep_corrections_days:
        raise NotAllowed('The operator of this service keeps no corrections. Send the review without "upload".')
    review = Review(verdict, reviewer, now, training=bool(correction))
    if correction:
        _store(job, review, correction, settings, services.storage)
    elif job.review and job.review.training:
        delete_training_record(job, settings, services.storage)
    reviewed = services.jobs.review(job.id, review)
    if reviewed is None:  # deleted meanwhile
        if correction:
            delete_training_record(job, settings, services.storage)
        raise JobNotFound(f"Job {job.id!r} not found.")
    if correction:
        services.storage.delete(settings.inbox, correction)
    return reviewed


def delete_training_record(job: Job, settings: Settings, storage: Storage) -> None:
    """Deletes the training record of a job. Where the operator has turned corrections off, the lifecycle of the bucket
    deletes all of them."""
    if settings.keep_corrections_days:
        for key in training_keys(job):
            storage.delete(settings.results, key)


def training_keys(job: Job) -> tuple[str, str, str]:
    """Keys of the training record: image, mask, and the JSON that describes them."""
    extension = EXTENSION.search(job.source.key)
    image = f"{job.id}{extension[0].lower() if extension else ''}"
    return (
        f"{TRAINING_PREFIX}images/{image}",
        f"{TRAINING_PREFIX}masks/{job.id}.png",
        f"{TRAINING_PREFIX}records/{job.id}.json",
    )


def check_source(source: Source, storage: Storage) -> None:
    """Raises SourceMissing, and SourceReplaced where the object is not the version that the job processed."""
    stored = storage.head(source.bucket, source.key)
    if stored is None:
        raise SourceMissing("The source of the job does not exist any more.")
    if source.version_id and stored.version_id != source.version_id:
        raise SourceReplaced("The source was replaced after the job was created.")


def _store(job: Job, review: Review, correction: str, settings: Settings, storage: Storage) -> None:
    """Writes the training record. Its description is written last: a record without one is incomplete."""
    image, mask, description = training_keys(job)
    cutout = storage.read(settings.inbox, correction)
    if 0 in png_size(cutout) or PNG_END not in cutout[-PNG_TAIL:]:
        raise UnreadableImage("The corrected cut-out is not a complete PNG; upload the whole file.")
    check_source(job.source, storage)
    storage.copy(job.source.bucket, job.source.key, settings.results, image)
    storage.write(settings.results, mask, cutout, "image/png")
    record = {
        "id": job.id,
        "owner": job.owner,
        "review": review.to_json(),
        "engine": (job.subject and job.subject.engine) or job.options.engine,
        "options": job.options.to_json(),
        "subject": job.subject and job.subject.to_json(),
        "source": job.source.to_json(),
    }
    storage.write(settings.results, description, json.dumps(record, ensure_ascii=False).encode(), "application/json")
