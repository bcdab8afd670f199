"""Stores jobs in DynamoDB. An item is the job's JSON with `recency` (sort key of the indexes) and `expires_at` (TTL).

Indexes: by_state and by_owner. The attribute `state` is the state and the shard of the job, such as "queued#3", so that
by_state has SHARDS partitions for each state. Records of versions without shards have the state alone; every condition
and every list includes them. A job without an owner has no attribute `owner`, because an index key must not be empty;
by_owner does not contain such jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

from botocore.exceptions import ClientError

from lambdas.adapters import dynamodb_json
from lambdas.adapters.errors import condition_failed, translated_errors
from maskdrop.edit import PREVIOUS_STAGE, Candidate, Stage
from maskdrop.errors import ErrorInfo, MaskdropError, TableUnavailable
from maskdrop.job import STATES, Job, Review, State
from maskdrop.record import iso
from maskdrop.services import Page, Selection
from maskdrop.threads import in_threads
from maskdrop.wire import Outcome

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SHARDS = 8
"""Partitions of by_state for each state. May be raised, not lowered: the jobs of removed shards would not be listed.

A partition takes 1,000 write units a second (DynamoDB developer guide). A job enters and leaves a state: 2 writes of an
item of up to 2 KB, 2 units each. So one partition takes 250 images a second, eight take 2,000: 7 million in an hour.
DynamoDB does not split such a partition by itself, because all its writes have the latest sort key.
"""

QUERIES_MAX = 8
"""Maximum number of Query calls for one page of an owner's jobs, about that of a page of one state: 1 for each shard.
A call reads at most 1 MB, which takes about 30 ms."""

OVERDUE_READ = 128
"""Jobs that one Query reads of the overdue ones of a shard: the sweep merges 9 partitions, and takes 1,000 in all."""

UNFINISHED = "(begins_with(#state, :queued) OR begins_with(#state, :submitted))"
"""Condition: the job is queued or submitted. No state is the beginning of another one."""


class UnreadableJob(TableUnavailable):
    """The record of a job is from a newer version. Its messages are redelivered, those of other jobs are processed."""


class JobsTable:
    """keep_days: time from the end of a job to the expiry of its record, in days."""

    def __init__(self, client: DynamoDBClient, table: str, *, keep_days: int) -> None:
        self._client, self._table, self._keep = client, table, timedelta(days=keep_days)

    def claim(self, job: Job) -> bool:
        with translated_errors(TableUnavailable, "Claiming a job"):
            try:
                self._client.put_item(
                    TableName=self._table, Item=self._item(job), ConditionExpression="attribute_not_exists(id)"
                )
            except ClientError as error:
                if condition_failed(error):
                    return False
                raise
        return True

    def take(self, job_id: str, *, bundle: str, now: datetime, abandoned: datetime) -> Job | None:
        changes = {"state": "submitted", "bundle": bundle}
        queued = self._update(
            job_id,
            changes,
            now,
            condition="begins_with(#state, :queued) AND (attribute_not_exists(stage) OR stage <> :edit)",
            values={":queued": "queued", ":edit": "edit", ":one": 1},
            clauses="ADD attempts :one",
        )
        return queued or self._update(
            job_id,
            changes,
            now,
            condition="begins_with(#state, :submitted) AND (#changed_at < :abandoned OR bundle = :bundle)",
            values={":submitted": "submitted", ":abandoned": iso(abandoned), ":bundle": bundle},
        )

    def requeue(self, job_id: str, *, bundle: str, now: datetime, give_back: bool = False) -> Job | None:
        values = {":submitted": "submitted", ":bundle": bundle}
        if give_back:
            job = self._update(
                job_id,
                {"state": "queued"},
                now,
                condition="begins_with(#state, :submitted) AND bundle = :bundle",
                values={**values, ":back": -1},
                clauses="ADD attempts :back",
            )
            if job:
                return job
        values[":queued"] = "queued"
        return self._update(
            job_id, {"state": "queued"}, now, condition=f"{UNFINISHED} AND bundle = :bundle", values=values
        )

    def done(self, job_id: str, outcome: Outcome, *, bundle: str, cost_usd: float | None, now: datetime) -> Job | None:
        record = outcome.to_json()
        changes = {name: record[name] for name in ("result", "results", "subject", "warnings", "timings")}
        return self._update(
            job_id,
            {"state": "done", "bundle": bundle, "error": None, "cost_usd": cost_usd, **changes},
            now,
            condition=f"{UNFINISHED} OR (begins_with(#state, :done) AND bundle = :bundle)",
            values={":queued": "queued", ":submitted": "submitted", ":done": "done", ":bundle": bundle},
        )

    def fail(self, job_id: str, error: ErrorInfo, *, bundle: str, now: datetime) -> Job | None:
        return self._update(
            job_id,
            {"state": "failed", "error": error.to_json()},
            now,
            condition=f"({UNFINISHED} OR begins_with(#state, :failed)) AND bundle = :bundle",
            values={":queued": "queued", ":submitted": "submitted", ":failed": "failed", ":bundle": bundle},
        )

    def advance(
        self,
        job_id: str,
        stage: Stage,
        *,
        bundle: str,
        now: datetime,
        outcome: Outcome | None = None,
        candidates: Sequence[Candidate] | None = None,
        cost_usd: float | None = None,
    ) -> Job | None:
        changes: dict[str, Any] = {"state": "queued", "stage": stage, "attempts": 0}
        if outcome:
            record = outcome.to_json()
            changes |= {name: record[name] for name in ("subject", "warnings", "timings")}
        if candidates is not None:
            changes["candidates"] = _listed(candidates)
        if cost_usd is not None:
            changes["cost_usd"] = cost_usd
        previous = PREVIOUS_STAGE[stage]
        first = "attribute_not_exists(#stage) OR " if previous == "segment" else ""  # records of older versions
        return self._update(
            job_id,
            changes,
            now,
            condition=f"{UNFINISHED} AND bundle = :bundle AND ({first}#stage IN (:previous, :stage))",
            values={
                ":queued": "queued",
                ":submitted": "submitted",
                ":bundle": bundle,
                ":previous": previous,
                ":stage": stage,
            },
        )

    def retry(self, job: Job, *, now: datetime) -> Job | None:
        reset = {"bundle": "", "attempts": 0, "error": None, "warnings": [], "timings": {}, "finished_at": None}
        return self._update(
            job.id,
            {
                "state": "queued",
                "preset": job.preset,
                **job.options.to_json(),
                "stage": job.stage,
                "candidates": _listed(job.candidates),
                **reset,
            },
            now,
            condition="begins_with(#state, :failed)",
            values={":failed": "failed"},
            clauses="REMOVE expires_at",
        )

    def review(self, job_id: str, review: Review) -> Job | None:
        return self._write(
            job_id,
            {"review": review.to_json()},
            condition="begins_with(#state, :done)",
            values={":done": "done"},
            names=("state",),
        )

    def delete(self, job_id: str, *, state: State) -> bool:
        with translated_errors(TableUnavailable, "Deleting a job"):
            try:
                self._client.delete_item(
                    TableName=self._table,
                    Key={"id": {"S": job_id}},
                    ConditionExpression="attribute_not_exists(id) OR begins_with(#state, :state)",
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues={":state": {"S": state}},
                )
            except ClientError as error:
                if condition_failed(error):
                    return False
                raise
        return True

    def get(self, job_id: str) -> Job | None:
        with translated_errors(TableUnavailable, "Reading a job"):
            response = self._client.get_item(TableName=self._table, Key={"id": {"S": job_id}}, ConsistentRead=True)
        return _job(response["Item"]) if "Item" in response else None

    def page(self, selection: Selection, *, before: str, limit: int) -> Page:
        """Lists the jobs of one owner with by_owner; those of all owners with by_state, merged by `recency`."""
        if selection.owner is not None:
            parts = [self._partition_page("owner", selection.owner, selection, before, limit, queries=QUERIES_MAX)]
        else:
            states = (selection.state,) if selection.state else STATES
            parts = in_threads(
                lambda key: self._partition_page("state", key, selection, before, limit, queries=1),
                [key for state in states for key in _partitions(state)],
            )
        # Jobs below the highest `before` may be missing: one partition was read only down to it.
        complete_to = max(part.before for part in parts)
        merged = merge(*(part.jobs for part in parts), key=lambda job: job.recency, reverse=True)
        jobs = [job for job in merged if job.recency >= complete_to]
        return Page(jobs[:limit], jobs[limit - 1].recency if len(jobs) > limit else complete_to)

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        parts = [self._oldest(key, since) for key in _partitions(state)]
        with translated_errors(TableUnavailable, "Listing jobs"):
            return list(islice(merge(*parts, key=lambda job: job.recency), limit))

    def scan(self) -> Iterator[Job]:
        """All records, in no order. Reads the whole table."""
        start: dict[str, Any] = {}
        while True:
            with translated_errors(TableUnavailable, "Reading the table of jobs"):
                response = self._client.scan(TableName=self._table, **start)
            yield from map(_job, response["Items"])
            if "LastEvaluatedKey" not in response:
                return
            start = {"ExclusiveStartKey": response["LastEvaluatedKey"]}

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of at most 100 ids that have a record."""
        keys: list[Any] = [{"id": {"S": job_id}} for job_id in ids]
        found = set()
        while keys:
            with translated_errors(TableUnavailable, "Reading jobs"):
                response = self._client.batch_get_item(
                    RequestItems={self._table: {"Keys": keys, "ProjectionExpression": "id"}}
                )
            found |= {item["id"]["S"] for item in response["Responses"].get(self._table, ())}
            rest = response["UnprocessedKeys"]
            keys = list(rest[self._table]["Keys"]) if self._table in rest else []
        return found

    def _oldest(self, key: str, since: datetime) -> Iterator[Job]:
        """Yields the jobs of one partition of by_state that changed before `since`, the oldest first."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="by_state",
            KeyConditionExpression="#state = :state AND recency < :since",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=dynamodb_json.write({":state": key, ":since": iso(since)}),
            PaginationConfig={"PageSize": OVERDUE_READ},
        )
        for page in pages:
            for item in page["Items"]:
                with suppress(UnreadableJob):  # the oldest job must not hold up the others
                    yield _job(item)

    def _partition_page(
        self, index: str, key: str, selection: Selection, before: str, limit: int, *, queries: int
    ) -> Page:
        """Returns the selected jobs of one partition of by_<index>: at least `limit`, or all within `queries` calls."""
        query = _query(index, key, selection, before, limit)
        if query is None:
            return Page([], "")
        jobs: list[Job] = []
        start: dict[str, Any] = {}
        with translated_errors(TableUnavailable, "Listing jobs"):
            for _ in range(queries):
                response = self._client.query(TableName=self._table, **query, **start)
                # BETWEEN includes the last job of the previous page.
                jobs += [job for job in map(_job, response["Items"]) if job.recency != before]
                if "LastEvaluatedKey" not in response:
                    return Page(jobs, "")
                start = {"ExclusiveStartKey": response["LastEvaluatedKey"]}
                if len(jobs) > limit:
                    break
        return Page(jobs, start["ExclusiveStartKey"]["recency"]["S"])

    def _update(
        self,
        job_id: str,
        changes: Mapping[str, Any],
        now: datetime,
        *,
        condition: str,
        values: Mapping[str, Any],
        clauses: str = "",
    ) -> Job | None:
        """Changes the state of a job, and the times that depend on it; otherwise as `_write`."""
        moment = iso(now)
        key = _partition(changes["state"], job_id)
        sets = {**changes, "state": key, "changed_at": moment, "recency": f"{moment}#{job_id}"}
        if changes["state"] in ("done", "failed"):
            sets |= {"finished_at": moment, "expires_at": self._expiry(now)}
        return self._write(job_id, sets, condition=condition, values=values, clauses=clauses)

    def _write(
        self,
        job_id: str,
        sets: Mapping[str, Any],
        *,
        condition: str,
        values: Mapping[str, Any],
        clauses: str = "",
        names: Sequence[str] = (),
    ) -> Job | None:
        """Updates a job with one conditional UpdateItem. Returns the new job; None if the condition is false.

        sets: attribute -> new value. clauses: further clauses of the update expression. values: placeholder -> value,
        for `condition` and `clauses`. names: further attributes in `condition`.
        """
        expression = "SET " + ", ".join(f"#{name} = :new_{name}" for name in sets) + f" {clauses}"
        with translated_errors(TableUnavailable, "Updating a job"):
            try:
                response = self._client.update_item(
                    TableName=self._table,
                    Key={"id": {"S": job_id}},
                    UpdateExpression=expression,
                    ConditionExpression=condition,
                    ExpressionAttributeNames={f"#{name}": name for name in (*sets, *names)},
                    ExpressionAttributeValues={
                        **{f":new_{name}": value for name, value in dynamodb_json.write(sets).items()},
                        **dynamodb_json.write(values),
                    },
                    ReturnValues="ALL_NEW",
                )
            except ClientError as error:
                if condition_failed(error):
                    return None
                raise
        return _job(response["Attributes"])

    def _item(self, job: Job) -> dict[str, Any]:
        expiry = {"expires_at": self._expiry(job.finished_at)} if job.finished_at else {}
        # Absent values are read as null, an empty list or an empty object. "" of `owner` would be a key of its index.
        record = {
            name: value
            for name, value in job.to_json().items()
            if value not in (None, {}, []) and (name != "owner" or value)
        }
        key = _partition(job.state, job.id)
        return dynamodb_json.write({**record, "state": key, "recency": job.recency, **expiry})

    def _expiry(self, finished_at: datetime) -> int:
        return int((finished_at + self._keep).timestamp())


def _partition(state: State, job_id: str) -> str:
    """Returns the attribute `state` of a job: the key of its partition in by_state."""
    return f"{state}#{crc32(job_id.encode()) % SHARDS}"


def _partitions(state: State) -> list[str]:
    """Returns the keys of all partitions of a state: first that of records of versions without shards."""
    return [state, *(f"{state}#{shard}" for shard in range(SHARDS))]


def _listed(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [candidate.to_json() for candidate in candidates]


def _query(index: str, key: str, selection: Selection, before: str, limit: int) -> dict[str, Any] | None:
    """Returns the parameters of a Query on by_<index>, newest job first; None if the time range is empty."""
    # A time sorts before the same time with an id, so `until` is excluded. "~" sorts after every digit.
    upper = min(before or "~", iso(selection.until) if selection.until else "~")
    lower = iso(selection.since) if selection.since else "0"
    if upper < lower:
        return None
    names, values, filters = {"#key": index}, {":key": key, ":lower": lower, ":upper": upper}, []
    if selection.prefix:
        names |= {"#source": "source", "#source_key": "key"}
        values |= {":prefix": selection.prefix}
        filters.append("begins_with(#source.#source_key, :prefix)")
    if selection.state and index != "state":
        names |= {"#state": "state"}
        values |= {":state": selection.state}
        filters.append("begins_with(#state, :state)")
    return {
        "IndexName": f"by_{index}",
        "KeyConditionExpression": "#key = :key AND recency BETWEEN :lower AND :upper",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": dynamodb_json.write(values),
        "ScanIndexForward": False,
        **({"FilterExpression": " AND ".join(filters)} if filters else {"Limit": limit + 1}),
    }


def _job(item: Mapping[str, Any]) -> Job:
    """Raises UnreadableJob: after a roll back, records may have values that only the newer version knows."""
    record = dynamodb_json.read(item)
    try:
        state, _, _ = record["state"].partition("#")
        return Job.from_json({"owner": "", **record, "state": state})
    except (ValueError, KeyError, TypeError, MaskdropError) as error:
        raise UnreadableJob(f"This version of Maskdrop cannot read the job {record['id']}: {error}") from error
