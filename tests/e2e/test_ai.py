"""Amazon Rekognition and Bedrock of the local stack, as the model server and the functions find them."""

from __future__ import annotations

from typing import Any

import httpx2
import psutil
import pytest

from local import processes
from maskdrop.options import Options
from maskdrop.prompt import Prompt
from maskdrop.wire import CUSTOM_ATTRIBUTES, Invocation
from tests.ai import RunningAi
from tests.e2e.conftest import Running


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
