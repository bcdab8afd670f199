"""The JSON form of the records that are stored in a table or sent between processes: one codec for all of them.

A record is a dataclass whose fields, in their order, are the fields of its JSON object. The type hint decides the form:
a `datetime` is ISO 8601 text, a tuple is a list, a record or a class with `to_json` and `from_json` is an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Self, Union, get_args, get_origin, get_type_hints


class Record:
    """Base of the dataclasses with a JSON form."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        data: dict[str, Any] = {}
        for item in _fields_of(type(self)):
            value = _written(getattr(self, item.name))
            if isinstance(item.form, Decimals):
                value = round(value, item.form.count)
            data |= value if isinstance(item.form, Inline) else {item.name: value}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote. A field that is missing or null takes its default.

        Raises KeyError for a missing field without a default, TypeError or ValueError for a value of another type.
        Unknown fields are ignored, so that an older release reads the records of a newer one.
        """
        _check_object(data)
        values = {}
        for item in _fields_of(cls):
            if isinstance(item.form, Inline):
                values[item.name] = item.read({name: data[name] for name in item.form.names if name in data})
            elif item.required or data.get(item.name) is not None:
                values[item.name] = item.read(data[item.name])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Decimals:
    """Annotates a number that is rounded to `count` decimals when it is written."""

    count: int


@dataclass(frozen=True, slots=True)
class Inline:
    """Annotates an object whose own fields, `names`, are fields of the record's object."""

    names: tuple[str, ...]


def iso(moment: datetime) -> str:
    """UTC in ISO 8601 with microseconds and "Z": the text sorts as the times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def not_none(hint: Any) -> Any:
    """The type of `X | None` without None."""
    return next(kind for kind in get_args(hint) if kind is not NoneType)


class _Field(NamedTuple):
    name: str
    read: Callable[[Any], Any]
    required: bool
    form: Decimals | Inline | None


def _fields_of(kind: type) -> tuple[_Field, ...]:
    return _compiled(kind)


@cache
def _compiled(kind: type) -> tuple[_Field, ...]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for item in fields(kind):
        required = item.default is MISSING and item.default_factory is MISSING
        hint, form = hints[item.name], None
        if get_origin(hint) is Annotated:
            hint, form = get_args(hint)
        found.append(_Field(item.name, _reader(hint), required, form))
    return tuple(found)


def _written(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    match value:
        case datetime():
            return iso(value)
        case tuple():
            return [_written(inner) for inner in value]
        case str() | int() | float() | dict():  # of a subclass
            return value
    return value.to_json()


def _reader(hint: Any) -> Callable[[Any], Any]:
    """The function that reads a JSON value as `hint`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):  # Union: of a Literal and None
        read = _reader(not_none(hint))
        return lambda value: None if value is None else read(value)
    if origin is Literal:
        return lambda value: _choice(value, inner)
    if origin is dict:
        read = _reader(inner[1])
        return lambda value: {name: read(each) for name, each in _check_object(value).items()}
    if origin is tuple and inner[-1] is Ellipsis:
        read = _reader(inner[0])
        return lambda value: tuple(read(each) for each in value)
    if origin is tuple:
        reads = [_reader(each) for each in inner]
        return lambda value: tuple(read(each) for read, each in zip(reads, value, strict=True))
    return _SCALARS.get(hint) or hint.from_json


def _check_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.80} is not an object")
    return value


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"{value!r:.80} is not one of {', '.join(choices)}")
    return value


def _whole(value: Any) -> int:
    """DynamoDB and other writers may return 3 as 3.0."""
    try:
        return int(value)
    except OverflowError as error:
        raise ValueError(f"{value!r} is not a whole number") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a string")
    return value


_PLAIN = frozenset((NoneType, str, bool, int, float, dict))
"""Types of values that JSON has as they are: most values of a record."""

_SCALARS: dict[Any, Callable[[Any], Any]] = {
    str: _text,
    int: _whole,
    float: float,
    bool: bool,
    datetime: datetime.fromisoformat,
}
