"""Tests the `worker` command of the container with a queue and buckets, without SageMaker."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from local.config import KEY_ID, REGION, ROOT, SECRET
from local.connect import client
from tests.e2e.conftest import Running, wait_until

DEADLINE_S = 3
"""Deadline of one image in seconds. The visibility timeout is twice as long, and the test waits for it."""


@dataclass(frozen=True)
class Parts:
    """A bucket with notifications to a queue, and its dead-letter queue; a message is received at most once."""

    running: Running
    photos: str
    queue: str
    dead_letters: str
    log: Path

    def put(self, key: str, body: bytes) -> None:
        self.running.images.s3.put_object(Bucket=self.photos, Key=key, Body=body)

    def result(self, key: str) -> Image.Image | None:
        try:
            return Image.open(io.BytesIO(self.running.object(self.running.stack.results, key)))
        except ClientError:
            return None

    def waiting(self, queue: str) -> int:
        """Returns the number of messages in a queue, including hidden ones."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        sqs = client(self.running.config, "sqs")
        counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(map(int, counts.values()))

    @contextmanager
    def worker(self, *arguments: str, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
        env = {
            "MODEL_WEIGHTS_DIR": str(self.running.config.weights),
            "MODEL_QUEUE_URL": self.queue,
            "MODEL_RESULTS_BUCKET": self.running.stack.results,
            "MODEL_DEADLINE_S": str(DEADLINE_S),
            "AWS_ENDPOINT_URL": self.running.config.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            **changes,
        }
        command = [sys.executable, "-m", "sagemaker_model", "worker", *arguments]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=log)  # noqa: S603
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def parts(running: Running, tmp_path: Path) -> Parts:
    name = f"worker-{uuid.uuid4().hex[:8]}"
    sqs, s3 = client(running.config, "sqs"), running.images.s3

    def queue(name: str, **attributes: str) -> tuple[str, str]:
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    dead_letters, dead_arn = queue(f"{name}-dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": "1"})
    url, arn = queue(name, RedrivePolicy=redrive)
    s3.create_bucket(Bucket=name)
    rule: Any = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [rule]})
    return Parts(running, name, url, dead_letters, tmp_path / "worker.log")


def test_the_worker_processes_a_queue_until_sigterm_and_an_invalid_image_becomes_a_dead_letter(
    parts: Parts, photo: bytes
) -> None:
    with parts.worker() as process:
        parts.put("webp/a b+ä.png", photo)
        parts.put("webp/broken.png", photo[:1000])
        wait_until(lambda: parts.waiting(parts.dead_letters) == 1, "the dead letter", 60)
        wait_until(lambda: parts.waiting(parts.queue) == 0, "the end of the queue", 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0, "the worker must not wait for more messages"
    image = parts.result("results/webp/a b+ä.png.webp")
    assert image
    assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (512, 512))
    assert parts.result("results/webp/broken.png.webp") is None
    log = parts.log.read_text()
    assert "unreadable_picture" in log
    assert "redrive" not in log


def test_the_worker_with_once_processes_all_messages_and_exits(parts: Parts, photo: bytes) -> None:
    names = [f"{number}.png" for number in range(3)]
    for name in names:
        parts.put(name, photo)
    wait_until(lambda: parts.waiting(parts.queue) >= len(names), "the messages", 60)
    with parts.worker("--once") as process:
        assert process.wait(timeout=60) == 0
    assert parts.waiting(parts.queue) == 0
    assert all(parts.result(f"results/{name}.png") for name in names)


def test_a_missing_queue_stops_the_worker_with_an_error(parts: Parts) -> None:
    with parts.worker(MODEL_QUEUE_URL=f"{parts.queue}-none") as process:
        assert process.wait(timeout=60) == 1
    log = parts.log.read_text()
    assert "SQS refuses the queue" in log
    assert "Traceback" not in log
