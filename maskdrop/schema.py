"""JSON Schemas (2020-12) of what is asked for and what is told, made from the types, tables and grammars that read and
write it. `components` gives those with a name, which refer to one another as an OpenAPI document does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from maskdrop.catalog import ENGINES, Task
from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Result, Source, Subject, Webhook
from maskdrop.options import Options
from maskdrop.output import FIELDS
from maskdrop.presets import DEFAULT_PRESET, NAME
from maskdrop.prompt import FAR, MARKS_MAX

Schema = dict[str, Any]

JOB_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}

_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def of(kind: Any) -> Schema:
    """A type as `to_json` of our records writes it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"type": "string", "enum": list(inner)}
    if origin is UnionType:
        return or_null(of(next(one for one in inner if one is not NoneType)))
    if origin is dict:
        return {"type": "object", "additionalProperties": of(inner[1])}
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": of(inner[0])}
    if origin is tuple:  # of one kind, as boxes are
        return {"type": "array", "items": of(inner[0]), "minItems": len(inner), "maxItems": len(inner)}
    return _PLAIN[kind] if kind in _PLAIN else ref(kind.__name__)


def or_null(schema: Schema) -> Schema:
    if "type" in schema and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def record(properties: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object that is told: it may gain fields."""
    return {"type": "object", "properties": {**properties, **(optional or {})}, "required": list(properties)}


def request(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    """An object that is asked with: it has no other fields."""
    return {**record(required, optional), "additionalProperties": False}


def fields_of(kind: type, *besides: str) -> dict[str, Schema]:
    """Those of a dataclass, without `besides`."""
    return {name: of(hint) for name, hint in get_type_hints(kind).items() if name not in besides}


def matching(pattern: str, *, empty: bool = False) -> Schema:
    """A whole text. empty: or none at all."""
    return {"type": "string", "pattern": f"^(?:{pattern}{'|' if empty else ''})$"}


def output_fields(*, flat: bool) -> dict[str, Schema]:
    """Of a result. flat: each as a text, as a query and a form have them, where an empty one is not there."""
    schemas = {}
    for name, field in FIELDS.items():
        schema = matching(field.pattern, empty=flat)
        if not flat:
            schema["type"] = ["string", "boolean", "null"] if name == "crop" else ["string", "null"]
        schemas[name] = {**schema, "description": f"{field.grammar[0].upper()}{field.grammar[1:]}."}
    if not flat:
        schemas["background"]["description"] += " Only a preset, the operator's, names an image."
    return schemas


def option_fields(*, flat: bool) -> dict[str, Schema]:
    """What is to be done with an image. flat: as in `output_fields`, whose fields then stand beside these."""
    enums: dict[str, list[str]] = {"task": [*get_args(Task)], "engine": [*ENGINES]}
    named: dict[str, Schema] = {"preset": {**matching(NAME.pattern, empty=flat), "default": DEFAULT_PRESET}}
    named |= {name: {"type": "string", "enum": [*values, ""] if flat else values} for name, values in enums.items()}
    prompts = [ref("Prompt"), {"type": "array", "items": ref("Prompt"), "maxItems": MARKS_MAX}]
    if flat:
        return {**named, "prompt": {"anyOf": prompts, "default": {}}, **output_fields(flat=True)}
    return {
        **{name: or_null(schema) for name, schema in named.items()},
        "prompt": {"anyOf": [*prompts, {"type": "null"}], "default": {}},
        "output": {"anyOf": [ref("Output"), {"type": "null"}], "default": {}},
    }


def _prompt() -> Schema:
    """One subject: a box, points, or both."""
    number = {"type": "number", "minimum": -FAR, "maximum": FAR}
    schema = request(
        {},
        {
            "box": {"type": ["array", "null"], "items": number, "minItems": 4, "maxItems": 4},
            "points": {
                "type": ["array", "null"],
                "items": {"type": "array", "items": number, "minItems": 2, "maxItems": 2},
                "maxItems": MARKS_MAX,
            },
            "labels": {"type": ["array", "null"], "items": {"enum": [0, 1]}, "maxItems": MARKS_MAX},
        },
    )
    told = (
        "Where one subject is, in pixels of the upright image: a box (x0, y0, x1, y1), points (x, y), or both. A "
        "label is 1 on the subject, 0 beside it; no labels are all 1."
    )
    return {**schema, "description": told}


def told_options() -> dict[str, Schema]:
    """As a job has them, and a preset."""
    output: dict[str, Schema] = {name: of(str) for name in FIELDS}
    place = record({"bucket": of(str), "key": of(str)})
    output["background"] = {"anyOf": [of(str), place]}
    written = {name: output.pop(name) for name in ("format", "channels")}
    prompts = {"anyOf": [ref("Prompt"), {"type": "array", "items": ref("Prompt")}]}
    return {**fields_of(Options, "prompts", "output"), "prompt": prompts, "output": record(written, output)}


def components() -> dict[str, Schema]:
    """By name."""
    url = {"type": "string", "format": "uri", "description": "Where the file can be had for some minutes."}
    return {
        "Prompt": _prompt(),
        "Output": {
            **request({}, output_fields(flat=False)),
            "description": "The form of the result. A field that is null is the default, whatever the preset says.",
        },
        "Job": record({**fields_of(Job, "options"), "id": JOB_ID, **told_options()}),
        "Source": record(fields_of(Source)),
        "Result": record(fields_of(Result), {"url": url}),
        "Subject": record(fields_of(Subject)),
        "Webhook": record(fields_of(Webhook)),
        "ErrorInfo": record(fields_of(ErrorInfo)),
    }
