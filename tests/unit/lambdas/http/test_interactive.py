"""The adapter with its real client, against an endpoint that answers as a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.config import Config
from botocore.session import get_session

from lambdas.adapters.interactive import SageMakerInteractive
from maskdrop.errors import EndpointStarting, EndpointUnavailable, MaskdropError, UnreadablePicture
from maskdrop.job import Result
from maskdrop.options import Options
from maskdrop.wire import CUSTOM_ATTRIBUTES, Invocation, Overflow
from tests.fakes import FACTS

ASKED = Invocation(Options(), Overflow("results", "results/cutouts/1.png", 4_000_000))


class Endpoint(ThreadingHTTPServer):
    """Gives every caller the one answer; with None, keeps them waiting until it ends."""

    daemon_threads = True

    def __init__(self, answer: tuple[int, dict[str, str], bytes] | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked: list[tuple[str, str | None, bytes]] = []
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers[CUSTOM_ATTRIBUTES], body))
        if self.server.answer is None:
            self.server.over.wait(30)
            return
        status, headers, content = self.server.answer
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
        server.over.set()
        server.shutdown()
        server.server_close()


def adapter(port: int) -> SageMakerInteractive:
    session = get_session()
    session.set_credentials("test", "test")
    client = session.create_client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}, proxies={}),
    )
    return SageMakerInteractive(client, "now")


@pytest.fixture
def told() -> dict[str, str]:
    return {CUSTOM_ATTRIBUTES: FACTS.to_header()}


def test_the_picture_and_its_options_go_out_and_the_file_and_its_facts_come_back(told: dict[str, str]) -> None:
    with endpoint(200, b"a cut-out", **told, Content_Type="image/png") as (server, interactive):
        reply = interactive.cut_out(b"a photo", ASKED)
    assert server.asked == [("/endpoints/now/invocations", ASKED.to_header(), b"a photo")]
    assert (reply.file, reply.content_type, reply.facts) == (b"a cut-out", "image/png", FACTS)


def test_a_result_that_was_put_aside_comes_back_as_its_place(told: dict[str, str]) -> None:
    result = Result("results", "results/cutouts/1.png", 640, 480, 5_000_000, "ab" * 32, "png")
    body = json.dumps({"result": result.to_json()}).encode()
    with endpoint(200, body, **told, Content_Type="application/json") as (_, interactive):
        reply = interactive.cut_out(b"a photo", ASKED)
    assert (reply.file, reply.facts) == (result, FACTS)


def test_what_the_container_finds_wrong_keeps_its_name_and_its_words() -> None:
    said = json.dumps({"error": UnreadablePicture("It is damaged.").info.to_json()})
    body = json.dumps({"Message": "Received error 422.", "OriginalMessage": said, "OriginalStatusCode": 422}).encode()
    with (
        endpoint(424, body, x_amzn_errortype="ModelError") as (_, interactive),
        pytest.raises(UnreadablePicture, match=r"^It is damaged\.$"),
    ):
        interactive.cut_out(b"a photo", ASKED)


@pytest.mark.parametrize(
    ("status", "kind", "said", "error"),
    [
        (424, "ModelError", {"OriginalMessage": "Killed"}, EndpointUnavailable),
        (424, "ModelError", {}, EndpointUnavailable),
        (429, "ModelNotReadyException", {}, EndpointStarting),
        (429, "ThrottlingException", {}, EndpointUnavailable),
        (503, "ServiceUnavailable", {}, EndpointUnavailable),
        (400, "ValidationError", {"Message": "Endpoint now not found."}, EndpointUnavailable),
    ],
)
def test_a_failing_endpoint_is_asked_once_and_worth_another_try(
    status: int, kind: str, said: dict[str, str], error: type[MaskdropError]
) -> None:
    with (
        endpoint(status, json.dumps(said).encode(), x_amzn_errortype=kind) as (server, interactive),
        pytest.raises(error) as raised,
    ):
        interactive.cut_out(b"a photo", ASKED)
    assert type(raised.value) is error
    assert raised.value.retryable
    assert len(server.asked) == 1


def test_an_endpoint_that_keeps_one_waiting_is_starting_and_is_not_asked_again() -> None:
    with endpoint(None) as (server, interactive):
        with pytest.raises(EndpointStarting):
            interactive.cut_out(b"a photo", ASKED)
        assert len(server.asked) == 1


def test_an_endpoint_out_of_reach_is_unavailable() -> None:
    with endpoint(200) as (server, _):
        port = server.server_address[1]
    with pytest.raises(EndpointUnavailable, match="EndpointConnectionError"):
        adapter(port).cut_out(b"a photo", ASKED)
