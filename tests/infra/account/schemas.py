"""Facts of CloudFormation about resource types, from the resource schemas in the package cfn-lint."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER


@cache
def schema(resource_type: str) -> dict[str, Any]:
    """The resource provider schema; {} for a custom resource."""
    if resource_type.startswith("Custom::") or resource_type == "AWS::CDK::Metadata":
        return {}
    found: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", resource_type).schema
    return found


def replaced_with(resource_type: str) -> set[str]:
    """Paths of the properties whose change replaces the resource ("Update requires: Replacement")."""
    facts = schema(resource_type)
    paths = facts.get("createOnlyProperties") or []
    return {_path(one) for one in [*paths, *(facts.get("conditionalCreateOnlyProperties") or [])]}


def identity(resource_type: str) -> set[str]:
    """Paths of the properties that identify the resource in its account and Region, except generated ones."""
    facts = schema(resource_type)
    generated = {_path(one) for one in facts.get("readOnlyProperties") or []}
    return {_path(one) for one in facts.get("primaryIdentifier") or []} - generated


def _path(pointer: str) -> str:
    return pointer.removeprefix("/properties/").replace("/", ".")


def values(properties: Any, path: str) -> Iterator[Any]:
    """The values at a path; none where the properties lack it. "*" stands for the items of a list."""
    first, _, rest = path.partition(".")
    if first == "*":
        found = properties if isinstance(properties, list) else []
    else:
        found = [properties[first]] if isinstance(properties, dict) and first in properties else []
    for one in found:
        yield from values(one, rest) if rest else [one]
