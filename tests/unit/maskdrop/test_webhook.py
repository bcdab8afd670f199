import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from maskdrop.errors import BlockedUrl, FailedDownload, HostUnavailable
from maskdrop.job import Job, Webhook, dropped
from maskdrop.trace import trace_id_of
from maskdrop.webhook import RETRY_S, bus_event, deliver, event_of, message_id, signature
from tests.fakes import NOW, World, a_source, minutes_later

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://hooks.example.com/maskdrop"


def a_done_job(bundle: str = "b1") -> Job:
    job = dropped(a_source("inbox/default/ü.jpg"), NOW)
    return replace(job, state="done", bundle=bundle, finished_at=minutes_later(1), webhook=Webhook(URL, "ab" * 32))


def a_world() -> World:
    world = World()
    world.registry.put("secret", "ab" * 32, {"webhook_secret": SECRET})
    return world


def test_a_receiver_verifies_what_is_posted_with_the_standards_own_library() -> None:
    world, now, event = a_world(), datetime.now(UTC), bus_event(a_done_job())
    assert deliver(event, world.settings, world.services, now) == "delivered"
    ((url, headers, body),) = world.web.posted
    assert url == URL
    assert Receiver(SECRET).verify(body, headers) == event_of(a_done_job())
    for changed in ({"webhook-id": "another"}, {"webhook-timestamp": str(int(now.timestamp()) - 1)}):
        with pytest.raises(WebhookVerificationError):
            Receiver(SECRET).verify(body, {**headers, **changed})
    with pytest.raises(WebhookVerificationError):
        Receiver(SECRET).verify(body.replace(b"done", b"fail"), headers)


def test_a_receiver_gets_the_trace_of_the_job() -> None:
    world, job = a_world(), a_done_job()
    deliver(bus_event(job), world.settings, world.services, NOW)
    deliver(bus_event(replace(job, trace_id="")), world.settings, world.services, NOW)  # a record of an older version
    with_trace, without = (headers for _, headers, _ in world.web.posted)
    assert trace_id_of(with_trace["traceparent"]) == job.trace_id
    assert "traceparent" not in without


def test_the_signature_is_that_of_the_specification() -> None:
    # The example that it publishes for those who write a library.
    made = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_body_is_the_event_that_the_bus_carries() -> None:
    job = a_done_job()
    assert event_of(job) == {"type": "job.done", "timestamp": "2026-11-20T12:01:00.000000Z", "data": job.public()}
    assert event_of(replace(job, state="failed"))["type"] == "job.failed"


def test_neither_callers_nor_receivers_get_the_name_of_the_key_that_signs() -> None:
    world, job = a_world(), a_done_job()
    deliver(bus_event(job), world.settings, world.services, NOW)
    ((_, headers, body),) = world.web.posted
    assert "ab" * 32 not in f"{headers}{body.decode()}"
    assert job.public()["webhook"] == {"url": URL}
    assert "ab" * 32 not in json.dumps(job.public())
    assert bus_event(replace(job, webhook=None)) == event_of(replace(job, webhook=None))


def test_every_attempt_has_the_same_id_and_a_time_of_its_own() -> None:
    world, event = a_world(), bus_event(a_done_job())
    for now in (NOW, minutes_later(5)):
        deliver(event, world.settings, world.services, now)
    first, second = (headers for _, headers, _ in world.web.posted)
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 300


def test_an_event_id_belongs_to_one_outcome_of_one_job() -> None:
    ends = [a_done_job(), a_done_job("b2"), replace(a_done_job(), state="failed"), replace(a_done_job(), id="0" * 32)]
    ids = {message_id(event_of(job)) for job in ends}
    assert len(ids) == 4
    assert not any("." in one for one in ids)
    assert message_id(event_of(replace(a_done_job(), finished_at=minutes_later(9)))) in ids


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_is_a_delivery(status: int) -> None:
    world = a_world()
    world.web.status = status
    assert deliver(bus_event(a_done_job()), world.settings, world.services, NOW) == "delivered"


@pytest.mark.parametrize("status", [199, 301, 307, 400, 401, 404, 429, 500, 503])
def test_any_other_status_is_retried(status: int) -> None:
    world = a_world()
    world.web.status = status
    with pytest.raises(HostUnavailable, match=str(status)):
        deliver(bus_event(a_done_job()), world.settings, world.services, NOW)


def test_an_unreachable_host_is_retried() -> None:
    world = a_world()
    world.web.status = FailedDownload("There is no host hooks.example.com.")
    with pytest.raises(FailedDownload):
        deliver(bus_event(a_done_job()), world.settings, world.services, NOW)


def test_a_410_or_a_forbidden_url_ends_the_delivery() -> None:
    world = a_world()
    world.web.status = 410
    assert deliver(bus_event(a_done_job()), world.settings, world.services, NOW) == "gone"
    world.web.status = BlockedUrl("It is not a host of the public internet.")
    assert deliver(bus_event(a_done_job()), world.settings, world.services, NOW) == "refused"


@pytest.mark.parametrize("item", [None, {}, {"webhook_secret": ""}])
def test_no_event_is_posted_without_a_signature(item: dict[str, str] | None) -> None:
    world = World()
    if item is not None:
        world.registry.put("secret", "ab" * 32, item)
    assert deliver(bus_event(a_done_job()), world.settings, world.services, NOW) == "unsigned"
    assert world.web.posted == []


def test_delays_grow_up_to_the_maximum_of_the_queue() -> None:
    assert list(RETRY_S) == sorted(RETRY_S)
    assert RETRY_S[-1] <= 12 * 3600


def test_a_job_keeps_its_webhook() -> None:
    assert Job.from_json(json.loads(json.dumps(a_done_job().to_json()))) == a_done_job()
