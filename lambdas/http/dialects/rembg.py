"""The HTTP server of rembg (`rembg s`), version 2.0.86: GET and POST /api/remove.

There, `bgc` and `extras` are read from the query even of a POST and the rest from the form; here from either. What
tunes its alpha matting (a, af, ab, ae) and cleans its masks (ppm, dc, vm) is accepted and does nothing: edges here are
always soft and free of the background's colour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.dialects.picture import body_fields, response, result_of, text_of
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES
from maskdrop.errors import InputError, InvalidOptions, MaskdropError, MissingSource
from maskdrop.options import Options
from maskdrop.output import Colour, Output
from maskdrop.prompt import Prompts, prompts_from_json

PATHS = ("/api/remove",)

PARAMETERS = ("model", "om", "bgc", "extras")
"""Those that do something."""

IGNORED = ("a", "af", "ab", "ae", "ppm", "dc", "vm")
"""Documented parameters that are accepted without effect, as any unknown parameter is."""

ENGINE_OF = {"u2net_human_seg": "portrait", "birefnet-portrait": "portrait"}
"""Their models that are for what one of our engines is for. Names of our own engines are taken as well; any other gets
the default engine, and the answer a warning."""

NO_URL = 'The query has no "url".'

TRUE = {"true", "1", "on", "yes"}
COLOUR = re.compile(r"(\d{1,3}),(\d{1,3}),(\d{1,3})(?:,(\d{1,3}))?", re.ASCII)


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.get("/api/remove")
    def _fetch() -> Response[Any]:
        fields = {name: value for name, value in app.current_event.query_string_parameters.items() if value}
        if "url" not in fields:
            raise MissingSource(NO_URL)
        return process(app, fields["url"], fields)

    @app.post("/api/remove")
    def _take() -> Response[Any]:
        fields = body_fields(app)
        picture = fields.pop("file", None)
        if not isinstance(picture, bytes):
            raise MissingSource('The form has no file "file".')
        return process(app, picture, {**app.current_event.query_string_parameters, **fields})


def error_response(error: MaskdropError) -> Response[Any]:
    """What is wrong with a request is 400, or 422 in FastAPI's form where its file or url is missing."""
    if isinstance(error, MissingSource):
        place = ["query", "url"] if error.message == NO_URL else ["body", "file"]
        missing = {"type": "missing", "loc": place, "msg": error.message, "input": None}
        return Response(422, "application/json", {"detail": [missing]}, {})
    status = 400 if isinstance(error, InputError) else error.status
    return Response(status, "application/json", {"detail": error.message}, {})


def process(app: APIGatewayRestResolver, source: bytes | str, fields: Mapping[str, Any]) -> Response[Any]:
    options, warnings = asked({name: text_of(name, fields[name]) for name in PARAMETERS if name in fields})
    reply = result_of(app, source, options)
    reply = replace(reply, facts=replace(reply.facts, warnings=reply.facts.warnings + warnings))
    return response(app, reply, {}, error_response)


def asked(fields: Mapping[str, str]) -> tuple[Options, tuple[str, ...]]:
    """The options, and what of the request was understood otherwise. Raises InvalidOptions and InvalidPrompt."""
    model = fields.get("model", "")
    name = ENGINE_OF.get(model, model)
    engine = ENGINES.get(name) or ENGINES[DEFAULT_ENGINE["cutout"]]
    known = not model or name in ENGINES
    warnings = () if known else (f"model: there is no {model!r:.80} here; {engine.name} was used.",)
    prompts = _prompts(fields.get("extras", "")) if engine.prompts else ()
    matte = fields.get("om", "").lower() in TRUE
    background = _colour(fields["bgc"]) if fields.get("bgc") and not matte else None
    output = Output(channels="alpha" if matte else "rgba", background=background)
    return Options(engine=engine.name, prompts=prompts, output=output), warnings


def _colour(text: str) -> Colour:
    found = COLOUR.fullmatch(text.replace(" ", ""))
    numbers = [int(number) for number in found.groups() if number] if found else [256]
    if max(numbers) > 255:
        raise InvalidOptions(f'"bgc" is red,green,blue,alpha, each 0 to 255; not {text!r:.80}.', "background")
    return Colour(*numbers)


def _prompts(extras: str) -> Prompts:
    """One subject, by the points and the rectangle of sam_prompt."""
    try:
        marks = json.loads(extras or "{}").get("sam_prompt", [])
        points = [mark for mark in marks if mark["type"] == "point"]
        boxes = [mark["data"] for mark in marks if mark["type"] == "rectangle"]
        prompt: dict[str, Any] = {"box": boxes[-1]} if boxes else {}
        if points:
            prompt |= {"points": [mark["data"] for mark in points], "labels": [mark["label"] for mark in points]}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InvalidOptions(
            '"extras" is JSON: {"sam_prompt": [{"type": "point", "data": [x, y], "label": 1}, '
            '{"type": "rectangle", "data": [x0, y0, x1, y1]}]}.'
        ) from error
    return prompts_from_json(prompt or None)
