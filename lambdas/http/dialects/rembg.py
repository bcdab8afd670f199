"""Dialect of the HTTP server of rembg (`rembg s`), version 2.0.86: GET and POST /api/remove.

rembg reads `bgc` and `extras` of a POST from the query, and the other parameters from the form; this dialect reads all
from both. It ignores the parameters of alpha matting (a, af, ab, ae) and of mask cleaning (ppm, dc): results always
have soft edges without the colour of the background. What the server cannot do as rembg does is a warning in the
header X-Maskdrop-Warnings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.cutouts import image_in
from lambdas.http.dialects.shared import body_fields, response, result_of, text_of
from lambdas.http.forms import misplaced_image
from maskdrop.background import Colour
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, PROMPTED_ENGINE
from maskdrop.errors import InputError, InvalidOptions, MaskdropError, MissingSource, UnknownEngine
from maskdrop.grammar import boolean
from maskdrop.options import REFINER, Options, Refine
from maskdrop.output import Output
from maskdrop.prompt import Prompts, prompts_from_json
from maskdrop.settings import Settings

PATHS = ("/api/remove",)

PARAMETERS = ("model", "om", "bgc", "vm", "extras")
"""Parameters that are not ignored."""

IGNORED = ("a", "af", "ab", "ae", "ppm", "dc")
"""Documented parameters that are accepted without effect, as any unknown parameter is."""

ENGINE_OF = {"birefnet-general-fp16": "birefnet-general"}
"""Model of rembg -> engine of another name. The other models are engines of the same name, and all engines that segment
are accepted. No model selects the default engine, not rembg's: `bria-rmbg` needs a licence for commercial use."""

MODELS = [name for name, engine in ENGINES.items() if engine.returns != "boxes"]

VITMATTE = "vitmatte-small"
"""Name of ViTMatte's weights in `maskdrop models`."""

NO_FILE = 'The form must have the file "file", with at least one byte.'
NO_URL = 'The query must have "url".'

COLOUR = re.compile(r"(\d{1,3}),(\d{1,3}),(\d{1,3})(?:,(\d{1,3}))?", re.ASCII)


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.get("/api/remove")
    def _fetch() -> Response[Any]:
        fields = {name: value for name, value in app.current_event.query_string_parameters.items() if value}
        if "url" not in fields:
            raise MissingSource(NO_URL)
        return process(app, image_in(fields["url"], "url"), fields)

    @app.post("/api/remove")
    def _upload() -> Response[Any]:
        fields = body_fields(app)
        image = fields.pop("file", None)
        if not isinstance(image, bytes):
            name = misplaced_image(fields)
            raise MissingSource(NO_FILE if name is None else f'{NO_FILE} Rename its field {name!r:.80} to "file".')
        return process(app, image, {**app.current_event.query_string_parameters, **fields})


def error_response(error: MaskdropError) -> Response[Any]:
    """Returns 400 for an invalid request, and 422 in the format of FastAPI if the file or URL is missing."""
    if isinstance(error, MissingSource):
        location = ["query", "url"] if error.message == NO_URL else ["body", "file"]
        missing = {"type": "missing", "loc": location, "msg": error.message, "input": None}
        return Response(422, "application/json", {"detail": [missing]}, {})
    status = 400 if isinstance(error, InputError) else error.status
    return Response(status, "application/json", {"detail": error.message}, {})


def process(app: APIGatewayRestResolver, source: bytes | str, fields: Mapping[str, Any]) -> Response[Any]:
    texts = {name: text_of(name, fields[name]) for name in PARAMETERS if name in fields}
    options, warnings = installed(options_of(texts), app.context["settings"])
    warnings += _ignored_extras(texts.get("extras", ""), options)
    reply = result_of(app, source, options)
    headers = {"X-Maskdrop-Warnings": json.dumps([*reply.facts.warnings, *warnings])} if warnings else {}
    return response(app, reply, headers, error_response)


def options_of(fields: Mapping[str, str]) -> Options:
    """Returns the options. Raises UnknownEngine, InvalidOptions, InvalidPrompt."""
    model = fields.get("model") or DEFAULT_ENGINE["cutout"]
    if ENGINE_OF.get(model, model) not in MODELS:
        raise UnknownEngine(f'"model" must be one of {", ".join([*MODELS, *ENGINE_OF])}; got {model!r:.80}.')
    engine = ENGINES[ENGINE_OF.get(model, model)]
    prompts = _prompts(fields.get("extras", "")) if engine.prompts else ()
    matte = _boolean("om", fields.get("om") or "false")
    refine: Refine = REFINER if _boolean("vm", fields.get("vm") or "false") else "guided"
    background = _colour(fields["bgc"]) if fields.get("bgc") and not matte else None
    output = Output(channels="alpha" if matte else "rgba", background=background)
    return Options(engine=engine.name, prompts=prompts, output=output, refine=refine)


def installed(options: Options, settings: Settings) -> tuple[Options, list[str]]:
    """Returns options that the server can process, and a warning for each change.

    Without ViTMatte where it is not known to be installed, and with GrabCut for the prompts of SAM without SAM.
    """
    warnings = []
    if options.refine == REFINER and not settings.has_engine(REFINER):
        options = replace(options, refine="guided")
        how = f"`maskdrop models pull {VITMATTE}`"
        warnings.append(f"vm_ignored: ViTMatte is not known to be installed on this server: {how}")
    if options.prompts and settings.has_engine(options.engine) is False:
        warnings.append(
            f"model_replaced: {options.engine} is not installed on this server; {PROMPTED_ENGINE} segmented the prompts"
        )
        options = replace(options, engine=PROMPTED_ENGINE)
    return options, warnings


def _ignored_extras(extras: str, options: Options) -> list[str]:
    """Returns a warning for each of rembg's extras for SAM that has no effect."""
    try:
        names = json.loads(extras or "{}").keys() & {"sam_prompt", "sam_model"}
    except (ValueError, RecursionError, AttributeError):
        return []  # as rembg's other models, those without prompts do not read it
    if options.prompts:
        names -= {"sam_prompt"}
    reasons = {
        "sam_model": "the installed weights of SAM are used",
        "sam_prompt": f"the engine {options.engine} has no prompts; use model=sam",
    }
    return [f"{name}_ignored: {reasons[name]}" for name in sorted(names)]


def _boolean(name: str, text: str) -> bool:
    try:
        return boolean(text)
    except ValueError:
        raise InvalidOptions(f'"{name}" must be true or false; got {text!r:.80}.') from None


def _colour(text: str) -> Colour:
    found = COLOUR.fullmatch(text.replace(" ", ""))
    numbers = [int(number) for number in found.groups() if number] if found else []
    if not numbers or max(numbers) > 255:
        raise InvalidOptions(
            f'"bgc" must be red,green,blue or red,green,blue,alpha, each from 0 to 255; got {text!r:.80}.', "background"
        )
    return Colour(*numbers)


def _prompts(extras: str) -> Prompts:
    """Returns the prompt of one subject: the points and the last rectangle of `sam_prompt`. Raises InvalidOptions."""
    try:
        marks = json.loads(extras or "{}").get("sam_prompt", [])
        points = [mark for mark in marks if mark["type"] == "point"]
        boxes = [mark["data"] for mark in marks if mark["type"] == "rectangle"]
        prompt: dict[str, Any] = {"box": boxes[-1]} if boxes else {}
        if points:
            prompt |= {"points": [mark["data"] for mark in points], "labels": [mark["label"] for mark in points]}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InvalidOptions(
            '"extras" must be JSON such as {"sam_prompt": [{"type": "point", "data": [x, y], "label": 1}, '
            '{"type": "rectangle", "data": [x0, y0, x1, y1]}]}.'
        ) from error
    return prompts_from_json(prompt or None)
