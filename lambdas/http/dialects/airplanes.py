"""Dialect of an older detector of airplanes: POST /detect-airplane.

The request is an image file. The response is what the older system's Lambda function returned, JSON inside JSON:
{"statusCode": 200, "body": "{\\"detections\\": [[class, score, x0, y0, x1, y1], …]}"}. The class is the index of a
label of the engine `detector`; the coordinates are ratios of width and height, 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.cutouts import body_of
from lambdas.http.dialects.shared import inline_bytes, result_of
from maskdrop.errors import InvalidOptions, MaskdropError, UnsupportedFormat
from maskdrop.options import Options

PATHS = ("/detect-airplane",)

OPTIONS = Options(task="detect", engine="detector")

PARAMETERS = ("threshold",)

THRESHOLD = 0.3
"""Lowest score in a response by default: that of the older system's page."""

CONTENT_TYPES = ("application/jpeg", "application/octet-stream")
"""Content types of a request besides image/*. The older system's client sends the first one."""


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.post("/detect-airplane")
    def _detect() -> Response[Any]:
        event = app.current_event
        threshold = _threshold(event.query_string_parameters.get("threshold") or "")
        kind = event.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not (kind in CONTENT_TYPES or kind.startswith("image/")):
            raise UnsupportedFormat(
                f"Content-Type must be image/* or {' or '.join(CONTENT_TYPES)}, and the body the image; got "
                f"{kind or 'none'}."
            )
        report = json.loads(inline_bytes(result_of(app, body_of(event, app.context["settings"]), OPTIONS)))
        return _envelope(200, {"detections": rows(report, threshold)})


def error_response(error: MaskdropError) -> Response[Any]:
    """Returns the error in the envelope of the responses, with its HTTP status."""
    return _envelope(error.status, {"error": error.info.to_json()})


def rows(report: Mapping[str, Any], threshold: float) -> list[list[float]]:
    """Returns class, score, x0, y0, x1, y1 of each detection with at least this score, as numbers.

    report: the result of the task `detect`, with boxes in pixels.
    """
    width, height, labels = report["width"], report["height"], report["labels"]
    return [
        [float(labels.index(one["label"])), one["score"], x0 / width, y0 / height, x1 / width, y1 / height]
        for one in report["detections"]
        for x0, y0, x1, y1 in [one["box"]]
        if one["score"] >= threshold
    ]


def _threshold(text: str) -> float:
    """Parses the query parameter. Raises InvalidOptions."""
    try:
        threshold = float(text or THRESHOLD)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise InvalidOptions(f'"threshold" must be a number from 0 to 1; got {text!r:.80}.', "threshold")
    return threshold


def _envelope(status: int, body: Mapping[str, Any]) -> Response[Any]:
    return Response(status, "application/json", {"statusCode": status, "body": json.dumps(body)}, {})
