"""Copies the items of a deployment's tables to lines of JSON and back, for `maskdrop backup` and `maskdrop restore`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from lambdas.adapters.errors import condition_failed
from maskdrop.services import Kind
from maskdrop.threads import in_threads

KEYS = {"JobsTable": "id", "RegistryTable": "kind"}
"""Output of the stack that names a table -> the partition key of its items."""

TRANSIENT: frozenset[Kind] = frozenset({"window", "idempotency", "valve", "circuit"})
"""Kinds of items of the registry that are left out. They describe requests and bundles of the last hours: an older copy
would refuse requests, or hold back photos for bundles that no longer exist."""

PAGE = 100
"""Items that are written before the progress is reported."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Numbers of items by table: written, and left unchanged because they exist."""

    written: Counter[str]
    kept: Counter[str]


def dump(dynamodb: Any, tables: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yields {"table", "item"} for every item, in DynamoDB's JSON. tables: key of KEYS -> name of the table."""
    for table, name in tables.items():
        for page in dynamodb.get_paginator("scan").paginate(TableName=name):
            for item in page["Items"]:
                if table != "RegistryTable" or item["kind"]["S"] not in TRANSIENT:
                    yield {"table": table, "item": item}


def load(
    dynamodb: Any, tables: Mapping[str, str], lines: Iterable[Mapping[str, Any]], *, overwrite: bool = False
) -> Iterator[Restored]:
    """Writes the items of `dump`, and yields the numbers so far after each page. May be interrupted and repeated.

    overwrite: also replaces items that exist.
    """
    restored = Restored(Counter(), Counter())
    lines = iter(lines)

    def write(line: Mapping[str, Any]) -> bool:
        condition = {} if overwrite else {"ConditionExpression": f"attribute_not_exists({KEYS[line['table']]})"}
        try:
            dynamodb.put_item(TableName=tables[line["table"]], Item=line["item"], **condition)
        except ClientError as error:
            if condition_failed(error):
                return False
            raise
        return True

    while page := list(islice(lines, PAGE)):
        for line, written in zip(page, in_threads(write, page), strict=True):
            (restored.written if written else restored.kept)[line["table"]] += 1
        yield restored
