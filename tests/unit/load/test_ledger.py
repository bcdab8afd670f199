"""The accounting of accepted jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.load.ledger import Accepted, Ledger

AT = datetime(2026, 11, 30, 1, 0, tzinfo=UTC)


class FakeApi:
    """The jobs API: pages of two jobs, most recently finished first."""

    def __init__(self, *jobs: dict[str, Any]) -> None:
        self.jobs = {job["id"]: job for job in jobs}
        self.broken = False
        self.requests: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        self.requests.append((path, query))
        if self.broken:
            return None
        if path != "/v1/jobs":
            return self.jobs.get(path.rpartition("/")[2])
        found = [job for job in self.jobs.values() if job["state"] == query["state"]]
        first = int(query.get("cursor", 0))
        return {"jobs": found[first : first + 2], "cursor": str(first + 2) if first + 2 < len(found) else None}


def a_job(job_id: str, state: str = "done", seconds: float = 5, code: str = "gave_up") -> dict[str, Any]:
    finished = (AT + timedelta(seconds=seconds)).isoformat()
    return {"id": job_id, "state": state, "finished_at": finished, "error": {"code": code}}


def test_every_page_is_read_until_all_accepted_jobs_ended() -> None:
    ended: list[Accepted] = []
    api = FakeApi(*(a_job(str(number)) for number in range(5)), a_job("x", "failed"))
    ledger = Ledger(api.get, on_end=ended.append)
    for job_id in ("0", "3", "4", "x"):
        ledger.accept(job_id, "drop", AT)
    ledger.settle(0.1, pause_s=0)
    assert (ledger.accepted, dict(ledger.ends), ledger.lost) == (4, {"done": 3, "gave_up": 1}, [])
    assert {entry.seconds for entry in ended} == {5}
    assert all(entry.ended.is_set() for entry in ended)


def test_a_job_without_a_final_state_is_lost() -> None:
    api = FakeApi(a_job("a"), a_job("b", "submitted"))
    ledger = Ledger(api.get)
    for job_id in ("a", "b", "never created"):
        ledger.accept(job_id, "job", AT)
    ledger.settle(0, pause_s=0)
    assert [entry.id for entry in ledger.lost] == ["b", "never created"]
    assert any("lost: 2" in line for line in ledger.lines())


def test_a_job_is_counted_once_however_often_it_is_read_or_accepted() -> None:
    ended: list[Accepted] = []
    api = FakeApi(a_job("a"), a_job("b"))
    ledger = Ledger(api.get, on_end=ended.append)
    assert ledger.accept("a", "drop", AT) is ledger.accept("a", "drop", AT)
    ledger.accept("z", "drop", AT)
    ledger.read()
    ledger.read()
    assert (ledger.accepted, len(ended)) == (2, 1)


def test_a_reading_that_failed_is_repeated_for_the_same_time() -> None:
    api = FakeApi(a_job("a"))
    ledger = Ledger(api.get)
    ledger.accept("a", "drop", AT)
    api.broken = True
    ledger.read()
    first = api.requests[0][1]["since"]
    api.broken = False
    ledger.read()
    assert api.requests[-1][1]["since"] == first
    assert ledger.lost == []
