from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.weights.store import located, named
from sagemaker_model.weights.tflite import NotSupported, to_onnx


def test_a_converted_network_has_the_outputs_of_opencv(weights_dir: Path) -> None:
    data = located(named("faces-short"), weights_dir).read_bytes()
    planes = np.random.default_rng(0).random((1, 3, 128, 128), np.float32)
    session = onnx_session(to_onnx(data), 1)
    outputs = session.run(None, {session.get_inputs()[0].name: planes})
    net = cv2.dnn.readNetFromTFLite(np.frombuffer(data, np.uint8))  # reads none of the other files correctly
    net.setInput(planes)
    expected = {one.size: one.ravel() for one in net.forward(net.getUnconnectedOutLayersNames())}
    assert len(expected) == len(outputs)
    for output in outputs:
        scale = np.abs(expected[output.size]).max()
        np.testing.assert_allclose(output.ravel() / scale, expected[output.size] / scale, atol=1e-3)


@pytest.mark.parametrize(("name", "rows"), [("faces-full", 2304), ("people-detection", 2254)])
def test_a_network_with_sparse_weights_gives_finite_values(weights_dir: Path, name: str, rows: int) -> None:
    session = onnx_session(to_onnx(located(named(name), weights_dir).read_bytes()), 1)
    (one,) = session.get_inputs()
    values, logits = session.run(None, {one.name: np.zeros(one.shape, np.float32)})
    assert values.shape[1] == logits.shape[1] == rows
    assert np.isfinite(values).all()
    assert np.isfinite(logits).all()
    assert np.ptp(logits) > 0


def test_a_truncated_or_foreign_file_is_not_converted(weights_dir: Path) -> None:
    data = located(named("faces-short"), weights_dir).read_bytes()
    for part in (b"", data[:7], data[: len(data) // 2], b"GGUF" + data[4:8].lower() + data[8:], located(
        named("selfie"), weights_dir).read_bytes()):  # fmt: skip
        with pytest.raises(NotSupported):
            to_onnx(part)
