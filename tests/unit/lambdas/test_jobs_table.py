"""Tests what the emulator cannot reach: the number of queries of a page, the shards, and records of a newer version."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lambdas.adapters import dynamodb_json
from lambdas.adapters.jobs import QUERIES_MAX, SHARDS, JobsTable, UnreadableJob
from maskdrop.job import Review, dropped
from maskdrop.services import Selection
from tests.fakes import NOW, a_source


class Endless:
    """A table without end, in which no job matches the filter. Each query returns a page of 1 MB."""

    queries = 0

    def query(self, **query: Any) -> dict[str, Any]:
        start = dynamodb_json.read(query.get("ExclusiveStartKey", {"recency": {"S": "0"}}))
        assert start["recency"] == f"{self.queries}"
        self.queries += 1
        return {"Items": [], "LastEvaluatedKey": dynamodb_json.write({"recency": f"{self.queries}"})}


def test_a_page_stops_after_the_maximum_number_of_queries_and_the_next_continues_there() -> None:
    table = Endless()
    jobs = JobsTable(table, "jobs", keep_days=1)  # type: ignore[arg-type]
    page = jobs.page(Selection(owner="shop", prefix="nothing/"), before="", limit=10)
    assert table.queries == QUERIES_MAX
    assert (page.jobs, page.before) == ([], str(QUERIES_MAX))


class Newer:
    """A table with a job of a newer version, whose engine is unknown, and a job of this version."""

    known = dropped(a_source(), NOW)
    records = ({**known.to_json(), "id": "newer", "engine": "unknown"}, known.to_json())

    def get_item(self, *, Key: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803  botocore's name
        wanted = dynamodb_json.read(Key)["id"]
        return {"Item": dynamodb_json.write(next(one for one in self.records if one["id"] == wanted))}

    def get_paginator(self, _: str) -> "Newer":
        return self

    def paginate(self, **query: Any) -> Iterator[dict[str, Any]]:
        found = self.records if query["ExpressionAttributeValues"][":state"]["S"] == "queued#0" else ()
        yield {"Items": [dynamodb_json.write({**one, "state": "queued#0"}) for one in found]}


def test_a_job_of_a_newer_version_is_unavailable_and_does_not_hold_up_the_sweep_of_others() -> None:
    table = Newer()
    jobs = JobsTable(table, "jobs", keep_days=1)  # type: ignore[arg-type]
    with pytest.raises(UnreadableJob, match="newer"):
        jobs.get("newer")
    assert jobs.overdue("queued", since=NOW, limit=10) == [jobs.get(table.known.id)] == [table.known]


class Written:
    """A table that keeps the items that are put."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def put_item(self, *, Item: dict[str, Any], **_: Any) -> None:  # noqa: N803  botocore's name
        self.items.append(dynamodb_json.read(Item))


def test_the_jobs_of_a_state_are_spread_evenly_over_the_shards_of_its_index() -> None:
    table, number = Written(), 4000
    jobs = JobsTable(table, "jobs", keep_days=1)  # type: ignore[arg-type]
    for count in range(number):
        jobs.claim(dropped(a_source(f"inbox/default/{count}.jpg"), NOW))
    shards = Counter(item["state"] for item in table.items)
    assert shards.keys() == {f"queued#{shard}" for shard in range(SHARDS)}
    assert max(shards.values()) < 1.2 * number / SHARDS


class Partitions:
    """A table without jobs that counts the queries of each partition."""

    def __init__(self) -> None:
        self.queries: Counter[str] = Counter()

    def query(self, **query: Any) -> dict[str, Any]:
        self.queries[query["ExpressionAttributeValues"][":key"]["S"]] += 1
        return {"Items": []}


def test_a_list_reads_every_shard_of_a_state_once_and_the_records_of_versions_without_shards() -> None:
    table = Partitions()
    JobsTable(table, "jobs", keep_days=1).page(Selection(state="failed"), before="", limit=10)  # type: ignore[arg-type]
    assert table.queries == Counter(["failed", *(f"failed#{shard}" for shard in range(SHARDS))])


class Reviewed:
    """A table with one finished job, which applies the review of an update."""

    job = replace(dropped(a_source(), NOW), state="done", finished_at=NOW)

    def update_item(self, **update: Any) -> dict[str, Any]:
        assert update["UpdateExpression"].split() == ["SET", "#review", "=", ":new_review"]
        assert update["ConditionExpression"] == "begins_with(#state, :done)"
        assert update["ExpressionAttributeNames"] == {"#review": "review", "#state": "state"}
        review = dynamodb_json.read(update["ExpressionAttributeValues"])[":new_review"]
        return {"Attributes": dynamodb_json.write({**self.job.to_json(), "review": review})}


def test_a_review_changes_neither_the_state_nor_the_place_in_a_list() -> None:
    review = Review("corrected", "k1", NOW, training=True)
    reviewed = JobsTable(Reviewed(), "jobs", keep_days=1).review(Reviewed.job.id, review)  # type: ignore[arg-type]
    assert reviewed == replace(Reviewed.job, review=review)
