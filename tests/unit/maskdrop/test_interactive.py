from __future__ import annotations

from dataclasses import replace

import pytest

from maskdrop.catalog import ENGINES
from maskdrop.errors import EndpointStarting, QueueFull, UnreadableImage
from maskdrop.flow import admit, parse_message
from maskdrop.interactive import BYTES_MAX, SPENT_MAX_S, cut_out_now
from maskdrop.job import Job, Result
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompt
from maskdrop.settings import Interactive
from maskdrop.wire import ImageResponse
from tests.fakes import NOW, SETTINGS, World


def ask(
    world: World, picture: bytes = b"a photo", options: Options | None = None, *, spent_s: float = 0.0
) -> ImageResponse | Job:
    chosen = options or Options()
    return cut_out_now(picture, chosen, "default", "ann", world.settings, world.services, NOW, spent_s=spent_s)


def in_mode(mode: Interactive) -> World:
    return World(settings=replace(SETTINGS, interactive_mode=mode))


def has_become_a_job(world: World, answer: ImageResponse | Job, picture: bytes = b"a photo") -> bool:
    """And would be submitted: it is written, its image stored, its message sent."""
    (record,) = world.jobs.records.values()
    (message,) = [body for body, _ in world.queue.sent]
    assert answer == record
    assert (record.state, record.owner) == ("queued", "ann")
    assert world.storage.objects[record.source.bucket, record.source.key] == picture
    assert admit(parse_message(message, NOW), world.settings, world.services, NOW) == [None]
    return [item.id for bundle in world.bundles() for item in bundle.items] == [record.id]


def test_the_response_is_the_cut_out_and_nothing_is_stored() -> None:
    world = World()
    answer = ask(world, options=Options(output=Output(format="webp")))
    assert isinstance(answer, ImageResponse)
    assert (answer.file, answer.content_type) == (b"a cut-out", "image/webp")
    assert (world.storage.objects, world.jobs.records, world.queue.sent) == ({}, {}, [])


def test_a_result_too_large_for_the_response_gets_a_key_of_its_own() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    places = [answer.file for answer in (ask(world), ask(world)) if isinstance(answer, ImageResponse)]
    assert all(isinstance(place, Result) and place.bucket == world.settings.results for place in places)
    assert len({place.key for place in places if isinstance(place, Result)}) == 2


def test_without_an_interactive_endpoint_an_image_becomes_a_job() -> None:
    world = in_mode("off")
    assert has_become_a_job(world, ask(world))
    assert world.interactive.requests == []


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_serverless_runs_the_light_engines_and_real_time_runs_all(name: str) -> None:
    options = Options(engine=name)
    serverless, realtime = in_mode("serverless"), in_mode("realtime")
    assert isinstance(ask(serverless, options=options), ImageResponse if ENGINES[name].light else Job)
    assert isinstance(ask(realtime, options=options), ImageResponse)


def test_serverless_refines_by_no_network() -> None:
    options = Options(refine="vitmatte")
    assert isinstance(ask(in_mode("serverless"), options=options), Job)
    assert isinstance(ask(in_mode("realtime"), options=options), ImageResponse)


def test_when_the_endpoint_is_not_ready_in_time_the_image_becomes_a_job() -> None:
    world = World()
    world.interactive.broken = EndpointStarting("It is starting.")
    assert has_become_a_job(world, ask(world))
    assert len(world.interactive.requests) == 1


@pytest.mark.parametrize("error", [UnreadableImage("It is damaged."), QueueFull("It is busy.")])
def test_an_error_of_the_container_is_raised_and_no_job_is_created(error: UnreadableImage | QueueFull) -> None:
    world = World()
    world.interactive.broken = error
    with pytest.raises(type(error)):
        ask(world)
    assert world.jobs.records == {}


def test_an_image_too_large_for_the_endpoint_becomes_a_job() -> None:
    large, wordy = World(), World()
    picture = b"x" * (BYTES_MAX + 1)
    assert has_become_a_job(large, ask(large, picture), picture)
    boxes = tuple(Prompt((0, 0, 1000 + number, 1000)) for number in range(64))
    assert has_become_a_job(wordy, ask(wordy, options=Options(engine="grabcut", prompts=boxes)))


def test_an_image_that_took_long_to_fetch_becomes_a_job() -> None:
    world = World()
    assert isinstance(ask(world, spent_s=SPENT_MAX_S), ImageResponse)
    assert has_become_a_job(world, ask(world, spent_s=SPENT_MAX_S + 0.1))
