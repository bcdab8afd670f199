"""JSON Schemas (2020-12) of requests and responses, derived from the types, tables and grammars that parse and write
them. `components` returns the named schemas, which refer to each other as in an OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from maskdrop.canvas import MARKETPLACES
from maskdrop.catalog import ENGINES, Task
from maskdrop.edit import CANDIDATES_MAX, PROMPT_MAX, SEED_MAX, Candidate, Change
from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Result, ResultItem, Review, Source, Subject, Webhook
from maskdrop.options import Instances, Options, Refine
from maskdrop.output import FIELDS
from maskdrop.presets import DEFAULT_PRESET, NAME
from maskdrop.prompt import FAR, LABEL_MAX, MARKS_MAX, Mode, Select
from maskdrop.record import not_none
from maskdrop.strokes import POINTS_MAX, STROKES_MAX, WIDTH_MAX, WIDTH_MIN, WIDTH_PATTERN, StrokeMode

Schema = dict[str, Any]

SCORE: Schema = {"type": "number", "minimum": 0, "maximum": 1}

JOB_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}

OPTIONS = {
    "preset": "Name of a preset.",
    "task": "Kind of processing.",
    "engine": "Engine; by default that of the preset.",
    "prompt": "Location of the subject: a prompt, or a list of prompts.",
    "output": "Form of the result.",
    "instances": "One result with all instances, or also one for each instance.",
    "edit": "Images to generate from text, for the task `replace`.",
    "refine": "How alpha gets the size of the image; `vitmatte` where its weights are installed.",
    "review_below": "A result whose `subject.score` is lower needs a review; by default a calibrated threshold.",
    "strokes": f"Corrections of the alpha by a brush, in the order in which they are drawn; at most {STROKES_MAX}.",
}
"""Descriptions of the options in a request."""

EDIT = {
    "prompts": "Texts that describe the generated part of the image.",
    "negative_prompt": "What the generated part must not show.",
    "seeds": "Seeds of the generator.",
    "change": "The part that is generated: the background, or the subject.",
}
"""Descriptions of the fields of an edit."""

RESPONSES: dict[type, dict[str, str]] = {
    Job: {
        "owner": "Owner of the job; empty for photos of the drop folder.",
        "warnings": "Remarks on the result, such as `no_subject`.",
        "results": "One result for each instance or candidate; empty where `result` is the only one.",
        "stage": "Stage of an edit; `segment` for all other jobs.",
        "candidates": "Generated images of an edit.",
        "attempts": "Number of submissions to the endpoint.",
        "bundle": "ID of the bundle in which the job was last submitted; empty before.",
        "timings": "Milliseconds by processing step.",
        "cost_usd": "Calculated cost in US dollars; null if nothing is billed.",
        "changed_at": "Time of the last change of `state`.",
        "finished_at": "Time at which the job was done or failed.",
        "trace_id": "Trace ID of the request's `traceparent` header, else of the request, or of the dropped photo.",
        "review": "Review of the result by a person; null before.",
    },
    Source: {
        "version_id": "S3 version, or the ETag in a bucket without versions.",
        "bytes": "Size of the file; null if unknown.",
        "sequencer": "Order of writes to one key, as S3 reports it; empty if unknown.",
    },
    Result: {"width": "In pixels.", "height": "In pixels.", "bytes": "Size of the file."},
    ResultItem: {
        "label": "Label of the instance; empty without a label.",
        "score": "Confidence of the detector, else mean certainty of the matte, 0 to 1.",
        "box": "Box of the instance, x0, y0, x1, y1 in pixels of the upright source.",
        "prompt": "Text of the candidate; empty for an instance.",
        "seed": "Seed of the candidate; null for an instance.",
    },
    Candidate: {
        "number": "Number of the candidate, from 1.",
        "model": "Model that generated the image.",
        "cost_usd": "Price of the image in US dollars.",
    },
    Subject: {
        "box": "x0, y0, x1, y1 in pixels of the upright source; null without a subject.",
        "coverage": "Mean opacity of the matte, 0 to 1.",
        "score": "Of `auto`: probability that the IoU is at least 0.9; else mean certainty of the matte. 0 to 1.",
        "kind": "What the subject is.",
        "engine": "Engine that segmented the subject.",
        "needs_review": "Whether `score` is below the `review_below` of the options.",
    },
    Review: {
        "verdict": "Whether the person accepted or corrected the result.",
        "reviewer": "ID of the API key that sent the review, or the caller by IAM.",
        "training": "Whether the correction is kept as a training record.",
    },
    Webhook: {"url": "URL that receives the event.", "key": "Digest of the API key whose secret signs the event."},
    ErrorInfo: {"retryable": "Whether a retry can succeed."},
}
"""Descriptions of the fields of a response, by dataclass. Fields whose name is clear have none."""

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
    """The schema of a type in the JSON form of `maskdrop.record`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"type": "string", "enum": list(inner)}
    if origin is UnionType:
        return or_null(of(not_none(kind)))
    if origin is dict:
        return {"type": "object", "additionalProperties": of(inner[1])}
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": of(inner[0])}
    if origin is tuple:  # items of one type, as in a box
        return {"type": "array", "items": of(inner[0]), "minItems": len(inner), "maxItems": len(inner)}
    return _PLAIN[kind] if kind in _PLAIN else ref(kind.__name__)


def or_null(schema: Schema) -> Schema:
    if "type" in schema and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def record(properties: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object of a response: later releases may add fields."""
    return {"type": "object", "properties": {**properties, **(optional or {})}, "required": list(properties)}


def request(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    """An object of a request: unknown fields are rejected."""
    return {**record(required, optional), "additionalProperties": False}


def fields_of(kind: type, *omitted: str) -> dict[str, Schema]:
    """Schemas of the fields of a dataclass, without `omitted`."""
    schemas = {name: of(hint) for name, hint in get_type_hints(kind).items() if name not in omitted}
    return described(schemas, RESPONSES.get(kind, {}))


def described(schemas: Mapping[str, Schema], descriptions: Mapping[str, str]) -> dict[str, Schema]:
    """Adds descriptions to the schemas of fields, by name."""
    return {
        name: {**schema, "description": descriptions[name]} if name in descriptions else schema
        for name, schema in schemas.items()
    }


def matching(pattern: str, *, empty: bool = False) -> Schema:
    """A string that matches `pattern` as a whole. empty: also allows an empty string."""
    return {"type": "string", "pattern": f"^(?:{pattern}{'|' if empty else ''})$"}


def output_fields(*, flat: bool) -> dict[str, Schema]:
    """Schemas of the output fields. flat: each is a string, as in a query or form; an empty one means absent."""
    schemas = {}
    for name, field in FIELDS.items():
        schema = matching(field.pattern, empty=flat)
        if not flat:
            schema["type"] = ["string", "boolean", "null"] if name == "crop" else ["string", "null"]
        schemas[name] = {**schema, "description": f"{field.grammar[0].upper()}{field.grammar[1:]}."}
    schemas["background"]["description"] += " Only a preset may name an image."
    if not flat:
        schemas["canvas"]["x-marketplaces"] = {name: rules.to_json() for name, rules in MARKETPLACES.items()}
    return schemas


def option_fields(*, flat: bool, task: Task | None = None) -> dict[str, Schema]:
    """Schemas of the option fields. flat: as in `output_fields`, with the output fields at the same level. task: the
    only one, which limits the engines; None for every task."""
    enums: dict[str, list[str]] = {
        "task": [task] if task else [*get_args(Task)],
        "engine": [name for name, engine in ENGINES.items() if task is None or task in engine.tasks],
        "instances": [*get_args(Instances)],
        "refine": [*get_args(Refine)],
    }
    named: dict[str, Schema] = {"preset": {**matching(NAME.pattern, empty=flat), "default": DEFAULT_PRESET}}
    named |= {name: {"type": "string", "enum": [*values, ""] if flat else values} for name, values in enums.items()}
    prompts = [ref("Prompt"), {"type": "array", "items": ref("Prompt"), "maxItems": MARKS_MAX}]
    if flat:
        flat_fields: dict[str, Schema] = {**named, "prompt": {"anyOf": prompts, "default": {}}, "edit": ref("Edit")}
        flat_fields["review_below"] = SCORE
        flat_fields["strokes"] = _strokes()
        return {**described(flat_fields, OPTIONS), **output_fields(flat=True)}
    fields: dict[str, Schema] = {name: or_null(schema) for name, schema in named.items()}
    fields["prompt"] = {"anyOf": [*prompts, {"type": "null"}], "default": {}}
    fields["edit"] = or_null(ref("Edit"))
    fields["review_below"] = or_null(SCORE)
    fields["strokes"] = or_null(_strokes())
    fields["output"] = {"anyOf": [ref("Output"), {"type": "null"}], "default": {}}
    return described(fields, OPTIONS)


def _prompt() -> Schema:
    """The schema of a prompt: a box, points, or both."""
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
            "label": {"type": ["string", "null"], "minLength": 1, "maxLength": LABEL_MAX},
            "select": or_null(of(Select)),
            "min_confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
            "mode": or_null(of(Mode)),
        },
    )
    description = (
        "One or several subjects. By location, in pixels of the upright image: a box (x0, y0, x1, y1), points (x, y), "
        "or both; `labels` are 1 on the subject, 0 on the background, by default all 1. Or by a `label` such as face: "
        "all instances, or the largest, with at least `min_confidence` percent; points select some of them. The mode "
        "`ignore` removes the marked instances from the subject."
    )
    return {**schema, "description": description}


def _strokes() -> Schema:
    return {"type": "array", "items": ref("Stroke"), "maxItems": STROKES_MAX}


def _stroke() -> Schema:
    """The schema of a stroke of a request."""
    number = {"type": "number", "minimum": -FAR, "maximum": FAR}
    point = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    schema = request(
        {
            "mode": of(StrokeMode),
            "width": {
                "anyOf": [
                    {"type": "number", "minimum": WIDTH_MIN, "maximum": WIDTH_MAX["px"]},
                    matching(WIDTH_PATTERN),
                ]
            },
            "points": {"type": "array", "items": point, "minItems": 1, "maxItems": POINTS_MAX},
        },
        {"hardness": {**or_null(SCORE), "default": 1}},
    )
    description = (
        "A line of a round brush that erases or restores the subject. `width` is its diameter, in pixels or in percent "
        "of the longer side. `hardness` is the share of the radius with full effect. `points` are in pixels of the "
        f"upright image; all strokes together have at most {POINTS_MAX:,}."
    )
    return {**schema, "description": description}


def _detections() -> Schema:
    """The schema of the result of the task "detect"."""
    one = record(
        {
            "label": of(str),
            "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Confidence."},
            "box": {**of(tuple[float, float, float, float]), "description": "In pixels of the upright image."},
        }
    )
    labels = {"type": ["array", "null"], "items": of(str), "description": "Known labels; null for any label."}
    return record(
        {
            "width": of(int),
            "height": of(int),
            "engine": of(str),
            "labels": labels,
            "detections": {"type": "array", "items": one},
        }
    )


def _edit() -> Schema:
    """The schema of an edit: a text, or an object."""
    text: Schema = {"type": "string", "minLength": 1, "maxLength": PROMPT_MAX, "pattern": r"\S"}
    seed: Schema = {"type": "integer", "minimum": 0, "maximum": SEED_MAX}
    several = {"minItems": 1, "maxItems": CANDIDATES_MAX}
    fields: dict[str, Schema] = {
        "prompts": {"anyOf": [text, {"type": "array", "items": text, **several}]},
        "negative_prompt": {"type": ["string", "null"], "maxLength": PROMPT_MAX},
        "seeds": {"anyOf": [seed, {"type": "array", "items": seed, **several}], "default": 0},
        "change": or_null(of(Change)),
    }
    described_fields = described(fields, EDIT)
    whole = request({"prompts": described_fields.pop("prompts")}, described_fields)
    description = f"Images to generate, one for each prompt and seed, at most {CANDIDATES_MAX}. A text is one prompt."
    return {"anyOf": [text, whole], "description": description}


def response_options() -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Schemas of the options in a job or preset of a response: of those that are always written, and of the others
    (`Options.to_json`)."""
    output: dict[str, Schema] = {name: of(str) for name in FIELDS}
    options = {name: of(str) for name in ("fit", "position", "fill")}
    place = record({"bucket": of(str), "key": of(str)}, options)
    output["background"] = {"anyOf": [of(str), place]}
    written = {name: output.pop(name) for name in ("format", "channels")}
    prompts = {"anyOf": [ref("Prompt"), {"type": "array", "items": ref("Prompt")}]}
    chosen = ("prompts", "output", "instances", "edit", "refine", "review_below", "strokes")
    written_always = {**fields_of(Options, *chosen), "prompt": prompts, "output": record(written, output)}
    where_chosen = {
        "instances": of(Instances),
        "edit": ref("Edit"),
        "refine": of(Refine),
        "review_below": SCORE,
        "strokes": _strokes(),
    }
    return written_always, described(where_chosen, OPTIONS)


def components() -> dict[str, Schema]:
    """All named schemas."""
    always, where_chosen = response_options()
    url = {"type": "string", "format": "uri", "description": "Presigned URL of the file, valid for 15 minutes."}
    return {
        "Prompt": _prompt(),
        "Edit": _edit(),
        "Stroke": _stroke(),
        "Output": {
            **request({}, output_fields(flat=False)),
            "description": "Form of the result. A null field selects the default and overrides the preset.",
        },
        "Job": record({**fields_of(Job, "options"), "id": JOB_ID, **always}, where_chosen),
        "Source": record(fields_of(Source)),
        "Result": record(fields_of(Result), {"url": url}),
        "ResultItem": record(fields_of(ResultItem)),
        "Detections": _detections(),
        "Candidate": record(fields_of(Candidate)),
        "Subject": record(fields_of(Subject)),
        "Review": record(fields_of(Review)),
        "Webhook": record({"url": fields_of(Webhook)["url"]}),  # as in Job.public
        "ErrorInfo": record(fields_of(ErrorInfo)),
    }
