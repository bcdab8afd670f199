"""The detector of Amazon Rekognition against the emulator, which validates requests by botocore's service model."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from botocore.validate import validate_parameters
from PIL import Image

from local import rekognition as service
from local import service_model
from maskdrop.errors import (
    DetectorThrottled,
    DetectorTimedOut,
    DetectorUnavailable,
    Internal,
    MaskdropError,
    NotAllowed,
)
from maskdrop.prompt import Prompt
from sagemaker_model.detectors.base import Detections
from sagemaker_model.detectors.rekognition import BYTES_MAX, SIDE_MAX, USD_PER_IMAGE, Rekognition
from sagemaker_model.detectors.targets import find_targets
from sagemaker_model.weights.store import NotInstalled
from tests.ai import RunningAi, running_ai

PHOTO = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def started() -> Iterator[RunningAi]:
    with running_ai() as running:
        yield running


@pytest.fixture(scope="module")
def detector(started: RunningAi) -> Rekognition:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **started.config.ai_endpoints,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        detector = Rekognition()
        detector.setup("cpu", Path())
    return detector


@pytest.fixture
def ai(started: RunningAi) -> Iterator[RunningAi]:
    yield started
    started.reset()


class Requests:
    """A client that records its requests, after botocore has validated them, and finds one car and one face."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def detect_faces(self, **parameters: Any) -> dict[str, Any]:
        self._check("DetectFaces", parameters)
        return service.detect_faces(parameters, {"Face": ((0.25, 0.25, 0.5, 0.5, 99.0),)})

    def detect_labels(self, **parameters: Any) -> dict[str, Any]:
        self._check("DetectLabels", parameters)
        return service.detect_labels(parameters, {"Car": ((0.0, 0.0, 1.0, 1.0, 80.0),)})

    def _check(self, operation: str, parameters: dict[str, Any]) -> None:
        shape = service_model.operation("rekognition", operation).input_shape
        assert shape
        validate_parameters(parameters, shape)
        assert list(service_model.faults(parameters, shape)) == []
        self.sent.append((operation, parameters))


def recorded() -> tuple[Rekognition, Requests]:
    detector, client = Rekognition(), Requests()
    detector._client = client
    return detector, client


def rows(found: Detections) -> list[tuple[str, float, list[float]]]:
    return [
        (label, round(float(score), 4), [round(float(value), 2) for value in box])
        for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True)
    ]


def test_faces_are_found_by_detect_faces_in_pixels(ai: RunningAi, detector: Rekognition) -> None:
    ai.control(labels={"Face": [[0.25, 0.5, 0.25, 0.25, 99.0], [0.0, 0.0, 0.1, 0.1, 60.0]]})
    before = ai.calls("DetectLabels")
    found = detector.detect(PHOTO, ["Face"], 0.9)
    assert rows(found) == [("face", 0.99, [100, 150, 200, 225])]
    assert found.cost_usd == USD_PER_IMAGE
    assert ai.calls("DetectLabels") == before


def test_ratios_outside_the_image_are_clamped(ai: RunningAi, detector: Rekognition) -> None:
    ai.control(labels={"Face": [[-0.1, 0.9, 0.3, 0.3, 99.0], [1.01, 0.2, 0.1, 0.1, 98.0]]})
    assert rows(detector.detect(PHOTO, ["face"])) == [("face", 0.99, [0, 270, 80, 300])]


def test_other_labels_are_found_by_the_filter_of_detect_labels(ai: RunningAi, detector: Rekognition) -> None:
    ai.control(
        labels={
            "Car": [[0.0, 0.0, 0.5, 0.5, 70.0], [0.5, 0.5, 0.5, 0.5, 95.0]],
            "Cat": [[0.0, 0.0, 0.5, 0.5, 90.0]],
            "Face": [[0.0, 0.0, 0.5, 0.5, 80.0]],
        }
    )
    found = detector.detect(PHOTO, ["car", "face"])
    assert [(label, score) for label, score, _ in rows(found)] == [("car", 0.95), ("face", 0.8), ("car", 0.7)]
    assert found.cost_usd == 2 * USD_PER_IMAGE
    assert [score for *_, score, _ in rows(detector.detect(PHOTO, ["car"], 0.9))] == [0.95]


def test_without_labels_every_label_with_boxes_is_found(ai: RunningAi, detector: Rekognition) -> None:
    ai.control(labels={"Car": [[0.0, 0.0, 0.5, 0.5, 70.0]], "Beach": []})
    found = detector.detect(PHOTO)
    assert (found.labels, found.warnings, found.cost_usd) == (("Car",), (), USD_PER_IMAGE)


def test_a_label_without_boxes_is_a_warning_of_the_result(ai: RunningAi, detector: Rekognition) -> None:
    ai.control(labels={"Beach": []})
    targets = find_targets(PHOTO, (Prompt(label="beach"),), detector)
    assert targets.keep == ()
    assert [warning.partition(":")[0] for warning in targets.warnings] == ["label_without_boxes", "label_not_found"]
    assert targets.cost_usd == USD_PER_IMAGE


def test_a_label_that_rekognition_does_not_have_finds_nothing(ai: RunningAi, detector: Rekognition) -> None:
    ai.control(labels={"Car": [[0.0, 0.0, 0.5, 0.5, 70.0]]})
    found = detector.detect(PHOTO, ["dragon"])
    assert (found.boxes.shape, found.labels, found.cost_usd) == ((0, 4), (), USD_PER_IMAGE)


def test_a_label_that_the_filter_does_not_accept_is_not_sent(detector: Rekognition, ai: RunningAi) -> None:
    before = ai.calls("DetectLabels")
    found = detector.detect(PHOTO, ["人", "x" * 51])
    assert (found.boxes.shape, found.cost_usd) == ((0, 4), 0.0)
    assert ai.calls("DetectLabels") == before


def test_an_alias_gets_the_label_of_the_request() -> None:
    detector, client = recorded()
    label = {"Name": "Mobile Phone", "Confidence": 99.0, "Aliases": [{"Name": "Cell Phone"}], "Parents": []}
    box = {"Left": 0.0, "Top": 0.0, "Width": 1.0, "Height": 1.0}
    response = {"Labels": [{**label, "Instances": [{"BoundingBox": box, "Confidence": 98.0}]}]}
    client.detect_labels = lambda **_: response  # type: ignore[method-assign]
    assert detector.detect(PHOTO, ["cell phone"]).labels == ("cell phone",)


NOISE = np.random.default_rng(2).integers(0, 256, (2600, 2600, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 5000), (79, 80), (300, 400), (1920, 1080), (2600, 2600)], ids=lambda shape: f"{shape}"
)
def test_botocore_accepts_the_request_for_an_image_of_any_size(shape: tuple[int, int]) -> None:
    detector, client = recorded()
    found = detector.detect(np.resize(NOISE, (*shape, 3)), ["face", "car"])
    [(_, faces), (_, labels)] = client.sent
    assert faces["Image"] == labels["Image"]
    sent = Image.open(io.BytesIO(faces["Image"]["Bytes"]))
    assert len(faces["Image"]["Bytes"]) <= BYTES_MAX
    assert max(sent.size) <= SIDE_MAX
    assert labels["Settings"]["GeneralLabels"]["LabelInclusionFilters"] == ["car", "Car"]
    # The car covers all that was sent, which may be padded: its box is the whole image.
    [car] = [box for label, _, box in rows(found) if label == "car"]
    assert car == [0, 0, shape[1], shape[0]]


def test_a_png_of_more_than_20_mb_fits_into_the_request() -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "png", compress_level=0)
    assert file.tell() > 20_000_000
    detector, client = recorded()
    detector.detect(np.asarray(Image.open(file)), ["face"])
    assert 0 < len(client.sent[0][1]["Image"]["Bytes"]) <= BYTES_MAX


@pytest.mark.parametrize("count", [50, 51, 150])
def test_many_labels_are_sent_in_requests_of_at_most_100_filters(count: int) -> None:
    detector, client = recorded()
    detector.detect(PHOTO, [f"label {number}" for number in range(count)])
    filters = [one["Settings"]["GeneralLabels"]["LabelInclusionFilters"] for _, one in client.sent]
    assert sum(map(len, filters)) == 2 * count
    assert len(filters) == -(-count // 50)


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        (["ThrottlingException"] * 2, DetectorThrottled),
        (["ProvisionedThroughputExceededException"] * 2, DetectorThrottled),
        (["InternalServerError"] * 2, DetectorUnavailable),
        (["cut"] * 2, DetectorUnavailable),
        (["AccessDeniedException"], NotAllowed),
        (["InvalidImageFormatException"], Internal),
    ],
)
def test_a_failure_of_the_service_has_its_own_error(
    ai: RunningAi, detector: Rekognition, outcomes: list[str], error: type[MaskdropError]
) -> None:
    ai.control(script={"DetectFaces": outcomes})
    with pytest.raises(error) as raised:
        detector.detect(PHOTO, ["face"])
    assert type(raised.value) is error


def test_a_throttled_call_is_retried_and_paid_once(ai: RunningAi, detector: Rekognition) -> None:
    before = len(ai.billed("DetectFaces"))
    ai.control(script={"DetectFaces": ["ThrottlingException"]})
    assert detector.detect(PHOTO, ["face"]).cost_usd == USD_PER_IMAGE
    assert len(ai.billed("DetectFaces")) == before + 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ReadTimeoutError(endpoint_url="x"), DetectorTimedOut),
        (EndpointConnectionError(endpoint_url="x"), DetectorUnavailable),
    ],
)
def test_a_service_that_does_not_respond_is_unavailable(error: Exception, kind: type[MaskdropError]) -> None:
    detector, client = recorded()

    def fail(**_: Any) -> dict[str, Any]:
        raise error

    client.detect_faces = fail  # type: ignore[method-assign]
    with pytest.raises(kind) as raised:
        detector.detect(PHOTO, ["face"])
    assert raised.value.retryable


def test_without_a_region_the_detector_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(NotInstalled, match="AWS_DEFAULT_REGION"):
        Rekognition().setup("cpu", Path())
