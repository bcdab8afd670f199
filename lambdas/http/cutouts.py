"""POST /v1/cutouts, /v1/masks, /v1/detections and /v1/edits: parse a request for one image and build the response.

Request body, one of:
- the image (image/*, application/octet-stream)
- a multipart form with the file `image` and options as fields
- JSON with `image_base64` or `source` {"url"}, and options

Options can also be sent in the query, and as JSON in the header X-Maskdrop-Options. The header overrides the query; the
body overrides both.

Response: 200 with the file, or with the URLs of several results; 303 with the URL of a result that is too large for a
response; 202 with a job if no result is available now.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from lambdas.http.forms import misplaced_image, parts_of
from maskdrop.background import BackgroundImage
from maskdrop.catalog import Task, default_engine
from maskdrop.errors import (
    EmptyFile,
    FileTooLarge,
    InvalidOptions,
    OptionsConflict,
    UnknownPreset,
    UnsupportedFormat,
)
from maskdrop.job import Job, Result
from maskdrop.limits import BODY_MAX as BODY_MAX
from maskdrop.options import Options, parsed
from maskdrop.presets import DEFAULT_PRESET, NAME, Presets
from maskdrop.services import Storage, Web
from maskdrop.settings import Settings
from maskdrop.wire import Facts, ImageResponse

OPTIONS_HEADER = "X-Maskdrop-Options"

HEADERS = [f"X-Maskdrop-{name}" for name in ("Engine", "Width", "Height", "Subject", "Place", "Warnings", "Timings")]
"""Response headers that describe the result; the values are JSON from `Subject` on."""

STANDARD_ALPHABET = str.maketrans("-_", "+/")
"""From the URL-safe to the standard alphabet of base64 (RFC 4648, section 5)."""


@dataclass(frozen=True, slots=True)
class CutoutRequest:
    """A parsed request. source: the image as bytes, or the URL to fetch it from."""

    source: bytes | str
    preset: str
    options: Options

    def image(self, web: Web) -> bytes:
        """Returns the bytes of the image. Raises the errors of `web.fetch`."""
        return web.fetch(self.source).body if isinstance(self.source, str) else self.source


def parse_request(
    event: APIGatewayProxyEvent, settings: Settings, presets: Presets, task: Task | None = None
) -> CutoutRequest:
    """Parses the body, header and query of a request. task: that of the path; None for a path with any task.

    Raises InvalidOptions, OptionsConflict, UnknownPreset, InvalidPrompt, UnknownEngine, UnsupportedFormat, EmptyFile,
    FileTooLarge, and the errors of `presets.find`.
    """
    content_type = event.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    body = body_of(event, settings)
    header = object_of(event.headers.get(OPTIONS_HEADER) or "{}", f"The header {OPTIONS_HEADER}")
    source: bytes | str
    fields: dict[str, Any] = {}
    if kind.startswith("image/") or kind == "application/octet-stream":
        source = body
    elif kind == "multipart/form-data":
        parts = parts_of(body, content_type)
        source = parts.pop("image", b"")
        if not source and (name := misplaced_image(parts)):
            raise EmptyFile(f'The form has no file "image": rename its field {name!r:.80} to "image".')
        fields = _nested({name: _text(name, part) for name, part in parts.items()})
    elif kind == "application/json":
        fields = object_of(body, "The body")
        source = _source(fields.pop("image_base64", None), fields.pop("source", None))
    else:
        raise UnsupportedFormat(
            "Content-Type must be image/* or application/octet-stream (the image), multipart/form-data with the file "
            f'"image", or application/json with "image_base64" or "source"; got {kind or "none"}.'
        )
    if not source:
        raise EmptyFile("The request has no image: it has 0 bytes.")
    check_size(source, settings)
    layers = [_nested(event.query_string_parameters), header, fields]
    if task:
        _check_task(task, layers)
        layers.append({"task": task})
    return CutoutRequest(source, *options_of(presets, *layers))


def _check_task(task: Task, layers: Sequence[Mapping[str, Any]]) -> None:
    """Raises OptionsConflict for another task than that of the path."""
    for layer in layers:
        if layer.get("task") not in (None, task):
            raise OptionsConflict(f'"task" must be "{task}" or absent at this URL; got {layer["task"]!r:.80}.')


def body_of(event: APIGatewayProxyEvent, settings: Settings) -> bytes:
    """Returns the request body as bytes, decompressed. Raises FileTooLarge, InvalidOptions.

    API Gateway sends text or base64. `maskdrop serve` passes bytes.
    """
    content: str | bytes = event.get("body") or b""
    if isinstance(content, str):
        content = base64.b64decode(content) if event.is_base64_encoded else content.encode()
    coding = (event.headers.get("content-encoding") or "identity").strip().lower()
    if coding in ("gzip", "x-gzip"):
        content = _decompressed(content, settings.body_bytes)
    elif coding != "identity":
        raise InvalidOptions(f"Content-Encoding must be gzip or absent; got {coding!r:.80}.")
    if len(content) > settings.body_bytes:
        raise too_large(settings)
    return content


def _decompressed(body: bytes, bytes_max: int) -> bytes:
    """Returns a gzip body, cut after bytes_max + 1 bytes. Raises InvalidOptions."""
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = stream.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise InvalidOptions("The body must be valid gzip, as Content-Encoding states.") from error
    if not stream.eof and len(data) <= bytes_max:
        raise InvalidOptions("The body ends before the end of its gzip data.")
    return data


def accept_of(event: APIGatewayProxyEvent) -> str:
    """Returns the Accept header, with several lines joined; "" without one."""
    return ",".join(event.multi_value_headers.get("accept") or []) or event.headers.get("accept") or ""


def check_size(source: bytes | str, settings: Settings) -> None:
    """Raises FileTooLarge if the image has more bytes than an image in a request may have."""
    if isinstance(source, bytes) and len(source) > settings.image_bytes:
        raise too_large(settings)


def too_large(settings: Settings) -> FileTooLarge:
    """Returns the error of a request with too many bytes."""
    message = (
        f"The image is too large: at most {settings.image_bytes:,} bytes, in a request body of at most "
        f"{settings.body_bytes:,} bytes. Upload a larger image (POST /v1/uploads), then create a job (POST /v1/jobs)"
    )
    if settings.body_bytes == BODY_MAX:  # API Gateway and Lambda
        message += ", or use `maskdrop serve` or the door stack, which accept requests of up to 22 MB"
    return FileTooLarge(f"{message}.")


def decoded(encoded: str, name: str) -> bytes:
    """Decodes the base64 text of the field `name`, with or without the head of a data URL ("data:image/png;base64,").

    Whitespace, missing padding and the URL-safe alphabet are accepted. Raises InvalidOptions with that field.
    """
    if encoded[:5].lower() == "data:":
        head, _, encoded = encoded.partition(",")
        if not head.lower().endswith(";base64"):
            raise InvalidOptions(f'"{name}" must be a data URL in base64; got {head!r:.80}.', name)
        encoded = unquote(encoded)
    text = "".join(encoded.split()).rstrip("=").translate(STANDARD_ALPHABET)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidOptions(f'"{name}" must be valid base64.', name) from error


def image_in(url: str, name: str) -> bytes | str:
    """Returns the image that a data URL contains, or the URL itself if it is of another scheme. Raises as `decoded`."""
    return decoded(url, name) if url[:5].lower() == "data:" else url


def response(reply: ImageResponse | Job, storage: Storage, *, link_s: int) -> Response[Any]:
    """Returns the HTTP response for a result or a job. link_s: lifetime of the presigned URL, in seconds."""
    if isinstance(reply, Job):
        # Relative to /v1/cutouts, because stages and custom domains add a prefix that the service does not know.
        return Response(202, "application/json", reply.public(), {"Location": f"jobs/{reply.id}"})
    headers: dict[str, str | list[str]] = {**headers_of(reply.facts)}
    if reply.results and isinstance(reply.file, Result):
        files = {"result": reply.file.to_json(), "results": [one.to_json() for one in reply.results]}
        return Response(200, "application/json", with_urls(files, storage, link_s=link_s), headers)
    if isinstance(reply.file, Result):
        data = with_urls({"result": reply.file.to_json()}, storage, link_s=link_s)
        return Response(303, "application/json", data, headers | {"Location": data["result"]["url"]})
    # Powertools encodes a body in bytes as base64, but not where the content type is JSON.
    body = reply.file.decode() if reply.content_type == "application/json" else reply.file
    return Response(200, reply.content_type, body, headers)


def with_urls(data: dict[str, Any], storage: Storage, *, link_s: int) -> dict[str, Any]:
    """Adds a presigned URL to each result of a job or response in its JSON form. link_s: its lifetime in seconds."""
    files = [data.get("result"), *(one["result"] for one in data.get("results", ()))]
    for file in files:
        if file:
            file["url"] = storage.link(file["bucket"], file["key"], seconds=link_s)
    return data


def headers_of(facts: Facts) -> dict[str, str]:
    """Returns the values of HEADERS as text."""
    subject = facts.subject.to_json()
    values = (
        facts.engine,
        facts.width,
        facts.height,
        json.dumps(subject),
        json.dumps(facts.place),
        json.dumps(facts.warnings),
        json.dumps(facts.timings),
    )
    return dict(zip(HEADERS, map(str, values), strict=True))


def options_of(presets: Presets, *layers: Mapping[str, Any]) -> tuple[str, Options]:
    """Returns the name of the preset, and its options merged with the layers; a later layer overrides an earlier one.

    Only a preset, which the operator writes, may name a background image in S3: the endpoint reads it with its own
    permissions, not the caller's. Raises InvalidOptions, UnknownPreset.
    """
    for layer in layers:
        _check_layer(layer)
    names = [layer["preset"] for layer in layers if layer.get("preset") is not None]
    name = names[-1] if names else DEFAULT_PRESET
    preset = presets.find(name)
    if not preset:
        raise UnknownPreset(f"Unknown preset {name!r:.80}; available presets: {', '.join(presets.names())}.")
    return name, _merged(preset, layers)


def _check_layer(layer: Mapping[str, Any]) -> None:
    """Raises InvalidOptions if a layer has an invalid option, even if a later layer overrides the option."""
    options = dict(layer)
    preset = options.pop("preset", None)
    if preset is not None and not (isinstance(preset, str) and NAME.fullmatch(preset)):
        raise InvalidOptions(
            f'"preset" must be the name of a preset: 1 to 64 letters, digits, "_" or "-"; got {preset!r:.80}.'
        )
    parsed(options)


def _merged(preset: Options, layers: Sequence[Mapping[str, Any]]) -> Options:
    """Returns the options of a preset, overridden by the layers, each field of `output` on its own."""
    fields = preset.to_json()
    output = dict(fields["output"])
    if preset.engine == default_engine(preset.task, prompted=bool(preset.prompts)).name:
        del fields["engine"]  # the task and the prompts of the layers decide
    for layer in layers:
        fields |= {name: value for name, value in layer.items() if name != "preset"}
        output |= layer.get("output") or {}
    merged = Options.from_json({**fields, "output": output})
    overridden = any("background" in (layer.get("output") or {}) for layer in layers)
    if overridden and isinstance(merged.output.background, BackgroundImage):
        raise InvalidOptions(
            '"output.background" must not be an image here; only a preset can name an image.', "background"
        )
    return merged


def _nested(flat: Mapping[str, str]) -> dict[str, Any]:
    """Converts the flat text fields of a query or form to nested options.

    A field that is not a top-level option belongs to `output`. Empty fields are ignored, because forms send them.
    """
    flat = {name: value for name, value in flat.items() if value}
    texts = ("preset", "task", "engine", "instances", "refine")
    options: dict[str, Any] = {name: flat.pop(name) for name in texts if name in flat}
    if prompt := flat.pop("prompt", None):
        options["prompt"] = _json(prompt, '"prompt"')
    if edit := flat.pop("edit", None):
        options["edit"] = _edit(edit)
    if score := flat.pop("review_below", None):
        options["review_below"] = _json(score, '"review_below"')
    if strokes := flat.pop("strokes", None):
        options["strokes"] = _json(strokes, '"strokes"')
    return {**options, "output": flat}


def _edit(text: str) -> Any:
    """Returns an edit from a flat field: JSON of an object or a string, or the text itself. Raises InvalidOptions."""
    if text.lstrip().startswith("{"):
        return _json(text, '"edit"')
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return data if isinstance(data, str) else text


def _source(encoded: Any, source: Any) -> bytes | str:
    match encoded, source:
        case str(), None:
            return decoded(encoded, "image_base64")
        case None, {"url": str(url)} if len(source) == 1:
            return image_in(url, "source")
    raise InvalidOptions('The body must have either "image_base64" (a string) or "source" (an object with "url").')


def object_of(text: str | bytes, what: str) -> dict[str, Any]:
    """Parses a JSON object. what: name of the text in error messages. Raises InvalidOptions."""
    data = _json(text, what)
    if not isinstance(data, dict):
        raise InvalidOptions(f"{what} must be a JSON object.")
    return data


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptions(f"{what} must be valid JSON.") from error


def _text(name: str, part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        raise InvalidOptions(f"The field {name!r} must be UTF-8 text.") from error
