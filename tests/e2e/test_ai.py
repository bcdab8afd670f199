"""Amazon Rekognition and Bedrock of the local stack, as the model server and the functions find them."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import psutil
import pytest

from local import processes
from maskdrop.options import Options
from maskdrop.prompt import Prompt
from maskdrop.wire import CUSTOM_ATTRIBUTES, Invocation
from sagemaker_model.detectors.rekognition import USD_PER_IMAGE
from tests.ai import RunningAi
from tests.e2e.conftest import Running
from tests.e2e.test_jobs import a_job

MARGIN = 20
"""Pixels by which a mask may exceed the box of its instance."""


def detect(running: Running, photo: bytes, label: str) -> httpx2.Response:
    invocation = Invocation(Options(task="detect", engine="rekognition", prompts=(Prompt(label=label),)))
    headers = {"Content-Type": "image/png", CUSTOM_ATTRIBUTES: invocation.to_header()}
    url = f"{running.stack.model_url}/invocations"
    return httpx2.post(url, content=photo, headers=headers, timeout=30, trust_env=False)


def test_the_model_server_finds_labels_by_rekognition(running: Running, ai: RunningAi, photo: bytes) -> None:
    ai.control(labels={"Car": [[0.25, 0.5, 0.25, 0.25, 98.0], [-0.1, 0.0, 0.2, 0.1, 60.0]]})
    before = len(ai.billed("DetectLabels"))
    response = detect(running, photo, "car")
    found: dict[str, Any] = response.json()
    assert [(one["label"], one["box"]) for one in found["detections"]] == [
        ("car", [128, 256, 256, 384]),
        ("car", [0, 0, 51.2, 51.2]),
    ]
    assert len(ai.billed("DetectLabels")) == before + 1


def test_a_job_segments_what_rekognition_finds_and_records_its_price(
    running: Running, ai: RunningAi, photo: bytes
) -> None:
    ai.control(labels={"Visor": [[0.34, 0.12, 0.21, 0.24, 98.0], [0.2, 0.3, 0.5, 0.6, 91.0]]})
    before = len(ai.billed("DetectLabels"))
    created = a_job(running.images.http, photo, task="mask", prompt={"label": "visor"}, instances="each")
    job = running.wait_for_end([created["id"]])[created["id"]]
    assert job.state == "done", job.error
    assert [(one.label, one.score) for one in job.results] == [("visor", 0.98), ("visor", 0.91)]
    for item, (x0, y0, x1, y1) in zip(job.results, [(174, 61, 282, 185), (102, 153, 359, 461)], strict=True):
        assert item.box
        box = np.asarray(item.box)
        assert (box[:2] >= (x0 - MARGIN, y0 - MARGIN)).all()
        assert (box[2:] <= (x1 + MARGIN, y1 + MARGIN)).all()
    assert len(ai.billed("DetectLabels")) == before + 1
    assert job.cost_usd == pytest.approx(USD_PER_IMAGE, abs=USD_PER_IMAGE / 10)


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [("ThrottlingException", 503, "detector_throttled"), ("AccessDeniedException", 403, "not_allowed")],
)
def test_a_failure_of_rekognition_reaches_the_caller(
    running: Running, ai: RunningAi, photo: bytes, outcome: str, status: int, code: str
) -> None:
    ai.control(script={"DetectFaces": [outcome, outcome]})
    response = detect(running, photo, "face")
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_the_functions_and_the_model_server_find_the_emulator(running: Running) -> None:
    for name in ("emulator", "model"):
        process = processes.find(name, running.config.state)
        assert process
        assert running.config.ai_endpoints.items() <= psutil.Process(process.pid).environ().items()
