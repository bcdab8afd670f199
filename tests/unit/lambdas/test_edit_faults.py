"""Random faults in every call of the functions while images are generated: each job ends once, and no stored image is
generated again.

The services and queues are those of `test_faults`. The editor also throttles, filters and loses responses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from lambdas import edit
from maskdrop import flow, valve
from maskdrop.edit import Change, Edit, alpha_key, candidate_key, edit_keys, image_key, mask_key
from maskdrop.errors import EditFiltered, EditorUnavailable, MaskdropError, QueueUnavailable, StorageUnavailable
from maskdrop.flow import enqueue, remove, retry
from maskdrop.job import Result, ResultItem, State, item_key, queued
from maskdrop.options import Options
from maskdrop.png import GREY, write_png
from maskdrop.services import EditedImage, EditRequest, Services
from maskdrop.spending import COUNTERS
from maskdrop.wire import STARTED_PREFIX, Bundle, BundleResponse, Item, Outcome
from tests.fakes import SETTINGS, a_failure, a_source, a_success
from tests.unit.lambdas.test_faults import Death, Deployment, Faulty, Queue, in_order

PRICE_MICROUSD, OWNER, RESULTS = 70_000, "shop", SETTINGS.results
MASK = write_png(3, 2, GREY, [b"\0\0\xff"] * 2)


class FaultyRegistry(Faulty):
    """A registry that counts each increment once: DynamoDB counts one that the SDK repeats twice."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self._service, name) if name == "add" else super().__getattr__(name)


@dataclass
class FaultyEditor:
    """Generates an image, refuses the prompt, or fails, before or after the image is billed."""

    editing: Editing
    usd_per_image: float = PRICE_MICROUSD / 1_000_000

    def check(self, prompt: str, change: Change = "background") -> None: ...

    def edit(self, request: EditRequest) -> EditedImage:
        editing = self.editing
        job_id, number = editing.ids[request.prompt]
        assert (RESULTS, candidate_key(job_id, number)) not in editing.world.storage.objects, "paid for a stored image"
        if request.prompt in editing.refused:
            raise EditFiltered("The content filter refused it.")
        editing.faults.may_fail(EditorUnavailable)
        editing.paid[request.prompt] += 1
        if editing.faults.chance():
            raise EditorUnavailable("The response was lost.", maybe_billed=True)
        return EditedImage(b"image", "image/png", "fake", self.usd_per_image)


class Editing(Deployment):
    """Jobs with an edit. paid: billed images by prompt. cap_usd: of the owner of all jobs."""

    def __init__(self, seed: int, *, cap_usd: float = 1000.0) -> None:
        super().__init__(seed, "gpu")
        self.edits_queue = Queue(self)
        self.paid: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.ids: dict[str, tuple[str, int]] = {}
        self.world.editor.usd_per_image = PRICE_MICROUSD / 1_000_000
        self.world.settings = replace(self.world.settings, edit_usd_per_month=cap_usd)

    @property
    def services(self) -> Services:
        return replace(
            super().services,
            edits_queue=Faulty(self.edits_queue, QueueUnavailable, self.faults),
            registry=FaultyRegistry(self.world.registry, StorageUnavailable, self.faults),
            editor=FaultyEditor(self),
        )

    # --- the container ---

    def container(self, bundle: Bundle) -> bytes:
        self.world.storage.objects[RESULTS, f"{STARTED_PREFIX}{bundle.id}"] = b""
        outcomes = tuple(
            a_failure(item.id, retryable=True) if self.faults.chance() else self.outcome(item) for item in bundle.items
        )
        return BundleResponse(bundle.id, "cpu", 800.0, None, outcomes).to_bytes()

    def outcome(self, item: Item) -> Outcome:
        if item.stage == "segment":
            for key, body in ((image_key, b"jpeg"), (mask_key, MASK), (alpha_key, b"alpha")):
                self.world.storage.objects[RESULTS, key(item.id)] = body
            return replace(a_success(item.id), result=None, next_stage="edit")
        assert item.candidates
        for one in item.candidates:
            assert (RESULTS, candidate_key(item.id, one.number)) in self.world.storage.objects
        file = Result(RESULTS, item.result.key, 3, 2, 1, "ab" * 32, "png")
        results = (
            ResultItem(replace(file, key=item_key(file.key, number)), prompt=one.prompt, seed=one.seed)
            for number, one in enumerate(item.candidates, 1)
        )
        return replace(a_success(item.id), results=tuple(results))

    # --- time ---

    def drop(self, count: int) -> None:
        for number in range(count):
            prompts = tuple(f"{number}-{one}" for one in range(1 + number % 3))
            job = queued(
                a_source(f"{number}.jpg"), "default", Options(task="replace", edit=Edit(prompts)), self.now, owner=OWNER
            )
            self.ids |= {prompt: (job.id, place) for place, prompt in enumerate(prompts, 1)}
            enqueue(job, replace(self.world.services, jobs_queue=self.jobs_queue))
            self.photos.add(job.id)

    def step(self) -> None:
        super().step()

        def process(event: dict[str, Any]) -> Any:
            return edit.process(
                event, self.world.settings, self.services, self.clock, has_time=lambda: not self.faults.chance(0.5)
            )

        self.edits_queue.consume(process, 1)
        spent = self.world.registry.get("usage", f"{OWNER}#{self.now:%Y-%m}") or {}
        assert 0 <= spent.get(COUNTERS[1], 0) <= self.world.settings.edit_usd_per_month * 1_000_000
        assert sum(self.paid.values()) * PRICE_MICROUSD <= spent.get(COUNTERS[1], 0)

    def clock(self) -> datetime:
        return self.now

    def ended(self) -> dict[str, State]:
        """The states of all jobs, each of which has ended with one kind of event."""
        states = {job.id: job.state for job in self.world.jobs.records.values()}
        assert set(states.values()) <= {"done", "failed"}
        assert {(job.id, job.state) for job in self.world.events.published} == set(states.items())
        assert [*self.edits_queue.messages, *self.jobs_queue.messages, *self.dead] == []
        return states


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the order of calls depend on the seed alone."""
    monkeypatch.setattr(flow, "in_threads", in_order)
    monkeypatch.setattr(valve, "in_threads", in_order)


@pytest.mark.parametrize("seed", range(4))
def test_every_edit_ends_once_and_only_lost_images_are_paid_again(seed: int) -> None:
    editing = Editing(seed)
    editing.drop(30)
    editing.refused = {prompt for prompt in editing.ids if prompt.endswith("-1")}
    editing.faults.share = 0.05
    editing.run(hours=8)
    editing.faults.share = 0.0
    editing.run(hours=8)
    states = editing.ended()
    failed = {job.id: job.error for job in editing.world.jobs.records.values() if job.state == "failed"}
    assert {error.code for error in failed.values() if error} <= {"editor_unavailable", "attempts_exhausted"}
    for job in editing.world.jobs.records.values():
        if states[job.id] == "done":
            expected = [text for text, _ in job.options.edit.candidates if text not in editing.refused]  # type: ignore[union-attr]
            assert [one.prompt for one in job.candidates] == [one.prompt for one in job.results] == expected
            assert job.cost_usd is not None
    assert all(editing.paid[prompt] == 0 for prompt in editing.refused)


@pytest.mark.parametrize("seed", range(3))
def test_the_cap_holds_and_the_jobs_that_it_stops_resume_where_it_is_raised(seed: int) -> None:
    editing = Editing(seed, cap_usd=0.5)
    editing.drop(12)
    editing.faults.share = 0.03
    editing.run(hours=6)
    editing.faults.share = 0.0
    editing.run(hours=6)
    assert "failed" in editing.ended().values()
    editing.world.settings = replace(editing.world.settings, edit_usd_per_month=1000.0)
    services = replace(editing.world.services, jobs_queue=editing.jobs_queue, edits_queue=editing.edits_queue)
    for job in list(editing.world.jobs.records.values()):
        if job.state == "failed":
            retry(job, services, editing.now)
    editing.world.events.published.clear()
    editing.run(hours=6)
    assert {job.state for job in editing.world.jobs.records.values()} == {"done"}


@pytest.mark.parametrize("seed", range(3))
def test_jobs_that_are_deleted_during_an_edit_leave_no_files(seed: int) -> None:
    editing = Editing(seed)
    editing.drop(20)
    editing.faults.share = 0.05
    deleted = []
    for _ in range(60):
        editing.step()
        job = editing.random.choice(sorted(editing.world.jobs.records.values(), key=lambda one: one.id))
        with suppress(MaskdropError, Death):
            remove(job, editing.world.settings, editing.world.services)
            deleted.append(job)
        if not editing.world.jobs.records:
            break
    editing.faults.share = 0.0
    editing.run(hours=8)
    editing.world.events.published = [
        one for one in editing.world.events.published if one.id in editing.world.jobs.records
    ]
    editing.ended()
    assert deleted
    for job in deleted:
        assert job.id not in editing.world.jobs.records
        assert job.options.edit
        left = [key for key in edit_keys(job.id, job.options.edit) if (RESULTS, key) in editing.world.storage.objects]
        assert left == []
