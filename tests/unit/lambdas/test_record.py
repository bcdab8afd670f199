import json
from collections.abc import Callable
from typing import Any

import pytest

from lambdas.observe import metrics
from lambdas.record import process
from maskdrop.flow import admit, new_jobs
from maskdrop.wire import Notification, split_s3_uri
from tests.fakes import NOW, World, a_source, a_success


def body(notification: Notification) -> str:
    return json.dumps(
        {
            "inferenceId": notification.bundle,
            "invocationStatus": "Completed" if notification.completed else "Failed",
            "requestParameters": {"inputLocation": notification.input},
            "responseParameters": {"outputLocation": notification.output},
            "failureReason": notification.reason,
        }
    )


def sqs(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": f"m{number}", "body": text, "eventSource": "aws:sqs"} for number, text in enumerate(bodies)
        ]
    }


def test_a_notification_finishes_its_job() -> None:
    world = World()
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    notification = world.completed(bundle, [a_success(bundle.items[0].id)])
    response = process(sqs(body(notification)), world.settings, world.services, NOW)
    assert response == {"batchItemFailures": []}
    assert [job.state for job in world.jobs.records.values()] == ["done"]


def test_a_failed_bundle_is_counted_and_its_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    metrics().clear_metrics()
    process(sqs(body(world.failed(bundle, "connection reset"))), world.settings, world.services, NOW)
    assert list(metrics().metric_set) == ["BundlesFailed"]
    metrics().clear_metrics()
    (line,) = [line for line in caplog.records if line.message == "bundle failed"]
    assert line.why == "connection reset"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "damage", [lambda body: body[: len(body) // 2], lambda _: b"", lambda _: b"[]", lambda _: b"{}"]
)
def test_the_jobs_of_an_unreadable_response_are_queued_again_at_once(
    damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    notification = world.completed(bundle, [a_success(bundle.items[0].id)])
    stored = world.storage.objects
    stored[split_s3_uri(notification.output)] = damage(stored[split_s3_uri(notification.output)])
    metrics().clear_metrics()
    response = process(sqs(body(notification)), world.settings, world.services, NOW)
    assert response == {"batchItemFailures": []}
    assert [job.state for job in world.jobs.records.values()] == ["queued"]
    assert list(metrics().metric_set) == ["BundlesFailed"]
    metrics().clear_metrics()
    (line,) = [line for line in caplog.records if line.message == "bundle failed"]
    assert "its response is unreadable" in line.why  # type: ignore[attr-defined]


def test_only_notifications_without_a_readable_response_are_returned() -> None:
    world = World()
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    good = world.completed(bundle, [a_success(bundle.items[0].id)])
    bad = Notification("b9", True, "s3://results-bucket/in", "s3://results-bucket/nowhere", "")
    response = process(sqs(body(bad), "not json", body(good)), world.settings, world.services, NOW)
    assert response == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m1"}]}
    assert [job.state for job in world.jobs.records.values()] == ["done"]


def test_a_batch_of_failing_notifications_is_returned_and_logged_without_an_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    response = process(sqs("not json"), world.settings, world.services, NOW)
    assert response == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    (line,) = [line for line in caplog.records if line.message == "message returned"]
    assert line.exc_info
    assert line.exc_info[0] is json.JSONDecodeError
