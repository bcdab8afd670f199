"""Tests generated backgrounds with the editor of the local stack: the API, the drop folder and the command return the
same files, and the subject keeps its pixels."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image
from typer.testing import CliRunner

from cli.app import app
from maskdrop.edit import alpha_key, edit_keys
from maskdrop.job import Job, item_key
from maskdrop.options import Options
from tests.e2e.conftest import Running
from tests.e2e.test_jobs import a_job

TEXTS = ["white studio", "blue gradient"]
REPLACE = Options.from_json({"task": "replace", "edit": {"prompts": TEXTS}})
UNKNOWN = Options.from_json({"task": "replace", "edit": "a beach at sunset"})

Way = Callable[[Running, bytes, Path], tuple[list[bytes], str]]
"""Processes an image with REPLACE. Returns the files of the results, and the id of the job, "" without one."""


def by_request(running: Running, image: bytes, _folder: Path) -> tuple[list[bytes], str]:
    body = {"Content-Type": "image/png", "X-Maskdrop-Options": json.dumps(REPLACE.to_json())}
    response = running.images.http.post("/v1/edits", content=image, headers=body)
    assert response.status_code == 202, response.text
    return of_job(running, response.json()["id"])


def by_folder(running: Running, image: bytes, _folder: Path) -> tuple[list[bytes], str]:
    return of_job(running, running.put(image, f"backdrops/{uuid.uuid4().hex}.png"))


def by_command(_running: Running, image: bytes, folder: Path) -> tuple[list[bytes], str]:
    photo = folder / "photo.png"
    photo.write_bytes(image)
    texts = [part for text in TEXTS for part in ("--text", text)]
    done = CliRunner().invoke(app, ["replace", str(photo), *texts, "--json", "--out", str(folder / "out")])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout.splitlines()[-1])
    paths = [one["path"] for one in (data["result"], *(item["result"] for item in data["results"]))]
    return [Path(path).read_bytes() for path in paths], ""


WAYS: list[Way] = [by_request, by_folder, by_command]


def of_job(running: Running, job_id: str) -> tuple[list[bytes], str]:
    job = running.wait_for_end([job_id])[job_id]
    assert job.state == "done", job.error
    return running.files(job), job_id


def failed_job(running: Running, image: bytes, **options: Any) -> Job:
    created = a_job(running.images.http, image, task="replace", **options)
    job = running.wait_for_end([created["id"]])[created["id"]]
    assert job.state == "failed"
    return job


def png(image: Image.Image) -> bytes:
    to = io.BytesIO()
    image.save(to, "PNG")
    return to.getvalue()


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def stored_alpha(running: Running, job_id: str) -> np.ndarray:
    """Returns the alpha of the segmented source, HxW."""
    return np.asarray(Image.open(io.BytesIO(running.object(running.stack.results, alpha_key(job_id)))))


def assert_subject_kept(source: bytes, result: bytes, alpha: np.ndarray) -> None:
    """The subject has the pixels of the source, and the background has others."""
    before, after = pixels(source), pixels(result)
    assert np.array_equal(after[alpha == 255], before[alpha == 255])
    assert (alpha == 255).mean() > 0.2
    changed = (after[alpha == 0] != before[alpha == 0]).any(axis=1)
    assert changed.mean() > 0.95


@pytest.fixture(scope="module", autouse=True)
def _presets(running: Running) -> Iterator[None]:
    with running.presets({"backdrops": REPLACE, "beaches": UNKNOWN}):
        yield


@pytest.fixture(scope="module")
def made(running: Running, photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[bytes], str]]:
    """Files and id of the job of each way, in the order of WAYS."""
    return [way(running, photo, tmp_path_factory.mktemp(way.__name__)) for way in WAYS]


def test_every_way_returns_the_same_candidates(made: list[tuple[list[bytes], str]]) -> None:
    (first, _), *others = made
    for way, (files, _) in zip(WAYS[1:], others, strict=True):
        assert files == first, way.__name__


def test_each_text_gives_a_candidate_that_keeps_the_pixels_of_the_subject(
    running: Running, made: list[tuple[list[bytes], str]], photo: bytes
) -> None:
    (main, *candidates), job_id = made[0]
    assert len(candidates) == len(TEXTS)
    assert main == candidates[0] != candidates[1]
    alpha = stored_alpha(running, job_id)
    for candidate in candidates:
        assert_subject_kept(photo, candidate, alpha)


def test_a_job_lists_its_candidates_and_deletes_them_with_the_files_of_the_edit(
    running: Running, made: list[tuple[list[bytes], str]]
) -> None:
    http, job_id = running.images.http, made[0][1]
    data = http.get(f"/v1/jobs/{job_id}").json()
    results, main = data["results"], data["result"]
    assert [(one["prompt"], one["seed"]) for one in results] == [(text, 0) for text in TEXTS]
    assert [one["result"]["key"] for one in results] == [item_key(main["key"], 1), item_key(main["key"], 2)]
    assert data["stage"] == "compose"
    assert {"decode", "predict", "generated", "encode"} <= data["timings"].keys()
    job = running.jobs.get(job_id)
    assert job
    assert job.options.edit
    keys = [main["key"], *(one["result"]["key"] for one in results), *edit_keys(job_id, job.options.edit)]
    for key in keys:
        assert running.object(running.stack.results, key)
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    for key in keys:
        with pytest.raises(ClientError, match="NoSuchKey"):
            running.object(running.stack.results, key)


def test_a_text_that_the_editor_cannot_draw_creates_no_job_and_fails_a_dropped_photo(
    running: Running, photo: bytes
) -> None:
    headers = {"Content-Type": "image/png"}
    refused = running.images.http.post(
        "/v1/edits", content=photo, headers=headers, params={"edit": "a beach at sunset"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_not_supported")
    job_id = running.put(photo, f"beaches/{uuid.uuid4().hex}.png")
    job = running.wait_for_end([job_id])[job_id]
    assert job.error
    assert (job.state, job.stage, job.error.code) == ("failed", "edit", "text_not_supported")


def test_an_image_without_subject_or_background_fails_before_the_editor_is_called(
    running: Running, photo: bytes
) -> None:
    plain = png(Image.new("RGB", (64, 64), (90, 120, 90)))
    face = png(Image.open(io.BytesIO(photo)).convert("RGB").crop((190, 80, 254, 144)))
    empty = failed_job(running, plain, edit="white studio")
    full = failed_job(running, face, edit="white studio", engine="grabcut", prompt={"box": [0, 0, 64, 64]})
    codes = [(job.stage, job.error.code if job.error else None) for job in (empty, full)]
    assert codes == [("segment", "mask_empty"), ("segment", "mask_full")]
