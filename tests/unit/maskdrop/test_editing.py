"""The stage "edit": each candidate is generated and paid once, whatever is redelivered, throttled or interrupted."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdrop.edit import Candidate, Edit, candidate_key, edit_keys, image_key, mask_key
from maskdrop.editing import LEASE, PAUSE_S, Progress, edit_job
from maskdrop.errors import (
    EditFiltered,
    EditorUnavailable,
    EventsUnavailable,
    MaskdropError,
    ModelNotInRegion,
    ModelRetired,
    NotAllowed,
    QueueUnavailable,
    SpendingCapReached,
    StorageUnavailable,
    TextNotSupported,
)
from maskdrop.flow import EDITS_KEPT, record_bundle, remove, retry, sweep
from maskdrop.job import Job, Result, ResultItem, queued
from maskdrop.options import Options
from maskdrop.png import GREY, write_png
from maskdrop.services import EditedImage, EditRequest
from maskdrop.spending import cap_of, reserve, set_cap
from maskdrop.wire import BundleResponse, JobMessage, Notification, Outcome
from tests.fakes import NOW, SETTINGS, FakeRegistry, FakeStorage, World, a_source, a_success, minutes_later

PRICE = 0.07
RESULTS = SETTINGS.results
PROMPTS = ("a beach", "a forest", "a city")


def options(prompts: tuple[str, ...] = PROMPTS, seeds: tuple[int, ...] = (0,)) -> Options:
    return replace(Options(task="replace"), edit=Edit(prompts, seeds=seeds))


def a_job(owner: str = "ann", **values: Any) -> Job:
    job = queued(a_source("uploads/x.jpg"), "default", options(), NOW, owner=owner)
    return replace(job, **{"stage": "edit", "bundle": "b1", "cost_usd": 0.001, **values})


def a_world(job: Job) -> World:
    world = World()
    world.jobs.records[job.id] = job
    world.storage.objects[RESULTS, image_key(job.id)] = b"jpeg"
    world.storage.objects[RESULTS, mask_key(job.id)] = write_png(3, 2, GREY, [b"\0\0\xff"] * 2)
    return world


@dataclass
class Deliveries:
    """Delivers the messages of the edits queue until it is empty, at most `limit` times."""

    world: World
    now: datetime = NOW
    progress: list[Progress] = field(default_factory=list)

    def run(self, job: Job, limit: int = 100) -> Job:
        queue = self.world.edits_queue
        queue.sent.insert(0, (JobMessage(job.id, 0).to_body(), 0))
        while queue.sent and len(self.progress) < limit:
            body, delay_s = queue.sent.pop(0)
            self.now += timedelta(seconds=delay_s)
            self.deliver(JobMessage.from_body(body))
        return self.world.jobs.records[job.id]

    def deliver(self, message: JobMessage, *, has_time: Callable[[], bool] = lambda: True) -> Progress:
        self.world.registry.now = self.now
        progress = edit_job(message, self.world.settings, self.world.services, lambda: self.now, has_time=has_time)
        self.progress.append(progress)
        return progress


def spent(world: World, owner: str = "ann") -> float:
    value = world.registry.get("usage", f"{owner}#{NOW:%Y-%m}") or {}
    return float(value.get("generated_microusd", 0)) / 1_000_000


def code_of(job: Job) -> str:
    return job.error.code if job.error else ""


def composing(world: World) -> list[str]:
    return [json.loads(body)["job_id"] for body, _ in world.queue.sent]


def test_all_candidates_are_generated_stored_and_paid_and_the_job_returns_to_the_container() -> None:
    job = a_job()
    world = a_world(job)
    done = Deliveries(world).run(job)
    assert [(one.prompt, one.seed) for one in world.editor.requests] == list(job.options.edit.candidates)  # type: ignore[union-attr]
    request = world.editor.requests[0]
    assert (request.image, request.width, request.height, request.change) == (b"jpeg", 3, 2, "background")
    assert done.candidates == tuple(Candidate(n, text, 0, "fake", PRICE) for n, text in enumerate(PROMPTS, 1))
    assert (done.state, done.stage) == ("queued", "compose")
    assert done.cost_usd == pytest.approx(0.001 + 3 * PRICE)
    assert spent(world) == pytest.approx(3 * PRICE)
    assert composing(world) == [job.id]
    assert world.storage.objects[RESULTS, candidate_key(job.id, 2)] == b"a forest 0"


def test_two_throttled_calls_in_the_middle_delay_the_job_and_nothing_is_lost_or_paid_twice() -> None:
    job = a_job()
    world = a_world(job)
    throttled = EditorUnavailable("ThrottlingException")
    original = world.editor.edit

    def edit(request: EditRequest) -> EditedImage:
        if request.prompt == "a forest" and sum(one.prompt == "a forest" for one in world.editor.requests) < 2:
            world.editor.requests.append(request)
            raise throttled
        return original(request)

    world.editor.edit = edit  # type: ignore[method-assign]
    deliveries = Deliveries(world)
    done = deliveries.run(job)
    assert deliveries.progress == ["delayed", "delayed", "composing"]
    assert deliveries.now == NOW + timedelta(seconds=5 + 30)
    assert [one.prompt for one in world.editor.requests] == [
        "a beach", "a forest", "a forest", "a forest", "a city",
    ]  # fmt: skip
    assert len(done.candidates) == 3
    assert spent(world) == pytest.approx(3 * PRICE)


class Crash(BaseException):
    """The function ends: killed, or timed out."""


@pytest.mark.parametrize("step", range(1, 30))
def test_a_crash_at_any_write_loses_no_stored_image(step: int) -> None:
    """Ends the function at its `step`-th write to S3, the table, the registry or a queue, before or after it."""
    for after in (False, True):
        job = a_job()
        world = a_world(job)
        writes = 0

        def crashing(function: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                nonlocal writes
                writes += 1
                if writes == step and not after:  # noqa: B023
                    raise Crash
                result = function(*args, **kwargs)
                if writes == step:
                    raise Crash
                return result

            return call

        targets = (
            (world.storage, "write"), (world.jobs, "advance"), (world.registry, "put"), (world.registry, "add"),
            (world.queue, "send"), (world.registry, "delete"),
        )  # fmt: skip
        for service, name in targets:
            setattr(service, name, crashing(getattr(service, name)))
        deliveries = Deliveries(world)
        try:
            deliveries.deliver(JobMessage(job.id, 0))
        except Crash:
            deliveries.now += LEASE * 2
            deliveries.deliver(JobMessage(job.id, 0))
        done = world.jobs.records[job.id]
        assert (done.stage, len(done.candidates)) == ("compose", 3)
        assert composing(world)
        generated = [one.prompt for one in world.editor.requests]
        assert len(generated) <= 4  # at most the image whose response was lost before it was stored
        if len(generated) == 4:
            assert spent(world) == pytest.approx(4 * PRICE)
        assert done.cost_usd == pytest.approx(0.001 + 3 * PRICE)


def test_an_image_that_was_stored_before_a_crash_is_not_paid_again() -> None:
    job = a_job()
    world = a_world(job)
    world.storage.objects[RESULTS, candidate_key(job.id, 1)] = b"stored"
    done = Deliveries(world).run(job)
    assert [one.prompt for one in world.editor.requests] == ["a forest", "a city"]
    assert done.candidates[0] == Candidate(1, "a beach", 0, "local", PRICE)


def test_an_image_that_was_deleted_is_generated_again() -> None:
    """A late duplicate of the upload's event creates a deleted job again; its registry items have not expired."""
    job = a_job()
    world = a_world(job)
    Deliveries(world).run(job)
    world.jobs.records[job.id] = job
    del world.storage.objects[RESULTS, candidate_key(job.id, 2)]
    done = Deliveries(world, now=NOW + timedelta(hours=1)).run(job)
    assert [one.prompt for one in world.editor.requests] == [*PROMPTS, "a forest"]
    assert (done.stage, len(done.candidates)) == ("compose", 3)


def test_a_delivery_drops_its_message_where_another_one_generates_the_candidate() -> None:
    job = a_job()
    world = a_world(job)
    deliveries = Deliveries(world)
    original = world.editor.edit

    def edit(request: EditRequest) -> EditedImage:
        assert Deliveries(world).deliver(JobMessage(job.id, 0)) == "claimed"
        return original(request)

    world.editor.edit = edit  # type: ignore[method-assign]
    deliveries.run(job)
    assert len(world.editor.requests) == 3


def test_concurrent_deliveries_generate_each_candidate_once() -> None:
    job = a_job(options=options(seeds=(1, 2, 3, 4)))
    world = a_world(job)
    world.registry = LockedRegistry()
    threads = [threading.Thread(target=Deliveries(world).deliver, args=(JobMessage(job.id, 0),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((one.prompt, one.seed) for one in world.editor.requests) == sorted(
        (prompt, seed) for prompt in PROMPTS for seed in (1, 2, 3, 4)
    )
    assert spent(world) == pytest.approx(12 * PRICE)


def test_the_rest_of_a_job_is_done_by_another_message_where_the_time_is_over() -> None:
    job = a_job()
    world = a_world(job)
    deliveries = Deliveries(world)
    times = iter([True, False])
    assert deliveries.deliver(JobMessage(job.id, 4), has_time=lambda: next(times)) == "continued"
    assert [json.loads(body)["attempts"] for body, _ in world.edits_queue.sent] == [0]  # the last call succeeded
    world.edits_queue.sent.clear()
    assert len(deliveries.run(job).candidates) == 3
    assert len(world.editor.requests) == 3


def test_a_refused_candidate_is_a_warning_and_costs_nothing() -> None:
    job = a_job(warnings=("guessed_subject",))
    world = a_world(job)
    world.editor.errors = [EditFiltered("Filter reason: prompt.")]
    done = Deliveries(world).run(job)
    assert [one.number for one in done.candidates] == [2, 3]
    assert done.warnings == (
        "guessed_subject",
        "edit_filtered: Refused candidates: 1 of 3. Filter reason: prompt.",
    )
    assert spent(world) == pytest.approx(2 * PRICE)


def test_a_job_whose_candidates_are_all_refused_fails_and_a_retry_tries_them_again() -> None:
    job = a_job()
    world = a_world(job)
    world.editor.errors = [EditFiltered("Filter reason: prompt.") for _ in range(3)]
    failed = Deliveries(world).run(job)
    assert (failed.state, failed.stage, code_of(failed)) == ("failed", "edit", "edit_filtered")
    assert [one.id for one in world.events.published] == [job.id]
    again = retry(failed, world.services, NOW)
    assert (again.stage, len(world.edits_queue.sent), world.queue.sent) == ("edit", 1, [])
    world.edits_queue.sent.clear()
    assert len(Deliveries(world).run(again).candidates) == 3


@pytest.mark.parametrize(
    "error",
    [ModelRetired("gone"), ModelNotInRegion("not here"), NotAllowed("denied"), TextNotSupported("no"),
     SpendingCapReached("over")],
)  # fmt: skip
def test_a_permanent_error_fails_the_job_with_its_own_code_and_keeps_the_paid_images(error: MaskdropError) -> None:
    job = a_job()
    world = a_world(job)
    original, calls = world.editor.edit, 0

    def edit(request: EditRequest) -> EditedImage:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error
        return original(request)

    world.editor.edit = edit  # type: ignore[method-assign]
    failed = Deliveries(world).run(job)
    assert failed.error == error.info
    assert failed.cost_usd == pytest.approx(0.001 + PRICE)
    assert spent(world) == pytest.approx(PRICE)
    done = Deliveries(world).run(retry(failed, world.services, NOW))
    assert len(done.candidates) == 3
    assert len(world.editor.requests) == 3
    assert done.cost_usd == pytest.approx(0.001 + 3 * PRICE)


def test_the_event_of_a_failure_is_published_by_the_next_delivery_where_the_bus_was_unavailable() -> None:
    job = a_job()
    world = a_world(job)
    world.editor.errors, world.events.broken = [NotAllowed("denied")], EventsUnavailable("down")
    with pytest.raises(EventsUnavailable):
        Deliveries(world).deliver(JobMessage(job.id, 0))
    world.events.broken = None
    assert Deliveries(world).deliver(JobMessage(job.id, 0)) == "failed"
    assert len(world.events.published) == 1


def test_the_message_of_a_composing_job_is_sent_again_after_a_crash() -> None:
    job = a_job()
    world = a_world(job)
    world.queue.broken = QueueUnavailable("down")
    with pytest.raises(QueueUnavailable):
        Deliveries(world).deliver(JobMessage(job.id, 0))
    world.queue.broken = None
    assert Deliveries(world).deliver(JobMessage(job.id, 0)) == "composing"
    assert composing(world) == [job.id]


def test_an_open_circuit_breaker_costs_no_attempt_for_as_long_as_it_takes() -> None:
    job = a_job()
    world = a_world(job)
    world.editor.errors = [EditorUnavailable("paused", paused=True) for _ in range(50)]
    deliveries = Deliveries(world)
    assert len(deliveries.run(job).candidates) == 3
    assert deliveries.now == NOW + timedelta(seconds=50 * PAUSE_S)


def test_a_lost_response_has_fewer_attempts_and_its_price_stays_reserved() -> None:
    job = a_job()
    world = a_world(job)
    world.editor.errors = [EditorUnavailable("timed out", maybe_billed=True) for _ in range(99)]
    failed = Deliveries(world).run(job)
    assert code_of(failed) == "editor_unavailable"
    assert len(world.editor.requests) == SETTINGS.max_attempts
    assert spent(world) == pytest.approx(SETTINGS.max_attempts * PRICE)


def test_a_service_that_never_recovers_fails_the_job_without_a_bill() -> None:
    job = a_job()
    world = a_world(job)
    world.editor.errors = [EditorUnavailable("down") for _ in range(99)]
    failed = Deliveries(world).run(job)
    assert (failed.state, len(world.editor.requests), spent(world)) == ("failed", 30, 0)


def test_a_failed_write_of_an_image_returns_the_message_to_the_queue_and_releases_the_candidate() -> None:
    job = a_job()
    world = a_world(job)
    original = world.storage.write

    def write(*_: object) -> None:
        raise StorageUnavailable("S3 is down.")

    world.storage.write = write  # type: ignore[assignment]
    with pytest.raises(StorageUnavailable):
        Deliveries(world).deliver(JobMessage(job.id, 0))
    world.storage.write = original  # type: ignore[method-assign]
    assert len(Deliveries(world).run(job).candidates) == 3


@pytest.mark.parametrize(
    "changes", [{"state": "submitted"}, {"state": "done"}, {"stage": "segment"}, {"stage": "compose", "attempts": 1}]
)
def test_the_message_of_a_job_in_another_state_has_no_effect(changes: dict[str, Any]) -> None:
    job = a_job(**changes)
    world = a_world(job)
    assert Deliveries(world).deliver(JobMessage(job.id, 0)) == "duplicate"
    assert (world.editor.requests, world.queue.sent) == ([], [])


def test_a_job_whose_files_have_expired_fails_and_its_retry_starts_again() -> None:
    job = a_job()
    world = a_world(job)
    world.storage = FakeStorage()
    failed = Deliveries(world).run(job)
    assert code_of(failed) == "source_missing"
    assert retry(failed, world.services, NOW).stage == "segment"
    assert composing(world) == [job.id]


def test_a_retry_after_the_files_were_kept_starts_again() -> None:
    error = ModelRetired("gone").info
    job = a_job(state="failed", error=error, finished_at=NOW)
    for age, stage in ((EDITS_KEPT, "edit"), (EDITS_KEPT + timedelta(seconds=1), "segment")):
        world = a_world(job)
        assert retry(job, world.services, NOW + age).stage == stage


def test_a_segmented_edit_moves_to_the_edits_queue_with_its_cost_and_is_composed_with_all_costs() -> None:
    job = queued(a_source("uploads/x.jpg"), "default", options(), NOW, owner="ann")
    world = a_world(replace(job, state="submitted", bundle="b1", attempts=1))
    world.endpoint.submitted = [("b1", "s3://results-bucket/bundles/in/b1.json")]

    def record(bundle: str, outcome: Outcome) -> None:
        world.endpoint.submitted.append((bundle, f"s3://results-bucket/bundles/in/{bundle}.json"))
        for _ in range(2):  # SNS may deliver a notification twice
            record_bundle(completed(world, bundle, outcome), world.settings, world.services, NOW)

    segmented = Outcome(job.id, "portrait", warnings=("w",), timings={"mask": 2}, next_stage="edit", cost_usd=0.002)
    record("b1", segmented)
    assert composing(world) == []
    assert {json.loads(body)["job_id"] for body, _ in world.edits_queue.sent} == {job.id}
    first = world.jobs.records[job.id].cost_usd
    assert first is not None
    assert first > 0.002
    world.edits_queue.sent.clear()
    edited = Deliveries(world).run(job)
    world.jobs.take(edited.id, bundle="b2", now=NOW, abandoned=NOW)
    result = a_success(job.id).result
    assert result
    outcome = replace(a_success(job.id), results=(ResultItem(result, prompt="a beach", seed=0),), cost_usd=0.0)
    record("b2", outcome)
    done = world.jobs.records[job.id]
    assert (done.state, done.warnings, done.timings) == ("done", ("w", "a warning"), {"mask": 2, "decode": 1.5})
    share = first - 0.002
    assert done.cost_usd == pytest.approx(first + 3 * PRICE + share)
    assert len(done.candidates) == 3


def completed(world: World, bundle: str, outcome: Outcome) -> Notification:
    key = f"bundles/out/{bundle}.out"
    world.storage.objects[RESULTS, key] = BundleResponse(bundle, "cpu", 1000.0, 1.0, (outcome,)).to_bytes()
    return Notification(bundle, True, f"s3://{RESULTS}/bundles/in/{bundle}.json", f"s3://{RESULTS}/{key}", "")


def test_the_sweep_sends_the_message_of_an_overdue_edit_to_the_edits_queue() -> None:
    job = a_job()
    world = a_world(job)
    world.storage.objects[RESULTS, "bundles/started/b1"] = b""
    assert sweep(world.settings, world.services, minutes_later(24 * 60)) == 1
    assert (len(world.edits_queue.sent), world.queue.sent) == (1, [])


def test_deleting_a_job_deletes_all_its_results_and_the_files_of_its_edit() -> None:
    job = a_job()
    world = a_world(job)
    done = Deliveries(world).run(job)
    items = tuple(
        ResultItem(Result(RESULTS, f"results/{n}.png", 1, 1, 1, "", "png"), prompt="a", seed=0) for n in (1, 2)
    )
    finished = replace(done, state="done", finished_at=NOW, results=items, result=items[0].result)
    world.jobs.records[job.id] = finished
    for item in items:
        world.storage.objects[RESULTS, item.result.key] = b"x"
        world.storage.jobs[RESULTS, item.result.key] = job.id
    remove(finished, world.settings, world.services)
    assert world.storage.objects == {}
    assert len(edit_keys(job.id, Edit(PROMPTS))) == 6


@dataclass
class LockedRegistry(FakeRegistry):
    """Atomic, as DynamoDB's conditional writes are."""

    lock: threading.RLock = field(default_factory=threading.RLock)

    def put_new(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        with self.lock:
            return super().put_new(*args, **kwargs)

    def add(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        with self.lock:
            return super().add(*args, **kwargs)


@settings(max_examples=20, deadline=None)
@given(cap=st.integers(0, 12), callers=st.integers(1, 16))
def test_concurrent_reservations_never_exceed_the_cap(cap: int, callers: int) -> None:
    registry = LockedRegistry()
    accepted: list[int] = []

    def call() -> None:
        try:
            reserve(registry, "ann", PRICE, default_cap_usd=cap * PRICE, now=NOW)
        except SpendingCapReached:
            return
        accepted.append(1)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == min(cap, callers)
    assert (registry.get("usage", f"ann#{NOW:%Y-%m}") or {})["generated"] == len(accepted)


@given(st.lists(st.sampled_from(["reserve", "give back"]), max_size=40))
def test_the_counter_is_the_sum_of_the_reservations_that_were_not_given_back(steps: list[str]) -> None:
    registry, held = FakeRegistry(), []
    for step in steps:
        if step == "reserve":
            try:
                held.append(reserve(registry, "ann", PRICE, default_cap_usd=10 * PRICE, now=NOW))
            except SpendingCapReached:
                assert len(held) == 10
        elif held:
            held.pop().give_back(registry)
        value = registry.get("usage", f"ann#{NOW:%Y-%m}") or {"generated_microusd": 0}
        assert value["generated_microusd"] == 70_000 * len(held) <= 700_000


def test_an_image_without_a_price_is_generated_with_a_cap_of_zero() -> None:
    registry = FakeRegistry()
    reserve(registry, "ann", 0.0, default_cap_usd=0, now=NOW)
    with pytest.raises(SpendingCapReached, match=r"cap of \$0.00"):
        reserve(registry, "ann", PRICE, default_cap_usd=0, now=NOW)


def test_an_owner_may_have_another_cap_and_the_drop_folder_has_that_of_the_stage() -> None:
    registry = FakeRegistry()
    set_cap(registry, "ann", 25.5)
    assert [cap_of(registry, owner, 10) for owner in ("ann", "bob", "")] == [25.5, 10, 10]
    set_cap(registry, "ann", None)
    assert cap_of(registry, "ann", 10) == 10


def test_a_job_over_the_cap_fails_before_the_call() -> None:
    job = a_job(owner="")
    world = a_world(job)
    world.settings = replace(SETTINGS, edit_usd_per_month=2 * PRICE)
    failed = Deliveries(world).run(job)
    assert code_of(failed) == "spending_cap_reached"
    assert len(world.editor.requests) == 2
    assert spent(world, "") == pytest.approx(2 * PRICE)


def test_delays_of_failed_calls_grow() -> None:
    job = a_job()
    world = a_world(job)
    delays = []
    world.editor.errors = [EditorUnavailable("down") for _ in range(6)]
    for attempts in range(6):
        Deliveries(world).deliver(JobMessage(job.id, attempts))
        delays.append(world.edits_queue.sent.pop()[1])
    assert all(first <= second for first, second in pairwise(delays))
    assert (delays[0], delays[-1]) == (5, 900)
