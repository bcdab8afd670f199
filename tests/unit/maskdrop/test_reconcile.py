"""Reconciliation: each kind of disagreement has its finding, and a deployment that lost nothing has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from maskdrop.job import Job, ResultItem, Source, dropped, queued
from maskdrop.options import Options
from maskdrop.reconcile import MEANINGS, Finding, Kind, StoredResult, reconcile
from tests.fakes import NOW, a_source, a_success, minutes_later


@dataclass
class Deployment:
    """Three photos: two are done, one has failed."""

    accepted: dict[str, str] = field(default_factory=dict)
    records: list[Job] = field(default_factory=list)
    results: dict[tuple[str, str], StoredResult] = field(default_factory=dict)
    messages: dict[str, int] = field(default_factory=lambda: {"jobs": 0})

    def __post_init__(self) -> None:
        self.add(dropped(a_source("inbox/a.jpg"), NOW))
        self.add(queued(a_source("uploads/b.jpg"), "default", Options(), NOW, owner="shop"))
        failed = replace(dropped(a_source("inbox/c.jpg"), NOW), state="failed", finished_at=NOW)
        self.accepted[failed.id] = failed.source.key
        self.records.append(failed)

    def add(self, job: Job) -> None:
        """Adds a job that is done, and its result."""
        result = a_success(job.id).result
        assert result
        result = replace(result, key=job.result_key)
        self.accepted[job.id] = job.source.key
        self.records.append(replace(job, state="done", result=result, finished_at=NOW))
        self.results[result.bucket, result.key] = StoredResult(job.id, result.bytes, result.sha256)

    @property
    def first(self) -> tuple[str, str]:
        return next(iter(self.results))

    def findings(self) -> list[Finding]:
        return reconcile(self.accepted, self.records, self.results, self.messages)


def test_a_deployment_that_lost_nothing_has_no_finding() -> None:
    assert Deployment().findings() == []


def lose(one: Deployment) -> None:
    one.records.pop()


def duplicate(one: Deployment) -> None:
    one.records.append(replace(one.records[-1], id="other"))


def leave(one: Deployment) -> None:
    one.records[-1] = replace(one.records[-1], state="submitted", finished_at=None)


def delete(one: Deployment) -> None:
    del one.results[one.first]


def change(one: Deployment) -> None:
    one.results[one.first] = replace(one.results[one.first], sha256="cd" * 32)


def truncate(one: Deployment) -> None:
    one.results[one.first] = replace(one.results[one.first], bytes=1, sha256="")


def overwrite(one: Deployment) -> None:
    one.results[one.first] = replace(one.results[one.first], job="other")


def invent(one: Deployment) -> None:
    one.results["results-bucket", "results/other.png"] = StoredResult("other", 1, "ef" * 32)


def move(one: Deployment) -> None:
    one.results["results-bucket", "results/other.png"] = one.results[one.first]


def finish_late(one: Deployment) -> None:
    one.results["results-bucket", "results/c.jpg.png"] = StoredResult(one.records[-1].id)


def send(one: Deployment) -> None:
    one.messages["jobs"] = 2


FAULTS: list[tuple[Callable[[Deployment], None], Kind]] = [
    (lose, "lost"),
    (duplicate, "duplicate"),
    (leave, "stuck"),
    (delete, "result_missing"),
    (change, "result_differs"),
    (truncate, "result_differs"),
    (overwrite, "result_differs"),
    (invent, "result_without_record"),
    (move, "result_without_record"),
    (finish_late, "result_of_failed_job"),
    (send, "messages_left"),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
def test_each_fault_has_one_finding_of_its_kind(fault: Callable[[Deployment], None], kind: Kind) -> None:
    deployment = Deployment()
    fault(deployment)
    [finding] = deployment.findings()
    assert finding.kind == kind
    assert finding.message.endswith(".")


def test_every_kind_of_finding_has_a_fault_here() -> None:
    assert {kind for _, kind in FAULTS} == set(MEANINGS)


def test_the_result_of_a_photo_uploaded_twice_is_that_of_the_newer_one() -> None:
    deployment = Deployment()
    for sequencer in ("0B", "0A"):
        deployment.add(dropped(Source("inbox-bucket", "inbox/twice.jpg", sequencer, 1, sequencer), NOW))
    newer, older = deployment.records[-2].id, deployment.records[-1].id
    place = next(reversed(deployment.results))
    assert [(one.kind, one.subject) for one in deployment.findings()] == [("result_differs", newer)]
    deployment.results[place] = replace(deployment.results[place], job=newer)
    assert deployment.findings() == []
    assert {newer, older} <= set(deployment.accepted)


def test_each_of_several_results_of_a_job_is_expected() -> None:
    deployment = Deployment()
    job = deployment.records[0]
    assert job.result
    own = replace(job.result, key="results/a.jpg/1.png")
    deployment.records[0] = replace(job, results=(ResultItem(own),))
    assert [one.kind for one in deployment.findings()] == ["result_missing"]
    deployment.results[own.bucket, own.key] = StoredResult(job.id, own.bytes, own.sha256)
    assert deployment.findings() == []


def test_an_unfinished_record_is_stuck_only_after_the_time_in_which_it_may_finish() -> None:
    deployment = Deployment()
    leave(deployment)
    arguments = deployment.accepted, deployment.records, deployment.results, deployment.messages
    assert reconcile(*arguments, settled_before=NOW) == []
    assert [one.kind for one in reconcile(*arguments, settled_before=minutes_later(1))] == ["stuck"]


def test_every_kind_of_finding_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "chaos.md").read_text()
    assert [kind for kind, meaning in MEANINGS.items() if f"| `{kind}` | {meaning} |" not in page] == []
