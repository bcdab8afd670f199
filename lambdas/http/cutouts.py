"""POST /v1/cutouts: one picture, now. It comes in one of three forms and leaves in one of three.

in     the picture as the body (image/*, application/octet-stream); a form with the file `image` and options as fields;
       JSON with `image_base64` or `source` {"url"} and options. Options also come in the query, and as JSON in the
       header X-Maskdrop-Options: the header counts more than the query, the body more than both.
out    200 with the file, 303 to the file where it is larger than BYTES_MAX, 202 with a job where it cannot be had now.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from lambdas.http.forms import parts_of
from maskdrop.errors import EmptyFile, FileTooLarge, InvalidOptions, UnknownPreset, UnsupportedFormat
from maskdrop.job import Job, Result
from maskdrop.now import BYTES_MAX
from maskdrop.options import Options, parsed
from maskdrop.output import BackgroundImage
from maskdrop.presets import DEFAULT_PRESET, NAME, Presets
from maskdrop.services import Storage, Web
from maskdrop.wire import Facts, Reply

OPTIONS_HEADER = "X-Maskdrop-Options"

HEADERS = [f"X-Maskdrop-{name}" for name in ("Engine", "Width", "Height", "Subject", "Place", "Warnings", "Timings")]
"""Of an answer: what was found, from the subject on as JSON."""

BODY_MAX = 4_500_000
"""Of a request: a function takes 6 MB, its body in base64. In JSON the picture is in base64 once more, and so has
3,370,000 bytes at most."""

TOO_LARGE = (
    f"The most that is taken here is a picture of {BYTES_MAX:,} bytes in a request of {BODY_MAX:,}. Upload a larger "
    "one (POST /v1/uploads), then make a job of it (POST /v1/jobs)."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One picture as bytes, or the address that it is to be fetched from, and what to do with it."""

    source: bytes | str
    preset: str
    options: Options

    def picture(self, web: Web) -> bytes:
        """Raises what `web.fetch` raises."""
        return web.fetch(self.source).body if isinstance(self.source, str) else self.source


def asked_of(event: APIGatewayProxyEvent, presets: Presets) -> Asked:
    """Raises InvalidOptions, OptionsConflict, UnknownPreset, InvalidPrompt, UnknownEngine, UnsupportedFormat,
    EmptyFile, FileTooLarge, and what `presets.find` raises."""
    content_type = event.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    body = body_of(event)
    header = object_of(event.headers.get(OPTIONS_HEADER) or "{}", f"The header {OPTIONS_HEADER}")
    source: bytes | str
    said: dict[str, Any] = {}
    if kind.startswith("image/") or kind == "application/octet-stream":
        source = body
    elif kind == "multipart/form-data":
        parts = parts_of(body, content_type)
        source = parts.pop("image", b"")
        said = _nested({name: _text(name, part) for name, part in parts.items()})
    elif kind == "application/json":
        said = object_of(body, "The body")
        source = _source(said.pop("image_base64", None), said.pop("source", None))
    else:
        raise UnsupportedFormat(
            "Send the picture as image/* or application/octet-stream, a form as multipart/form-data with the file "
            f'"image", or application/json with "image_base64"; not {kind or "a body without a Content-Type"}.'
        )
    if not source:
        raise EmptyFile("There is no picture in the request: it has 0 bytes.")
    check_size(source)
    return Asked(source, *options_of(presets, _nested(event.query_string_parameters), header, said))


def body_of(event: APIGatewayProxyEvent) -> bytes:
    """Raises FileTooLarge."""
    text = event.body or ""
    body = base64.b64decode(text) if event.is_base64_encoded else text.encode()
    if len(body) > BODY_MAX:
        raise FileTooLarge(TOO_LARGE)
    return body


def check_size(source: bytes | str) -> None:
    """Raises FileTooLarge."""
    if isinstance(source, bytes) and len(source) > BYTES_MAX:
        raise FileTooLarge(TOO_LARGE)


def decoded(encoded: str, name: str) -> bytes:
    """The picture that the field `name` has in base64, in lines or not. Raises InvalidOptions, with that field."""
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidOptions(f'"{name}" is not base64.', name) from error


def response(answer: Reply | Job, storage: Storage, *, link_s: int) -> Response[Any]:
    """link_s: how long the address of a file that is not in the answer is valid, in seconds."""
    if isinstance(answer, Job):
        # Relative to /v1/cutouts, as the service does not know what stands before it.
        return Response(202, "application/json", answer.to_json(), {"Location": f"jobs/{answer.id}"})
    headers: dict[str, str | list[str]] = {**headers_of(answer.facts)}
    if isinstance(answer.file, Result):
        url = storage.link(answer.file.bucket, answer.file.key, seconds=link_s)
        body = {"result": {**answer.file.to_json(), "url": url}}
        return Response(303, "application/json", body, headers | {"Location": url})
    return Response(200, answer.content_type, answer.file, headers)


def headers_of(facts: Facts) -> dict[str, str]:
    """HEADERS, each as text."""
    found = facts.subject.to_json()
    said = (
        facts.engine,
        facts.width,
        facts.height,
        json.dumps(found),
        json.dumps(facts.place),
        json.dumps(facts.warnings),
        json.dumps(facts.timings),
    )
    return dict(zip(HEADERS, map(str, said), strict=True))


def options_of(presets: Presets, *said: Mapping[str, Any]) -> tuple[str, Options]:
    """The preset, and its options with what is said besides; of two that say the same thing, the later one counts. What
    lies in S3 is read with the endpoint's rights, not the caller's: only a preset, the operator's, may name it."""
    given: dict[str, Any] = {}
    output: dict[str, Any] = {}
    name = DEFAULT_PRESET
    for one in said:
        options = dict(one)
        preset = options.pop("preset", None)
        if preset is not None and not (isinstance(preset, str) and NAME.fullmatch(preset)):
            raise InvalidOptions(f'"preset" is the name of one, not {preset!r:.80}.')
        parsed(options)  # what is said wrongly is refused, though something else counts more
        name = name if preset is None else preset
        given |= options
        output |= one.get("output") or {}
    found = presets.find(name)
    if not found:
        raise UnknownPreset(f"There is no preset {name!r:.80}; there are: {', '.join(presets.names())}.")
    base = found.to_json()
    asked = Options.from_json({**base, **given, "output": {**base["output"], **output}})
    if "background" in output and isinstance(asked.output.background, BackgroundImage):
        raise InvalidOptions(
            '"output.background" is a colour or "blur" here; a preset can name an image.', "background"
        )
    return name, asked


def _nested(flat: Mapping[str, str]) -> dict[str, Any]:
    """Options as a query or a form has them, each a text: what is none of the options is one of their output. An empty
    one is not there, as forms have them."""
    flat = {name: value for name, value in flat.items() if value}
    said: dict[str, Any] = {name: flat.pop(name) for name in ("preset", "task", "engine") if name in flat}
    if prompt := flat.pop("prompt", None):
        said["prompt"] = _json(prompt, '"prompt"')
    return {**said, "output": flat}


def _source(encoded: Any, source: Any) -> bytes | str:
    match encoded, source:
        case str(), None:
            return decoded(encoded, "image_base64")
        case None, {"url": str(url)} if len(source) == 1:
            return url
    raise InvalidOptions('The body has either "image_base64", a text, or "source", an object with "url".')


def object_of(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object. what: the name of the text in the error. Raises InvalidOptions."""
    data = _json(text, what)
    if not isinstance(data, dict):
        raise InvalidOptions(f"{what} is not a JSON object.")
    return data


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptions(f"{what} is not JSON.") from error


def _text(name: str, part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        raise InvalidOptions(f"The field {name!r} is not text.") from error
