"""Dialect of remove.bg's API v1.0: POST /v1.0/removebg, GET /v1.0/account, POST /v1.0/improve.

Sources: the vendor's OpenAPI document, and the requests and parsing of its official clients (docs/vendors.md). A
request body is a multipart form, a URL-encoded form or JSON. Empty and unknown fields are ignored.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.cutouts import check_size, decoded
from lambdas.http.dialects.shared import CREDITS, body_fields, inline_bytes, response, result_of, text_of
from maskdrop.background import BackgroundImage, Colour
from maskdrop.catalog import SubjectKind
from maskdrop.errors import (
    BlockedUrl,
    DecodingLimit,
    EmptyFile,
    FailedDownload,
    HostUnavailable,
    InputError,
    InvalidBackground,
    InvalidOptions,
    InvalidUrl,
    MaskdropError,
    MissingSource,
    MultipleSources,
    TooManyRedirects,
    UnknownForeground,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.job import SENT_BACKGROUNDS_PREFIX, UPLOADS_PREFIX
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import ImageResponse

PATHS = ("/v1.0/removebg", "/v1.0/account", "/v1.0/improve")

SOURCES = ("image_file", "image_file_b64", "image_url")
BACKGROUNDS = ("bg_color", "bg_image_url", "bg_image_file")
FILES = ("image_file", "bg_image_file")
BOOLEANS = ("true", "false")
TYPES = ("person", "product", "animal", "car", "transportation", "graphics")
"""Values of `type` that X-Type repeats where the subject is no person."""

PARAMETERS: dict[str, str] = {
    "size": "size",
    "format": "format",
    "channels": "channels",
    "roi": "roi",
    "crop_margin": "crop",
    "scale": "scale",
    "position": "position",
    "bg_color": "background",
}
"""Parameter of remove.bg -> field of the output options with the same grammar."""

KNOWN = {*SOURCES, *BACKGROUNDS, *PARAMETERS, "type", "type_level", "crop", "semitransparency", "add_shadow"}
"""The parameters that are parsed."""

IGNORED = ("shadow_method",)
"""Documented parameters that are accepted without effect, as any unknown parameter is."""

FIELD_CODES = {
    "size": "invalid_size",
    "format": "invalid_format",
    "channels": "invalid_channels",
    "roi": "invalid_roi",
    "crop": "invalid_crop_margin",
    "scale": "invalid_scale",
    "position": "invalid_position",
    "background": "invalid_bg_color",
    "semitransparency": "invalid_semitransparency",
    "bg_image_url": "invalid_bg_image_url",
    "bg_image": "failed_bg_download",
    "bg": "multiple_bg_sources",
    "image_file": "failed_to_read_image",
    "image_file_b64": "failed_to_read_image",
}
"""Field of an InvalidOptions error -> error code of remove.bg."""

CODES: dict[type[MaskdropError], str] = {
    InvalidUrl: "invalid_image_url",
    BlockedUrl: "invalid_image_url",
    TooManyRedirects: "failed_image_download",
    FailedDownload: "failed_image_download",
    HostUnavailable: "failed_image_download",
    EmptyFile: "failed_to_read_image",
    UnreadableImage: "failed_to_read_image",
    DecodingLimit: "failed_to_read_image",
    UnsupportedFormat: "invalid_file_type",
    InvalidBackground: "failed_bg_download",
}
"""Error -> error code of remove.bg, if it differs from `error.code`."""

HEADERS = [
    *("X-Width", "X-Height", "X-Max-Width", "X-Max-Height", "X-Type", "X-Credits-Charged"),
    *(f"X-Foreground-{side}" for side in ("Top", "Left", "Width", "Height")),
]


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.post("/v1.0/removebg")
    def _remove() -> Response[Any]:
        fields = parameters(body_fields(app))
        source, options = source_of(fields), options_of(fields, app.context["settings"], app.context["services"])
        reply = result_of(app, source, options)
        headers = headers_of(reply, fields)
        if "application/json" not in app.current_event.headers.get("accept", ""):
            return response(app, reply, headers, error_response)
        body = {"data": {"result_b64": base64.b64encode(inline_bytes(reply)).decode()}}
        return Response(200, "application/json", body, {**headers})

    @app.get("/v1.0/account")
    def _account() -> dict[str, Any]:
        credits_left = {"total": CREDITS, "subscription": 0, "payg": CREDITS, "enterprise": 0}
        return {"data": {"attributes": {"credits": credits_left, "api": {"free_calls": CREDITS, "sizes": "all"}}}}

    @app.post("/v1.0/improve")
    def _improve() -> dict[str, Any]:
        return improve(source_of(parameters(body_fields(app))), app.context["settings"], app.context["services"])


def error_response(error: MaskdropError) -> Response[Any]:
    """Returns 400 for every invalid request, as remove.bg does; other errors keep their status."""
    code = CODES.get(type(error), error.code)
    if isinstance(error, InvalidOptions):
        code = FIELD_CODES.get(error.field, code)
    status = 400 if isinstance(error, InputError | HostUnavailable) else error.status
    body = {"errors": [{"title": error.message, "code": code, "detail": ""}]}
    return Response(status, "application/json", body, {})


def parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the known parameters: files as bytes, others as text. Raises InvalidOptions."""
    return {
        name: value if name in FILES and isinstance(value, bytes) else text_of(name, value)
        for name, value in fields.items()
        if name in KNOWN
    }


def source_of(fields: Mapping[str, Any]) -> bytes | str:
    """Returns the image as bytes, or its URL. Raises MissingSource, MultipleSources, InvalidOptions."""
    given = [name for name in SOURCES if name in fields]
    if not given:
        raise MissingSource(f"No image given: send one of {', '.join(SOURCES)}.")
    if len(given) > 1:
        raise MultipleSources(f"Multiple image sources given: {', '.join(given)}. Send one of them.")
    value: bytes | str = fields[given[0]]
    if given[0] == "image_url":
        return value
    return value if isinstance(value, bytes) else decoded(value, given[0])


def options_of(fields: Mapping[str, Any], settings: Settings, services: Services) -> Options:
    """Returns the options of a request. Fetches its background image and stores it in the inbox.

    Raises InvalidOptions with a field of FIELD_CODES, and HostUnavailable.
    """
    output = output_of(fields)
    if image := _background_image(fields, services):
        background = BackgroundImage(settings.inbox, f"{SENT_BACKGROUNDS_PREFIX}{uuid.uuid4().hex}")
        output = replace(output, background=background)  # raises OptionsConflict before the image is stored
        services.storage.write(background.bucket, background.key, image, "application/octet-stream")
    if fields.get("format", "auto") == "auto":
        output = replace(output, format="jpg" if _is_opaque(output) else "png")
    return Options(output=output)


def output_of(fields: Mapping[str, Any]) -> Output:
    """Parses the output options of a request, without its background image and automatic format.

    Raises InvalidOptions with a field of FIELD_CODES.
    """
    if fields.get("semitransparency", "true") not in BOOLEANS:
        raise InvalidOptions(
            f'"semitransparency" must be true or false; got {fields["semitransparency"]!r:.80}.', "semitransparency"
        )
    if sum(name in fields for name in BACKGROUNDS) > 1:
        raise InvalidOptions(f"Send only one of {', '.join(BACKGROUNDS)}.", "bg")
    values = {"size": "preview"} | {PARAMETERS[name]: fields[name] for name in PARAMETERS if name in fields}
    values["crop"] = fields.get("crop_margin", "true") if fields.get("crop") == "true" else None
    if fields.get("add_shadow") == "true" and fields.get("type") == "car" and values.get("channels") != "alpha":
        values["shadow"] = "contact"
    if values.get("format") == "auto":
        del values["format"]
    output = Output.from_json(values)
    # Only a preset may name an image in S3, because the endpoint reads it with its own permissions.
    if not isinstance(output.background, Colour | None):
        raise InvalidOptions(
            f'"bg_color" must be 3, 4, 6 or 8 hexadecimal digits or a CSS colour name; got {fields["bg_color"]!r:.80}.',
            "background",
        )
    return output


def _is_opaque(output: Output) -> bool:
    """Returns whether the background covers the canvas: an image, or a colour without transparency."""
    if isinstance(output.background, Colour):
        return output.background.alpha == 255
    return output.background is not None


def headers_of(reply: ImageResponse, fields: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values of HEADERS as text. Raises UnknownForeground."""
    facts = reply.facts
    if facts.place is None:
        raise UnknownForeground("Could not identify foreground in image.")
    x0, y0, x1, y1 = facts.place
    headers: dict[str, Any] = {"X-Width": facts.width, "X-Height": facts.height, "X-Credits-Charged": 0}
    headers["X-Max-Width"], headers["X-Max-Height"] = facts.full
    if fields.get("type_level") != "none":
        headers["X-Type"] = type_of(facts.subject.kind, fields.get("type", ""))
    headers |= {"X-Foreground-Top": y0, "X-Foreground-Left": x0}
    headers |= {"X-Foreground-Width": x1 - x0, "X-Foreground-Height": y1 - y0}
    return {name: str(value) for name, value in headers.items()}


def type_of(kind: SubjectKind, requested: str) -> str:
    """Returns the value of X-Type: "person" for a person, else the requested type of a thing, else "other".

    A person is reported for every requested type, and the type "person" only for one that was found or not looked for.
    """
    if kind == "person" or (kind == "unknown" and requested == "person"):
        return "person"
    return requested if requested in TYPES and requested != "person" else "other"


def improve(source: bytes | str, settings: Settings, services: Services) -> dict[str, Any]:
    """Stores an image with a bad result for the operator of the stage, for a week like uploads.

    Raises FileTooLarge and the errors of `web.fetch`.
    """
    image = services.web.fetch(source).body if isinstance(source, str) else source
    check_size(image, settings)
    name = str(uuid.uuid4())
    services.storage.write(settings.inbox, f"{UPLOADS_PREFIX}improve/{name}", image, "application/octet-stream")
    return {"id": name}


def _background_image(fields: Mapping[str, Any], services: Services) -> bytes | None:
    """Returns the background image of the request; None without one. Raises InvalidOptions, HostUnavailable."""
    if "bg_image_url" not in fields:
        file: bytes | str | None = fields.get("bg_image_file")
        return decoded(file, "bg_image") if isinstance(file, str) else file
    try:
        return services.web.fetch(fields["bg_image_url"]).body
    except (InvalidUrl, BlockedUrl) as error:
        raise InvalidOptions(error.message, "bg_image_url") from error
    except InputError as error:
        raise InvalidOptions(error.message, "bg_image") from error
