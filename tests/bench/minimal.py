"""Minimal functions for the triggers of `ingest` and `record`, on plain botocore and Powertools, to compare ours with.

They make one write and one event with the whole record for each image, and the calls of a bundle, with as many
threads. They have no duplicates, retries, limits, presets or types, and store the outcome as one text. Clients are
created at the first call, as ours are.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.config import Config
from botocore.session import get_session

THREADS = 8
EVENTS_MAX = 10
"""Events of one call of PutEvents."""

logger, metrics, tracer = Logger(), Metrics(), Tracer(auto_patch=False)
metrics.set_default_dimensions(stage="bench")


@lru_cache
def client(service: str) -> Any:
    return get_session().create_client(service, config=Config(max_pool_connections=THREADS))


@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context
def ingest(event: dict[str, Any], context: Any) -> Any:
    """Writes a record for each photo, and submits the photos of all messages as one bundle."""
    bundle, photos = uuid.uuid4().hex, []

    def read(record: SQSRecord) -> None:
        for created in json.loads(record.body)["Records"]:
            stored = created["s3"]["object"]
            photos.append((created["s3"]["bucket"]["name"], unquote_plus(stored["key"]), stored["versionId"]))

    processor = BatchProcessor(event_type=EventType.SQS)
    response = process_partial_response(event=event, record_handler=read, processor=processor)
    now = datetime.now(UTC).isoformat()

    def write(photo: tuple[str, str, str]) -> str:
        job = uuid.uuid5(uuid.NAMESPACE_URL, "/".join(photo)).hex
        fields = {"id": job, "state": "submitted", "bundle": bundle, "created_at": now}
        fields |= dict(zip(("bucket", "key", "version_id"), photo, strict=True))
        item = {name: {"S": value} for name, value in fields.items()}
        client("dynamodb").put_item(
            TableName=os.environ["MASKDROP_TABLE"], Item=item, ConditionExpression="attribute_not_exists(id)"
        )
        return job

    ids = in_threads(write, photos)
    items = [{"id": job, "bucket": photo[0], "key": photo[1]} for job, photo in zip(ids, photos, strict=True)]
    key, body = f"bundles/{bundle}.json", json.dumps({"id": bundle, "items": items}).encode()
    client("s3").put_object(Bucket=os.environ["MASKDROP_RESULTS"], Key=key, Body=body, ContentType="application/json")
    client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="bench", InputLocation=f"s3://{os.environ['MASKDROP_RESULTS']}/{key}", InferenceId=bundle
    )
    logger.info("bundle submitted", extra={"bundle": bundle, "photos": len(photos)})
    return response


@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics(capture_cold_start_metric=True)
@logger.inject_lambda_context
def record(event: dict[str, Any], context: Any) -> Any:
    """Records the outcome of each image of a bundle and publishes an event for it."""

    def process(record: SQSRecord) -> None:
        location = json.loads(record.body)["responseParameters"]["outputLocation"]
        bucket, _, key = location.removeprefix("s3://").partition("/")
        outcomes = json.loads(client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())["outcomes"]
        for batch in batches(in_threads(write, outcomes), EVENTS_MAX):
            entries = [
                {
                    "EventBusName": os.environ["MASKDROP_EVENT_BUS"],
                    "Source": "bench",
                    "DetailType": "JobFinished",
                    "Detail": json.dumps(job),
                }
                for job in batch
            ]
            client("events").put_events(Entries=entries)
        metrics.add_metric("JobsDone", MetricUnit.Count, len(outcomes))

    def write(outcome: dict[str, Any]) -> dict[str, Any]:
        response = client("dynamodb").update_item(
            TableName=os.environ["MASKDROP_TABLE"],
            Key={"id": {"S": outcome["id"]}},
            UpdateExpression="SET #state = :done, outcome = :outcome, finished_at = :now",
            ConditionExpression="#state = :submitted",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={
                ":done": {"S": "done"},
                ":submitted": {"S": "submitted"},
                ":outcome": {"S": json.dumps(outcome)},
                ":now": {"S": datetime.now(UTC).isoformat()},
            },
            ReturnValues="ALL_NEW",
        )
        return {name: value["S"] for name, value in response["Attributes"].items()}

    processor = BatchProcessor(event_type=EventType.SQS)
    return process_partial_response(event=event, record_handler=process, processor=processor)


def in_threads(call: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, items))


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
