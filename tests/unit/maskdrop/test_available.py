"""Which engines a stage has: `available` of GET /v1/engines, and requests for other engines."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lambdas.http.jobs import job_of
from lambdas.http.routes import engines
from maskdrop.access import Caller
from maskdrop.errors import UnknownEngine
from maskdrop.interactive import check_engine, cut_out_now
from maskdrop.options import Options
from tests.fakes import NOW, SETTINGS, World


def available(listed: str) -> dict[str, Any]:
    return {one["name"]: one["available"] for one in engines(replace(SETTINGS, engines=listed))["engines"]}


def test_an_engine_is_available_or_not_or_unknown() -> None:
    assert {name for name, known in available("auto modnet").items() if known} == {"auto", "modnet"}
    assert available("auto modnet")["sam"] is False
    assert available("auto *")["auto"] is True
    assert available("auto *")["sam"] is None
    assert set(available(SETTINGS.engines).values()) == {None}


def new_job(world: World) -> None:
    world.storage.objects["inbox-bucket", "inbox/photo.jpg"] = b"bytes"
    caller = Caller(id="k0", owner="ann", scope="all", rate=1000)
    payload = {"source": {"bucket": "inbox-bucket", "key": "inbox/photo.jpg"}, "engine": "modnet"}
    job_of(payload, caller, world.settings, world.services, NOW)


def new_image(world: World) -> None:
    cut_out_now(b"bytes", Options(engine="modnet"), "default", "ann", world.settings, world.services, NOW)


@pytest.mark.parametrize("create", [new_job, new_image])
def test_a_request_for_an_engine_that_is_known_to_be_missing_is_refused_at_once(
    create: Callable[[World], None],
) -> None:
    world = World(settings=replace(SETTINGS, engines="auto sam"))
    with pytest.raises(UnknownEngine, match=r"'modnet' is not installed.*GET /v1/engines.*maskdrop models pull"):
        create(world)
    assert world.jobs.records == {}
    unknown = World(settings=replace(SETTINGS, engines="auto *"))
    create(unknown)
    assert len(unknown.jobs.records) == 1


def test_a_refinement_that_is_known_to_be_missing_is_refused_at_once() -> None:
    options = Options(refine="vitmatte")
    with pytest.raises(UnknownEngine, match="'vitmatte' is not installed"):
        check_engine(options, replace(SETTINGS, engines="auto"))
    check_engine(options, replace(SETTINGS, engines="auto vitmatte"))
    check_engine(options, replace(SETTINGS, engines="auto *"))
