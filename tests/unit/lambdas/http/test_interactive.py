"""Tests the adapter with a real client and a scripted endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import get_session

from lambdas.adapters.interactive import SageMakerInteractive
from maskdrop.errors import EndpointStarting, EndpointUnavailable, MaskdropError, UnreadableImage
from maskdrop.job import Result, ResultItem
from maskdrop.options import Options
from maskdrop.wire import CUSTOM_ATTRIBUTES, Invocation, Overflow
from tests.fakes import FACTS

INVOCATION = Invocation(Options(), Overflow("results", "results/cutouts/1.png", 4_000_000))


class Endpoint(ThreadingHTTPServer):
    """Sends the same response to every request; without a response, blocks requests until the endpoint stops."""

    daemon_threads = True

    def __init__(self, response: tuple[int, dict[str, str], bytes] | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.response = response
        self.requests: list[tuple[str, str | None, bytes]] = []
        self.stopped = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers[CUSTOM_ATTRIBUTES], body))
        if self.server.response is None:
            self.server.stopped.wait(30)
            return
        status, headers, content = self.server.response
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def endpoint(
    status: int | None, content: bytes = b"", **headers: str
) -> Iterator[tuple[Endpoint, SageMakerInteractive]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    server = Endpoint(None if status is None else (status, named, content))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server, adapter(server.server_address[1])
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()


def adapter(port: int) -> SageMakerInteractive:
    session = get_session()
    session.set_credentials("test", "test")
    client: Any = session.create_client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}, proxies={}),
    )
    return SageMakerInteractive(client, "now")


@pytest.fixture
def facts_header() -> dict[str, str]:
    return {CUSTOM_ATTRIBUTES: FACTS.to_header()}


def test_the_endpoint_receives_image_and_options_and_returns_file_and_facts(facts_header: dict[str, str]) -> None:
    with endpoint(200, b"a cut-out", **facts_header, Content_Type="image/png") as (server, interactive):
        reply = interactive.cut_out(b"a photo", INVOCATION)
    assert server.requests == [("/endpoints/now/invocations", INVOCATION.to_header(), b"a photo")]
    assert (reply.file, reply.content_type, reply.facts) == (b"a cut-out", "image/png", FACTS)


def test_a_result_written_to_s3_is_returned_as_its_location(facts_header: dict[str, str]) -> None:
    result = Result("results", "results/cutouts/1.png", 640, 480, 5_000_000, "ab" * 32, "png")
    body = json.dumps({"result": result.to_json()}).encode()
    with endpoint(200, body, **facts_header, Content_Type="application/json") as (_, interactive):
        reply = interactive.cut_out(b"a photo", INVOCATION)
    assert (reply.file, reply.facts) == (result, FACTS)


def test_a_request_of_an_older_system_is_sent_as_json_without_options() -> None:
    with endpoint(200, b'{"mask_image": "AAAA"}', Content_Type="application/json") as (server, interactive):
        assert interactive.segment_box(b'{"input_box": []}') == b'{"mask_image": "AAAA"}'
    assert server.requests == [("/endpoints/now/invocations", None, b'{"input_box": []}')]


def test_several_results_are_returned_as_their_locations(facts_header: dict[str, str]) -> None:
    union, face = (Result("results", f"results/{name}.png", 4, 3, 9, "ab" * 32, "png") for name in ("all", "face"))
    item = ResultItem(face, "face", 0.9, (0, 1, 2, 3))
    body = json.dumps({"result": union.to_json(), "results": [item.to_json()]}).encode()
    with endpoint(200, body, **facts_header, Content_Type="application/json") as (_, interactive):
        reply = interactive.cut_out(b"a photo", INVOCATION)
    assert (reply.file, reply.results) == (union, (item,))


def test_detections_are_returned_as_the_file(facts_header: dict[str, str]) -> None:
    invocation = Invocation(Options.from_json({"task": "detect"}))
    with endpoint(200, b'{"detections": []}', **facts_header, Content_Type="application/json") as (_, interactive):
        reply = interactive.cut_out(b"a photo", invocation)
    assert (reply.file, reply.content_type, reply.results) == (b'{"detections": []}', "application/json", ())


def test_an_error_of_the_container_keeps_its_type_and_message() -> None:
    payload = json.dumps({"error": UnreadableImage("It is damaged.").info.to_json()})
    body = json.dumps(
        {"Message": "Received error 422.", "OriginalMessage": payload, "OriginalStatusCode": 422}
    ).encode()
    with (
        endpoint(424, body, x_amzn_errortype="ModelError") as (_, interactive),
        pytest.raises(UnreadableImage, match=r"^It is damaged\.$"),
    ):
        interactive.cut_out(b"a photo", INVOCATION)


@pytest.mark.parametrize(
    ("status", "kind", "payload", "error"),
    [
        (424, "ModelError", {"OriginalMessage": "Killed"}, EndpointUnavailable),
        (424, "ModelError", {}, EndpointUnavailable),
        (429, "ModelNotReadyException", {}, EndpointStarting),
        (429, "ThrottlingException", {}, EndpointUnavailable),
        (503, "ServiceUnavailable", {}, EndpointUnavailable),
        (400, "ValidationError", {"Message": "Endpoint now of account 1 not found."}, EndpointStarting),
        (400, "ValidationError", {"Message": "The request is invalid."}, EndpointUnavailable),
    ],
)
def test_an_endpoint_failure_is_retryable_and_causes_one_request(
    status: int, kind: str, payload: dict[str, str], error: type[MaskdropError]
) -> None:
    with (
        endpoint(status, json.dumps(payload).encode(), x_amzn_errortype=kind) as (server, interactive),
        pytest.raises(error) as raised,
    ):
        interactive.cut_out(b"a photo", INVOCATION)
    assert type(raised.value) is error
    assert raised.value.retryable
    assert len(server.requests) == 1


def test_an_endpoint_that_times_out_is_starting_and_gets_no_second_request() -> None:
    with endpoint(None) as (server, interactive):
        with pytest.raises(EndpointStarting):
            interactive.cut_out(b"a photo", INVOCATION)
        assert len(server.requests) == 1


def test_an_unreachable_endpoint_is_unavailable() -> None:
    with endpoint(200) as (server, _):
        port = server.server_address[1]
    with pytest.raises(EndpointUnavailable, match="EndpointConnectionError"):
        adapter(port).cut_out(b"a photo", INVOCATION)
