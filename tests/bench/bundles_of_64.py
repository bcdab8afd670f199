"""Calls the handlers of ingest and record, and of their minimal counterparts (tests/bench/minimal.py), with bundles of
64 images in turn, and prints the median of each in CPU milliseconds an image.

`tests.bench.functions` runs it in a process of its own: `time.process_time` counts all threads of the process, so the
figure includes the threads that write and excludes the rest of the benchmark.
"""

from __future__ import annotations

import http.server
import json
import os
import statistics
import threading
import time
import uuid
from types import SimpleNamespace
from typing import Any

from maskdrop.job import RESULTS_PREFIX, Result, Subject
from maskdrop.wire import BUNDLE_MAX, BundleResponse, Outcome, split_s3_uri

BUNDLES = 32
WARM = 2
"""Warm-up bundles: the first creates the clients and opens the connections."""


class FakeEndpoint(http.server.BaseHTTPRequestHandler):
    """A fake endpoint that responds 202 to every bundle and records its id and S3 URI."""

    protocol_version = "HTTP/1.1"
    invocations: list[tuple[str, str]] = []  # noqa: RUF012  shared by all requests of the one server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = self.headers
        self.invocations.append((headers["X-Amzn-SageMaker-Inference-Id"], headers["X-Amzn-SageMaker-InputLocation"]))
        body = json.dumps({"InferenceId": self.invocations[-1][0]}).encode()
        self.send_response(202)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def photo_events(bucket: str) -> list[dict[str, Any]]:
    """64 S3 notifications of new photos, in the format of tests/events/s3_put.json."""
    run = uuid.uuid4().hex
    return [
        {
            "Records": [
                {
                    "eventName": "ObjectCreated:Put",
                    "s3": {
                        "bucket": {"name": bucket},
                        "object": {
                            "key": f"inbox/default/{run}/{n}.jpg",
                            "size": 9,
                            "versionId": "v",
                            "sequencer": "0",
                        },
                    },
                }
            ]
        }
        for n in range(BUNDLE_MAX)
    ]


def main() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeEndpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = f"http://127.0.0.1:{server.server_port}"

    from lambdas import connect, ingest, record
    from tests.bench import minimal

    settings, storage = connect.settings(), connect.services().storage
    pairs: dict[str, tuple[Any, Any]] = {
        "": (ingest.handler, record.handler),
        "minimal ": (minimal.ingest, minimal.record),
    }
    spent: dict[str, list[float]] = {f"{prefix}{name}": [] for prefix in pairs for name in ("ingest", "record")}
    for number in range(BUNDLES):
        for prefix, (ingests, records) in pairs.items():
            events = photo_events(settings.inbox)
            messages = [
                {"messageId": str(n), "body": json.dumps(event), "eventSource": "aws:sqs"}
                for n, event in enumerate(events)
            ]
            counted = cpu_s(ingests, messages)
            bundle, manifest = FakeEndpoint.invocations[-1]
            key = f"bundles/out/{bundle}.out"
            ids = [item["id"] for item in json.loads(storage.read(*split_s3_uri(manifest)))["items"]]
            response = _model_response(bundle, ids, settings.results).to_bytes()
            storage.write(settings.results, key, response, "application/json")
            notification = {
                "inferenceId": bundle,
                "invocationStatus": "Completed",
                "requestParameters": {"inputLocation": manifest},
                "responseParameters": {"outputLocation": f"s3://{settings.results}/{key}"},
            }
            message = {"messageId": "0", "body": json.dumps(notification), "eventSource": "aws:sqs"}
            recorded = cpu_s(records, [message])
            if number >= WARM:
                spent[f"{prefix}ingest"].append(counted)
                spent[f"{prefix}record"].append(recorded)
    print(json.dumps({name: statistics.median(seconds) * 1000 / BUNDLE_MAX for name, seconds in spent.items()}))


def cpu_s(handler: Any, messages: list[dict[str, Any]]) -> float:
    """Returns the CPU seconds of one invocation."""
    context = SimpleNamespace(
        function_name="bench", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="r"
    )
    start = time.process_time()
    response = handler({"Records": messages}, context)
    spent = time.process_time() - start
    if response["batchItemFailures"]:
        raise RuntimeError(f"The function returned messages: {response}")
    return spent


def _model_response(bundle: str, ids: list[str], results: str) -> BundleResponse:
    timings = dict.fromkeys(("read", "decode", "predict", "refine", "foreground", "encode", "write"), 12.345)
    outcomes = [
        Outcome(
            job,
            "selfie",
            Result(results, f"{RESULTS_PREFIX}{job}.png", 1000, 1000, 500_000, "ab" * 32, "png"),
            Subject((10, 20, 800, 900), 0.4321, 0.9876),
            (),
            timings,
        )
        for job in ids
    ]
    return BundleResponse(bundle, "cpu", 2000.0, None, tuple(outcomes))


if __name__ == "__main__":
    main()
