"""Calls the real handlers of ingest and record with bundles of 64 and prints their CPU milliseconds an image.

Run by `tests.bench.functions` in a process of its own: `time.process_time` counts every thread of it, so the writing
threads are in the figure and the rest of the benchmark is not.
"""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
import uuid
from types import SimpleNamespace
from typing import Any

from maskdrop.job import Result, Subject, dropped
from maskdrop.wire import BUNDLE_MAX, Answer, Outcome, sources_of

BUNDLES = 12
WARM = 2
"""Bundles before counting: clients are made and connections opened at the first."""


class TakesEverything(http.server.BaseHTTPRequestHandler):
    """An endpoint that says 202 to every bundle. It keeps their addresses."""

    protocol_version = "HTTP/1.1"
    taken: list[tuple[str, str]] = []  # noqa: RUF012  one server, one list

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = self.headers
        self.taken.append((headers["X-Amzn-SageMaker-Inference-Id"], headers["X-Amzn-SageMaker-InputLocation"]))
        body = json.dumps({"InferenceId": self.taken[-1][0]}).encode()
        self.send_response(202)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def photo_events(bucket: str) -> list[dict[str, Any]]:
    """64 S3 notifications of photos never seen before, in the shape of tests/events/s3_put.json."""
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
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TakesEverything)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = f"http://127.0.0.1:{server.server_port}"

    from lambdas import connect, ingest, record

    settings, storage = connect.settings(), connect.services().storage
    context = SimpleNamespace(
        function_name="bench", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="r"
    )
    spent = {"ingest": 0.0, "record": 0.0}
    for number in range(BUNDLES):
        events = photo_events(settings.inbox)
        messages = [{"messageId": str(n), "body": json.dumps(event)} for n, event in enumerate(events)]
        began = time.process_time()
        answer = ingest.handler({"Records": messages}, context)  # type: ignore[arg-type]
        counted = time.process_time() - began
        if answer["batchItemFailures"]:
            raise RuntimeError(f"ingest returned messages: {answer}")
        bundle, manifest = TakesEverything.taken[-1]
        key = f"bundles/out/{bundle}.out"
        storage.write(settings.results, key, _answer(bundle, events, settings.results).to_bytes(), "application/json")
        notification = {
            "inferenceId": bundle,
            "invocationStatus": "Completed",
            "requestParameters": {"inputLocation": manifest},
            "responseParameters": {"outputLocation": f"s3://{settings.results}/{key}"},
        }
        message = {"messageId": "0", "body": json.dumps(notification), "eventSource": "aws:sqs"}
        began = time.process_time()
        answer = record.handler({"Records": [message]}, context)  # type: ignore[arg-type]
        recorded = time.process_time() - began
        if answer["batchItemFailures"]:
            raise RuntimeError(f"record returned messages: {answer}")
        if number >= WARM:
            spent["ingest"] += counted
            spent["record"] += recorded
    images = (BUNDLES - WARM) * BUNDLE_MAX
    print(json.dumps({name: seconds * 1000 / images for name, seconds in spent.items()}))


def _answer(bundle: str, events: list[dict[str, Any]], results: str) -> Answer:
    from datetime import UTC, datetime

    jobs = [dropped(source, datetime.now(UTC)) for event in events for source in sources_of(event)]
    timings = dict.fromkeys(("read", "decode", "predict", "refine", "foreground", "encode", "write"), 12.345)
    outcomes = [
        Outcome(
            job.id,
            "selfie",
            Result(results, job.result_key, 1000, 1000, 500_000, "ab" * 32, "png"),
            Subject((10, 20, 800, 900), 0.4321, 0.9876),
            (),
            timings,
        )
        for job in jobs
    ]
    return Answer(bundle, "cpu", 2000.0, None, tuple(outcomes))


if __name__ == "__main__":
    main()
