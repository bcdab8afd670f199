from __future__ import annotations

from dataclasses import replace

import pytest

from maskdrop.errors import EmptyFile, FileTooLarge, SourceMissing, SourceReplaced, StorageUnavailable
from maskdrop.job import Source, Subject
from maskdrop.options import Options
from maskdrop.wire import Destination, Item
from sagemaker_model.cutout import Cutout
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.serving.bundle import JOB, SEQUENCER, Place, read_source
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage

LIMITS = Limits(max_bytes=100, max_pixels=100)
SOURCE = Source("inbox", "inbox/a.jpg", version_id="v1", sequencer="0A")
ITEM = Item("job-1", SOURCE, Destination("results", "results/a.jpg.png"), Options())
CUTOUT = Cutout(
    b"result", "png", 30, 20, (30, 20), Subject((1, 2, 3, 4), 0.25, 0.5), (1, 2, 3, 4), ("a: b",), {"predict": 1.0}
)


def place(storage: FakeStorage, item: Item = ITEM) -> Place:
    where = Place(item, storage)
    assert where.look() is None
    return where


def another(**changes: object) -> Item:
    return replace(ITEM, id="job-2", source=replace(SOURCE, **changes))  # type: ignore[arg-type]


def test_a_source_that_is_gone_is_missing() -> None:
    with pytest.raises(SourceMissing):
        read_source(SOURCE, FakeStorage(), LIMITS)


def test_a_source_that_was_overwritten_is_replaced_and_not_read() -> None:
    storage = FakeStorage()
    storage.put("inbox", "inbox/a.jpg", b"photo", version_id="v2")
    with pytest.raises(SourceReplaced):
        read_source(SOURCE, storage, LIMITS)
    assert storage.reads == 0


@pytest.mark.parametrize("told", ["v1", "etag", ""])
def test_a_source_is_known_by_its_version_or_its_etag(told: str) -> None:
    storage = FakeStorage()
    storage.put("inbox", "inbox/a.jpg", b"photo", version_id="v1", etag="etag")
    assert read_source(replace(SOURCE, version_id=told), storage, LIMITS) == b"photo"


@pytest.mark.parametrize(("body", "error"), [(b"", EmptyFile), (b"x" * 101, FileTooLarge)])
def test_a_source_of_a_wrong_size_is_not_read(body: bytes, error: type[Exception]) -> None:
    storage = FakeStorage()
    storage.put("inbox", "inbox/a.jpg", body, version_id="v1")
    with pytest.raises(error):
        read_source(SOURCE, storage, LIMITS)
    assert storage.reads == 0


def test_a_result_is_written_with_what_says_whose_it_is() -> None:
    storage = FakeStorage()
    outcome = place(storage).write(CUTOUT)
    stored, body = storage.objects["results", "results/a.jpg.png"]
    assert body == b"result"
    assert (stored.metadata[JOB], stored.metadata[SEQUENCER]) == ("job-1", "0A")
    assert outcome.result is not None
    assert (outcome.result.width, outcome.result.height, outcome.result.bytes) == (30, 20, 6)


def test_a_job_that_has_its_result_is_answered_from_it() -> None:
    storage = FakeStorage()
    first = place(storage).write(CUTOUT)
    assert Place(ITEM, storage).look() == first
    assert storage.writes == 1


def test_metadata_fits_into_s3_whatever_the_warnings() -> None:
    storage = FakeStorage()
    place(storage).write(replace(CUTOUT, warnings=tuple("ü" * 300 for _ in range(9))))
    stored, _ = storage.objects["results", "results/a.jpg.png"]
    assert sum(len(name) + len(value) for name, value in stored.metadata.items()) <= 2048
    assert all(value.isascii() for value in stored.metadata.values())


def test_a_newer_photo_s_result_is_left_alone() -> None:
    storage = FakeStorage()
    place(storage, another(sequencer="0B")).write(CUTOUT)
    with pytest.raises(SourceReplaced):
        Place(ITEM, storage).look()


def test_an_older_photo_s_result_is_replaced() -> None:
    storage = FakeStorage()
    place(storage, another(sequencer="09")).write(CUTOUT)
    place(storage).write(CUTOUT)
    stored, _ = storage.objects["results", "results/a.jpg.png"]
    assert stored.metadata[JOB] == "job-1"


def test_a_race_lost_to_the_same_job_is_a_result() -> None:
    storage = FakeStorage()
    mine, twin = place(storage), place(storage)
    storage.before_write = lambda: twin.write(CUTOUT) and None
    assert mine.write(CUTOUT).id == "job-1"
    assert storage.writes == 1


def test_a_race_lost_to_a_newer_photo_is_given_up() -> None:
    storage = FakeStorage()
    mine, newer = place(storage), place(storage, another(sequencer="0B"))
    storage.before_write = lambda: newer.write(CUTOUT) and None
    with pytest.raises(SourceReplaced):
        mine.write(CUTOUT)


def test_a_race_lost_to_an_older_photo_is_run_again() -> None:
    storage = FakeStorage()
    mine, older = place(storage), place(storage, another(sequencer="09"))
    storage.before_write = lambda: older.write(CUTOUT) and None
    mine.write(CUTOUT)
    assert storage.objects["results", "results/a.jpg.png"][0].metadata[JOB] == "job-1"


def test_a_place_that_never_rests_is_retried_later() -> None:
    storage = FakeStorage()
    mine = place(storage)
    storage.write = lambda *_: False  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailable):
        mine.write(CUTOUT)
