"""Dialect of remove.bg's API v1.0: POST /v1.0/removebg, GET /v1.0/account, POST /v1.0/improve.

Sources: the vendor's OpenAPI document, and the requests and parsing of its official clients (docs/vendors.md). A
request body is a multipart form, a URL-encoded form or JSON. Empty and unknown fields are ignored, and so is the case
of values. The response is JSON where the Accept header prefers it (lambdas/http/accept.py).
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http.accept import prefers_json
from lambdas.http.cutouts import accept_of, check_size, decoded, image_in
from lambdas.http.dialects.shared import (
    CREDITS,
    body_fields,
    count_image,
    image_of,
    inline_bytes,
    misnamed_source,
    processed,
    response,
    text_of,
)
from maskdrop.access import MISSING_KEY
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
    UnknownEngine,
    UnknownForeground,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.grammar import FALSE, TRUE, boolean, percent
from maskdrop.job import SENT_BACKGROUNDS_PREFIX, UPLOADS_PREFIX
from maskdrop.options import Options
from maskdrop.output import CONTENT_TYPE, Output
from maskdrop.presets import PRESETS
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import Facts, ImageResponse

PATHS = ("/v1.0/removebg", "/v1.0/account", "/v1.0/improve")

SOURCES = ("image_file", "image_file_b64", "image_url")
BACKGROUNDS = ("bg_color", "bg_image_url", "bg_image_file")
FILES = ("image_file", "bg_image_file")

COARSE_TYPES = ("person", "product", "animal", "car")
TYPES = (*COARSE_TYPES, "car_interior", "car_part", "transportation", "graphics")
"""Values of X-Type besides `other`. Those of `type_level=1` are coarse."""

KIND_OF: dict[str, SubjectKind] = {"person": "person", **dict.fromkeys(TYPES[1:], "thing")}
"""Type -> kind of the subject that the default engine must find, else ENGINE_OF runs."""

ENGINE_OF = {"person": PRESETS["people"].engine, "thing": PRESETS["object"].engine}
"""Kind of subject -> engine of people, or of the most salient object. Neither has a detector that decides."""

SHADOWS = {"none": "none", "drop": "drop", "contact": "contact", "3d": "contact", "car": "contact", "auto": "contact"}
"""Value of `shadow_type` -> kind of shadow of the output options."""

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

SWITCHES = ("crop", "semitransparency", "add_shadow")
"""The boolean parameters."""

KNOWN = {*SOURCES, *BACKGROUNDS, *PARAMETERS, *SWITCHES, "type", "type_level", "shadow_type", "shadow_opacity"}
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
    "add_shadow": "invalid_add_shadow",
    "shadow_type": "invalid_shadow_type",
    "shadow_opacity": "invalid_shadow_opacity",
    "bg_image_url": "invalid_bg_image_url",
    "bg_image": "failed_bg_download",
    "bg": "multiple_bg_sources",
    "image_file": "failed_to_read_image",
    "image_file_b64": "failed_to_read_image",
    "image_url": "invalid_image_url",
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

TITLES = {
    "auth_failed": "API Key invalid",
    "failed_to_read_image": "There was an error reading the image.",
    "file_too_large": "File too large",
    "invalid_bg_color": "Invalid bg_color parameter given",
    "invalid_bg_image_url": "Invalid bg_image_url: Please provide a valid URL.",
    "invalid_channels": "Invalid value for parameter 'channels'",
    "invalid_crop_margin": "Invalid crop_margin parameter given",
    "invalid_file_type": "Invalid file type",
    "invalid_format": "Invalid format parameter given",
    "invalid_image_url": "Invalid image_url: Please provide a valid URL.",
    "invalid_position": "Invalid position parameter given",
    "invalid_roi": "Invalid roi parameter given",
    "invalid_scale": "Invalid scale parameter given",
    "invalid_semitransparency": "Invalid semitransparency parameter given",
    "invalid_size": "Invalid value for parameter 'size'",
    "missing_source": "No image given",
    "multiple_bg_sources": "Multiple background sources given: Please provide either the bg_color, the bg_image_url or "
    "the bg_image_file parameter.",
    "multiple_sources": "Multiple image sources given: Please provide either the image_url, image_file or "
    "image_file_b64 parameter.",
    "rate_limit_exceeded": "Rate limit exceeded",
    "resolution_too_high": "Image resolution too high",
    "roi_exceeds_bounds": "ROI exceeds image bounds",
    "roi_region_empty": "ROI region is empty",
    "unknown_foreground": "Could not identify foreground in image.",
}
"""Error code -> title as remove.bg words it; `detail` is the message of the error. Clients print the title."""

REASON_TITLES = {
    "failed_image_download": "Failed to download image from given image_url: ",
    "failed_bg_download": "Failed to download background image from given image_url: ",
}
"""Error code -> start of a title that ends with the reason."""

SIDES = ("Top", "Left", "Width", "Height")
HEADERS = [
    *("X-Width", "X-Height", "X-Max-Width", "X-Max-Height", "X-Type", "X-Credits-Charged"),
    *(f"X-Foreground-{side}" for side in SIDES),
]


def add_routes(app: APIGatewayRestResolver) -> None:
    @app.post("/v1.0/removebg")
    def _remove() -> Response[Any]:
        fields = parameters(body_fields(app))
        source, options = source_of(fields), options_of(fields, app.context["settings"], app.context["services"])
        reply = _result_of(app, source, options, fields.get("type", ""))
        headers = headers_of(reply, fields)
        if not prefers_json(accept_of(app.current_event), CONTENT_TYPE[options.output.format]):
            return response(app, reply, headers, error_response)
        place = {f"foreground_{side.lower()}": int(headers[f"X-Foreground-{side}"]) for side in SIDES}
        body = {"data": {"result_b64": base64.b64encode(inline_bytes(reply)).decode(), **place}}
        return Response(200, "application/json", body, {**headers})

    @app.get("/v1.0/account")
    def _account() -> dict[str, Any]:
        credits_left = {"total": CREDITS, "subscription": 0, "payg": CREDITS, "enterprise": 0}
        return {"data": {"attributes": {"credits": credits_left, "api": {"free_calls": CREDITS, "sizes": "all"}}}}

    @app.post("/v1.0/improve")
    def _improve() -> dict[str, Any]:
        stored = improve(source_of(parameters(body_fields(app))), app.context["settings"], app.context["services"])
        count_image(app)
        return stored


def _result_of(app: APIGatewayRestResolver, source: bytes | str, options: Options, requested: str) -> ImageResponse:
    """Returns the result of the default engine. Where its subject is not of the requested type, returns that of the
    engine of the type, if it is installed."""
    image = image_of(app, source)
    reply = processed(app, image, options)
    kind = KIND_OF.get(requested)
    if kind and reply.facts.subject.kind != kind:
        with suppress(UnknownEngine):
            reply = processed(app, image, replace(options, engine=ENGINE_OF[kind]))
    count_image(app)
    return reply


def error_response(error: MaskdropError) -> Response[Any]:
    """Returns 400 for every invalid request, as remove.bg does; other errors keep their status."""
    code = CODES.get(type(error), error.code)
    if isinstance(error, InvalidOptions):
        code = FIELD_CODES.get(error.field, code)
    status = 400 if isinstance(error, InputError | HostUnavailable) else error.status
    message = error.message
    for parameter, field in PARAMETERS.items():
        message = message.replace(f'"output.{field}"', f'"{parameter}"')
    if reason := REASON_TITLES.get(code):
        title, detail = reason + message, ""
    elif message == MISSING_KEY:
        title, detail = "Missing API Key", message
    else:
        title, detail = TITLES.get(code, message), message if code in TITLES else ""
    body = {"errors": [{"title": title, "code": code, "detail": detail}]}
    return Response(status, "application/json", body, {})


def parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the known parameters: files as bytes, booleans as bool, others as text.

    Raises InvalidOptions; MissingSource that names the right field where the image is in an unknown one.
    """
    known: dict[str, Any] = {
        name: value if name in FILES and isinstance(value, bytes) else text_of(name, value)
        for name, value in fields.items()
        if name in KNOWN
    }
    known = {name: value for name, value in known.items() if value}  # a text of spaces counts as absent
    if not any(name in known for name in SOURCES) and (advice := misnamed_source(fields, KNOWN, *SOURCES)):
        raise MissingSource(advice)
    for name in (*PARAMETERS, "type", "type_level", "shadow_type"):
        if name in known:
            known[name] = known[name].lower()
    for name in SWITCHES:
        if name in known:
            known[name] = _boolean(name, known[name])
    return known


def _boolean(name: str, text: str) -> bool:
    try:
        return boolean(text)
    except ValueError:
        field = "crop" if name == "crop" else name
        raise InvalidOptions(f'"{name}" must be true or false; got {text!r:.80}.', field) from None


def source_of(fields: Mapping[str, Any]) -> bytes | str:
    """Returns the image as bytes, or its URL. Raises MissingSource, MultipleSources, InvalidOptions."""
    given = [name for name in SOURCES if name in fields]
    if not given:
        raise MissingSource("Please provide the source image in the image_url, image_file or image_file_b64 parameter.")
    if len(given) > 1:
        raise MultipleSources(f"Multiple image sources given: {', '.join(given)}. Send one of them.")
    value: bytes | str = fields[given[0]]
    if isinstance(value, bytes):
        return value
    if given[0] == "image_url":
        return image_in(value, "image_url")
    # `curl --data` sends the "+" of base64 as it is, which is a space in a URL-encoded form.
    return decoded(value.replace(" ", "+"), given[0])


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
    if sum(name in fields for name in BACKGROUNDS) > 1:
        raise InvalidOptions(f"Send only one of {', '.join(BACKGROUNDS)}.", "bg")
    values = {"size": "preview"} | {PARAMETERS[name]: fields[name] for name in PARAMETERS if name in fields}
    margin = fields.get("crop_margin", "0")
    if margin in (TRUE | FALSE) - {"0"}:  # words of the output option `crop`
        raise InvalidOptions(f'"crop_margin" must be lengths such as 10px or 5%; got {margin!r:.80}.', "crop")
    values["crop"] = margin if fields.get("crop") else None
    shadow = _shadow(fields)
    values["shadow"] = None if values.get("channels") == "alpha" else shadow
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


def _shadow(fields: Mapping[str, Any]) -> str | None:
    """Returns the shadow as an output option; None without one. Raises InvalidOptions.

    `add_shadow` without `shadow_type` is for cars alone, as in remove.bg.
    """
    kind = fields.get("shadow_type") or ("car" if fields.get("add_shadow") and fields.get("type") == "car" else "none")
    if kind not in SHADOWS:
        raise InvalidOptions(f'"shadow_type" must be one of {", ".join(SHADOWS)}; got {kind!r:.80}.', "shadow_type")
    opacity = fields.get("shadow_opacity", "").removesuffix("%")
    try:
        percent(f"{opacity or 0}%")
    except ValueError:
        raise InvalidOptions(
            f'"shadow_opacity" must be a number from 0 to 100; got {opacity!r:.80}.', "shadow_opacity"
        ) from None
    if SHADOWS[kind] == "none":
        return None
    return f"{SHADOWS[kind]} {opacity}%" if opacity else SHADOWS[kind]


def _is_opaque(output: Output) -> bool:
    """Returns whether the background covers the canvas: an image, or a colour without transparency."""
    if isinstance(output.background, Colour):
        return output.background.alpha == 255
    return output.background is not None


def headers_of(reply: ImageResponse, fields: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values of HEADERS as text. Raises UnknownForeground."""
    facts = reply.facts
    if facts.place is None:
        raise UnknownForeground("No subject was found in the image. Send another `type`, or another image.")
    x0, y0, x1, y1 = facts.place
    headers: dict[str, Any] = {"X-Width": facts.width, "X-Height": facts.height, "X-Credits-Charged": 0}
    headers["X-Max-Width"], headers["X-Max-Height"] = facts.full
    if fields.get("type_level") != "none":
        found = type_of(facts, fields.get("type", ""))
        headers["X-Type"] = found if fields.get("type_level") != "1" or found in COARSE_TYPES else "other"
    headers |= {"X-Foreground-Top": y0, "X-Foreground-Left": x0}
    headers |= {"X-Foreground-Width": x1 - x0, "X-Foreground-Height": y1 - y0}
    return {name: str(value) for name, value in headers.items()}


def type_of(facts: Facts, requested: str) -> str:
    """Returns the value of X-Type: the requested type if the subject is of its kind or its engine has run; else
    "person" or "other", as the default engine found."""
    kind = KIND_OF.get(requested)
    if kind and (facts.subject.kind == kind or facts.engine == ENGINE_OF[kind]):
        return requested
    return "person" if facts.subject.kind == "person" else "other"


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
    url = image_in(fields["bg_image_url"], "bg_image_url")
    try:
        return services.web.fetch(url).body if isinstance(url, str) else url
    except (InvalidUrl, BlockedUrl) as error:
        raise InvalidOptions(error.message, "bg_image_url") from error
    except InputError as error:
        raise InvalidOptions(error.message, "bg_image") from error
