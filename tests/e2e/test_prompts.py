"""Tests masks and detections by prompts: the API, the drop folder and the command return the same files."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image
from typer.testing import CliRunner

from cli.app import app
from maskdrop.job import RESULTS_PREFIX, Job, item_key
from maskdrop.options import Options
from tests.e2e.conftest import Running
from tests.e2e.test_jobs import a_job

FACE = (176, 72, 275, 176)
"""The box around the left face, in pixels; the right one is SHIFT to the right."""

SHIFT = 512
TOLERANCE = 12

PROMPTS: dict[str, Any] = {
    "faces": {"label": "face"},
    "clicked": {"label": "face", "points": [[224, 112]]},
    "people": {"label": "person"},
}
"""A prompt by the name of its preset."""

MASKS = {name: Options.from_json({"task": "mask", "prompt": prompt, "instances": "each"})
         for name, prompt in PROMPTS.items()}  # fmt: skip
DETECTIONS = Options.from_json({"task": "detect", "prompt": [{"label": "face"}, {"label": "person"}]})


@dataclass(frozen=True)
class Made:
    """files: of all results, the main one first. items: label and box of each other one."""

    files: list[bytes]
    items: list[tuple[str, tuple[int, ...]]]


Way = Callable[[Running, bytes, str, Options, Path], Made]
"""Processes an image. The text is the name of a preset with the options."""


def by_request(running: Running, image: bytes, _preset: str, options: Options, _folder: Path) -> Made:
    path = {"mask": "/v1/masks", "detect": "/v1/detections"}[options.task]
    headers = {"Content-Type": "image/png", "X-Maskdrop-Options": json.dumps(options.to_json())}
    response = running.images.http.post(path, content=image, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    if options.task == "detect":
        return Made([response.content], [])
    data = response.json()
    urls = [one["url"] for one in (data["result"], *(item["result"] for item in data["results"]))]
    return Made([fetched(url) for url in urls], [(item["label"], tuple(item["box"])) for item in data["results"]])


def by_job(running: Running, image: bytes, _preset: str, options: Options, _folder: Path) -> Made:
    created = a_job(running.images.http, image, **options.to_json())
    job = running.wait_for_end([created["id"]])[created["id"]]
    return of_job(running, job)


def by_folder(running: Running, image: bytes, preset: str, options: Options, _folder: Path) -> Made:
    job_id = running.put(image, f"{preset}/{uuid.uuid4().hex}.png")
    job = running.wait_for_end([job_id])[job_id]
    assert (job.preset, job.options) == (preset, options)
    return of_job(running, job)


def by_command(running: Running, image: bytes, _preset: str, options: Options, folder: Path) -> Made:
    photo = folder / "two.png"
    photo.write_bytes(image)
    flags = ["--instances", "each"] if options.task == "mask" else ["--rekognition"]  # as the stage does
    prompts = json.dumps([one.to_json() for one in options.prompts])
    done = CliRunner().invoke(
        app,
        [options.task, str(photo), "--prompt", prompts, *flags, "--json", "--out", str(folder / "out")],
        env=aws(running),
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout.splitlines()[-1])
    paths = [one["path"] for one in (data["result"], *(item["result"] for item in data["results"]))]
    return Made([Path(path).read_bytes() for path in paths],
                [(item["label"], tuple(item["box"])) for item in data["results"]])  # fmt: skip


def aws(running: Running) -> dict[str, str]:
    """Returns the environment variables of a user with the local stack as AWS account."""
    stack = running.stack
    return {
        **running.config.ai_endpoints,
        "AWS_ACCESS_KEY_ID": stack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": stack.secret_access_key,
        "AWS_REGION": stack.region,
        "AWS_DEFAULT_REGION": stack.region,
    }


WAYS: list[Way] = [by_request, by_job, by_folder, by_command]


def of_job(running: Running, job: Job) -> Made:
    assert job.state == "done", job.error
    return Made(running.files(job), [(item.label, item.box or ()) for item in job.results])


def fetched(url: str) -> bytes:
    response = httpx2.get(url, trust_env=False)
    assert response.status_code == 200, response.text
    return response.content


def mask_of(file: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(file))
    assert image.mode == "L"
    return np.asarray(image)


def is_near(box: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(one - two) <= TOLERANCE for one, two in zip(box, other, strict=True))


@pytest.fixture(scope="module", autouse=True)
def _presets(running: Running) -> Iterator[None]:
    with running.presets({**MASKS, "boxes": DETECTIONS}):
        yield


@pytest.fixture(scope="module")
def made(running: Running, two_people: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Made]]:
    """The results of each preset, in the order of WAYS."""
    return {
        name: [way(running, two_people, name, options, tmp_path_factory.mktemp(name)) for way in WAYS]
        for name, options in {**MASKS, "boxes": DETECTIONS}.items()
    }


@pytest.mark.parametrize("name", [*MASKS, "boxes"])
def test_every_way_returns_the_same_files(made: dict[str, list[Made]], name: str) -> None:
    first, *others = made[name]
    for way, one in zip(WAYS[1:], others, strict=True):
        assert one == first, way.__name__


def test_the_label_face_returns_a_mask_of_each_face(made: dict[str, list[Made]]) -> None:
    faces = made["faces"][0]
    right = (FACE[0] + SHIFT, FACE[1], FACE[2] + SHIFT, FACE[3])
    assert [label for label, _ in faces.items] == ["face", "face"]
    (_, one), (_, other) = sorted(faces.items, key=lambda item: item[1])
    assert is_near(one, FACE)
    assert is_near(other, right)
    both, *each = map(mask_of, faces.files)
    assert np.array_equal(both, np.maximum(*each))
    assert not np.logical_and(*each).any()
    for (_, box), mask in zip(faces.items, each, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == box


def test_a_click_selects_one_of_the_faces(made: dict[str, list[Made]]) -> None:
    clicked = made["clicked"][0]
    [(label, box)] = clicked.items
    assert label == "face"
    assert is_near(box, FACE)
    assert clicked.files[0] == clicked.files[1]
    assert mask_of(clicked.files[0])[112, 224] == 255


def test_the_label_person_returns_a_mask_of_each_person(made: dict[str, list[Made]]) -> None:
    people = made["people"][0]
    assert [label for label, _ in people.items] == ["person", "person"]
    left, right = (mask for _, mask in sorted(zip(people.items, map(mask_of, people.files[1:]), strict=True),
                                              key=lambda one: one[0][1]))  # fmt: skip
    assert (left[112, 224], left[112, 224 + SHIFT], right[112, 224], right[112, 224 + SHIFT]) == (255, 0, 0, 255)
    assert min((left > 0).mean(), (right > 0).mean()) > 0.1


def test_detections_name_the_boxes_of_faces_and_people(made: dict[str, list[Made]]) -> None:
    report = json.loads(made["boxes"][0].files[0])
    assert (report["width"], report["height"], report["engine"]) == (1024, 512, "labels")
    found = sorted((one["label"], round(one["box"][0] / SHIFT)) for one in report["detections"])
    assert found == [("face", 0), ("face", 1), ("person", 0), ("person", 1)]
    assert all(0.5 < one["score"] <= 1 for one in report["detections"])


def test_a_job_lists_its_results_with_working_urls_and_deletes_them(
    running: Running, two_people: bytes, tmp_path: Path
) -> None:
    http = running.images.http
    created = a_job(http, two_people, **MASKS["faces"].to_json())
    running.wait_for_end([created["id"]])
    data = http.get(f"/v1/jobs/{created['id']}").json()
    main, results = data["result"], data["results"]
    assert [one["result"]["key"] for one in results] == [item_key(main["key"], 1), item_key(main["key"], 2)]
    assert main["key"].endswith(f"/{created['id']}.png")
    assert {one["score"] > 0.5 for one in results} == {True}
    assert any(warning.startswith("fallback_engine") for warning in data["warnings"])
    objects = [main, *(one["result"] for one in results)]
    for one in objects:
        assert fetched(one["url"]) == running.object(one["bucket"], one["key"])
        assert len(fetched(one["url"])) == one["bytes"]
    running.images.download(data, tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png") if path.is_file()]
    assert sorted(files) == sorted(one["key"].removeprefix(RESULTS_PREFIX) for one in objects)
    assert http.delete(f"/v1/jobs/{created['id']}").status_code == 204
    for one in objects:
        with pytest.raises(ClientError, match="NoSuchKey"):
            running.object(one["bucket"], one["key"])


def test_a_label_that_is_not_in_the_image_returns_an_empty_mask_with_a_warning(running: Running) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 90)).save(file, "PNG")
    headers = {"Content-Type": "image/png"}
    params = {"prompt": '{"label": "face"}', "instances": "each"}
    response = running.images.http.post("/v1/masks", content=file.getvalue(), headers=headers, params=params)
    assert response.status_code == 200, response.text
    assert not mask_of(response.content).any()
    assert "label_not_found" in response.headers["x-maskdrop-warnings"]
