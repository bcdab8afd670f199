"""The stage "edit" of a job: generates one image for each candidate, and queues the job for the stage "compose".

An image is generated once. A candidate is finished when its object exists in S3; the registry has an item of kind
"edit" for each candidate, `<job id>#<number>`:

    {}                         claimed: one invocation generates it; expires after LEASE
    {"model", "microusd"}      generated and stored
    {"filtered"}               refused by the content filter, with this message

A crash between a response of the editor and the write of its object loses a billed image: the next delivery generates
it again. Its price stays in the usage counter, so that the spending cap holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

from maskdrop.edit import EDITORS, Candidate, Edit, candidate_key, image_key, mask_key
from maskdrop.errors import EditFiltered, EditorUnavailable, MaskdropError, Unavailable
from maskdrop.flow import EDITS_KEPT, STORAGE_ATTEMPTS, delay_of, send_messages, total
from maskdrop.job import Job
from maskdrop.services import EditRequest, Services
from maskdrop.settings import Settings
from maskdrop.spending import microusd, reserve
from maskdrop.wire import JobMessage, Outcome

CALL_S = 60
"""Maximum time of one call of the editor, in seconds. Stability's models respond within about 20 s."""

LEASE = timedelta(seconds=150)
"""Time for which a candidate is claimed: CALL_S, and four attempts of 10 s to write the image and its item."""

PAUSE_S = 120
"""Delay of the messages of an open circuit breaker, in seconds: the time after which it tries the service again."""

Progress = Literal["duplicate", "claimed", "continued", "delayed", "composing", "failed"]
"""duplicate: the job is in another state or stage. claimed: another invocation generates its next candidate. continued:
a message for the other candidates was sent. delayed: a message for another attempt was sent."""


def edit_job(
    message: JobMessage,
    settings: Settings,
    services: Services,
    clock: Callable[[], datetime],
    *,
    has_time: Callable[[], bool] = lambda: True,
) -> Progress:
    """Generates the missing candidates of a job, as long as there is time for a call. `attempts` of the message counts
    failed calls for the same candidate.

    Repeatable, and safe while other deliveries run: each of them drops its message where another one has claimed the
    next candidate. Raises Unavailable for errors of other services than the editor: the message is redelivered.
    """
    job = services.jobs.get(message.job_id)
    if job is None or job.options.edit is None:
        return "duplicate"
    if job.state == "failed" and job.stage == "edit":
        services.events.publish([job])  # the first delivery may have ended before it published the event
        return "failed"
    if job.state != "queued":
        return "duplicate"
    if job.stage == "compose" and job.attempts == 0:
        send_messages([job], services)  # the first delivery may have ended before it sent the message
        return "composing"
    if job.stage != "edit":
        return "duplicate"
    work = _Work(job, job.options.edit, settings, services, clock)
    attempts = message.attempts
    try:
        for number in range(1, len(work.edit.candidates) + 1):
            if work.find(number):
                continue
            if not has_time():
                send_messages([replace(job, attempts=attempts)], services)
                return "continued"
            if not work.claim(number):
                if work.find(number):
                    continue
                return "claimed"
            work.generate(number)
            attempts = 0
        return work.finish()
    except EditorUnavailable as error:
        return work.retry_or_fail(error, attempts)
    except Unavailable:
        raise
    except MaskdropError as error:
        return work.fail(error)


@dataclass
class _Work:
    """The edit of one job. done: finished candidates. filtered: messages of those that the content filter refused."""

    job: Job
    edit: Edit
    settings: Settings
    services: Services
    clock: Callable[[], datetime]
    done: list[Candidate] = field(default_factory=list)
    filtered: dict[int, str] = field(default_factory=dict)

    def find(self, number: int) -> bool:
        """Whether a candidate is finished: generated, or refused by the content filter."""
        item = self.services.registry.get("edit", self._name(number)) or {}
        if "filtered" in item:
            self.filtered[number] = item["filtered"]
            return True
        if self.services.storage.head(self.settings.results, candidate_key(self.job.id, number)) is None:
            if "model" in item:  # its object was deleted, with the job or by an operator: it is generated again
                self.services.registry.delete("edit", self._name(number))
            return False
        editor = EDITORS[self.settings.editor]  # the item may be missing: the invocation crashed before it wrote it
        price = item.get("microusd", microusd(self.services.editor.usd_per_image))
        self._add(number, item.get("model", editor.profile or editor.model or self.settings.editor), int(price))
        return True

    def claim(self, number: int) -> bool:
        """Claims a candidate. False where another invocation has claimed it."""
        expires_at = self.clock() + LEASE
        return self.services.registry.put_new("edit", self._name(number), {}, expires_at=expires_at)

    def generate(self, number: int) -> None:
        """Generates and stores a claimed candidate. Raises the editor's errors and SpendingCapReached."""
        registry, storage, name = self.services.registry, self.services.storage, self._name(number)
        reservation = None
        prompt, seed = self.edit.candidates[number - 1]
        try:
            request = replace(self._request, prompt=prompt, seed=seed)
            reservation = reserve(
                registry,
                self.job.owner,
                self.services.editor.usd_per_image,
                default_cap_usd=self.settings.edit_usd_per_month,
                now=self.clock(),
            )
            image = self.services.editor.edit(request)
        except MaskdropError as error:
            billed = isinstance(error, EditorUnavailable) and error.maybe_billed
            if reservation and not billed:
                reservation.give_back(registry)
            if not isinstance(error, EditFiltered):
                registry.delete("edit", name)
                raise
            self.filtered[number] = error.message
            self._record(number, {"filtered": error.message})
            return
        try:
            storage.write(self.settings.results, candidate_key(self.job.id, number), image.data, image.content_type)
        except MaskdropError:
            registry.delete("edit", name)
            raise
        self._record(number, {"model": image.model, "microusd": microusd(image.cost_usd)})
        self._add(number, image.model, microusd(image.cost_usd))

    def finish(self) -> Progress:
        """Queues the job for the stage "compose". Fails it where the content filter refused every candidate."""
        if not self.done:
            return self.fail(EditFiltered(f"Every candidate was refused. {self._refusals()}"))
        warnings = (*self.job.warnings, *([f"edit_filtered: {self._refusals()}"] if self.filtered else []))
        outcome = Outcome(
            self.job.id,
            subject=self.job.subject,
            warnings=tuple(dict.fromkeys(warnings)),
            timings=self.job.timings,
        )
        moved = self.services.jobs.advance(
            self.job.id,
            "compose",
            bundle=self.job.bundle,
            now=self.clock(),
            outcome=outcome,
            candidates=self.done,
            cost_usd=self._cost,
        )
        send_messages([moved] if moved else [], self.services)
        return "composing" if moved else "duplicate"

    def retry_or_fail(self, error: EditorUnavailable, attempts: int) -> Progress:
        """Sends a delayed message for another attempt. An open circuit breaker costs no attempt. A failure that may
        have been billed has fewer attempts than others."""
        if error.paused:
            send_messages([replace(self.job, attempts=attempts)], self.services, delay_s=PAUSE_S)
            return "delayed"
        failures = attempts + 1
        if failures >= (self.settings.max_attempts if error.maybe_billed else STORAGE_ATTEMPTS):
            return self.fail(error)
        send_messages([replace(self.job, attempts=failures)], self.services, delay_s=delay_of(failures))
        return "delayed"

    def fail(self, error: MaskdropError) -> Progress:
        """Fails the job and publishes its event. The generated images remain, for a retry of the job."""
        for number in range(1, len(self.edit.candidates) + 1):  # a retry tries the refused candidates again
            if number in self.filtered:
                self.services.registry.delete("edit", self._name(number))
        jobs, bundle, now = self.services.jobs, self.job.bundle, self.clock()
        jobs.advance(self.job.id, "edit", bundle=bundle, now=now, candidates=self.done, cost_usd=self._cost)
        failed = jobs.fail(self.job.id, error.info, bundle=bundle, now=now)
        self.services.events.publish([failed] if failed else [])
        return "failed" if failed else "duplicate"

    @property
    def _cost(self) -> float | None:
        """Cost of the job with the generated images."""
        known = self.job.cost_usd
        before = None if known is None else known - sum(one.cost_usd for one in self.job.candidates)
        return total(before, sum(one.cost_usd for one in self.done) or None)

    def _refusals(self) -> str:
        """The candidates that the content filter refused, for a message."""
        numbers = ", ".join(map(str, sorted(self.filtered)))
        return f"Refused candidates: {numbers} of {len(self.edit.candidates)}. {next(iter(self.filtered.values()), '')}"

    @cached_property
    def _request(self) -> EditRequest:
        """The request without prompt and seed. Raises SourceMissing where the files of the edit have expired."""
        read, results = self.services.storage.read, self.settings.results
        image, mask = read(results, image_key(self.job.id)), read(results, mask_key(self.job.id))
        return EditRequest.of(self.edit, image, mask)

    def _record(self, number: int, value: dict[str, str | int]) -> None:
        self.services.registry.put("edit", self._name(number), value, expires_at=self.clock() + EDITS_KEPT)

    def _add(self, number: int, model: str, price_microusd: int) -> None:
        prompt, seed = self.edit.candidates[number - 1]
        self.done.append(Candidate(number, prompt, seed, model, price_microusd / 1_000_000))

    def _name(self, number: int) -> str:
        return f"{self.job.id}#{number}"
