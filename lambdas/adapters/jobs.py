"""The table of jobs in DynamoDB. An item is the job's JSON, and beside it what the indexes and the TTL need:
`recency` (by_state, by_source, by_owner), `source_key` and `expires_at`. A job of nobody has no `owner`: an index takes
no empty key, so by_owner holds the others alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from heapq import merge
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lambdas.adapters import dynamodb_json
from lambdas.adapters.border import as_error, code_of
from maskdrop.errors import ErrorInfo, TableUnavailable
from maskdrop.job import STATES, Job, State
from maskdrop.record import iso
from maskdrop.services import Page, Selection
from maskdrop.wire import Outcome

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

READS = 8
"""Megabytes, which is what one call reads at most, that are looked through for a page: 1 MB takes some 30 ms."""

OPEN = "#state IN (:queued, :submitted)"
STILL = f"{OPEN} AND bundle = :bundle"


class JobsTable:
    """keep_days: the record of a finished job expires so many days after its end."""

    def __init__(self, client: DynamoDBClient, table: str, *, keep_days: int) -> None:
        self._client, self._table, self._keep = client, table, timedelta(days=keep_days)

    def claim(self, job: Job) -> bool:
        with as_error(TableUnavailable, "Claiming a job"):
            try:
                self._client.put_item(
                    TableName=self._table, Item=self._item(job), ConditionExpression="attribute_not_exists(id)"
                )
            except ClientError as error:
                if code_of(error) == "ConditionalCheckFailedException":
                    return False
                raise
        return True

    def take(self, job_id: str, *, bundle: str, now: datetime, abandoned: datetime) -> Job | None:
        return self._update(
            job_id,
            {"state": "submitted", "bundle": bundle},
            now,
            condition="#state = :queued OR (#state = :submitted AND #changed_at < :abandoned)",
            values={":queued": "queued", ":submitted": "submitted", ":abandoned": iso(abandoned), ":one": 1},
            more="ADD attempts :one",
        )

    def give_back(self, job_id: str, *, bundle: str, now: datetime) -> Job | None:
        values = {":queued": "queued", ":submitted": "submitted", ":bundle": bundle}
        return self._update(job_id, {"state": "queued"}, now, condition=STILL, values=values)

    def done(self, job_id: str, outcome: Outcome, *, bundle: str, cost_usd: float | None, now: datetime) -> Job | None:
        said = outcome.to_json()
        changes = {name: said[name] for name in ("result", "subject", "warnings", "timings")}
        return self._update(
            job_id,
            {"state": "done", "error": None, "cost_usd": cost_usd, **changes},
            now,
            condition=f"{OPEN} OR (#state = :done AND bundle = :bundle)",
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

    def retry(self, job: Job, *, now: datetime) -> Job | None:
        nothing = {"bundle": "", "attempts": 0, "error": None, "warnings": [], "timings": {}, "finished_at": None}
        return self._update(
            job.id,
            {"state": "queued", "preset": job.preset, **job.options.to_json(), **nothing},
            now,
            condition="#state = :failed",
            values={":failed": "failed"},
            more="REMOVE expires_at",
        )

    def delete(self, job_id: str, *, state: State) -> bool:
        with as_error(TableUnavailable, "Deleting a job"):
            try:
                self._client.delete_item(
                    TableName=self._table,
                    Key={"id": {"S": job_id}},
                    ConditionExpression="attribute_not_exists(id) OR #state = :state",
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues={":state": {"S": state}},
                )
            except ClientError as error:
                if code_of(error) == "ConditionalCheckFailedException":
                    return False
                raise
        return True

    def get(self, job_id: str) -> Job | None:
        with as_error(TableUnavailable, "Reading a job"):
            answer = self._client.get_item(TableName=self._table, Key={"id": {"S": job_id}}, ConsistentRead=True)
        return _job(answer["Item"]) if "Item" in answer else None

    def page(self, selection: Selection, *, before: str, limit: int) -> Page:
        """An owner's jobs from by_owner; everybody's from by_state, state by state, merged as far as each was read."""
        if selection.owner is not None:
            parts = [self._read("owner", selection.owner, selection, before, limit)]
        else:
            states = (selection.state,) if selection.state else STATES
            parts = [self._read("state", state, selection, before, limit) for state in states]
        reached = max(part.before for part in parts)
        merged = merge(*(part.jobs for part in parts), key=lambda job: job.recency, reverse=True)
        known = [job for job in merged if job.recency >= reached]
        return Page(known[:limit], known[limit - 1].recency if len(known) > limit else reached)

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        jobs: list[Job] = []
        with as_error(TableUnavailable, "Listing jobs"):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                IndexName="by_state",
                KeyConditionExpression="#state = :state AND recency < :since",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues=dynamodb_json.write({":state": state, ":since": iso(since)}),
                PaginationConfig={"MaxItems": limit},
            )
            for page in pages:
                jobs.extend(_job(item) for item in page["Items"])
        return jobs

    def _read(self, index: str, key: str, selection: Selection, before: str, limit: int) -> Page:
        """The selected jobs of one partition of the index by_<index>, with `limit` of them or as far as READS go."""
        # A time alone sorts before the same time with an id, so `until` is left out. "~" sorts after every digit.
        upper = min(before or "~", iso(selection.until) if selection.until else "~")
        lower = iso(selection.since) if selection.since else "0"
        if upper < lower:
            return Page([], "")
        names, values, filters = {"#key": index}, {":key": key, ":lower": lower, ":upper": upper}, []
        if selection.prefix:
            names |= {"#source": "source", "#source_key": "key"}
            values |= {":prefix": selection.prefix}
            filters.append("begins_with(#source.#source_key, :prefix)")
        if selection.state and index != "state":
            names |= {"#state": "state"}
            values |= {":state": selection.state}
            filters.append("#state = :state")
        query: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": f"by_{index}",
            "KeyConditionExpression": "#key = :key AND recency BETWEEN :lower AND :upper",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": dynamodb_json.write(values),
            "ScanIndexForward": False,
            **({"FilterExpression": " AND ".join(filters)} if filters else {"Limit": limit + 1}),
        }
        jobs: list[Job] = []
        with as_error(TableUnavailable, "Listing jobs"):
            for _ in range(READS):
                answer = self._client.query(**query)
                # BETWEEN includes the last job of the page before.
                jobs += [job for job in map(_job, answer["Items"]) if job.recency != before]
                if "LastEvaluatedKey" not in answer:
                    return Page(jobs, "")
                query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
                if len(jobs) > limit:
                    break
        return Page(jobs, query["ExclusiveStartKey"]["recency"]["S"])

    def _update(
        self,
        job_id: str,
        changes: Mapping[str, Any],
        now: datetime,
        *,
        condition: str,
        values: Mapping[str, Any],
        more: str = "",
    ) -> Job | None:
        """One conditional UpdateItem, `more` of it beside the changes. The job after it; None when the condition did
        not hold."""
        moment = iso(now)
        sets = {**changes, "changed_at": moment, "recency": f"{moment}#{job_id}"}
        if changes["state"] in ("done", "failed"):
            sets |= {"finished_at": moment, "expires_at": self._expiry(now)}
        names = {f"#{name}": name for name in sets}
        expression = "SET " + ", ".join(f"#{name} = :new_{name}" for name in sets) + f" {more}"
        with as_error(TableUnavailable, "Changing a job"):
            try:
                answer = self._client.update_item(
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
                if code_of(error) == "ConditionalCheckFailedException":
                    return None
                raise
        return _job(answer["Attributes"])

    def _item(self, job: Job) -> dict[str, Any]:
        index = {"recency": job.recency, "source_key": f"{job.source.bucket}/{job.source.key}"}
        expiry = {"expires_at": self._expiry(job.finished_at)} if job.finished_at else {}
        said = {name: value for name, value in job.to_json().items() if name != "owner" or value}
        return dynamodb_json.write({**said, **index, **expiry})

    def _expiry(self, finished_at: datetime) -> int:
        return int((finished_at + self._keep).timestamp())


def _job(item: Mapping[str, Any]) -> Job:
    return Job.from_json({"owner": "", **dynamodb_json.read(item)})
