"""Stores jobs in DynamoDB. An item is the job's JSON with `recency` (sort key of the indexes) and `expires_at` (TTL).

Indexes: by_state and by_owner. A job without an owner has no attribute `owner`, because an index key must not be empty;
by_owner does not contain such jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from heapq import merge
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lambdas.adapters import dynamodb_json
from lambdas.adapters.errors import condition_failed, translated_errors
from maskdrop.edit import PREVIOUS_STAGE, Candidate, Stage
from maskdrop.errors import ErrorInfo, MaskdropError, TableUnavailable
from maskdrop.job import STATES, Job, State
from maskdrop.record import iso
from maskdrop.services import Page, Selection
from maskdrop.wire import Outcome

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

QUERIES_MAX = 8
"""Maximum number of Query calls for one page of jobs. A call reads at most 1 MB, which takes about 30 ms."""

UNFINISHED = "#state IN (:queued, :submitted)"
"""Condition: the job is queued or submitted."""


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
            condition="#state = :queued AND (attribute_not_exists(stage) OR stage <> :edit)",
            values={":queued": "queued", ":edit": "edit", ":one": 1},
            clauses="ADD attempts :one",
        )
        return queued or self._update(
            job_id,
            changes,
            now,
            condition="#state = :submitted AND (#changed_at < :abandoned OR bundle = :bundle)",
            values={":submitted": "submitted", ":abandoned": iso(abandoned), ":bundle": bundle},
        )

    def requeue(self, job_id: str, *, bundle: str, now: datetime, give_back: bool = False) -> Job | None:
        values = {":submitted": "submitted", ":bundle": bundle}
        if give_back:
            job = self._update(
                job_id,
                {"state": "queued"},
                now,
                condition="#state = :submitted AND bundle = :bundle",
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
            condition=f"{UNFINISHED} OR (#state = :done AND bundle = :bundle)",
            values={":queued": "queued", ":submitted": "submitted", ":done": "done", ":bundle": bundle},
        )

    def fail(self, job_id: str, error: ErrorInfo, *, bundle: str, now: datetime) -> Job | None:
        return self._update(
            job_id,
            {"state": "failed", "error": error.to_json()},
            now,
            condition="#state IN (:queued, :submitted, :failed) AND bundle = :bundle",
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
            condition="#state = :failed",
            values={":failed": "failed"},
            clauses="REMOVE expires_at",
        )

    def delete(self, job_id: str, *, state: State) -> bool:
        with translated_errors(TableUnavailable, "Deleting a job"):
            try:
                self._client.delete_item(
                    TableName=self._table,
                    Key={"id": {"S": job_id}},
                    ConditionExpression="attribute_not_exists(id) OR #state = :state",
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
            parts = [self._partition_page("owner", selection.owner, selection, before, limit)]
        else:
            states = (selection.state,) if selection.state else STATES
            parts = [self._partition_page("state", state, selection, before, limit) for state in states]
        # Jobs below the highest `before` may be missing: one partition was read only down to it.
        complete_to = max(part.before for part in parts)
        merged = merge(*(part.jobs for part in parts), key=lambda job: job.recency, reverse=True)
        jobs = [job for job in merged if job.recency >= complete_to]
        return Page(jobs[:limit], jobs[limit - 1].recency if len(jobs) > limit else complete_to)

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        jobs: list[Job] = []
        with translated_errors(TableUnavailable, "Listing jobs"):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                IndexName="by_state",
                KeyConditionExpression="#state = :state AND recency < :since",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues=dynamodb_json.write({":state": state, ":since": iso(since)}),
                PaginationConfig={"MaxItems": limit},
            )
            for page in pages:
                for item in page["Items"]:
                    with suppress(UnreadableJob):  # the oldest job must not hold up the others
                        jobs.append(_job(item))
        return jobs

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

    def _partition_page(self, index: str, key: str, selection: Selection, before: str, limit: int) -> Page:
        """Returns the selected jobs of one partition of by_<index>: more than `limit`, or all within QUERIES_MAX."""
        query = _query(index, key, selection, before, limit)
        if query is None:
            return Page([], "")
        jobs: list[Job] = []
        start: dict[str, Any] = {}
        with translated_errors(TableUnavailable, "Listing jobs"):
            for _ in range(QUERIES_MAX):
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
        """Updates a job with one conditional UpdateItem. Returns the new job; None if the condition is false.

        changes: attribute -> new value. clauses: further clauses of the update expression. values: placeholder ->
        value, for `condition` and `clauses`.
        """
        moment = iso(now)
        sets = {**changes, "changed_at": moment, "recency": f"{moment}#{job_id}"}
        if changes["state"] in ("done", "failed"):
            sets |= {"finished_at": moment, "expires_at": self._expiry(now)}
        names = {f"#{name}": name for name in sets}
        expression = "SET " + ", ".join(f"#{name} = :new_{name}" for name in sets) + f" {clauses}"
        with translated_errors(TableUnavailable, "Updating a job"):
            try:
                response = self._client.update_item(
                    TableName=self._table,
                    Key={"id": {"S": job_id}},
                    UpdateExpression=expression,
                    ConditionExpression=condition,
                    ExpressionAttributeNames=names,
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
        record = {name: value for name, value in job.to_json().items() if name != "owner" or value}
        return dynamodb_json.write({**record, "recency": job.recency, **expiry})

    def _expiry(self, finished_at: datetime) -> int:
        return int((finished_at + self._keep).timestamp())


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
        filters.append("#state = :state")
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
        return Job.from_json({"owner": "", **record})
    except (ValueError, KeyError, TypeError, MaskdropError) as error:
        raise UnreadableJob(f"This version of Maskdrop cannot read the job {record['id']}: {error}") from error
