"""IAM statements of the roles, evaluated for the calls that the roles made in the strict mode of the local stack.

calls.json has the calls by stage of the local stack. test_strict.py and test_serverless.py in tests/e2e write it with
MASKDROP_RECORD_CALLS=1. Names of resources are stored as {stack prefix.logical ID}, generated parts of keys as "x".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.infra.account.assembly import ACCOUNT, Assembly, references

FILE = Path(__file__).with_name("calls.json")


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """role: <stack prefix>.<logical ID without the hash>. leading_keys: DynamoDB partition keys of the request."""

    role: str
    action: str
    resource: str
    leading_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permission:
    """One allowed action on one resource pattern."""

    role: str
    action: str
    resource: str
    condition: str = ""


def normalized(lines: Iterable[str], physical: Mapping[str, str], kinds: Iterable[str]) -> set[Call]:
    """Calls of calls.jsonl without generated names.

    physical: <stack prefix>.<logical ID> by physical ID. kinds: partition keys that are constants of the code.
    """
    records = [json.loads(line) for line in lines]
    roles = {record["key"]: record["role"] for record in records if "role" in record}
    names = sorted(physical, key=len, reverse=True)
    constant = {*kinds}

    def resource(text: str) -> str:
        for name in names:
            if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
                text = text.replace(name, f"{{{physical[name]}}}")
        text = re.sub(r":000000000000:", ":{account}:", text).replace(":us-east-1:", ":{region}:")
        return re.sub(r"(:s3:::\{[^}]+\}/)(.+)$", lambda match: match[1] + _key(match[2]), text)

    return {
        Call(
            physical[roles[record["key"]]],
            record["action"].removesuffix("Batch"),  # of SQS: IAM has one action for single and batch requests
            resource(record["resource"]),
            tuple(sorted(constant & {*record.get("leading_keys", ())})),
        )
        for record in records
        if roles.get(record["key"]) in physical
    }


def _key(key: str) -> str:
    """An object key: its folders, without generated ones."""
    *folders, name = key.split("/")
    generated = re.compile(r"[0-9a-f]{8,}|\d+|operator|default")
    return "/".join("x" if generated.search(folder) else folder for folder in folders) + ("/x" if name else "/")


def read() -> dict[str, set[Call]]:
    """The recorded calls, by stage of the local stack."""
    stored = json.loads(FILE.read_text())
    return {
        stage: {Call(**{**call, "leading_keys": tuple(call.get("leading_keys", ()))}) for call in calls}
        for stage, calls in stored.items()
    }


def write(stage: str, calls: Iterable[Call]) -> None:
    """Replaces the calls of one stage."""
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    stored[stage] = [{name: value for name, value in asdict(call).items() if value} for call in sorted(calls)]
    FILE.write_text(json.dumps(stored, indent=1) + "\n")


def name_of(stack: str, logical_id: str) -> str:
    """<stack prefix>.<logical ID without the hash>: the same in every stage, whatever kind of endpoint it has."""
    prefix, name = stack.partition("-")[0], re.sub(r"[0-9A-F]{8}$", "", logical_id)
    if prefix in ("MaskdropBulk", "MaskdropInteractive"):
        name = re.findall(r"(?:No)?[A-Z][a-z]+", name)[-1]  # "NoEndpoint" stands for an endpoint that is off
    return f"{prefix}.{name}"


def denied(assembly: Assembly, calls: Iterable[Call]) -> list[Call]:
    """The calls that the roles of a stage may not make. Calls of roles, and to endpoints, that the stage lacks are not
    checked."""
    statements = _statements(assembly)
    return [
        call
        for call in sorted(calls)
        if call.role in statements
        and "{MaskdropInteractive." not in _concrete(assembly, call.resource)
        and not any(_allows(one, call, assembly) for one in statements[call.role])
    ]


def unused(assembly: Assembly, calls: Iterable[Call]) -> list[Permission]:
    """The permissions that no call uses."""
    found = []
    for role, statements in _statements(assembly).items():
        of_role = [call for call in calls if call.role == role]
        for statement in statements:
            for permission in _permissions(role, statement, assembly):
                one = {**statement, "Action": permission.action, "Resource": permission.resource}
                if not any(_allows(one, call, assembly) for call in of_role):
                    found.append(permission)
    return found


def _permissions(role: str, statement: dict[str, Any], assembly: Assembly) -> Iterator[Permission]:
    condition = json.dumps(statement["Condition"]) if "Condition" in statement else ""
    for action in _list(statement["Action"]):
        for resource in _list(statement["Resource"]):
            yield Permission(role, action, resource, condition)


def _allows(statement: dict[str, Any], call: Call, assembly: Assembly) -> bool:
    keys = statement.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:LeadingKeys")
    return (
        statement["Effect"] == "Allow"
        and any(_matches(one, call.action) for one in _list(statement["Action"]))
        and any(_matches(one, _concrete(assembly, call.resource)) for one in _list(statement["Resource"]))
        and (keys is None or (bool(call.leading_keys) and set(call.leading_keys) <= set(_list(keys))))
    )


def _matches(pattern: str, text: str) -> bool:
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text))


def _concrete(assembly: Assembly, resource: str) -> str:
    """The ARN of a recorded resource in a stage."""
    names = {name_of(*node): node for node in assembly.resources}

    def name(match: re.Match[str]) -> str:
        return assembly.name(*names[match[1]]) if match[1] in names else match[0]

    text = re.sub(r"\{(\w+\.\w+)\}", name, resource)
    return text.replace("{account}", ACCOUNT).replace("{region}", assembly.region)


def _statements(assembly: Assembly) -> dict[str, list[dict[str, Any]]]:
    """The statements of every role."""
    found: dict[str, list[dict[str, Any]]] = {}
    for role in assembly.of("AWS::IAM::Role"):
        statements = found.setdefault(name_of(*role.node), [])
        for policy in role.properties.get("Policies", []):
            statements += policy["PolicyDocument"]["Statement"]
        for one in assembly.of("AWS::IAM::Policy"):
            if one.stack == role.stack and role.logical_id in {*references(one.raw.get("Roles", []))}:
                statements += one.properties["PolicyDocument"]["Statement"]
    return found


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
