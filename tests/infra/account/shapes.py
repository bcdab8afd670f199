"""Converts the properties of a resource to the requests that CloudFormation sends, and checks them against the models
of the API (botocore): names, types, required members, enums, patterns, lengths and ranges.

botocore's own validation checks no enum, no pattern and no maximum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import botocore.session
import regex
from botocore.model import Shape

from tests.infra.account.assembly import Assembly, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The requests that create resources of one type.

    service, operation: of botocore. Properties become members of the operation's input, whatever their case.
    moved: property path -> member path, for properties with another name or another operation. The first part may be an
        operation. "[]" at the end: the only item of a list. "*" at the start: one request per item.
    json: property paths whose objects the API takes as JSON text.
    omitted: property path -> why the API has no such member.
    generated: required members that CloudFormation generates or takes from the created resource.
    """

    service: str
    operation: str
    moved: Mapping[str, str] = field(default_factory=dict)
    json: tuple[str, ...] = ()
    omitted: Mapping[str, str] = field(default_factory=dict)
    generated: tuple[str, ...] = ()


def check(assembly: Assembly, apis: Mapping[str, Api], without_api: Mapping[str, str]) -> list[str]:
    """Returns the faults of every resource. A type without a row is a fault."""
    return [f"{one}: {fault}" for one in assembly.resources.values() for fault in faults(one, apis, without_api)]


def faults(resource: Resource, apis: Mapping[str, Api], without_api: Mapping[str, str]) -> Iterator[str]:
    kind = "Custom::*" if resource.type.startswith("Custom::") else resource.type
    if kind in without_api:
        return
    if kind not in apis:
        yield "this type has no row in tests/infra/account/apis.py"
        return
    api = apis[kind]
    converted = _Conversion(api)
    converted.structure(resource.properties, "", input_shape(api.service, api.operation), converted.request)
    yield from converted.faults
    for operation, parameters in [(api.operation, converted.request), *converted.requests.items(), *converted.items]:
        yield from _validate(parameters, input_shape(api.service, operation), operation, api.generated)


@cache
def _service(name: str) -> Any:
    return botocore.session.Session().get_service_model(name)


@cache
def input_shape(service: str, operation: str) -> Shape:
    """operation: an operation, or a shape for a structure inside a request."""
    model = _service(service)
    shape: Shape = (
        model.operation_model(operation).input_shape
        if operation in model.operation_names
        else model.shape_for(operation)
    )
    return shape


class _Conversion:
    def __init__(self, api: Api) -> None:
        self._api = api
        self.request: dict[str, Any] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.items: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[str] = []

    def structure(self, value: Any, path: str, shape: Any, into: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            self.faults.append(f"{path} must be an object; got {value!r}")
            return
        for name, item in value.items():
            where = f"{path}.{name}" if path else name
            if where in self._api.omitted:
                continue
            if where in self._api.moved:
                self._move(self._api.moved[where], item, where, shape, into)
            elif member := _member(shape, name):
                into[member] = self._convert(item, where, shape.members[member])
            else:
                self.faults.append(f"{where} is not a member of {shape.name} of {self._api.service}")

    def _move(self, target: str, value: Any, where: str, shape: Any, into: dict[str, Any]) -> None:
        if target.startswith("*"):
            operation, *rest = target[1:].split(".")
            for item in value:
                request: dict[str, Any] = {}
                self.items.append((operation, request))
                self._place(rest, item, where, input_shape(self._api.service, operation), request)
            return
        first, *rest = target.split(".")
        if first in _service(self._api.service).operation_names:
            into = self.request if first == self._api.operation else self.requests.setdefault(first, {})
            self._place(rest, value, where, input_shape(self._api.service, first), into)
        else:
            self._place([first, *rest], value, where, shape, into)

    def _place(self, parts: list[str], value: Any, where: str, shape: Any, into: dict[str, Any]) -> None:
        if not parts:
            self.structure(value, where, shape, into)
            return
        for part in parts[:-1]:
            shape = shape.value if shape.type_name == "map" else shape.members[part]
            into = into.setdefault(part, {})
        last, as_list = parts[-1].removesuffix("[]"), parts[-1].endswith("[]")
        shape = shape.value if shape.type_name == "map" else shape.members[last]
        into[last] = [self._convert(value, where, shape.member)] if as_list else self._convert(value, where, shape)

    def _convert(self, value: Any, where: str, shape: Any) -> Any:
        kind = shape.type_name
        if where in self._api.json and not isinstance(value, str):
            return json.dumps(value, separators=(",", ":"))
        if kind == "structure" and isinstance(value, dict):
            converted: dict[str, Any] = {}
            self.structure(value, where, shape, converted)
            return converted
        if kind == "map":
            if isinstance(value, list):  # tags
                value = {item.get("Key"): item.get("Value") for item in value}
            if isinstance(value, dict):
                return {name: self._convert(item, where, shape.value) for name, item in value.items()}
        if kind == "list" and isinstance(value, list):
            return [self._convert(item, where, shape.member) for item in value]
        return _scalar(value, kind)


def _scalar(value: Any, kind: str) -> Any:
    """Converts a scalar as CloudFormation does: true to "true", "5" to 5."""
    if kind == "string" and isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, str):
        if kind in ("integer", "long") and regex.fullmatch(r"-?\d+", value):
            return int(value)
        if kind in ("float", "double") and regex.fullmatch(r"-?\d+(\.\d+)?", value):
            return float(value)
        if kind == "boolean" and value in ("true", "false"):
            return value == "true"
    return value


def _member(shape: Any, name: str) -> str | None:
    if shape.type_name != "structure":
        return None
    by_lower = {member.lower(): member for member in shape.members}
    return name if name in shape.members else by_lower.get(name.lower())


SURROGATES = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
"""A range of UTF-16 pairs, which patterns of Java can contain, and the same range in Python."""

PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,), "map": (dict,), "list": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "long": (int,), "float": (int, float), "double": (int, float), "blob": (str, bytes), "timestamp": (str, int),
}  # fmt: skip


def _has_type(value: Any, kind: str) -> bool:
    return isinstance(value, PYTHON_TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _validate(value: Any, shape: Any, where: str, generated: tuple[str, ...] = ()) -> Iterator[str]:
    kind, limits = shape.type_name, shape.metadata
    if not _has_type(value, kind):
        yield f"{where} must be of type {kind}; got {value!r}"
        return
    if kind == "structure":
        for name in shape.required_members:
            if name not in value and name not in generated:
                yield f"{where}.{name} is required"
        for name, item in value.items():
            yield from _validate(item, shape.members[name], f"{where}.{name}")
    elif kind == "map":
        for name, item in value.items():
            yield from _validate(name, shape.key, f"{where} key")
            yield from _validate(item, shape.value, f"{where}.{name}")
    elif kind == "list":
        for index, item in enumerate(value):
            yield from _validate(item, shape.member, f"{where}[{index}]")
    size = (
        value if kind in ("integer", "long", "float", "double") else len(value) if hasattr(value, "__len__") else None
    )
    if size is not None:
        low, high = limits.get("min"), limits.get("max")
        if (low is not None and size < low) or (high is not None and size > high):
            measure = "" if size is value else "length of "
            yield f"{measure}{where} must be {low} to {high}; got {size}"
    if kind == "string":
        if (accepted := getattr(shape, "enum", [])) and value not in accepted:
            yield f"{where} must be one of {', '.join(accepted)}; got {value!r}"
        if (pattern := limits.get("pattern")) and not regex.fullmatch(pattern.replace(*SURROGATES), value):
            yield f"{where} must match {pattern}; got {value!r}"
