"""Dialect of withoutbg: the API of its client 1.3.0 and of its inference server.

Client: POST /v1.0/alpha-channel-base64, GET /available-credit. Inference server: POST /v1/remove-background.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.cutouts import body_of, decoded
from lambdas.http.dialects.shared import CREDITS, body_fields, inline_bytes, response, result_of
from lambdas.http.forms import misplaced_image
from maskdrop.errors import AuthFailed, InvalidOptions, MaskdropError, MissingSource
from maskdrop.options import Options
from maskdrop.output import Output

PATHS = ("/v1.0/alpha-channel-base64", "/available-credit", "/v1/remove-background")

OPTIONS = {"cutout": Options(), "matte": Options(output=Output(channels="alpha"))}
"""Value of `output` -> options."""


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.post("/v1.0/alpha-channel-base64")
    def _alpha() -> dict[str, Any]:
        image = _image(body_fields(app), "image_base64")
        return {"alpha_base64": _encoded(app, image, "matte")}

    @app.get("/available-credit")
    def _credit() -> dict[str, Any]:
        return {"credit": CREDITS, "expiration_date": None}

    @app.post("/v1/remove-background")
    def _remove() -> Response[Any]:
        return remove_background(app)


def error_response(error: MaskdropError) -> Response[Any]:
    """Returns 401 instead of 403 for an invalid key: the client reports a 403 as expired credits."""
    status = 401 if isinstance(error, AuthFailed) else error.status
    return Response(status, "application/json", {"error": error.message}, {})


def remove_background(app: APIGatewayRestResolver) -> Response[Any]:
    """Returns the file for an image in the body or in the field `image` of a form.

    For a JSON object with `image` in base64, returns JSON with cut-out and matte; this processes the image twice.
    Raises InvalidOptions and the errors of `result_of`.
    """
    event, start = app.current_event, time.monotonic()
    output = (event.query_string_parameters.get("output") or "cutout").lower()
    if output not in OPTIONS:
        raise InvalidOptions(f'"output" must be one of {", ".join(OPTIONS)}; got {output!r:.80}.')
    kind = event.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        image = _image(body_fields(app), "image")
        body = {"processed": _encoded(app, image, "cutout"), "alphaMatte": _encoded(app, image, "matte")}
        latency = _ms_since(start)
        return Response(200, "application/json", body | {"latencyMs": latency}, {"X-Latency-Ms": str(latency)})
    form = kind == "multipart/form-data"
    image = _file(body_fields(app)) if form else body_of(event, app.context["settings"])
    reply = result_of(app, image, OPTIONS[output])
    return response(app, reply, {"X-Latency-Ms": str(_ms_since(start))}, error_response)


def _file(fields: dict[str, Any]) -> bytes:
    """Returns the file of the form; b"" without one. Raises MissingSource if it has another name."""
    image = fields.pop("image", b"")
    if not image and (name := misplaced_image(fields)):
        raise MissingSource(f'The form has no file "image": rename its field {name!r:.80} to "image".')
    return bytes(image)


def _image(fields: dict[str, Any], name: str) -> bytes:
    match fields.get(name):
        case None:
            other = misplaced_image(fields)
            advice = "" if other is None else f" Rename the field {other!r:.80} to it."
            raise MissingSource(f'The body must have "{name}": an image in base64.{advice}')
        case str(encoded):
            return decoded(encoded, name)
    raise InvalidOptions(f'"{name}" must be a string: an image in base64.')


def _encoded(app: APIGatewayRestResolver, image: bytes, output: str) -> str:
    return base64.b64encode(inline_bytes(result_of(app, image, OPTIONS[output]))).decode()


def _ms_since(start: float) -> int:
    return round((time.monotonic() - start) * 1000)
