"""Dialect of an older SageMaker endpoint that segments by SAM: POST /invocations (maskdrop/predecessor.py).

The request is checked here and forwarded to the interactive endpoint, whose container writes the mask. Only the two
fields are forwarded: other JSON could name S3 objects, which the endpoint reads with its own permissions.
"""

from __future__ import annotations

import json
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.cutouts import body_of, object_of
from lambdas.http.dialects.shared import unavailable
from maskdrop.access import add_usage
from maskdrop.catalog import PROMPTED_ENGINE
from maskdrop.errors import EmptyFile, FileTooLarge, MaskdropError, ResolutionTooHigh, UnsupportedFormat
from maskdrop.interactive import segment_box_now
from maskdrop.predecessor import BOX, IMAGE, parse

PATHS = ("/invocations",)

PARAMETERS = (IMAGE, BOX)


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.post("/invocations")
    def _segment() -> Response[Any]:
        settings, services = app.context["settings"], app.context["services"]
        request = request_of(app)
        reply = segment_box_now(request, settings, services)
        if reply is None:
            raise unavailable(PROMPTED_ENGINE)
        if len(reply) > settings.body_bytes:
            raise ResolutionTooHigh(
                f"The mask has {len(reply):,} bytes in base64; at most {settings.body_bytes:,} are possible. Send a "
                "smaller image."
            )
        add_usage(services.registry, app.context["caller"].owner, app.context["now"], pictures=1)
        return Response(200, "application/json", reply.decode(), {})


def request_of(app: APIGatewayRestResolver) -> bytes:
    """Returns the JSON to forward. Raises UnsupportedFormat, FileTooLarge, EmptyFile, InvalidOptions, InvalidPrompt."""
    event, settings = app.current_event, app.context["settings"]
    kind = event.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedFormat(f"Content-Type must be application/json; got {kind or 'none'}.")
    data = object_of(body_of(event, settings), "The body")
    image, _ = parse(data)
    if not image:
        raise EmptyFile("The request has no image: it has 0 bytes.")
    request = json.dumps({IMAGE: data[IMAGE], BOX: data[BOX]}).encode()
    if len(request) > settings.image_bytes:
        raise FileTooLarge(
            f"The body is too large: at most {settings.image_bytes:,} bytes, an image of almost "
            f"{settings.image_bytes * 3 // 4:,} bytes in base64. Upload a larger image (POST /v1/uploads), then create "
            'a job (POST /v1/jobs) with "task": "mask" and the box as "prompt".'
        )
    return request


def error_response(error: MaskdropError) -> Response[Any]:
    """Returns the error in the format of /v1, as the container does."""
    return Response(error.status, "application/json", {"error": error.info.to_json()}, {})
