"""What the dialects have in common: an image comes in, and its result goes out at once, as no vendor has jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from lambdas.http import cutouts, forms
from maskdrop.access import use
from maskdrop.errors import (
    EmptyFile,
    EndpointUnavailable,
    FileTooLarge,
    InvalidOptions,
    MaskdropError,
    ResolutionTooHigh,
)
from maskdrop.job import Result
from maskdrop.now import reply_now
from maskdrop.options import Options
from maskdrop.wire import Reply

CREDITS = 1_000_000
"""The credit balance that every caller gets. Nothing is charged; clients that check it first need a positive one."""


def body_fields(app: APIGatewayRestResolver) -> dict[str, Any]:
    """The fields of the body, without the empty ones, which are as good as absent. Raises InvalidOptions and
    FileTooLarge."""
    event = app.current_event
    fields = forms.fields_of(cutouts.body_of(event), event.headers.get("content-type", ""))
    return {name: value for name, value in fields.items() if value not in (b"", "", None)}


def text_of(name: str, value: Any) -> str:
    """A field as the text that a form has for it, whether it came in a form or in JSON. Raises InvalidOptions."""
    match value:
        case bytes():
            try:
                return value.decode().strip()
            except UnicodeDecodeError as error:
                raise InvalidOptions(f"The field {name!r} is not text.", name) from error
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value).strip()
    raise InvalidOptions(f"The field {name!r} is neither a text nor a number.", name)


def result_of(app: APIGatewayRestResolver, source: bytes | str, options: Options) -> Reply:
    """source: an image, or the address to fetch it from. Raises EmptyFile, FileTooLarge, what `web.fetch` raises, the
    container's errors, and EndpointUnavailable where there is no result at once."""
    settings, services, now = app.context["settings"], app.context["services"], app.context["now"]
    picture = services.web.fetch(source).body if isinstance(source, str) else source
    if not picture:
        raise EmptyFile("There is no image in the request: it has 0 bytes.")
    cutouts.check_size(picture)
    # However long the address took: a warm endpoint may still answer in time, and a job would help nobody here.
    reply = reply_now(picture, options, settings, services)
    if reply is None:
        raise EndpointUnavailable(
            f"No endpoint gives a result of the engine {options.engine!r} at once: it is starting, or this stage has "
            "none. POST /v1/jobs has time."
        )
    use(services.registry, app.context["caller"].owner, now, pictures=1)
    return reply


def inline_bytes(reply: Reply) -> bytes:
    """The result's bytes, for an answer in JSON. Raises ResolutionTooHigh where they are too many for one."""
    if isinstance(reply.file, Result):
        raise ResolutionTooHigh(
            f"The result has {reply.file.bytes:,} bytes, more than an answer in JSON holds. Ask for fewer pixels, "
            "another format, or the file itself (without Accept: application/json)."
        )
    return reply.file


def response(
    app: APIGatewayRestResolver,
    reply: Reply,
    headers: Mapping[str, str],
    error_response: Callable[[MaskdropError], Response[Any]],
) -> Response[Any]:
    """The file; where it is too large, a redirect to it, which tells who does not follow it why in the dialect's own
    form of an error."""
    all_headers: dict[str, str | list[str]] = {**cutouts.headers_of(reply.facts), **headers}
    if not isinstance(reply.file, Result):
        return Response(200, reply.content_type, reply.file, all_headers)
    url = app.context["services"].storage.link(
        reply.file.bucket, reply.file.key, seconds=app.context["settings"].link_s
    )
    size = f"The result has {reply.file.bytes:,} bytes, more than an answer holds: follow the redirect to it."
    return Response(303, "application/json", error_response(FileTooLarge(size)).body, all_headers | {"Location": url})
