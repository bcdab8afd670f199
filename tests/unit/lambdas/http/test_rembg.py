from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lambdas.http.dialects.rembg import ENGINE_OF, PATHS
from maskdrop.access import OPEN_PATHS
from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import EndpointUnavailable, MaskdropError, UnreadablePicture, UnsupportedFormat
from maskdrop.now import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import Colour, Output
from maskdrop.prompt import Prompt
from maskdrop.services import Download
from tests.fakes import SETTINGS, World
from tests.unit.lambdas.http.vendors import PHOTO, Answer, call, multipart

PATH = "/api/remove"
ADDRESS = "https://example.com/a.jpg"


def post(world: World, query: dict[str, str] | None = None, **fields: str | bytes) -> Answer:
    body, content_type = multipart({"file": PHOTO, **fields})
    return call(world, "POST", PATH, body=body, content_type=content_type, query=query)


def get(world: World, **query: str) -> Answer:
    world.web.pictures[ADDRESS] = Download(PHOTO, "image/jpeg")
    return call(world, "GET", PATH, query=query)


def options(world: World) -> Options:
    [(picture, invocation)] = world.interactive.asked
    assert picture == PHOTO
    return invocation.options


def warnings(answer: Answer) -> list[str]:
    told: list[str] = json.loads(answer.headers["x-maskdrop-warnings"])
    return told


def test_a_file_and_an_address_come_back_as_a_png() -> None:
    for answer in (post(World()), get(World(), url=ADDRESS)):
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"a cut-out", "image/png")


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, Options()),
        ({"om": "true"}, Options(output=Output(channels="alpha"))),
        ({"om": "false"}, Options()),
        ({"bgc": "255,128,0,64"}, Options(output=Output(background=Colour(255, 128, 0, 64)))),
        ({"bgc": "255, 128, 0"}, Options(output=Output(background=Colour(255, 128, 0)))),
        ({"bgc": "1,2,3,4", "om": "true"}, Options(output=Output(channels="alpha"))),
        ({"model": "selfie"}, Options(engine="selfie")),
        ({"model": "u2net_human_seg"}, Options(engine=ENGINE_OF["u2net_human_seg"])),
        ({"a": "true", "af": "240", "ab": "10", "ae": "10", "ppm": "true", "dc": "true", "vm": "true"}, Options()),
    ],
)
def test_every_parameter_means_one_of_our_options_in_the_form_and_in_the_query(
    fields: dict[str, str], meant: Options
) -> None:
    form, query, fetched = World(), World(), World()
    assert {post(form, **fields).status, post(query, fields).status, get(fetched, url=ADDRESS, **fields).status} == {
        200
    }
    assert options(form) == options(query) == options(fetched) == meant


@pytest.mark.parametrize("model", ["u2net", "isnet-general-use", "no such model"])
def test_a_model_that_is_not_here_is_the_default_engine_and_the_answer_says_so(model: str) -> None:
    world = World()
    [_, told] = warnings(post(world, model=model))
    assert repr(model) in told
    assert options(world).engine == DEFAULT_ENGINE["cutout"]


@pytest.mark.parametrize("model", ["", "portrait", "birefnet-portrait"])
def test_a_model_that_has_its_like_here_needs_no_warning(model: str) -> None:
    assert warnings(post(World(), model=model)) == ["a warning"]


MARKS = [
    {"type": "point", "data": [5, 6], "label": 1},
    {"type": "point", "data": [7, 8], "label": 0},
    {"type": "rectangle", "data": [1, 2, 30, 40]},
]


def test_points_and_a_rectangle_for_sam_are_a_prompt() -> None:
    world = World(settings=replace(SETTINGS, interactive_mode="realtime"))
    assert post(world, {"extras": json.dumps({"sam_prompt": MARKS})}, model="sam").status == 200
    assert options(world).engine == "sam"
    assert options(world).prompts == (Prompt((1, 2, 30, 40), ((5, 6, 1), (7, 8, 0))),)


@pytest.mark.parametrize(
    "extras", ["{", "[]", '{"sam_prompt": 1}', '{"sam_prompt": [1]}', '{"sam_prompt": [{"type": "point"}]}']
)
def test_extras_that_make_no_sense_are_refused_where_they_count(extras: str) -> None:
    world = World(settings=replace(SETTINGS, interactive_mode="realtime"))
    assert post(world, {"extras": extras}, model="sam").status == 400
    assert post(world, {"extras": extras}).status == 200


@pytest.mark.parametrize("bgc", ["red", "256,0,0,0", "1,2", "1,2,3,4,5", "-1,2,3,4"])
def test_a_colour_that_is_none_is_refused(bgc: str) -> None:
    answer = get(World(), url=ADDRESS, bgc=bgc)
    assert answer.status == 400
    assert "bgc" in answer.json["detail"]


@pytest.mark.parametrize("error", [UnsupportedFormat, UnreadablePicture])
def test_a_file_that_is_no_picture_is_refused_in_a_sentence(error: type[MaskdropError]) -> None:
    world = World()
    world.interactive.broken = error("It is no image.")
    answer = post(world)
    assert (answer.status, answer.json) == (400, {"detail": "It is no image."})


def test_a_missing_file_or_address_is_said_as_fastapi_says_it() -> None:
    body, content_type = multipart({"model": "u2net"})
    no_file = call(World(), "POST", PATH, body=body, content_type=content_type)
    no_address = call(World(), "GET", PATH)
    assert (no_file.status, no_file.json["detail"][0]["loc"]) == (422, ["body", "file"])
    assert (no_address.status, no_address.json["detail"][0]["loc"]) == (422, ["query", "url"])


def test_an_address_that_gives_no_picture_is_refused() -> None:
    answer = get(World(), url="https://nowhere.example/")
    assert (answer.status, list(answer.json)) == (400, ["detail"])


def test_what_may_pass_says_when_to_come_again_and_makes_no_job() -> None:
    world = World()
    world.interactive.broken = EndpointUnavailable("It is busy.")
    answer = post(world)
    assert (answer.status, answer.json) == (503, {"detail": "It is busy."})
    assert answer.headers["retry-after"].isdigit()
    assert world.jobs.records == {}


def test_an_engine_that_the_endpoint_cannot_run_is_refused_and_makes_no_job() -> None:
    world = World()
    assert post(world, model="sam").status == 503
    assert world.jobs.records == {}


def test_a_result_that_is_too_large_is_redirected_to() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    answer = post(world)
    assert (answer.status, list(answer.json)) == (303, ["detail"])
    assert answer.headers["location"].startswith("https://results-bucket/")


def test_its_address_is_not_open_as_theirs_is() -> None:
    assert not set(PATHS) & set(OPEN_PATHS)
