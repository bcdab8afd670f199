from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lambdas.http.dialects.rembg import ENGINE_OF, PATHS
from maskdrop.access import OPEN_PATHS
from maskdrop.background import Colour
from maskdrop.errors import EndpointUnavailable, MaskdropError, UnknownEngine, UnreadableImage, UnsupportedFormat
from maskdrop.interactive import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompt
from maskdrop.services import Download
from tests.fakes import SETTINGS, World
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Response, call, multipart

PATH = "/api/remove"
URL = "https://example.com/a.jpg"


def post(world: World, query: dict[str, str] | None = None, **fields: str | bytes) -> Response:
    body, content_type = multipart({"file": PHOTO, **fields})
    return call(world, "POST", PATH, body=body, content_type=content_type, query=query)


def get(world: World, **query: str) -> Response:
    world.web.images[URL] = Download(PHOTO, "image/jpeg")
    return call(world, "GET", PATH, query=query)


def options(world: World) -> Options:
    [(image, invocation)] = world.interactive.requests
    assert image == PHOTO
    return invocation.options


def test_a_file_and_a_url_return_a_png() -> None:
    for response in (post(World()), get(World(), url=URL)):
        assert (response.status, response.body, response.headers["content-type"]) == (200, b"a cut-out", "image/png")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Options()),
        ({"om": "true"}, Options(output=Output(channels="alpha"))),
        ({"om": "false"}, Options()),
        ({"bgc": "255,128,0,64"}, Options(output=Output(background=Colour(255, 128, 0, 64)))),
        ({"bgc": "255, 128, 0"}, Options(output=Output(background=Colour(255, 128, 0)))),
        ({"bgc": "1,2,3,4", "om": "true"}, Options(output=Output(channels="alpha"))),
        ({"model": "selfie"}, Options(engine="selfie")),
        ({"model": ""}, Options()),
        ({"a": "true", "af": "240", "ab": "10", "ae": "10", "ppm": "true", "dc": "true", "vm": "true"}, Options()),
    ],
)
def test_parameters_in_form_and_query_are_translated_to_options(fields: dict[str, Any], expected: Options) -> None:
    form, query, fetched = World(), World(), World()
    assert {post(form, **fields).status, post(query, fields).status, get(fetched, url=URL, **fields).status} == {200}
    assert options(form) == options(query) == options(fetched) == expected


REMBG = [
    "u2net", "u2net_human_seg", "silueta", "isnet-general-use", "isnet-anime", "birefnet-general",
    "birefnet-general-lite", "birefnet-portrait", "birefnet-dis", "birefnet-hrsod", "birefnet-cod", "birefnet-massive",
    "birefnet-general-fp16", "bria-rmbg", "sam",
]  # fmt: skip
"""The models of rembg 2.0.86 that are engines here."""


@pytest.mark.parametrize("model", REMBG)
def test_a_model_of_rembg_is_the_engine_of_that_name(model: str) -> None:
    world = World(settings=replace(SETTINGS, interactive_mode="realtime"))
    assert post(world, model=model).status == 200
    assert options(world).engine == ENGINE_OF.get(model, model)


@pytest.mark.parametrize("model", ["u2net_cloth_seg", "no such model", "labels", "U2NET"])
def test_an_unknown_model_is_rejected_with_the_known_ones(model: str) -> None:
    world = World()
    response = post(world, model=model)
    assert response.status == 400
    assert f"got {model!r}" in response.json["detail"]
    assert "isnet-general-use" in response.json["detail"]
    assert world.interactive.requests == []


def test_a_model_that_the_stage_does_not_run_is_reported_with_the_command_that_installs_it() -> None:
    response = post(World(), model="isnet-general-use")
    assert response.status == 503
    assert "maskdrop models pull isnet-general-use" in response.json["detail"]


def test_a_model_whose_weights_are_missing_is_reported_with_the_message_of_the_container() -> None:
    world = World(settings=replace(SETTINGS, interactive_mode="realtime"))
    world.interactive.broken = UnknownEngine("Install it with `maskdrop models pull silueta`.")
    response = post(world, model="silueta")
    assert (response.status, "models pull silueta" in response.json["detail"]) == (400, True)


MARKS = [
    {"type": "point", "data": [5, 6], "label": 1},
    {"type": "point", "data": [7, 8], "label": 0},
    {"type": "rectangle", "data": [1, 2, 30, 40]},
]


def test_the_points_and_rectangle_of_sam_prompt_are_a_prompt() -> None:
    world = World(settings=replace(SETTINGS, interactive_mode="realtime"))
    assert post(world, {"extras": json.dumps({"sam_prompt": MARKS})}, model="sam").status == 200
    assert options(world).engine == "sam"
    assert options(world).prompts == (Prompt((1, 2, 30, 40), ((5, 6, 1), (7, 8, 0))),)


@pytest.mark.parametrize(
    "extras", ["{", "[]", '{"sam_prompt": 1}', '{"sam_prompt": [1]}', '{"sam_prompt": [{"type": "point"}]}']
)
def test_invalid_extras_are_rejected_only_for_an_engine_with_prompts(extras: str) -> None:
    world = World(settings=replace(SETTINGS, interactive_mode="realtime"))
    assert post(world, {"extras": extras}, model="sam").status == 400
    assert post(world, {"extras": extras}).status == 200


@pytest.mark.parametrize("bgc", ["red", "256,0,0,0", "1,2", "1,2,3,4,5", "-1,2,3,4"])
def test_an_invalid_colour_is_rejected(bgc: str) -> None:
    response = get(World(), url=URL, bgc=bgc)
    assert response.status == 400
    assert "bgc" in response.json["detail"]


@pytest.mark.parametrize("error", [UnsupportedFormat, UnreadableImage])
def test_a_file_that_is_not_an_image_returns_400_with_the_message(error: type[MaskdropError]) -> None:
    world = World()
    world.interactive.broken = error("It is no image.")
    response = post(world)
    assert (response.status, response.json) == (400, {"detail": "It is no image."})


def test_a_missing_file_or_url_returns_422_in_the_format_of_fastapi() -> None:
    body, content_type = multipart({"model": "u2net"})
    no_file = call(World(), "POST", PATH, body=body, content_type=content_type)
    no_url = call(World(), "GET", PATH)
    assert (no_file.status, no_file.json["detail"][0]["loc"]) == (422, ["body", "file"])
    assert (no_url.status, no_url.json["detail"][0]["loc"]) == (422, ["query", "url"])


def test_a_url_without_an_image_returns_400() -> None:
    response = get(World(), url="https://nowhere.example/")
    assert (response.status, list(response.json)) == (400, ["detail"])


def test_a_retryable_error_has_retry_after_and_creates_no_job() -> None:
    world = World()
    world.interactive.broken = EndpointUnavailable("It is busy.")
    response = post(world)
    assert (response.status, response.json) == (503, {"detail": "It is busy."})
    assert response.headers["retry-after"].isdigit()
    assert world.jobs.records == {}


def test_an_engine_that_the_endpoint_does_not_run_returns_503_and_creates_no_job() -> None:
    world = World()
    assert post(world, model="sam").status == 503
    assert world.jobs.records == {}


def test_a_result_that_is_too_large_returns_a_redirect() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    response = post(world)
    assert (response.status, list(response.json)) == (303, ["detail"])
    assert response.headers["location"].startswith("https://results-bucket/")


def test_the_path_of_rembg_requires_a_key() -> None:
    assert not set(PATHS) & set(OPEN_PATHS)


@pytest.mark.parametrize("word", ["True", "TRUE", "1", "yes", "on", "t"])
def test_a_boolean_may_be_any_word_that_clients_write(word: str) -> None:
    world = World()
    assert post(world, om=word).status == 200
    assert options(world).output.channels == "alpha"


def test_a_word_that_is_no_boolean_is_rejected() -> None:
    response = post(World(), om="maybe")
    assert response.status == 400
    assert '"om"' in response.json["detail"]


def test_the_url_may_be_a_data_url() -> None:
    world = World()
    response = call(world, "GET", PATH, query={"url": f"data:image/jpeg;base64,{ENCODED}"})
    assert response.status == 200
    assert options(world) == Options()


def test_a_file_in_another_field_is_an_error_that_names_the_right_one() -> None:
    body, content_type = multipart({"image_file": PHOTO})
    response = call(World(), "POST", PATH, body=body, content_type=content_type)
    assert response.status == 422
    assert (
        response.json["detail"][0]["msg"]
        == 'The form must have the file "file", with at least one byte. Rename its field \'image_file\' to "file".'
    )
    assert response.json["detail"][0]["loc"] == ["body", "file"]


def warnings(response: Response) -> list[str]:
    """Returns the names of the warnings of a response, after that of the engine."""
    first, *others = json.loads(response.headers["x-maskdrop-warnings"])
    assert first == "a warning"
    return [text.partition(":")[0] for text in others]


def test_vm_refines_by_vitmatte_where_it_is_installed_and_is_a_warning_elsewhere() -> None:
    has_it = World(settings=replace(SETTINGS, engines="auto vitmatte", interactive_mode="realtime"))
    assert warnings(post(has_it, vm="true")) == []
    assert options(has_it) == Options(refine="vitmatte")
    lacks_it = World(settings=replace(SETTINGS, engines="auto"))
    assert warnings(post(lacks_it, vm="true")) == ["vm_ignored"]
    assert options(lacks_it) == Options()
    assert post(World(), vm="maybe").status == 400


BOX = json.dumps({"sam_prompt": [{"type": "rectangle", "data": [1, 2, 3, 4]}], "sam_model": "sam_vit_h_4b8939"})


@pytest.mark.parametrize(
    ("model", "installed", "engine", "expected"),
    [
        ("sam", "auto sam", "sam", ["sam_model_ignored"]),
        ("sam", "auto prompted", "prompted", ["model_replaced", "sam_model_ignored"]),
        ("u2netp", "auto u2netp", "u2netp", ["sam_model_ignored", "sam_prompt_ignored"]),
    ],
)
def test_extras_of_sam_are_used_where_an_engine_takes_them_and_are_warnings_elsewhere(
    model: str, installed: str, engine: str, expected: list[str]
) -> None:
    world = World(settings=replace(SETTINGS, engines=installed, interactive_mode="realtime"))
    response = post(world, {"extras": BOX}, model=model)
    assert warnings(response) == expected
    assert (options(world).engine, bool(options(world).prompts)) == (engine, engine != "u2netp")
