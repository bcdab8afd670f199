"""One owner that is slow or busy leaves the others served: webhooks, downloads, synchronous images and jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lambdas.webhooks import process
from maskdrop.access import usage_of
from maskdrop.errors import HostUnavailable, MaskdropError, RateLimitExceeded
from maskdrop.flow import admit, enqueue
from maskdrop.job import Job, Webhook, dropped, group_of, queued
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.options import Options
from maskdrop.services import Download
from maskdrop.slots import TRIES, limited, slot
from maskdrop.spending import list_caps, list_quotas, set_cap, set_quota
from maskdrop.valve import SHARE, SHARE_DELAY_S
from maskdrop.webhook import BUSY_S, RECEIVER_FAILURES, RETRY_S, bus_event, deliver
from maskdrop.wire import Invocation, JobMessage
from tests.fakes import NOW, FakeInteractive, FakeWeb, World, a_source, minutes_later
from tests.unit.lambdas.http.vendors import CALLER, call, urlencoded

KEY = "ab" * 32
URL = "https://hooks.example.com/hook"


def an_event(owner: str, url: str = URL) -> dict[str, Any]:
    job = dropped(a_source("uploads/a.jpg"), NOW)
    done = replace(job, state="done", owner=owner, finished_at=NOW, webhook=Webhook(url, KEY))
    return bus_event(done)


def a_world() -> World:
    world = World()
    world.registry.put("secret", KEY, {"webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
    return world


@dataclass
class WhileBusy(FakeWeb):
    """Does something else before it responds: what happens while a host is slow."""

    meanwhile: Callable[[], None] = lambda: None
    fetched: list[str] = field(default_factory=list)

    def post(self, *arguments: Any) -> int:
        todo, self.meanwhile = self.meanwhile, lambda: None
        todo()
        return super().post(*arguments)

    def fetch(self, url: str) -> Download:
        self.fetched.append(url)
        self.meanwhile()
        return Download(b"an image", "image/png")


def record(body: dict[str, Any], receives: int = 1) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(receives)}
    return {"messageId": "m", "receiptHandle": "r", "body": json.dumps(body), "attributes": attributes}


def test_slots_are_per_owner_and_are_free_again_when_a_call_ends_or_its_function_has_died() -> None:
    world = World()

    def free(owner: str, minutes: float = 0) -> bool:
        world.registry.now = minutes_later(minutes)
        with slot(world.registry, "tests", owner, count=2, seconds=60, now=NOW) as held:
            return held

    with ExitStack() as calls:
        for _ in range(2):
            assert calls.enter_context(slot(world.registry, "tests", "a", count=2, seconds=60, now=NOW))
        assert (free("a"), free("b"), free("a", minutes=1)) == (False, True, True)
    assert world.registry.list("slot") == {}


def test_a_call_with_many_slots_tries_a_few_of_them() -> None:
    world = World()
    with ExitStack() as calls:
        held = [
            calls.enter_context(slot(world.registry, "tests", "a", count=1000, seconds=60, now=NOW)) for _ in range(50)
        ]
    assert all(held)
    assert TRIES < 50


def test_a_slow_receiver_of_one_owner_takes_no_more_than_its_deliveries_at_once() -> None:
    world = a_world()
    world.settings = replace(world.settings, webhooks_at_once=1)
    others: list[Any] = []

    def meanwhile() -> None:
        for owner in ("slow", "other"):
            message = {"detail": an_event(owner)}
            others.append(process({"Records": [record(message)]}, world.settings, world.services, NOW))

    web = WhileBusy(meanwhile=meanwhile)
    services = replace(world.services, web=web)
    world.web = web
    assert deliver(an_event("slow"), world.settings, services, NOW) == "delivered"
    assert others == [{"batchItemFailures": []}] * 2
    owners = [json.loads(body)["data"]["owner"] for _, _, body in web.posted]
    assert owners == ["other", "slow"]  # the second of "slow" waits in the queue
    ((body, delay_s),) = world.webhooks_queue.sent
    assert (json.loads(body)["detail"]["data"]["owner"], delay_s) == ("slow", BUSY_S[0])
    assert world.webhooks_queue.groups == [group_of("slow")]


def test_a_delivery_that_waits_costs_no_attempt_and_keeps_the_earlier_ones() -> None:
    world = a_world()
    world.settings = replace(world.settings, webhooks_at_once=1)
    message = {"detail": an_event("slow")}
    with slot(world.registry, "webhooks", "slow", count=1, seconds=30, now=NOW):
        process({"Records": [record(message, receives=3)]}, world.settings, world.services, NOW)
        for delay_s in (*BUSY_S[1:], BUSY_S[-1]):
            body = json.loads(world.webhooks_queue.sent[-1][0])
            assert body["earlier"] == 2
            process({"Records": [record(body)]}, world.settings, world.services, NOW)
            assert world.webhooks_queue.sent[-1][1] == delay_s
    body = json.loads(world.webhooks_queue.sent[-1][0])
    world.web.status = 500
    process({"Records": [record(body)]}, world.settings, world.services, NOW)
    assert world.webhooks_queue.hidden == [("r", RETRY_S[2])]
    last = {**body, "earlier": len(RETRY_S) + 1}
    posted = len(world.web.posted)
    assert process({"Records": [record(last)]}, world.settings, world.services, NOW)["batchItemFailures"]
    assert len(world.web.posted) == posted


def test_a_receiver_that_does_not_respond_is_paused_for_its_owner_alone() -> None:
    world = a_world()
    world.web.status = HostUnavailable("hooks.example.com did not respond in time.")

    def attempt(owner: str = "a", url: str = URL) -> None:
        deliver(an_event(owner, url), world.settings, world.services, world.registry.now)

    for _ in range(RECEIVER_FAILURES + 2):
        with pytest.raises(HostUnavailable):
            attempt()
    assert len(world.web.posted) == RECEIVER_FAILURES
    world.web.status = 200
    attempt(owner="b")
    attempt(url="https://other.example.com/hook")
    world.registry.now = minutes_later(RETRY_S[1] / 60)
    attempt()
    assert len(world.web.posted) == RECEIVER_FAILURES + 3
    assert world.registry.list("receiver") == {}


def test_downloads_of_one_owner_are_limited_in_every_route_that_fetches_a_url() -> None:
    world = World()
    world.settings = replace(world.settings, fetches_at_once=1)
    web = WhileBusy()
    world.web = web
    source = {"url": "https://slow.example.com/a.png"}
    requests: list[Callable[[], Any]] = [
        lambda: call(world, "POST", "/v1/jobs", body=json.dumps({"source": source}).encode()),
        lambda: call(
            world, "POST", "/v1/cutouts", body=json.dumps({"source": source}).encode(), content_type="application/json"
        ),
        lambda: removebg(world, "/v1.0/removebg", image_url=source["url"]),
        lambda: removebg(world, "/v1.0/improve", image_url=source["url"]),
        lambda: call(world, "GET", "/api/remove", query=source),
    ]
    with slot(world.registry, "downloads", "ann", count=1, seconds=60, now=NOW):
        for request in requests:
            world.registry.delete("window", CALLER.id)
            response = request()
            assert response.status == 429, response
            assert "Retry-After" in response.headers or "retry-after" in response.headers
        assert web.fetched == []
        other = call(
            world,
            "POST",
            "/v1/cutouts",
            body=json.dumps({"source": source}).encode(),
            content_type="application/json",
            caller=replace(CALLER, id="b", owner="bob"),
        )
        assert other.status == 200
    world.registry.delete("window", CALLER.id)
    assert requests[1]().status == 200


def removebg(world: World, path: str, **fields: str) -> Any:
    body, content_type = urlencoded(fields)
    return call(world, "POST", path, body=body, content_type=content_type)


def test_images_that_one_owner_processes_synchronously_are_limited() -> None:
    world = World()
    world.settings = replace(world.settings, calls_at_once=1)

    @dataclass
    class Slow(FakeInteractive):
        refused: list[MaskdropError] = field(default_factory=list)

        def cut_out(self, image: bytes, invocation: Invocation) -> Any:
            inner = FakeInteractive()
            for owner in ("ann", "bob"):
                other = limited(replace(world.services, interactive=inner), owner, world.settings, NOW)
                try:
                    other.interactive.cut_out(image, invocation)
                except RateLimitExceeded as error:
                    self.refused.append(error)
            return super().cut_out(image, invocation)

    slow = Slow()
    services = limited(replace(world.services, interactive=slow), "ann", world.settings, NOW)
    services.interactive.cut_out(b"an image", Invocation(Options(), None))
    assert len(slow.refused) == 1
    assert "1 images of this caller are in progress" in slow.refused[0].message


def jobs_of(owner: str, count: int, name: str = "a") -> list[Job]:
    return [
        queued(a_source(f"uploads/{owner}/{name}{number}.jpg"), "default", Options(), NOW, owner=owner)
        for number in range(count)
    ]


def waiting(world: World, jobs: list[Job]) -> list[JobMessage]:
    for job in jobs:
        enqueue(job, world.services)
    return [JobMessage.from_body(body) for body, _ in world.queue.sent[-len(jobs) :]]


def test_messages_of_jobs_are_in_the_message_group_of_their_owner() -> None:
    world = World()
    waiting(world, jobs_of("a", 2) + jobs_of("b", 1))
    assert world.queue.groups == [group_of("a")] * 2 + [group_of("b")]
    assert {len(group) for group in world.queue.groups} == {32}  # an ARN may be longer than a group's 128 characters
    world.endpoint.unavailable = True
    messages = [JobMessage.from_body(body) for body, _ in world.queue.sent]
    admit(messages, world.settings, world.services, NOW)
    assert sorted(world.queue.groups[3:]) == sorted(world.queue.groups[:3])  # also when they return to the queue


def test_a_flood_of_one_owner_leaves_room_at_the_endpoint_for_the_others() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=64, bundle_max=8)
    flood = waiting(world, jobs_of("flood", 128))
    for start in range(0, len(flood), 8):
        assert admit(flood[start : start + 8], world.settings, world.services, NOW) == [None] * 8
    at_the_endpoint = sum(len(bundle.items) for bundle in world.bundles())
    assert at_the_endpoint == SHARE * 64
    delays = {delay_s for _, delay_s in world.queue.sent[128:]}
    assert delays == {SHARE_DELAY_S}
    (other,) = waiting(world, jobs_of("other", 1))
    assert admit([other], world.settings, world.services, NOW) == [None]
    assert world.bundles()[-1].items[0].id == other.job_id
    photos = [dropped(a_source(f"inbox/default/{number}.jpg"), NOW) for number in range(8)]
    admit(photos, world.settings, world.services, NOW)
    assert len(world.bundles()[-1].items) == 8


def test_an_owner_continues_when_its_bundles_have_ended() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=16, bundle_max=4)
    first, second = waiting(world, jobs_of("a", 4)), waiting(world, jobs_of("a", 4, "b"))
    admit(first, world.settings, world.services, NOW)
    admit(second, world.settings, world.services, NOW)
    assert len(world.endpoint.submitted) == 1
    world.registry.delete("valve", world.endpoint.submitted[0][0])
    admit(second, world.settings, world.services, NOW)
    assert len(world.endpoint.submitted) == 2


def test_an_owner_that_has_used_its_images_of_the_month_is_refused_until_the_next_one() -> None:
    world = World()
    world.settings = replace(world.settings, images_per_month=2)
    body = json.dumps({"image_base64": "AAAA"}).encode()

    def status(path: str = "/v1/cutouts", owner: str = "ann", method: str = "POST") -> int:
        caller = replace(CALLER, owner=owner, rate=1000)
        found = call(world, method, path, body=body, content_type="application/json", caller=caller)
        return found.status

    assert [status() for _ in range(3)] == [200, 200, 429]
    assert (status("/v1/jobs"), status(owner="bob"), status("/v1/jobs", method="GET")) == (429, 200, 200)
    set_quota(world.registry, "ann", 3)
    assert [status(), status()] == [200, 429]
    set_quota(world.registry, "ann", None)
    assert status() == 429


def test_limits_of_an_owner_are_set_one_by_one() -> None:
    registry = World().registry
    set_cap(registry, "ann", 5.0)
    set_quota(registry, "ann", 100)
    assert (list_caps(registry), list_quotas(registry)) == ({"ann": 5.0}, {"ann": 100})
    set_cap(registry, "ann", None)
    assert (list_caps(registry), list_quotas(registry)) == ({}, {"ann": 100})
    set_quota(registry, "ann", None)
    assert registry.list("cap") == {}


def test_what_an_owner_stores_in_a_day_is_limited_and_counted_in_every_route() -> None:
    world = World()
    world.web.images["https://photos.example.com/a.png"] = Download(b"x" * 100, "image/png")
    world.settings = replace(world.settings, bytes_per_day=1 << 40)

    def stored() -> int:
        items = [value for (kind, name), (value, _) in world.registry.items.items() if name.startswith("bytes#")]
        return sum(item["bytes"] for item in items)

    form = json.dumps({"name": "a.jpg", "content_type": "image/jpeg"}).encode()
    source = json.dumps({"source": {"url": "https://photos.example.com/a.png"}}).encode()
    requests: list[tuple[Callable[[], Any], int]] = [
        (lambda: call(world, "POST", "/v1/uploads", body=form), IMAGE_BYTES_MAX),
        (lambda: call(world, "POST", "/v1/jobs", body=source), 100),
        (lambda: removebg(world, "/v1.0/improve", image_url="https://photos.example.com/a.png"), 100),
        (
            lambda: removebg(
                world,
                "/v1.0/removebg",
                image_file_b64="AAAA",
                bg_image_url="https://photos.example.com/a.png",
            ),
            100,
        ),
    ]
    for request, size in requests:
        world.registry.delete("window", CALLER.id)
        before = stored()
        assert request().status < 300
        assert stored() == before + size
    assert usage_of(world.registry, "ann", "2026-11")["pictures"] == 3  # a report of a bad result counts too
    world.settings = replace(world.settings, bytes_per_day=stored())
    for request, _ in requests:
        world.registry.delete("window", CALLER.id)
        assert request().status == 429
