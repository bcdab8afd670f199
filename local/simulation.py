"""Simulates the bulk path of a stage event by event: photos, queues, functions, the asynchronous endpoint, its scaling.

    photos ─► queue jobs ─► ingest ─► queue of the endpoint ─► instances ─► queue results ─► record
                  ▲            │ no room: delayed                               │ failed images
                  └────────────┴────────────────────────────────────────────────┘

It follows the rules of the code by the same constants: bundles (`maskdrop.flow`), the limit on images at the endpoint
(`maskdrop.valve`), the scaling policies (`local.autoscaling`). Events are those of bundles and batches, not of images:
10 million images are 160,000 bundles, a few seconds. The same seed gives the same result.

Not simulated: duplicates, lost messages, the sweep, crashes of instances, throttled functions.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from local.autoscaling import Alarm, Autoscaling, Step, StepScaling, Target, TargetTracking, published
from maskdrop.flow import bundle_size, delay_of
from maskdrop.valve import DELAY_MAX_S, MARGIN_S, PAUSE_S

Times = NDArray[np.float64]
"""Times in seconds, ascending where they are arrivals."""

PARTITION_UNITS = 1000
"""Write units of a DynamoDB partition in a second (developer guide, "Partitions and data distribution")."""

STATE_UNITS = 2
"""Units that a change of a job takes in the index by state: a record of up to 2 KB. A job of one photo has 0.5 KB when
it is submitted and 1 KB when it is done; prompts, edits and webhooks make it larger."""

TICK_S = 60
"""Seconds between two evaluations of the scaling policies: SageMaker publishes its metrics once a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A stage and its measured speeds. Times are in seconds.

    images_per_second: of one instance that is busy.
    target: limits and policies of the endpoint's scaling.
    start_s: shortest and longest time from the decision to add an instance until it processes images.
    concurrency: bundles that an instance has at a time. One is read and decoded while the other is computed.
    transfer_s: time of a bundle besides its computation: manifest, first image, response.
    spread: standard deviation of an image's time, as a share of its mean; 0: all images take the same time.
    failures: share of the images that fail in an attempt and are retried.
    bundle_max, backlog_max, max_attempts: as in `Settings`.
    executions: concurrent executions of `ingest`, and of `record`.
    batch_max, window_s: messages of an invocation of `ingest`, and the time for which they are collected.
    notifications_max, record_window_s: the same of `record`, whose messages are notifications of bundles.
    ingest_s, record_s: time of an invocation, and further time for each image.
    event_s: time from an upload until its message is in the queue; notification_s: the same of a bundle.
    shards: partitions of each state in the index by state.
    """

    images_per_second: float
    target: Target
    start_s: tuple[float, float] = (300.0, 600.0)
    concurrency: int = 2
    transfer_s: float = 0.5
    spread: float = 0.5
    failures: float = 0.0
    bundle_max: int = 64
    backlog_max: int = 72_000
    max_attempts: int = 5
    executions: int = 10
    batch_max: int = 256
    window_s: float = 1.0
    notifications_max: int = 10
    record_window_s: float = 1.0
    ingest_s: tuple[float, float] = (0.05, 0.003)
    record_s: tuple[float, float] = (0.05, 0.004)
    event_s: float = 1.0
    notification_s: float = 0.2
    shards: int = 8


@dataclass(slots=True)
class Minute:
    """The state at the end of a minute, and the number of images and calls within it.

    ready, desired: instances that process images, and those that are wanted. waiting: images in the queue jobs, delayed
    ones included. submitted: images at the endpoint. bundles: bundles there.
    """

    at_s: float
    ready: int
    desired: int
    waiting: int
    submitted: int
    bundles: int
    arrived: int = 0
    claimed: int = 0
    finished: int = 0
    in_flight: int = 0
    executions: int = 0


@dataclass(slots=True)
class Counts:
    """What the whole run takes. Seconds are sums over all instances, and over all executions of a function.

    images: finished ones. claims: images in submitted bundles. retries: images that returned after a failed attempt.
    delayed: messages that returned since the endpoint had no room. busy_s: of the instances, computing.
    """

    images: int = 0
    failed: int = 0
    claims: int = 0
    bundles: int = 0
    retries: int = 0
    delayed: int = 0
    ingest_calls: int = 0
    record_calls: int = 0
    ingest_s: float = 0.0
    record_s: float = 0.0
    instance_s: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """The result of a simulation.

    completion_s: time of each finished image from its upload to its record; float32. records: time and number of images
    of each recorded bundle, ascending. end_s: time of the last one.
    endpoint_s: longest time that a bundle was at the endpoint. late: whether the run was stopped since more than 1 %
    of the images missed the deadline; the other fields are incomplete then.
    """

    completion_s: NDArray[np.float32]
    records: list[tuple[float, int]]
    end_s: float
    counts: Counts
    minutes: list[Minute]
    endpoint_s: float
    late: bool = False

    def percentile(self, share: float) -> float:
        """Completion time in seconds that `share` percent of the images do not exceed; NaN without images."""
        return float(np.percentile(self.completion_s, share)) if len(self.completion_s) else math.nan


def bulk_target(maximum: int) -> Target:
    """Returns the scaling of the endpoint `bulk`. A test compares it with the template of `infra/bulk.py`, which the
    command cannot read without the CDK."""
    asleep = Alarm(
        metric="HasBacklogWithoutCapacity",
        statistic="Maximum",
        period_s=60,
        periods=1,
        datapoints=1,
        threshold=1.0,
        comparison="GreaterThanOrEqualToThreshold",
        missing="notBreaching",
    )
    return Target(
        endpoint="bulk",
        minimum=0,
        maximum=maximum,
        tracking=(
            TargetTracking(
                name="follow-backlog",
                metric="ApproximateBacklogSizePerInstance",
                statistic="Average",
                period_s=60,
                target=4.0,
                out_cooldown_s=300.0,
                in_cooldown_s=600.0,
            ),
        ),
        steps=(
            StepScaling(
                name="wake-up",
                kind="ChangeInCapacity",
                steps=(Step(lower=0.0, upper=math.inf, adjustment=1),),
                cooldown_s=300.0,
                alarm=asleep,
            ),
        ),
    )


def simulate(system: System, arrivals: Times, *, seed: int = 1, deadline_s: float | None = None) -> Outcome:
    """Simulates the upload of photos at the times `arrivals` until all are recorded and the endpoint sleeps again.

    deadline_s: stop as soon as more than 1 % of the images have missed this completion time.
    """
    return _Simulation(system, arrivals, seed, deadline_s).run()


class _Chunk(NamedTuple):
    """Images with as many attempts. ready: time at which their messages can be received. arrivals: of the images."""

    ready: float
    attempts: int
    arrivals: Times


class _Bundle(NamedTuple):
    submitted: float
    attempts: int
    arrivals: Times


@dataclass(slots=True)
class _Instance:
    """active: bundles that it has. free_at: time at which their computation ends. stopping: it takes no more."""

    since: float
    active: int = 0
    free_at: float = 0.0
    stopping: bool = False


class _Events:
    """The calendar: calls functions at their simulated times, in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time_s: float, function: Callable[[], None]) -> None:
        self._count += 1  # functions of one time are called in the order of their calls of `at`
        heapq.heappush(self._heap, (time_s, self._count, function))

    def __iter__(self) -> Iterator[Callable[[], None]]:
        while self._heap:
            self.now, _, function = heapq.heappop(self._heap)
            yield function


class _Messages(Protocol):
    """A queue that an event source reads."""

    def ready_at(self, now: float) -> float:
        """Time at which the next batch is complete: it is full, or its window ends. Infinity without messages."""

    def take(self, now: float) -> list[_Chunk]:
        """Removes the next batch and returns it."""


class _Jobs:
    """The queue jobs: new photos in the order of their times, and messages that return.

    taken: new photos that `ingest` has received. returned_images: images of messages that returned.
    """

    def __init__(self, ready: Times, arrivals: Times, batch_max: int, window_s: float) -> None:
        self.ready, self._arrivals, self._batch, self._window_s = ready, arrivals, batch_max, window_s
        self.taken = 0
        self._returned: deque[_Chunk] = deque()
        self.returned_images = 0

    def put(self, chunk: _Chunk) -> None:
        self._returned.append(chunk)
        self.returned_images += len(chunk.arrivals)

    def ready_at(self, now: float) -> float:
        ready = self.ready
        first = float(ready[self.taken]) if self.taken < len(ready) else math.inf
        if self._returned:
            first = min(first, self._returned[0].ready)
        last = self.taken + self._batch - self.returned_images - 1
        full = float(ready[max(last, 0)]) if last < len(ready) else math.inf
        return max(now, min(first + self._window_s, now if last < self.taken else full))

    def take(self, now: float) -> list[_Chunk]:
        chunks, room = [], self._batch
        while self._returned and room:
            chunk = self._returned.popleft()
            if len(chunk.arrivals) > room:
                self._returned.appendleft(chunk._replace(arrivals=chunk.arrivals[room:]))
                chunk = chunk._replace(arrivals=chunk.arrivals[:room])
            self.returned_images -= len(chunk.arrivals)
            room -= len(chunk.arrivals)
            chunks.append(chunk)
        count = int(np.searchsorted(self.ready[self.taken : self.taken + room], now, side="right"))
        if count:
            chunks.append(_Chunk(now, 0, self._arrivals[self.taken : self.taken + count]))
            self.taken += count
        return chunks


class _Results:
    """The queue results: one message for each bundle."""

    def __init__(self, batch_max: int, window_s: float) -> None:
        self._batch, self._window_s = batch_max, window_s
        self._waiting: deque[_Chunk] = deque()

    def put(self, chunk: _Chunk) -> None:
        self._waiting.append(chunk)

    def ready_at(self, now: float) -> float:
        if not self._waiting:
            return math.inf
        return now if len(self._waiting) >= self._batch else max(now, self._waiting[0].ready + self._window_s)

    def take(self, now: float) -> list[_Chunk]:  # noqa: ARG002  as in the protocol
        return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]


class _Function:
    """A Lambda function with an SQS event source: at most `executions` at a time, each with one batch.

    duration: seconds of a batch. finish: called with the batch at its end. seconds, calls: of all executions.
    """

    def __init__(
        self,
        events: _Events,
        queue: _Messages,
        executions: int,
        duration: Callable[[list[_Chunk]], float],
        finish: Callable[[list[_Chunk]], None],
    ) -> None:
        self._events, self._queue, self._executions = events, queue, executions
        self._duration, self._finish = duration, finish
        self._next = math.inf
        self.running = self.peak = self.calls = 0
        self.seconds = 0.0

    def notice(self) -> None:
        """Schedules the next execution. Called after every change of the queue and after every execution."""
        if self.running < self._executions:
            at = self._queue.ready_at(self._events.now)
            if at < self._next:
                self._next = at
                self._events.at(at, lambda: self._start(at))

    def _start(self, at: float) -> None:
        if at != self._next:
            return  # an earlier batch took its place
        self._next = math.inf
        if self.running < self._executions and (batch := self._queue.take(self._events.now)):
            seconds = self._duration(batch)
            self.running += 1
            self.peak = max(self.peak, self.running)
            self.calls += 1
            self.seconds += seconds
            self._events.at(self._events.now + seconds, lambda: self._end(batch))
        self.notice()

    def _end(self, batch: list[_Chunk]) -> None:
        self.running -= 1
        self._finish(batch)
        self.notice()


@dataclass(slots=True)
class _Pause:
    """The pause of `maskdrop.valve`: submissions stop until `until`, and have done so since `since`."""

    since: float = -math.inf
    until: float = -math.inf

    def begin(self, now: float) -> float:
        """Pauses submissions. Returns the delay in seconds of the messages that return to the queue."""
        continued = now <= 2 * self.until - self.since + MARGIN_S if math.isfinite(self.until) else False
        since = self.since if continued else now
        if now >= self.until:
            self.since, self.until = since, now + PAUSE_S
        return min(max(now - since, PAUSE_S), DELAY_MAX_S)


@dataclass(slots=True)
class _Partitions:
    """The partitions of one state in the index: they process their writes one after the other."""

    shards: int
    free_at: float = 0.0

    def write(self, now: float, images: int) -> float:
        """Returns the seconds until the writes of as many images are done."""
        self.free_at = max(self.free_at, now) + images * STATE_UNITS / (PARTITION_UNITS * self.shards)
        return self.free_at - now


@dataclass(slots=True)
class _Simulation:
    system: System
    arrivals: Times
    seed: int
    deadline_s: float | None
    counts: Counts = field(default_factory=Counts)
    minutes: list[Minute] = field(default_factory=list)
    _events: _Events = field(default_factory=_Events)
    _queue: deque[_Bundle] = field(default_factory=deque)
    _instances: list[_Instance] = field(default_factory=list)
    _pause: _Pause = field(default_factory=_Pause)
    _arrived: int = 0
    _in_flight: int = 0
    _submitted: int = 0
    _bundles: int = 0
    _delayed: int = 0
    _desired: int = 0
    _starting: int = 0
    _endpoint_s: float = 0.0
    _end_s: float = 0.0
    _late: int = 0
    _completions: list[NDArray[np.float32]] = field(default_factory=list)
    _records: list[tuple[float, int]] = field(default_factory=list)
    _rng: np.random.Generator = field(init=False)
    _scaling: Autoscaling = field(init=False)
    _partitions: _Partitions = field(init=False)
    _jobs: _Jobs = field(init=False)
    _results: _Results = field(init=False)
    _ingest: _Function = field(init=False)
    _record: _Function = field(init=False)
    _minute: Minute = field(init=False)

    def __post_init__(self) -> None:
        system = self.system
        self._rng = np.random.default_rng([self.seed, 1])  # independent of that of the arrivals
        self._scaling = Autoscaling(system.target)
        self._partitions = _Partitions(system.shards)
        self._jobs = _Jobs(self.arrivals + system.event_s, self.arrivals, system.batch_max, system.window_s)
        self._results = _Results(system.notifications_max, system.record_window_s)
        events, executions = self._events, system.executions
        self._ingest = _Function(events, self._jobs, executions, self._ingest_s, self._admit)
        self._record = _Function(events, self._results, executions, self._record_s, self._finish)
        self._desired = system.target.minimum
        self._instances = [_Instance(0.0) for _ in range(self._desired)]
        self._minute = Minute(TICK_S, self._desired, self._desired, 0, 0, 0)

    def run(self) -> Outcome:
        self._ingest.notice()
        self._events.at(TICK_S, self._tick)
        allowed = len(self.arrivals) / 100
        for function in self._events:
            function()
            if self._late > allowed:
                break
        counts = self.counts
        counts.ingest_calls, counts.ingest_s = self._ingest.calls, self._ingest.seconds
        counts.record_calls, counts.record_s = self._record.calls, self._record.seconds
        counts.instance_s += sum(self._events.now - instance.since for instance in self._instances)
        completion_s = np.concatenate(self._completions) if self._completions else np.empty(0, np.float32)
        return Outcome(
            completion_s, self._records, self._end_s, counts, self.minutes, self._endpoint_s, self._late > allowed
        )

    # --- functions ---

    def _ingest_s(self, batch: list[_Chunk]) -> float:
        images = _images(batch)
        own = self.system.ingest_s[0] + self.system.ingest_s[1] * images
        self._in_flight += images
        self._minute.in_flight = max(self._minute.in_flight, self._in_flight)
        self._minute.executions = max(self._minute.executions, self._ingest.running + self._record.running + 1)
        return max(own, self._partitions.write(self._events.now, images))

    def _record_s(self, batch: list[_Chunk]) -> float:
        images = _images(batch)
        own = self.system.record_s[0] + self.system.record_s[1] * images
        self._minute.executions = max(self._minute.executions, self._ingest.running + self._record.running + 1)
        return max(own, self._partitions.write(self._events.now, images))

    def _admit(self, batch: list[_Chunk]) -> None:
        """Submits the images of a batch in bundles, as far as the endpoint has room; the others return later."""
        now, refused = self._events.now, list[_Bundle]()
        self._in_flight -= _images(batch)
        for bundle in _bundles(batch, self.system.bundle_max, now):
            size = len(bundle.arrivals)
            if now < self._pause.until or self._submitted + size > self.system.backlog_max:
                refused.append(bundle)
                continue
            self._submitted += size
            self._bundles += 1
            self.counts.claims += size
            self.counts.bundles += 1
            self._minute.claimed += size
            self._queue.append(bundle)
        self._dispatch()
        if refused:
            delay_s = self._pause.begin(now)
            for bundle in refused:
                self.counts.delayed += len(bundle.arrivals)
                self._return(_Chunk(now + delay_s, bundle.attempts, bundle.arrivals))

    def _return(self, chunk: _Chunk) -> None:
        """Queues images again, with a delay."""
        self._delayed += len(chunk.arrivals)

        def arrive() -> None:
            self._delayed -= len(chunk.arrivals)
            self._jobs.put(chunk)
            self._ingest.notice()

        self._events.at(chunk.ready, arrive)

    def _finish(self, batch: list[_Chunk]) -> None:
        """Records the images of processed bundles; some have failed and are retried."""
        now = self._events.now
        for chunk in batch:
            size = len(chunk.arrivals)
            self._submitted -= size
            failed = int(self._rng.binomial(size, self.system.failures)) if self.system.failures else 0
            done = chunk.arrivals[: size - failed]
            completion_s = now - done
            self._completions.append(completion_s.astype(np.float32))
            self._records.append((now, len(done)))
            if self.deadline_s is not None:
                self._late += int(np.count_nonzero(completion_s > self.deadline_s))
            self.counts.images += len(done)
            self._minute.finished += len(done)
            attempts = chunk.attempts + 1
            if failed and attempts < self.system.max_attempts:
                self.counts.retries += failed
                self._return(_Chunk(now + delay_of(attempts), attempts, chunk.arrivals[size - failed :]))
            else:
                self.counts.failed += failed
        self._end_s = now

    # --- endpoint ---

    def _dispatch(self) -> None:
        """Gives queued bundles to the instances with the fewest bundles."""
        system, now = self.system, self._events.now
        while self._queue:
            free = [one for one in self._instances if one.active < system.concurrency and not one.stopping]
            if not free:
                return
            instance = min(free, key=lambda one: (one.active, one.free_at))
            bundle = self._queue.popleft()
            compute_s = self._compute_s(len(bundle.arrivals))
            instance.active += 1
            instance.free_at = max(now + system.transfer_s / 2, instance.free_at) + compute_s
            self.counts.busy_s += compute_s
            self._events.at(instance.free_at + system.transfer_s / 2, partial(self._processed, instance, bundle))

    def _compute_s(self, images: int) -> float:
        """Seconds of the computation of as many images: the sum of their times, each with a gamma distribution."""
        mean_s, spread = images / self.system.images_per_second, self.system.spread
        if not spread:
            return mean_s
        shape = images / spread**2
        return float(self._rng.gamma(shape, mean_s / shape))

    def _processed(self, instance: _Instance, bundle: _Bundle) -> None:
        now = self._events.now
        instance.active -= 1
        if instance.stopping and not instance.active:
            self._remove(instance)
        self._bundles -= 1
        self._endpoint_s = max(self._endpoint_s, now - bundle.submitted)
        chunk = _Chunk(now + self.system.notification_s, bundle.attempts, bundle.arrivals)

        def arrive() -> None:
            self._results.put(chunk)
            self._record.notice()

        self._events.at(chunk.ready, arrive)
        self._dispatch()

    # --- scaling ---

    def _tick(self) -> None:
        """Once a minute: publishes the metrics, evaluates the policies and notes the minute."""
        now = self._events.now
        ready = sum(not one.stopping for one in self._instances)
        self._scaling.record(now, published(self._bundles, ready))
        desired = self._scaling.desired(now, self._desired, changing=self._starting > 0)
        for _ in range(max(desired - self._desired, 0)):
            self._starting += 1
            self._events.at(now + float(self._rng.uniform(*self.system.start_s)), self._started)
        working = sorted((one for one in self._instances if not one.stopping), key=lambda one: one.active)
        for instance in working[: max(self._desired - desired, 0)]:
            instance.stopping = True
            if not instance.active:
                self._remove(instance)
        self._desired = desired
        self._note(ready)
        unfinished = len(self.arrivals) - self.counts.images - self.counts.failed
        if unfinished or self._desired > self.system.target.minimum:
            self._events.at(now + TICK_S, self._tick)

    def _note(self, ready: int) -> None:
        now, minute = self._events.now, self._minute
        arrived = int(np.searchsorted(self._jobs.ready, now, side="right"))
        minute.at_s, minute.ready, minute.desired = now, ready, self._desired
        minute.waiting = arrived - self._jobs.taken + self._jobs.returned_images + self._delayed
        minute.submitted, minute.bundles = self._submitted, self._bundles
        minute.arrived = arrived - self._arrived
        self._arrived = arrived
        self.minutes.append(minute)
        self._minute = Minute(now + TICK_S, ready, self._desired, 0, 0, 0)

    def _started(self) -> None:
        self._starting -= 1
        self._instances.append(_Instance(self._events.now))
        self._dispatch()

    def _remove(self, instance: _Instance) -> None:
        self._instances.remove(instance)
        self.counts.instance_s += self._events.now - instance.since


def _images(batch: list[_Chunk]) -> int:
    return sum(len(chunk.arrivals) for chunk in batch)


def _bundles(batch: list[_Chunk], bundle_max: int, now: float) -> Iterator[_Bundle]:
    """Yields the bundles of a batch: images with as many attempts share one, and few attempts make large ones."""
    for attempts in sorted({chunk.attempts for chunk in batch}):
        arrivals = np.concatenate([chunk.arrivals for chunk in batch if chunk.attempts == attempts])
        size = bundle_size(attempts, bundle_max)
        for start in range(0, len(arrivals), size):
            yield _Bundle(now, attempts, arrivals[start : start + size])
