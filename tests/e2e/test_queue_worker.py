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

VISIBILITY_S = 3
"""Visibility timeout of a message in seconds. The tests wait for it."""

MESSAGES, BEFORE_THE_KILL = 100, 30
"""Messages of the test that kills the worker, and results that it waits for before."""


@dataclass(frozen=True)
class Parts:
    """A bucket with notifications to a queue, its dead-letter queue, and a table of images."""

    running: Running
    photos: str
    table: str
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

    def rows(self) -> list[dict[str, str]]:
        """Returns the state and the key of the source of every row."""
        pages = client(self.running.config, "dynamodb").get_paginator("scan").paginate(TableName=self.table)
        return [
            {"state": item["state"]["S"], "key": item["source"]["M"]["key"]["S"]}
            for page in pages
            for item in page["Items"]
        ]

    def results(self) -> set[str]:
        pages = self.running.images.s3.get_paginator("list_objects_v2").paginate(Bucket=self.photos, Prefix="results/")
        return {entry["Key"] for page in pages for entry in page.get("Contents", ())}

    @contextmanager
    def worker(self, *arguments: str, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
        env = {
            "MODEL_WEIGHTS_DIR": str(self.running.config.weights),
            "aws_queue_name": self.queue,
            "aws_source_bucket_name": self.running.stack.inbox,
            "AWS_TARGET_BUCKET_NAME": self.running.stack.results,
            "aws_dynamodb_table_name": self.table,
            "visibility_s": str(VISIBILITY_S),
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
    return made_parts(running, tmp_path, receives=1)


def made_parts(running: Running, folder: Path, *, receives: int) -> Parts:
    """receives: number of receives after which a message becomes a dead letter."""
    name = f"worker-{uuid.uuid4().hex[:8]}"
    sqs, s3 = client(running.config, "sqs"), running.images.s3

    def queue(name: str, **attributes: str) -> tuple[str, str]:
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    dead_letters, dead_arn = queue(f"{name}-dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": str(receives)})
    url, arn = queue(name, RedrivePolicy=redrive)
    s3.create_bucket(Bucket=name)
    rule: Any = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [rule]})
    client(running.config, "dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return Parts(running, name, name, url, dead_letters, folder / "worker.log")


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
    assert {row["key"]: row["state"] for row in parts.rows()} == {"webp/a b+ä.png": "done", "webp/broken.png": "failed"}


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
    with parts.worker(aws_queue_name=parts.queue.rpartition("/")[2] + "-none") as process:
        assert process.wait(timeout=60) == 1
    log = parts.log.read_text()
    assert "SQS refuses the queue" in log
    assert "Traceback" not in log


def test_a_worker_killed_in_the_middle_loses_no_image(running: Running, tmp_path: Path) -> None:
    """100 messages, 100 results, 100 rows. The bucket of the results notifies the queue too."""
    parts = made_parts(running, tmp_path, receives=10)
    file = io.BytesIO()
    Image.effect_noise((48, 64), 60).convert("RGB").save(file, "JPEG")
    sqs = client(running.config, "sqs")
    keys = [f"uploads/worker/{number}.jpg" for number in range(MESSAGES)]
    for key in keys:
        running.images.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=file.getvalue())
        body = {"key": key, "engine": "selfie"}
        sqs.send_message(QueueUrl=parts.queue, MessageBody=json.dumps(body))
    with parts.worker(AWS_TARGET_BUCKET_NAME=parts.photos) as killed:
        wait_until(lambda: len(parts.results()) >= BEFORE_THE_KILL, "the first results", 60)
        killed.kill()
    assert BEFORE_THE_KILL <= len(parts.results()) < MESSAGES
    with parts.worker(AWS_TARGET_BUCKET_NAME=parts.photos) as process:
        wait_until(lambda: parts.waiting(parts.queue) == 0, "the end of the queue", 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert parts.results() == {f"results/{key}.png" for key in keys}
    assert sorted(row["key"] for row in parts.rows()) == sorted(keys)
    assert {row["state"] for row in parts.rows()} == {"done"}
    assert parts.waiting(parts.dead_letters) == 0


def test_a_dry_run_returns_the_messages(parts: Parts, photo: bytes) -> None:
    parts.put("a.png", photo)
    wait_until(lambda: parts.waiting(parts.queue) >= 1, "the message", 60)
    before = parts.waiting(parts.queue)  # with the test event of S3
    with parts.worker("--break_loop", "--delete_sqs_message", "off") as process:
        assert process.wait(timeout=60) == 0
    assert parts.result("results/a.png.png")
    assert parts.waiting(parts.queue) + parts.waiting(parts.dead_letters) == before
