from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from maskdrop.edit import Candidate
from maskdrop.errors import EmptyFile, FileTooLarge, SourceMissing, SourceReplaced, StorageUnavailable
from maskdrop.job import Source, Subject
from maskdrop.options import Options
from maskdrop.prompt import LABEL_MAX
from maskdrop.wire import Destination, Item
from sagemaker_model.cutout import Cutout, Part
from sagemaker_model.imaging.edits import EditFiles
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.serving.bundle import JOB, SEQUENCER, ResultWriter, read_source
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage

LIMITS = Limits(max_bytes=100, max_pixels=100)
SOURCE = Source("inbox", "inbox/a.jpg", version_id="v1", sequencer="0A")
ITEM = Item("job-1", SOURCE, Destination("results", "results/a.jpg.png"), Options())
CUTOUT = Cutout(
    b"result", "png", 30, 20, (30, 20), Subject((1, 2, 3, 4), 0.25, 0.5), (1, 2, 3, 4), ("a: b",), {"predict": 1.0}
)


def new_writer(storage: FakeStorage, item: Item = ITEM) -> ResultWriter:
    writer = ResultWriter(item, storage)
    assert writer.existing() is None
    return writer


class Crash(Exception):
    """The container ends."""


class Crashing(FakeStorage):
    """Ends at its `step`-th write, before or after it."""

    def __init__(self, step: int, *, after: bool) -> None:
        super().__init__()
        self.step, self.after = step, after

    def write(self, *args: Any) -> bool:
        self.step -= 1
        if self.step == 0 and not self.after:
            raise Crash
        written = super().write(*args)
        if self.step == 0:
            raise Crash
        return written


def another(**changes: object) -> Item:
    return replace(ITEM, id="job-2", source=replace(SOURCE, **changes))  # type: ignore[arg-type]


def test_a_deleted_source_raises_source_missing() -> None:
    with pytest.raises(SourceMissing):
        read_source(SOURCE, FakeStorage(), LIMITS)


def test_an_overwritten_source_raises_source_replaced_and_is_not_read() -> None:
    storage = FakeStorage()
    storage.put("inbox", "inbox/a.jpg", b"photo", version_id="v2")
    with pytest.raises(SourceReplaced):
        read_source(SOURCE, storage, LIMITS)
    assert storage.reads == 0


@pytest.mark.parametrize("version_id", ["v1", "etag", ""])
def test_a_source_is_read_if_its_version_id_or_etag_matches(version_id: str) -> None:
    storage = FakeStorage()
    storage.put("inbox", "inbox/a.jpg", b"photo", version_id="v1", etag="etag")
    assert read_source(replace(SOURCE, version_id=version_id), storage, LIMITS) == b"photo"


@pytest.mark.parametrize(("body", "error"), [(b"", EmptyFile), (b"x" * 101, FileTooLarge)])
def test_an_empty_or_too_large_source_is_not_read(body: bytes, error: type[Exception]) -> None:
    storage = FakeStorage()
    storage.put("inbox", "inbox/a.jpg", body, version_id="v1")
    with pytest.raises(error):
        read_source(SOURCE, storage, LIMITS)
    assert storage.reads == 0


def test_a_result_is_written_with_its_job_and_sequencer_in_the_metadata() -> None:
    storage = FakeStorage()
    outcome = new_writer(storage).write(CUTOUT)
    stored, body = storage.objects["results", "results/a.jpg.png"]
    assert body == b"result"
    assert (stored.metadata[JOB], stored.metadata[SEQUENCER]) == ("job-1", "0A")
    assert outcome.result is not None
    assert (outcome.result.width, outcome.result.height, outcome.result.bytes) == (30, 20, 6)


def test_a_job_with_a_result_gets_the_outcome_of_that_result() -> None:
    storage = FakeStorage()
    first = new_writer(storage).write(CUTOUT)
    assert ResultWriter(ITEM, storage).existing() == first
    assert storage.writes == 1


def test_the_metadata_fit_into_s3_with_long_warnings() -> None:
    storage = FakeStorage()
    new_writer(storage).write(replace(CUTOUT, warnings=tuple("ü" * 300 for _ in range(9))))
    stored, _ = storage.objects["results", "results/a.jpg.png"]
    assert sum(len(name) + len(value) for name, value in stored.metadata.items()) <= 2048
    assert all(value.isascii() for value in stored.metadata.values())


def test_the_metadata_of_an_instance_fit_into_s3_with_the_longest_label() -> None:
    storage = FakeStorage()
    part = Part(b"part", 99_999, 99_999, "\U0001f600" * LABEL_MAX, 0.123456, (99_999, 99_999, 99_999, 99_999))
    new_writer(storage).write(replace(CUTOUT, parts=(part,)))
    stored, _ = storage.objects["results", "results/a.jpg/1.png"]
    assert sum(len(name) + len(value) for name, value in stored.metadata.items()) <= 2048
    assert ResultWriter(ITEM, storage).existing()


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_of_two_photos_at_one_key_mixes_no_results(step: int, after: bool) -> None:
    """An older photo has three instances, a newer one two. Each is processed again after a crash, in both orders."""
    older, newer = another(sequencer="09"), ITEM
    cutouts = {
        one.id: replace(
            CUTOUT, data=one.id.encode(), parts=tuple(Part(f"{one.id} {i}".encode(), 1, 1) for i in range(n))
        )
        for one, n in ((older, 3), (newer, 2))
    }
    for order in ([older, newer], [newer, older]):
        storage = Crashing(step, after=after)
        for item in [*order, *order]:
            with suppress(SourceReplaced, Crash):
                writer = ResultWriter(item, storage)
                if writer.existing() is None:
                    writer.write(cutouts[item.id])
        outcome = ResultWriter(newer, storage).existing()
        assert outcome
        assert outcome.result
        for result in (outcome.result, *(one.result for one in outcome.results)):
            stored, body = storage.objects[result.bucket, result.key]
            assert stored.metadata[JOB] == newer.id
            assert hashlib.sha256(body).hexdigest() == result.sha256
        assert len(outcome.results) == 2


def test_the_result_of_a_newer_photo_is_not_replaced() -> None:
    storage = FakeStorage()
    new_writer(storage, another(sequencer="0B")).write(CUTOUT)
    with pytest.raises(SourceReplaced):
        ResultWriter(ITEM, storage).existing()


def test_the_result_of_an_older_photo_is_replaced() -> None:
    storage = FakeStorage()
    new_writer(storage, another(sequencer="09")).write(CUTOUT)
    new_writer(storage).write(CUTOUT)
    stored, _ = storage.objects["results", "results/a.jpg.png"]
    assert stored.metadata[JOB] == "job-1"


def test_a_concurrent_write_of_the_same_job_is_its_result() -> None:
    storage = FakeStorage()
    first, second = new_writer(storage), new_writer(storage)
    storage.before_write = lambda: second.write(CUTOUT)
    assert first.write(CUTOUT).id == "job-1"
    assert storage.writes == 1


def test_a_concurrent_write_of_a_newer_photo_raises_source_replaced() -> None:
    storage = FakeStorage()
    first, newer = new_writer(storage), new_writer(storage, another(sequencer="0B"))
    storage.before_write = lambda: newer.write(CUTOUT)
    with pytest.raises(SourceReplaced):
        first.write(CUTOUT)


def test_a_concurrent_write_of_an_older_photo_is_replaced() -> None:
    storage = FakeStorage()
    first, older = new_writer(storage), new_writer(storage, another(sequencer="09"))
    storage.before_write = lambda: older.write(CUTOUT)
    first.write(CUTOUT)
    assert storage.objects["results", "results/a.jpg.png"][0].metadata[JOB] == "job-1"


def test_a_result_that_changes_during_every_write_raises_storage_unavailable() -> None:
    storage = FakeStorage()
    first = new_writer(storage)
    storage.write = lambda *_: False  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailable):
        first.write(CUTOUT)


# Several results

PARTS = (Part(b"one", 30, 20, "face", 0.9, (1, 2, 3, 4)), Part(b"two", 3, 2, "face", 0.6, (5, 6, 7, 8)))
SEVERAL = replace(CUTOUT, parts=PARTS)


def test_several_results_are_written_beside_the_result_and_read_again() -> None:
    storage = FakeStorage()
    outcome = new_writer(storage).write(SEVERAL)
    assert [one.result.key for one in outcome.results] == ["results/a.jpg/1.png", "results/a.jpg/2.png"]
    assert [storage.objects["results", one.result.key][1] for one in outcome.results] == [b"one", b"two"]
    assert [(one.label, one.score, one.box) for one in outcome.results] == [
        ("face", 0.9, (1, 2, 3, 4)),
        ("face", 0.6, (5, 6, 7, 8)),
    ]
    assert ResultWriter(ITEM, storage).existing() == outcome


def test_a_job_with_a_missing_part_is_processed_again() -> None:
    storage = FakeStorage()
    outcome = new_writer(storage).write(SEVERAL)
    del storage.objects["results", "results/a.jpg/2.png"]
    writer = ResultWriter(ITEM, storage)
    assert writer.existing() is None
    assert writer.write(SEVERAL) == outcome


def test_a_part_of_a_newer_photo_is_not_replaced() -> None:
    storage = FakeStorage()
    new_writer(storage, another(sequencer="0B")).write(SEVERAL)
    del storage.objects["results", "results/a.jpg.png"]
    with pytest.raises(SourceReplaced):
        new_writer(storage).write(SEVERAL)


# Edits

EDIT_ITEM = replace(ITEM, options=Options.from_json({"task": "replace", "edit": {"prompts": ["é", "b"]}}))
EDIT_CUTOUT = replace(CUTOUT, data=b"", edit=EditFiles(b"alpha", b"image", b"mask"))


def test_the_input_of_an_editor_is_written_and_the_job_goes_on_with_the_stage_edit() -> None:
    storage = FakeStorage()
    outcome = new_writer(storage, EDIT_ITEM).write(EDIT_CUTOUT)
    assert (outcome.result, outcome.next_stage) == (None, "edit")
    files = {key: body for (_, key), (_, body) in storage.objects.items()}
    assert files == {
        "edits/job-1/alpha.png": b"alpha",
        "edits/job-1/image.jpg": b"image",
        "edits/job-1/mask.png": b"mask",
    }
    assert ResultWriter(EDIT_ITEM, storage).existing() == outcome


def test_candidates_keep_their_prompts_and_seeds() -> None:
    candidates = (Candidate(1, "é", 0, "m", 0.07), Candidate(2, "b", 0, "m", 0.07))
    item = replace(EDIT_ITEM, stage="compose", candidates=candidates)
    storage = FakeStorage()
    outcome = new_writer(storage, item).write(replace(CUTOUT, parts=(Part(b"1", 3, 2), Part(b"2", 3, 2))))
    assert [(one.prompt, one.seed) for one in outcome.results] == [("é", 0), ("b", 0)]
    assert ResultWriter(item, storage).existing() == outcome
    assert all(value.isascii() for stored, _ in storage.objects.values() for value in stored.metadata.values())
