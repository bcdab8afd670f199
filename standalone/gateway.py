"""The part of API Gateway in `maskdrop serve`: authenticates a request, builds the event of the handlers, and calls
them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import local
from typing import Any, cast
from urllib.parse import parse_qs

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.api_gateway import ResponseBuilder
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import authorize
from lambdas.http.routes import RETRY_AFTER_S, SAFE_HEADERS, error_response, process, with_routes
from maskdrop.access import Caller
from maskdrop.errors import MaskdropError
from maskdrop.services import Services
from maskdrop.settings import Settings

NO_AUTH = Caller(id="local", owner="local", scope="all", rate=1_000_000)
"""The caller of all requests to a server without keys."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request with its whole body. headers: in the order of arrival, names in lower case. query: without "?"."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Gateway:
    """Calls the API's handlers. Thread-safe. no_auth: whether requests need no key."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        *,
        no_auth: bool,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._services, self._no_auth, self._clock = settings, services, no_auth, clock
        self._threads = local()

    def respond(self, request: HttpRequest, caller: Mapping[str, str]) -> HttpResponse:
        """Returns the response of the handlers, which raise no known error. Blocks until the image is processed.

        caller: that of the request, as `authorizer` returns it.
        """
        event = event_of(request, caller)
        context = cast(LambdaContext, None)  # no handler of the API uses the context of the function
        now = self._clock()
        response = process(event, context, self._settings, self._services, now, self._resolver())
        body: str | bytes = response["body"] or b""
        if response["isBase64Encoded"] and isinstance(body, str):
            body = base64.b64decode(body)
        headers = [(name, value) for name, values in response["multiValueHeaders"].items() for value in values]
        return HttpResponse(response["statusCode"], headers, body if isinstance(body, bytes) else body.encode())

    def error(self, error: MaskdropError, path: str) -> HttpResponse:
        """Returns an error of this server, in the format of the API that the path belongs to."""
        response = error_response(error, path)
        body = response.body if isinstance(response.body, str) else json.dumps(response.body)
        headers = [("Content-Type", str(response.headers["Content-Type"]))]
        headers += [(name, value) for name, (value,) in SAFE_HEADERS.items()]
        if error.retryable:
            headers.append(("Retry-After", str(RETRY_AFTER_S)))
        return HttpResponse(response.status_code, headers, body.encode())

    def authorizer(self, request: HttpRequest) -> dict[str, str]:
        """Returns the caller of a request as the authorizer of the API does; {} without a valid key."""
        if self._no_auth:
            return NO_AUTH.to_context()
        event = {"headers": dict(request.headers), "path": request.path, "methodArn": ""}
        policy = authorize.process(event, self._services.registry)
        context: dict[str, str] = policy.get("context", {})
        return context

    def _resolver(self) -> ThreadResolver:
        """Returns the resolver of this thread."""
        if not hasattr(self._threads, "resolver"):
            self._threads.resolver = with_routes(ThreadResolver, self._settings.cors_origins)
        resolver: ThreadResolver = self._threads.resolver
        return resolver


class ThreadResolver(APIGatewayRestResolver):
    """A resolver of one thread. Powertools stores the current event in a class attribute, because a function processes
    one event at a time; here each resolver has its own. Bodies in bytes stay bytes."""

    _event: APIGatewayProxyEvent

    @property
    def current_event(self) -> APIGatewayProxyEvent:  # type: ignore[override]
        return self._event

    def _to_proxy_event(self, event: dict[str, Any]) -> APIGatewayProxyEvent:
        self._event = APIGatewayProxyEvent(event)
        return self._event

    def _build_response(self, response_builder: ResponseBuilder[Any]) -> dict[str, Any]:
        response = response_builder.response
        if not isinstance(response.body, bytes) or response.is_json():
            return super()._build_response(response_builder)
        body, response.body = response.body, ""  # Powertools would encode it in base64
        built: dict[str, Any] = super()._build_response(response_builder)
        return built | {"body": body}


def event_of(request: HttpRequest, authorizer: Mapping[str, str]) -> dict[str, Any]:
    """Returns the proxy event of a request as API Gateway builds it, except that the body is bytes.

    authorizer: the caller, as `Caller.to_context` returns it.
    """
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name, []).append(value)
    query = parse_qs(request.query, keep_blank_values=True)
    return {
        "resource": "/{proxy+}",
        "httpMethod": request.method,
        "path": request.path,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()},
        "multiValueQueryStringParameters": query,
        "requestContext": {"authorizer": dict(authorizer), "stage": "", "path": request.path},
        "isBase64Encoded": False,
        "body": request.body,
    }
