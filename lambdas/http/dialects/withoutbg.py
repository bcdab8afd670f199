"""withoutbg's API, as its client 1.3.0 speaks it (POST /v1.0/alpha-channel-base64, GET /available-credit), and that of
its inference server (POST /v1/remove-background)."""

from __future__ import annotations

import base64
import time
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.cutouts import body_of, decoded
from lambdas.http.dialects.picture import CREDITS, body_fields, inline_bytes, response, result_of
from maskdrop.errors import AuthFailed, InvalidOptions, MaskdropError, MissingSource
from maskdrop.options import Options
from maskdrop.output import Output

PATHS = ("/v1.0/alpha-channel-base64", "/available-credit", "/v1/remove-background")

OPTIONS = {"cutout": Options(), "matte": Options(output=Output(channels="alpha"))}
"""What `output` may be."""


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.post("/v1.0/alpha-channel-base64")
    def _alpha() -> dict[str, Any]:
        picture = _picture(body_fields(app), "image_base64")
        return {"alpha_base64": _encoded(app, picture, "matte")}

    @app.get("/available-credit")
    def _credit() -> dict[str, Any]:
        return {"credit": CREDITS, "expiration_date": None}

    @app.post("/v1/remove-background")
    def _remove() -> Response[Any]:
        return remove_background(app)


def error_response(error: MaskdropError) -> Response[Any]:
    """Their client has a text of its own for 401, 402, 403 and 429, and takes 403 for credits that have expired."""
    status = 401 if isinstance(error, AuthFailed) else error.status
    return Response(status, "application/json", {"error": error.message}, {})


def remove_background(app: APIGatewayRestResolver) -> Response[Any]:
    """An image as the body or as `image` of a form gives the file; one in base64 as `image` of a JSON object gives
    cut-out and matte in JSON, and is worked twice for it. Raises InvalidOptions and what `result_of` raises."""
    event, began = app.current_event, time.monotonic()
    output = event.query_string_parameters.get("output") or "cutout"
    if output not in OPTIONS:
        raise InvalidOptions(f'"output" is one of {", ".join(OPTIONS)}, not {output!r:.80}.')
    kind = event.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        picture = _picture(body_fields(app), "image")
        body = {"processed": _encoded(app, picture, "cutout"), "alphaMatte": _encoded(app, picture, "matte")}
        latency = _ms_since(began)
        return Response(200, "application/json", body | {"latencyMs": latency}, {"X-Latency-Ms": str(latency)})
    picture = body_fields(app).get("image", b"") if kind == "multipart/form-data" else body_of(event)
    reply = result_of(app, picture, OPTIONS[output])
    return response(app, reply, {"X-Latency-Ms": str(_ms_since(began))}, error_response)


def _picture(fields: dict[str, Any], name: str) -> bytes:
    match fields.get(name):
        case None:
            raise MissingSource(f'The body has no "{name}", an image in base64.')
        case str(encoded):
            return decoded(encoded, name)
    raise InvalidOptions(f'"{name}" is a text.')


def _encoded(app: APIGatewayRestResolver, picture: bytes, output: str) -> str:
    return base64.b64encode(inline_bytes(result_of(app, picture, OPTIONS[output]))).decode()


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
