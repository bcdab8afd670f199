"""The web console of the local stack, a part of the SageMaker emulator: http://127.0.0.1:8085/console/.

    /console/…  the files of web/
    /v1/…       forwarded to the API in the AWS emulator
    /files/…    forwarded to S3 in the AWS emulator: presigned URLs and forms

In AWS, CloudFront forwards both (infra/console.py): the console calls its own origin only.
"""

from __future__ import annotations

import json
from functools import cached_property

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from local.config import LocalConfig
from local.connect import tls_verify
from local.model_server import stage_options
from maskdrop.console import FILE_HEADERS
from standalone.console import PATH, find_console, routes

FILES = "/files/"

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

HOP_BY_HOP = {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding"}
"""Headers of one connection, and those that change because httpx2 decompresses the body."""

TIMEOUT_S = 60.0
"""Seconds for one request to the AWS emulator: twice those of API Gateway."""


def console_url(config: LocalConfig) -> str:
    return f"{config.sagemaker_url}{PATH}/"


def console_routes(config: LocalConfig, http: httpx2.AsyncClient | None = None) -> list[BaseRoute]:
    """Returns the routes of the console and of what it calls; none where the console is not installed.

    http: client that reaches the AWS emulator; a fake one in tests.
    """
    folder = find_console()
    if folder is None:
        return []
    proxy = _Proxy(config, http)
    return [
        Route("/v1/{path:path}", proxy.call_api, methods=METHODS),
        Route(f"{FILES}{{path:path}}", proxy.call_s3, methods=METHODS),
        *routes(folder, {f"{config.endpoint_url}/": FILES}, stage_options(config).get("keep_corrections_days", 0)),
    ]


class _Proxy:
    def __init__(self, config: LocalConfig, http: httpx2.AsyncClient | None) -> None:
        self._config, self._given = config, http

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        """Made at the first request: the emulator's certificate exists then."""
        verify = tls_verify(self._config.ca_bundle)
        return self._given or httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=verify)

    async def call_api(self, request: Request) -> Response:
        try:
            url = json.loads(self._config.stack_file.read_text())["api_url"]
        except (FileNotFoundError, ValueError, KeyError):
            message = "The local stack is starting. Retry the request."
            error = {"error": {"code": "not_ready", "message": message, "retryable": True}}
            return JSONResponse(error, 503, {"Retry-After": "1"})
        return await self._forward(request, f"{url}/v1/")

    async def call_s3(self, request: Request) -> Response:
        response = await self._forward(request, f"{self._config.endpoint_url}/")
        response.headers.update(FILE_HEADERS)
        return response

    async def _forward(self, request: Request, prefix: str) -> Response:
        """Sends the request to the AWS emulator with its path as it is: a presigned URL is encoded already."""
        path = request.scope["raw_path"].decode("latin-1").split("/", 2)[2]
        query = request.scope["query_string"].decode("latin-1")
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        url = f"{prefix}{path}?{query}" if query else f"{prefix}{path}"
        body = await request.body()
        try:
            found = await self._http.request(request.method, url, headers=headers, content=body)
        except httpx2.HTTPError as error:
            message = f"The AWS emulator did not respond ({type(error).__name__}). Retry the request."
            failed = {"error": {"code": "unavailable", "message": message, "retryable": True}}
            return JSONResponse(failed, 502)
        response = Response(found.content, found.status_code)
        kept = [(name, value) for name, value in found.headers.multi_items() if name.lower() not in HOP_BY_HOP]
        for name, value in kept:
            response.headers.append(name, value)
        return response
