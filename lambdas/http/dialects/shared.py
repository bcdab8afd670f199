"""Parses requests and builds responses for all dialects. Results are synchronous, because no vendor API has jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http import cutouts, forms
from lambdas.http.forms import is_base64, misplaced_image
from maskdrop.access import add_usage
from maskdrop.catalog import ENGINES
from maskdrop.errors import (
    EmptyFile,
    EndpointUnavailable,
    FileTooLarge,
    InvalidOptions,
    MaskdropError,
    ResolutionTooHigh,
)
from maskdrop.interactive import invoke_now
from maskdrop.job import Result
from maskdrop.options import Options
from maskdrop.wire import ImageResponse

CREDITS = 1_000_000
"""Credit balance of every caller. Requests cost no credits; some clients require a positive balance."""


def body_fields(app: APIGatewayRestResolver) -> dict[str, Any]:
    """Returns the fields of the body without the empty ones; {} without a body. Raises InvalidOptions, FileTooLarge."""
    event = app.current_event
    body = cutouts.body_of(event, app.context["settings"])
    fields = forms.fields_of(body, event.headers.get("content-type", "")) if body else {}
    return {name: value for name, value in fields.items() if value not in (b"", "", None)}


def text_of(name: str, value: Any) -> str:
    """Converts a field of a form or of JSON to the text of a form field. Raises InvalidOptions."""
    match value:
        case bytes():
            try:
                return value.decode().strip()
            except UnicodeDecodeError as error:
                raise InvalidOptions(f"The field {name!r} must be UTF-8 text.", name) from error
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value).strip()
    raise InvalidOptions(f"The field {name!r} must be text, a number or a boolean.", name)


def misnamed_source(fields: Mapping[str, Any], known: Collection[str], file: str, base64: str, url: str) -> str | None:
    """Returns a sentence that names the right field for an image in an unknown field; None without one.

    known: the fields of the dialect. file, base64, url: its fields for the forms of an image.
    """
    unknown = {name: value for name, value in fields.items() if name not in known}
    name = misplaced_image(unknown)
    if name is None:
        return None
    value = unknown[name]
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    right = url if text.startswith(("http://", "https://", "data:")) else base64 if is_base64(text) else file
    return f"The field {name!r:.80} is not known: send the image as {right!r}."


def result_of(app: APIGatewayRestResolver, source: bytes | str, options: Options) -> ImageResponse:
    """Returns the result of an image synchronously. source: the image as bytes, or its URL.

    Raises as `image_of` and `processed` do.
    """
    reply = processed(app, image_of(app, source), options)
    count_image(app)
    return reply


def image_of(app: APIGatewayRestResolver, source: bytes | str) -> bytes:
    """Returns the image of a request. source: the image as bytes, or its URL.

    Raises EmptyFile, FileTooLarge and the errors of `web.fetch`.
    """
    settings, services = app.context["settings"], app.context["services"]
    image: bytes = services.web.fetch(source).body if isinstance(source, str) else source
    if not image:
        raise EmptyFile("The request has no image: it has 0 bytes.")
    cutouts.check_size(image, settings)
    return image


def processed(app: APIGatewayRestResolver, image: bytes, options: Options) -> ImageResponse:
    """Returns the result of an image. Raises the errors of the container, and EndpointUnavailable if no result is
    available now."""
    # Without a limit for the time of the fetch: a warm endpoint may still respond in time, and jobs are not possible.
    reply = invoke_now(image, options, app.context["settings"], app.context["services"])
    if reply is None:
        raise unavailable(options.engine)
    return reply


def count_image(app: APIGatewayRestResolver) -> None:
    """Adds an image to the usage of the caller's owner."""
    add_usage(app.context["services"].registry, app.context["caller"].owner, app.context["now"], pictures=1)


def unavailable(engine: str) -> EndpointUnavailable:
    """Returns the error of a request whose result is not available now."""
    message = (
        f"No result of the engine {engine!r} is available now: the endpoint is starting, or this stage has no endpoint "
        "for it. Retry later, or create a job (POST /v1/jobs)."
    )
    if not ENGINES[engine].light:
        message += (
            f" This engine needs an endpoint on instances with its weights (`maskdrop models pull {engine}`, "
            "`maskdrop models push`)."
        )
    return EndpointUnavailable(message)


def inline_bytes(reply: ImageResponse) -> bytes:
    """Returns the bytes of the result for a JSON response. Raises ResolutionTooHigh if they are too large for one."""
    if isinstance(reply.file, Result):
        raise ResolutionTooHigh(
            f"The result has {reply.file.bytes:,} bytes, too many for a JSON response. Request fewer pixels, another "
            "format, or the file itself (without Accept: application/json)."
        )
    return reply.file


def response(
    app: APIGatewayRestResolver,
    reply: ImageResponse,
    headers: Mapping[str, str],
    error_response: Callable[[MaskdropError], Response[Any]],
) -> Response[Any]:
    """Returns the file, or a redirect to it if it is too large. The body of the redirect is an error of the dialect."""
    all_headers: dict[str, str | list[str]] = {**cutouts.headers_of(reply.facts), **headers}
    if not isinstance(reply.file, Result):
        return Response(200, reply.content_type, reply.file, all_headers)
    url = app.context["services"].storage.link(
        reply.file.bucket, reply.file.key, seconds=app.context["settings"].link_s
    )
    message = f"The result has {reply.file.bytes:,} bytes, too many for a response. Follow the redirect in Location."
    body = error_response(FileTooLarge(message)).body
    return Response(303, "application/json", body, all_headers | {"Location": url})
