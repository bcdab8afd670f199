"""The registry in DynamoDB. An item is {kind, name, value} and, where it ends, `expires_at` in Unix seconds. DynamoDB
deletes what has ended within days, not at once, so every access looks at the time itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lambdas.adapters import dynamodb_json
from lambdas.adapters.border import as_error, code_of
from maskdrop.errors import TableUnavailable
from maskdrop.services import Count, Kind

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ENDED = "(attribute_exists(expires_at) AND expires_at <= :now)"

TRIES = 3
"""A count either joins a window or opens one; it loses both races only to another caller's between the two."""


class DynamoDBRegistry:
    """clock: the time in Unix seconds."""

    def __init__(self, client: DynamoDBClient, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client, self._table, self._clock = client, table, clock

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        with as_error(TableUnavailable, "Reading the registry"):
            answer = self._client.get_item(TableName=self._table, Key=_key(kind, name), ConsistentRead=True)
        item = dynamodb_json.read(answer.get("Item", {}))
        return item["value"] if item and item.get("expires_at", self._clock() + 1) > self._clock() else None

    def put(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> None:
        with as_error(TableUnavailable, "Writing to the registry"):
            self._client.put_item(TableName=self._table, Item=_item(kind, name, value, expires_at))

    def put_new(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> bool:
        with as_error(TableUnavailable, "Writing to the registry"):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=_item(kind, name, value, expires_at),
                    ConditionExpression=f"attribute_not_exists(kind) OR {ENDED}",
                    ExpressionAttributeValues=self._now(),
                )
            except ClientError as error:
                return _refused(error)
        return True

    def delete(self, kind: Kind, name: str) -> None:
        with as_error(TableUnavailable, "Deleting from the registry"):
            self._client.delete_item(TableName=self._table, Key=_key(kind, name))

    def list(self, kind: Kind) -> dict[str, dict[str, Any]]:
        with as_error(TableUnavailable, "Listing the registry"):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="kind = :kind",
                FilterExpression=f"NOT {ENDED}",
                ExpressionAttributeValues={":kind": {"S": kind}, **self._now()},
                ConsistentRead=True,
            )
            items = [dynamodb_json.read(item) for page in pages for item in page["Items"]]
        return {item["name"]: item["value"] for item in items}

    def add(self, kind: Kind, name: str, amounts: Mapping[str, int], *, expires_at: datetime | None = None) -> Count:
        for _ in range(TRIES):
            if count := self._joined(kind, name, amounts):
                return count
            if self.put_new(kind, name, amounts, expires_at=expires_at):
                return Count(dict(amounts), _whole(expires_at))
        raise TableUnavailable("Counting in the registry failed: others were always faster.")

    def _joined(self, kind: Kind, name: str, amounts: Mapping[str, int]) -> Count | None:
        """The item after `amounts` were added; None where there is none, or no longer."""
        sets = [
            f"#value.#{n} = if_not_exists(#value.#{n}, :zero) + :amount_{n}" for n, _ in enumerate(amounts)
        ]  # fmt: skip
        with as_error(TableUnavailable, "Counting in the registry"):
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=_key(kind, name),
                    UpdateExpression=f"SET {', '.join(sets)}",
                    ConditionExpression=f"attribute_exists(kind) AND NOT {ENDED}",
                    ExpressionAttributeNames={"#value": "value", **{f"#{n}": one for n, one in enumerate(amounts)}},
                    ExpressionAttributeValues={
                        ":zero": {"N": "0"},
                        **{f":amount_{n}": {"N": str(amount)} for n, amount in enumerate(amounts.values())},
                        **self._now(),
                    },
                    ReturnValues="ALL_NEW",
                )
            except ClientError as error:
                _refused(error)
                return None
        item = dynamodb_json.read(answer["Attributes"])
        ends = item.get("expires_at")
        return Count(item["value"], None if ends is None else datetime.fromtimestamp(ends, UTC))

    def _now(self) -> dict[str, Any]:
        return {":now": {"N": repr(self._clock())}}


def _key(kind: Kind, name: str) -> dict[str, Any]:
    return dynamodb_json.write({"kind": kind, "name": name})


def _item(kind: Kind, name: str, value: Mapping[str, Any], expires_at: datetime | None) -> dict[str, Any]:
    ends = _whole(expires_at)
    expiry = {} if ends is None else {"expires_at": int(ends.timestamp())}
    return dynamodb_json.write({"kind": kind, "name": name, "value": value, **expiry})


def _whole(moment: datetime | None) -> datetime | None:
    """The next whole second, as DynamoDB's TTL has it."""
    return None if moment is None else datetime.fromtimestamp(ceil(moment.timestamp()), UTC)


def _refused(error: ClientError) -> bool:
    """False when a condition did not hold; raises any other error."""
    if code_of(error) == "ConditionalCheckFailedException":
        return False
    raise error
