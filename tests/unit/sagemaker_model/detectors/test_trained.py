"""The user's detector, with a network that returns known boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from maskdrop.errors import UnknownLabel  # noqa: E402 - the imports below need torch
from sagemaker_model.detectors.base import Detector  # noqa: E402
from sagemaker_model.detectors.trained import Trained  # noqa: E402
from sagemaker_model.export.detector import to_onnx  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, import_file, named  # noqa: E402

SIDE = 64

METADATA = {"names": '["Zebra", "airplane"]', "side": str(SIDE)}

BOXES = [[8, 24, 24, 40], [9, 24, 25, 40], [32, 16, 64, 48]]
SCORES = [[0.9, 0.2], [0.8, 0.5], [0.1, 0.7]]


class Known(torch.nn.Module):
    """Returns the same boxes and logits for every image."""

    def __init__(self, boxes: list[list[float]], scores: list[list[float]]) -> None:
        super().__init__()
        self.boxes, self.logits = torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores).logit()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = image.mean((1, 2, 3))[:, None, None] * 0
        return self.boxes + batch, self.logits + batch


def install(folder: Path, metadata: dict[str, str] = METADATA, boxes: list[list[float]] = BOXES) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / "own.onnx"
    to_onnx(Known(boxes, SCORES), file, SIDE, metadata)
    import_file(named("detector"), file, folder, own=True)


@pytest.fixture
def detector(tmp_path: Path) -> Trained:
    install(tmp_path)
    detector = Trained()
    detector.setup("cpu", tmp_path)
    return detector


def image(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_it_is_a_detector_whose_labels_are_in_the_order_of_training(detector: Detector) -> None:
    assert detector.labels == ("Zebra", "airplane")
    assert len(detector.weights_sha256) == 64


def test_boxes_are_pixels_of_the_image_and_are_suppressed_by_class(detector: Trained) -> None:
    # 128 x 64 is scaled by a half into 64 x 32, with 16 rows of padding above.
    found = detector.detect(image(64, 128))
    assert found.labels == ("Zebra", "airplane", "airplane")
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5], abs=1e-6)
    assert np.allclose(found.boxes, [[16, 16, 48, 48], [64, 0, 128, 64], [18, 16, 50, 48]], atol=1e-4)
    assert found.masks == ()


def test_a_tall_image_has_padding_on_its_sides(detector: Trained) -> None:
    # 32 x 64 keeps its scale, with 16 columns of padding at the left: the third box starts there and ends in padding.
    found = detector.detect(image(64, 32), ["airplane"], 0.6)
    assert np.allclose(found.boxes, [[16, 16, 32, 48]], atol=1e-4)


def test_an_image_of_one_pixel_has_boxes_inside_it(detector: Trained) -> None:
    boxes = detector.detect(image(1, 1)).boxes
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_labels_are_found_in_any_letter_case(detector: Trained) -> None:
    assert detector.detect(image(64, 64), ["AIRPLANE"]).labels == ("airplane", "airplane")
    assert detector.detect(image(64, 64), ["zebra", "Zebra"]).labels == ("Zebra",)
    with pytest.raises(UnknownLabel, match=r"'dog'.*Zebra, airplane"):
        detector.detect(image(64, 64), ["airplane", "dog"])


def test_the_minimum_confidence_replaces_the_threshold_of_the_detector(detector: Trained) -> None:
    assert detector.detect(image(64, 64), (), 0.75).labels == ("Zebra",)
    assert len(detector.detect(image(64, 64), (), 0.05).labels) == 4


def test_without_weights_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="maskdrop models import detector FILE"):
        Trained().setup("cpu", tmp_path)


@pytest.mark.parametrize(
    "metadata", [{}, {"names": '["a", "b"]'}, {"names": "[]", "side": "64"}, {**METADATA, "side": "32"}]
)
def test_an_onnx_file_without_valid_metadata_is_invalid(tmp_path: Path, metadata: dict[str, str]) -> None:
    install(tmp_path, metadata)
    with pytest.raises(InvalidWeights, match="maskdrop export"):
        Trained().setup("cpu", tmp_path)


def test_a_file_with_another_number_of_classes_or_invalid_boxes_is_invalid(tmp_path: Path) -> None:
    install(tmp_path / "names", {**METADATA, "names": '["a"]'})
    install(tmp_path / "boxes", boxes=[[float("nan")] * 4] * 3)
    for folder in ("names", "boxes"):
        with pytest.raises(InvalidWeights, match="grey image"):
            Trained().setup("cpu", tmp_path / folder)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"names": f'["{"a" * 65}", "b"]'}, "64 characters"),
        ({"names": '["", "b"]'}, "64 characters"),
        ({"names": '["Zebra", "zebra"]'}, "letter case"),
        ({"side": "100000000"}, "4096 pixels"),
        ({"side": "0"}, "4096 pixels"),
    ],
)
def test_metadata_that_a_label_or_the_memory_cannot_hold_are_refused(
    tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    install(tmp_path, METADATA | metadata)
    with pytest.raises(InvalidWeights, match=message):
        Trained().setup("cpu", tmp_path)
