"""A correction on `maskdrop serve`, from the upload to the data folder that training reads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from starlette.testclient import TestClient
from typer.testing import CliRunner

from cli.app import app
from sagemaker_model.data import folders
from standalone.database import Database
from standalone.files import Files
from tests.unit.standalone.conftest import JPEG, Start

DAY = 86_400


def corrected() -> bytes:
    """A cut-out of 40 x 30 pixels whose left half is the subject."""
    pixels = np.full((30, 40, 4), 255, np.uint8)
    pixels[:, 20:, 3] = 0
    return cv2.imencode(".png", pixels)[1].tobytes()


def uploaded(client: TestClient, body: bytes, name: str, content_type: str) -> str:
    form = client.post("/v1/uploads", json={"name": name, "content_type": content_type}).json()
    assert client.post(form["url"], data=form["fields"], files={"file": (name, body)}).status_code == 204
    return str(form["upload"])


def done_job(client: TestClient) -> dict[str, Any]:
    source = {"upload": uploaded(client, JPEG, "a.jpg", "image/jpeg")}
    job: dict[str, Any] = client.post("/v1/jobs", json={"source": source}).json()
    end = time.monotonic() + 30
    while job["state"] != "done":
        assert time.monotonic() < end, job
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return job


def test_a_correction_is_downloaded_as_a_data_folder(start: Start, tmp_path: Path) -> None:
    client = start(keep_corrections_days=30)
    job = done_job(client)
    assert client.get(client.get(f"/v1/jobs/{job['id']}/source").json()["url"]).content == JPEG
    body = {"verdict": "corrected", "upload": uploaded(client, corrected(), "a.png", "image/png")}
    assert client.post(f"/v1/jobs/{job['id']}/review", json=body).json()["review"]["training"] is True
    assert client.get("/console/config.json").json()["corrections_days"] == 30

    out = tmp_path / "corrections"
    words = ["data", "corrections", str(out), "--serve", "--data", str(tmp_path)]
    assert CliRunner().invoke(app, words).stdout.startswith("1 correction in ")
    (entry,) = folders.entries(out)
    record = entry.load()
    assert record.id == job["id"]
    assert (record.mask[:, :20].min(), record.mask[:, 20:].max()) == (255, 0)
    assert json.loads((out / "records" / f"{job['id']}.json").read_text())["owner"] == job["owner"]


def test_training_records_have_a_retention_of_their_own(tmp_path: Path) -> None:
    now = 100.0 * DAY
    database = Database(tmp_path)
    files = Files(tmp_path, database, clock=lambda: now)
    for key in ("results/a.png", "training/masks/a.png"):
        files.write("results", key, b"1", "image/png", {})
    now += 8 * DAY
    assert files.delete_older(7 * DAY, "training/", others=True) == 1
    assert files.keys("results", "") == ["training/masks/a.png"]
    assert files.delete_older(30 * DAY, "training/") == 0
    now += 30 * DAY
    assert files.delete_older(30 * DAY, "training/") == 1
    database.close()
