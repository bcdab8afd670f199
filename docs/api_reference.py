"""Renders the OpenAPI document of the HTTP API as a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from maskdrop.errors import MaskdropError

PATTERN_MAX = 60
"""Characters of a regular expression that is shown; a longer one is described in words by its schema."""

FORMATS = {"binary": "bytes", "byte": "base64 string", "uri": "URL", "date-time": "date-time string (ISO 8601)"}
"""Formats of strings, and how the page names them."""

Schema = Mapping[str, Any]


def api_page(api: Schema) -> Iterator[str]:
    """Yields the lines of the reference of the HTTP API. api: its OpenAPI document."""
    schemas = api["components"]["schemas"]
    yield f"# HTTP API\n\n{api['info']['description']}\n"
    yield "The OpenAPI document itself: `GET /v1/openapi.json`. How to call the API: [operations](operations.md).\n"
    named = [(f"{method.upper()} {path}", shape) for path, at in api["paths"].items() for method, shape in at.items()]
    yield from table(("operation", "description"), ((f"[`{n}`](#{s['operationId']})", s["summary"]) for n, s in named))
    for name, shape in named:
        yield from _operation(f"`{name}`", shape)
    for at in api["webhooks"].values():
        yield from _operation("Webhook: POST to its URL", at["post"])
    yield "## Schemas\n"
    for name, schema in schemas.items():
        yield f"### {name} {{#{name.lower()}}}\n"
        if "description" in schema:
            yield f"{schema['description']}\n"
        yield from _body(schema)
    yield "## Error codes\n"
    yield 'Every error has the body `{"error": …}` with an [ErrorInfo](#errorinfo).\n'
    yield from table(("code", "status", "retryable"), _error_rows())


def table(head: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yields the lines of a Markdown table and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _operation(name: str, shape: Schema) -> Iterator[str]:
    yield f"## {name} {{#{shape['operationId']}}}\n"
    yield f"{shape['summary']}.\n"
    if "description" in shape:
        yield f"{shape['description']}\n"
    if shape.get("security") == []:
        yield "No API key is needed.\n"
    if parameters := shape.get("parameters"):
        yield "**Parameters**\n"
        yield from table(("name", "in", "type", "required", "description"), map(_parameter, parameters))
    bodies: dict[str, list[str]] = {}
    for media_type, content in shape.get("requestBody", {}).get("content", {}).items():
        bodies.setdefault("\n".join(_body(content["schema"])), []).append(f"`{media_type}`")
    for body, media_types in bodies.items():
        yield f"**Request body** {', '.join(media_types)}\n\n{body}"
    yield "**Responses**\n"
    responses = (_response(*item) for item in shape["responses"].items())
    yield from table(("status", "description", "body", "headers"), responses)


def _parameter(parameter: Schema) -> tuple[str, ...]:
    schema = parameter["schema"] if "schema" in parameter else parameter["content"]["application/json"]["schema"]
    kind, required, words = _described(schema, required=parameter["required"])
    description = " ".join(filter(None, (parameter.get("description", ""), words)))
    return f"`{parameter['name']}`", parameter["in"], kind, required, description


def _response(status: str, response: Schema) -> tuple[str, ...]:
    """Returns the row of a response. All errors have the same body."""
    kinds: dict[str, list[str]] = {}
    for media_type, content in response.get("content", {}).items():
        is_error = list(content["schema"].get("properties", ())) == ["error"]
        kind = "[error](#error-codes)" if is_error else type_of(content["schema"])
        kinds.setdefault(kind, []).append(f"`{media_type}`")
    body = "; ".join(f"{', '.join(media_types)}: {kind}" for kind, media_types in kinds.items())
    return f"`{status}`", response["description"], body, _names(response.get("headers", {}))


def _body(schema: Schema) -> Iterator[str]:
    """Yields the lines of a body: one table, or one for each alternative."""
    alternatives = schema.get("oneOf") or schema.get("anyOf") or [schema]
    for number, alternative in enumerate(alternatives, 1):
        if len(alternatives) > 1:
            yield f"Alternative {number} of {len(alternatives)}:\n"
        if "properties" in alternative:
            yield from _fields(alternative)
        else:
            yield f"{type_of(alternative)}\n"


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    rows = (
        (f"`{name}`", *_described(field, required=name in required)) for name, field in schema["properties"].items()
    )
    yield from table(("field", "type", "required", "description"), rows)


def _described(schema: Schema, *, required: bool) -> tuple[str, str, str]:
    default = schema.get("default")
    words = [schema.get("description", ""), f"Default: `{default}`." if default not in (None, {}) else ""]
    return type_of(schema), "yes" if required else "no", " ".join(filter(None, words))


def type_of(schema: Schema) -> str:
    """Returns the type of a schema in words, with its limits."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for combination in ("anyOf", "oneOf", "allOf"):
        if combination in schema:
            conjunction = " and " if combination == "allOf" else " or "
            return conjunction.join(dict.fromkeys(map(type_of, schema[combination])))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value != "")
    kinds = schema.get("type", "any")
    return " or ".join(_one(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _one(kind: str, schema: Schema) -> str:
    """Returns one of a schema's types with the limits that belong to it."""
    if kind == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        count = "" if most is None else f" ({most})" if least == most else f" (up to {most})"
        return f"array{count} of {type_of(schema.get('items', {}))}"
    if kind == "object" and "properties" in schema:
        return f"object with {_names(schema['properties'])}"
    if kind == "string":
        pattern = "" if "description" in schema else schema.get("pattern", "")
        shown = f"matching `{pattern}`" if 0 < len(pattern) <= PATTERN_MAX else ""
        most = f"of up to {schema['maxLength']} characters" if "maxLength" in schema else ""
        return " ".join(filter(None, (FORMATS.get(schema.get("format", ""), "string"), most, shown)))
    if kind in ("integer", "number"):
        limits = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
        return " ".join((kind, *limits))
    return kind


def _names(mapping: Schema) -> str:
    return ", ".join(f"`{name}`" for name in mapping)


def _error_rows() -> Iterator[tuple[str, ...]]:
    kinds = {kind.code: kind for kind in _subclasses(MaskdropError) if "code" in vars(kind)}
    for code, kind in sorted(kinds.items(), key=lambda item: (item[1].status, item[0])):
        yield f"`{code}`", str(kind.status), "yes" if kind.retryable else "no"


def _subclasses(kind: type[MaskdropError]) -> Iterator[type[MaskdropError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
