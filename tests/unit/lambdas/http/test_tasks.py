"""Tests /v1/masks, /v1/detections and /v1/edits, and compares each response with the OpenAPI document."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lambdas.http.openapi import document
from maskdrop.access import Caller
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, Task
from maskdrop.errors import EndpointStarting
from maskdrop.job import Result, ResultItem
from maskdrop.options import Options
from maskdrop.prompt import Prompt
from tests.fakes import SETTINGS, World
from tests.load.mix import REQUESTS, request_of
from tests.unit.lambdas.http import vendors
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Response, in_json, multipart

SHOP = Caller(id="k", owner="shop", scope="all", rate=100)

FACE = {"label": "face", "min_confidence": 80}
FACES = (Prompt(label="face", min_confidence=80),)
TASKS = {"/v1/masks": "mask", "/v1/detections": "detect", "/v1/edits": "replace"}


def call(world: World, method: str, path: str, **options: Any) -> Response:
    """Sends a request. Fails if the document does not describe the status and the JSON of the response."""
    found = vendors.call(world, method, path, caller=SHOP, **options)
    described = document()
    template = "/v1/jobs/{job_id}" if path.startswith("/v1/jobs/") else path
    response = described["paths"][template][method.lower()]["responses"][str(found.status)]
    media_type = found.headers["content-type"].partition(";")[0]
    schema = {**response["content"][media_type]["schema"], "components": described["components"]}
    if media_type == "application/json":
        assert not [error.message for error in Draft202012Validator(schema).iter_errors(found.json)]
    assert {name.lower() for name in response.get("headers", ())} <= found.headers.keys() | {"retry-after"}
    return found


def post(world: World, path: str, **options: Any) -> Response:
    """Sends a photo in JSON with these options."""
    body, content_type = in_json({"image_base64": ENCODED, **options})
    return call(world, "POST", path, body=body, content_type=content_type)


def requested_options(world: World) -> Options:
    (image, invocation) = world.interactive.requests[-1]
    assert image == PHOTO
    return invocation.options


def error_code(response: Response) -> tuple[int, str]:
    return response.status, response.json["error"]["code"]


BACKGROUND = {"output": {"background": "red"}}


@pytest.mark.parametrize(("path", "task"), TASKS.items())
def test_the_path_determines_the_task(path: str, task: str) -> None:
    world = World()
    options = BACKGROUND if task == "replace" else {}
    for more in ({}, {"task": task}, {"task": None}):
        assert post(world, path, **options, **more).status == 200
        assert requested_options(world) == Options.from_json({"task": task, **options})


@pytest.mark.parametrize("path", TASKS)
@pytest.mark.parametrize("where", ["query", "header", "form", "json"])
def test_another_task_than_that_of_the_path_is_rejected(path: str, where: str) -> None:
    world = World()
    sent: dict[str, Any] = {"body": PHOTO, "content_type": "image/jpeg"}
    if where == "query":
        sent["query"] = {"task": "cutout"}
    elif where == "header":
        sent["headers"] = {"X-Maskdrop-Options": '{"task": "cutout"}'}
    else:
        as_form = multipart({"image": PHOTO, "task": "cutout"})
        as_json = in_json({"image_base64": ENCODED, "task": "cutout"})
        sent = dict(zip(("body", "content_type"), as_form if where == "form" else as_json, strict=True))
    response = call(world, "POST", path, **sent)
    assert error_code(response) == (422, "options_conflict")
    assert f'"task" must be "{TASKS[path]}"' in response.json["error"]["message"]
    assert world.interactive.requests == []


@pytest.mark.parametrize(("path", "task"), TASKS.items())
def test_the_path_of_cutouts_accepts_every_task(path: str, task: str) -> None:
    world = World()
    options = {"task": task, **(BACKGROUND if task == "replace" else {})}
    assert post(world, "/v1/cutouts", **options).status == 200
    by_task = requested_options(world)
    assert post(world, path, **options).status == 200
    assert requested_options(world) == by_task


@pytest.mark.parametrize("preset", ["default", "webp", "faces-only"])
def test_a_prompt_selects_the_engine_where_the_preset_has_the_default_engine(preset: str) -> None:
    world = World()
    world.registry.put("preset", "faces-only", {"engine": "prompted", "prompt": {"label": "person"}})
    assert post(world, "/v1/masks", preset=preset, prompt=FACE).status == 200
    options = requested_options(world)
    assert (options.engine, options.prompts, options.output.channels) == ("prompted", FACES, "alpha")


def test_the_engine_of_a_preset_is_kept_where_it_is_not_the_default() -> None:
    world = World()
    post(world, "/v1/masks", preset="object")
    assert requested_options(world).engine == "u2netp"
    post(world, "/v1/masks", preset="object", prompt={"label": "cup"}, engine="prompted")
    assert requested_options(world).engine == "prompted"
    response = post(world, "/v1/masks", preset="object", prompt={"points": [[1, 2]]})
    assert error_code(response) == (422, "invalid_prompt")
    assert error_code(post(world, "/v1/detections", preset="object")) == (422, "options_conflict")


def test_each_instance_is_a_result_with_a_presigned_url() -> None:
    world = World(settings=replace(SETTINGS, link_s=60))
    response = post(world, "/v1/masks", prompt=FACE, instances="each")
    assert (response.status, requested_options(world).instances) == (200, "each")
    results = [response.json["result"], *(one["result"] for one in response.json["results"])]
    assert len({one["key"] for one in results}) == len(world.interactive.instances) + 1
    for one in results:
        assert one["url"] == f"https://{one['bucket']}/{one['key']}?valid=60"
    assert [one["label"] for one in response.json["results"]] == list(world.interactive.instances)
    assert all(0 < one["score"] <= 1 and len(one["box"]) == 4 for one in response.json["results"])


def test_instances_without_a_prompt_are_rejected() -> None:
    assert error_code(post(World(), "/v1/masks", instances="each")) == (422, "options_conflict")
    assert error_code(post(World(), "/v1/masks", instances="some")) == (400, "invalid_options")


def test_a_finished_job_has_a_presigned_url_of_each_result() -> None:
    world = World(settings=replace(SETTINGS, interactive="", interactive_mode="off", link_s=60))
    created = post(world, "/v1/masks", prompt=FACE, instances="each")
    assert created.status == 202
    (job,) = world.jobs.records.values()
    union, face = (Result("results-bucket", f"{name}.png", 3, 4, 5, "0" * 64, "png") for name in ("all", "face"))
    world.jobs.records[job.id] = replace(job, state="done", result=union, results=(ResultItem(face, "face", 0.9),))
    body = call(world, "GET", f"/v1/jobs/{job.id}").json
    assert body["result"]["url"] == "https://results-bucket/all.png?valid=60"
    assert [one["result"]["url"] for one in body["results"]] == ["https://results-bucket/face.png?valid=60"]


DETECTED = {"label": "airplane", "score": 0.875, "box": [64, 48, 320, 240]}


def test_detections_are_json() -> None:
    world = World()
    world.interactive.detections = [DETECTED]
    response = post(world, "/v1/detections", prompt={"label": "airplane", "select": "largest"})
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    labels = world.interactive.labels
    assert response.json == {
        "width": 640, "height": 480, "engine": "labels", "labels": labels, "detections": [DETECTED],
    }  # fmt: skip
    assert requested_options(world).prompts == (Prompt(label="airplane", select="largest"),)
    world.interactive.labels = None  # Amazon Rekognition
    assert post(world, "/v1/detections", engine="rekognition", prompt={"label": "airplane"}).json["labels"] is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"engine": "portrait"}, (422, "options_conflict")),
        ({"output": {"format": "webp"}}, (422, "options_conflict")),
        ({"prompt": {"box": [1, 2, 3, 4]}}, (422, "invalid_prompt")),
        ({"instances": "each", "prompt": FACE}, (422, "options_conflict")),
        ({"edit": "a beach"}, (422, "options_conflict")),
        ({"engine": "nothing"}, (400, "unknown_engine")),
    ],
)
def test_options_that_detection_does_not_have_are_rejected(options: dict[str, Any], expected: tuple[int, str]) -> None:
    world = World()
    assert error_code(post(world, "/v1/detections", **options)) == expected
    assert world.interactive.requests == []


@pytest.mark.parametrize(("path", "task"), TASKS.items())
def test_the_document_lists_the_engines_of_the_task(path: str, task: str) -> None:
    parameters = {one["name"]: one for one in document()["paths"][path]["post"]["parameters"]}
    engines = [name for name, engine in ENGINES.items() if task in engine.tasks]
    assert parameters["engine"]["schema"]["enum"] == [*engines, ""]
    assert parameters["task"]["schema"]["enum"] == [task, ""]


def test_a_background_is_replaced_synchronously() -> None:
    world = World()
    response = post(world, "/v1/edits", output={"background": "red", "format": "jpg"}, prompt={"box": [1, 2, 30, 40]})
    assert (response.status, response.body, response.headers["content-type"]) == (200, b"a cut-out", "image/jpeg")
    assert (requested_options(world).task, requested_options(world).engine) == ("replace", "prompted")


def test_images_generated_from_text_are_a_job() -> None:
    world = World()
    edit = {"prompts": ["a beach", "a forest"], "seeds": [1, 2.0], "change": "background"}
    response = post(world, "/v1/edits", edit=edit, prompt=FACE)
    (job,) = world.jobs.records.values()
    assert (response.status, response.headers["location"]) == (202, f"jobs/{job.id}")
    assert response.json["edit"] == {"prompts": ["a beach", "a forest"], "seeds": [1, 2]}
    assert (response.json["stage"], response.json["task"], response.json["owner"]) == ("segment", "replace", "shop")
    assert job.options.edit
    assert len(job.options.edit.candidates) == 4
    assert world.storage.read(job.source.bucket, job.source.key) == PHOTO
    assert (world.interactive.requests, [job.id in body for body, _ in world.queue.sent]) == ([], [True])


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/cutouts", "/v1/jobs"])
def test_a_text_that_the_editor_cannot_generate_is_rejected_before_a_job_is_created(path: str) -> None:
    world = World()
    world.storage.objects["inbox-bucket", "inbox/a.jpg"] = PHOTO
    source = {"source": {"bucket": "inbox-bucket", "key": "inbox/a.jpg"}} if path == "/v1/jobs" else {}
    body, content_type = in_json(
        {
            **(source or {"image_base64": ENCODED}),
            "task": "replace",
            "edit": {"prompts": ["a beach", "an impossible beach"]},
        }
    )
    response = call(world, "POST", path, body=body, content_type=content_type)
    assert error_code(response) == (422, "text_not_supported")
    assert (world.jobs.records, world.interactive.requests) == ({}, [])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edit": "a beach", **BACKGROUND},
        {"edit": {"prompts": ["a", "b", "c", "d"], "seeds": [1, 2, 3, 4]}},
        {"output": {"background": "red", "channels": "alpha"}},
    ],
)
def test_conflicting_options_of_an_edit_are_rejected(options: dict[str, Any]) -> None:
    world = World()
    assert error_code(post(world, "/v1/edits", **options)) == (422, "options_conflict")
    assert (world.jobs.records, world.interactive.requests) == ({}, [])


FLAT = {"instances": "each", "prompt": json.dumps(FACE), "format": "webp", "task": "", "edit": ""}


@pytest.mark.parametrize("where", ["query", "form"])
def test_options_can_be_flat_fields(where: str) -> None:
    world = World()
    if where == "query":
        response = call(world, "POST", "/v1/masks", body=PHOTO, content_type="image/jpeg", query=FLAT)
    else:
        body, content_type = multipart({"image": PHOTO, **FLAT})
        response = call(world, "POST", "/v1/masks", body=body, content_type=content_type)
    assert response.status == 200
    options = requested_options(world)
    assert (options.prompts, options.instances, options.output.format) == (FACES, "each", "webp")


STROKES = [{"mode": "erase", "width": "24px", "hardness": 0.8, "points": [[10.0, 20.5], [30.0, 40.0]]}]


@pytest.mark.parametrize("where", ["query", "form", "json"])
def test_strokes_are_json_in_a_flat_field_and_a_list_in_json(where: str) -> None:
    world = World()
    flat = {"strokes": json.dumps(STROKES)}
    if where == "query":
        response = call(world, "POST", "/v1/cutouts", body=PHOTO, content_type="image/jpeg", query=flat)
    elif where == "form":
        body, content_type = multipart({"image": PHOTO, **flat})
        response = call(world, "POST", "/v1/cutouts", body=body, content_type=content_type)
    else:
        response = post(world, "/v1/cutouts", strokes=STROKES)
    assert response.status == 200
    assert requested_options(world).to_json()["strokes"] == STROKES


def test_more_strokes_than_a_header_holds_become_a_job_that_keeps_them() -> None:
    world = World()
    strokes = [{**STROKES[0], "points": [[float(x), 1.5] for x in range(200)]}]
    response = post(world, "/v1/cutouts", strokes=strokes)
    assert (response.status, response.json["strokes"]) == (202, strokes)
    (job,) = world.jobs.records.values()
    assert job.options.to_json()["strokes"] == strokes


@pytest.mark.parametrize("where", ["query", "form"])
@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a beach", ["a beach"]),
        ('"a beach"', ["a beach"]),
        ('"Sale" on a wall', ['"Sale" on a wall']),
        ("1984", ["1984"]),
        ('{"prompts": ["a", "b"]}', ["a", "b"]),
    ],
)
def test_an_edit_in_a_flat_field_is_a_text_or_json(where: str, text: str, prompts: list[str]) -> None:
    world = World()
    body, content_type = multipart({"image": PHOTO, "edit": text}) if where == "form" else (PHOTO, "image/png")
    query = {"edit": text} if where == "query" else {}
    response = call(world, "POST", "/v1/edits", body=body, content_type=content_type, query=query)
    assert (response.status, response.json["edit"]) == (202, {"prompts": prompts})


@pytest.mark.parametrize(
    "query", [{"edit": "{"}, {"edit": " "}, {"prompt": "{"}, {"edit": '{"seed": 1}'}, {"strokes": "["}]
)
def test_a_malformed_flat_field_is_rejected(query: dict[str, str]) -> None:
    response = call(World(), "POST", "/v1/edits", body=PHOTO, content_type="image/png", query=query)
    assert error_code(response) == (400, "invalid_options")


@pytest.mark.parametrize("path", TASKS)
def test_an_endpoint_that_is_starting_creates_a_job_of_the_task(path: str) -> None:
    world = World()
    world.interactive.broken = EndpointStarting("It is starting.")
    response = post(world, path, **(BACKGROUND if path == "/v1/edits" else {}))
    assert (response.status, response.json["task"]) == (202, TASKS[path])


@pytest.mark.parametrize("task", REQUESTS)
def test_the_load_mix_has_a_request_of_each_task(task: Task) -> None:
    world = World()
    path, payload = request_of(task, PHOTO)
    body, content_type = in_json(payload)
    assert call(world, "POST", path, body=body, content_type=content_type).status == 200
    assert requested_options(world).task == task


def test_each_task_has_one_default_engine() -> None:
    engines = call(World(), "GET", "/v1/engines").json["engines"]
    assert [one["name"] for one in engines] == list(ENGINES)
    found = {task: one["name"] for one in engines for task in one["default_for"]}
    assert found == DEFAULT_ENGINE
    for one in engines:
        assert (one["default"], one["task"]) == (bool(one["default_for"]), one["tasks"][0])
        assert set(one["default_for"]) <= set(one["tasks"])
