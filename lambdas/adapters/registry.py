"""Stores the registry in DynamoDB. An item is {kind, name, value} and, if it expires, `expires_at` in Unix seconds.

DynamoDB deletes an expired item after up to some days, so every access compares `expires_at` with the current time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lambdas.adapters import dynamodb_json
from lambdas.adapters.errors import condition_failed, translated_errors
from maskdrop.errors import TableUnavailable
from maskdrop.services import Count, Kind

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EXPIRED = "(attribute_exists(expires_at) AND expires_at <= :now)"

ADD_ATTEMPTS = 3
"""Maximum attempts of `add`. An attempt fails only if another request creates the item between its two writes."""


class DynamoDBRegistry:
    """clock: returns the current time in Unix seconds."""

    def __init__(self, client: DynamoDBClient, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client, self._table, self._clock = client, table, clock

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        with translated_errors(TableUnavailable, "Reading the registry"):
            response = self._client.get_item(TableName=self._table, Key=_key(kind, name), ConsistentRead=True)
        item = dynamodb_json.read(response.get("Item", {}))
        return item["value"] if item and item.get("expires_at", self._clock() + 1) > self._clock() else None

    def put(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> None:
        with translated_errors(TableUnavailable, "Writing to the registry"):
            self._client.put_item(TableName=self._table, Item=_item(kind, name, value, expires_at))

    def put_new(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> bool:
        with translated_errors(TableUnavailable, "Writing to the registry"):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=_item(kind, name, value, expires_at),
                    ConditionExpression=f"attribute_not_exists(kind) OR {EXPIRED}",
                    ExpressionAttributeValues=self._now(),
                )
            except ClientError as error:
                if condition_failed(error):
                    return False
                raise
        return True

    def delete(self, kind: Kind, name: str) -> None:
        with translated_errors(TableUnavailable, "Deleting from the registry"):
            self._client.delete_item(TableName=self._table, Key=_key(kind, name))

    def list(self, kind: Kind) -> dict[str, dict[str, Any]]:
        with translated_errors(TableUnavailable, "Listing the registry"):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="kind = :kind",
                FilterExpression=f"NOT {EXPIRED}",
                ExpressionAttributeValues={":kind": {"S": kind}, **self._now()},
                ConsistentRead=True,
            )
            items = [dynamodb_json.read(item) for page in pages for item in page["Items"]]
        return {item["name"]: item["value"] for item in items}

    def add(self, kind: Kind, name: str, amounts: Mapping[str, int], *, expires_at: datetime | None = None) -> Count:
        for _ in range(ADD_ATTEMPTS):
            if count := self._increment(kind, name, amounts):
                return count
            if self.put_new(kind, name, amounts, expires_at=expires_at):
                return Count(dict(amounts), _whole_second(expires_at))
        raise TableUnavailable(f"Counting in the registry failed after {ADD_ATTEMPTS} attempts: the item changed.")

    def _increment(self, kind: Kind, name: str, amounts: Mapping[str, int]) -> Count | None:
        """Adds `amounts` to an item and returns its counters; None if the item does not exist or has expired."""
        sets = [
            f"#value.#{n} = if_not_exists(#value.#{n}, :zero) + :amount_{n}" for n, _ in enumerate(amounts)
        ]  # fmt: skip
        with translated_errors(TableUnavailable, "Counting in the registry"):
            try:
                response = self._client.update_item(
                    TableName=self._table,
                    Key=_key(kind, name),
                    UpdateExpression=f"SET {', '.join(sets)}",
                    ConditionExpression=f"attribute_exists(kind) AND NOT {EXPIRED}",
                    ExpressionAttributeNames={
                        "#value": "value",
                        **{f"#{n}": name for n, name in enumerate(amounts)},
                    },
                    ExpressionAttributeValues={
                        ":zero": {"N": "0"},
                        **{f":amount_{n}": {"N": str(amount)} for n, amount in enumerate(amounts.values())},
                        **self._now(),
                    },
                    ReturnValues="ALL_NEW",
                )
            except ClientError as error:
                if condition_failed(error):
                    return None
                raise
        item = dynamodb_json.read(response["Attributes"])
        end = item.get("expires_at")
        return Count(item["value"], None if end is None else datetime.fromtimestamp(end, UTC))

    def _now(self) -> dict[str, Any]:
        return {":now": {"N": repr(self._clock())}}


def _key(kind: Kind, name: str) -> dict[str, Any]:
    return dynamodb_json.write({"kind": kind, "name": name})


def _item(kind: Kind, name: str, value: Mapping[str, Any], expires_at: datetime | None) -> dict[str, Any]:
    end = _whole_second(expires_at)
    expiry = {} if end is None else {"expires_at": int(end.timestamp())}
    return dynamodb_json.write({"kind": kind, "name": name, "value": value, **expiry})


def _whole_second(moment: datetime | None) -> datetime | None:
    """Rounds up to a whole second, the resolution of a DynamoDB TTL."""
    return None if moment is None else datetime.fromtimestamp(ceil(moment.timestamp()), UTC)
