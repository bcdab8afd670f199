"""The protocol of the table in which `worker` records its images, and its adapter to DynamoDB by boto3.

A row is the JSON of a job (`maskdrop.job.Job`), with the partition key `id`. Attributes that others wrote are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Protocol

import boto3
from boto3.dynamodb.types import TypeSerializer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from maskdrop.errors import NotAllowed, TableUnavailable

KEY = "id"
"""The partition key of the table, a string."""

REFUSALS = (
    "AccessDeniedException",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
    "ValidationException",
)
"""Error codes of DynamoDB that last until the table, its key or the permissions are corrected."""


class Rows(Protocol):
    """A table of images. Every method raises TableUnavailable, and NotAllowed for errors that a retry cannot solve."""

    def check(self) -> None:
        """Raises NotAllowed where the table does not exist, or has another key."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the fields of a row, with its `id`. A row that is `done` stays as it is unless `row` is done too."""


class NoRows:
    """Writes no rows."""

    def check(self) -> None: ...

    def write(self, row: Mapping[str, Any]) -> None: ...


class DynamoDBRows:
    """DynamoDB by boto3. threads: number of connections, one for each calling thread."""

    def __init__(self, table: str, region: str, threads: int) -> None:
        self._table = table
        self._dynamodb: Any = boto3.client(
            "dynamodb",
            region_name=region,
            config=Config(
                max_pool_connections=threads,
                connect_timeout=5,
                read_timeout=10,
                retries={"mode": "standard", "total_max_attempts": 4},
            ),
        )

    def check(self) -> None:
        with self._translated():
            description = self._dynamodb.describe_table(TableName=self._table)["Table"]
        keys = [one["AttributeName"] for one in description["KeySchema"]]
        if keys != [KEY]:
            raise NotAllowed(
                f"The table {self._table} must have the partition key {KEY!r} alone; it has {', '.join(keys)}. "
                "Name another table with --aws_dynamodb_table_name, or none to write no rows."
            )

    def write(self, row: Mapping[str, Any]) -> None:
        values = json.loads(
            json.dumps({name: value for name, value in row.items() if name != KEY}), parse_float=Decimal
        )
        serialize = TypeSerializer().serialize
        with self._translated():
            try:
                self._dynamodb.update_item(
                    TableName=self._table,
                    Key={KEY: {"S": row[KEY]}},
                    UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
                    ConditionExpression="attribute_not_exists(#state) OR #state <> :done OR :state = :done",
                    ExpressionAttributeNames={f"#{name}": name for name in values},
                    ExpressionAttributeValues={
                        **{f":{name}": serialize(value) for name, value in values.items()},
                        ":done": {"S": "done"},
                    },
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Converts the errors of botocore to NotAllowed or TableUnavailable."""
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in REFUSALS:
                raise NotAllowed(
                    f"DynamoDB refuses the table {self._table}: {code}. Check the name, the Region and the permissions."
                ) from error
            raise TableUnavailable(f"DynamoDB returned the error {code}.") from error
        except BotoCoreError as error:
            raise TableUnavailable(f"DynamoDB cannot be reached ({type(error).__name__}).") from error
