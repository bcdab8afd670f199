from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sagemaker_model.engines.portrait import SIDE, network_input
from sagemaker_model.weights.store import BUNDLED
from tests.bench.photos import SAMPLE

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

from tests.bench.rembg_network import MEAN, STD, folded  # noqa: E402 - it imports onnx


def test_the_file_for_rembg_sees_in_its_normalized_pictures_what_the_engine_sees_in_its_own() -> None:
    network = onnx.load(BUNDLED / "portrait.onnx")
    ours = onnxruntime.InferenceSession(network.SerializeToString())
    theirs = onnxruntime.InferenceSession(folded(network).SerializeToString())
    (taken,) = theirs.get_inputs()
    with Image.open(SAMPLE) as sample:
        person = np.asarray(sample.convert("RGB").resize((SIDE, SIDE)), np.int16)
    random = np.random.default_rng(0)
    for _ in range(3):
        picture = (person + random.integers(-40, 41, person.shape)).clip(0, 255).astype(np.uint8)
        normalized = (picture / 255 - MEAN) / STD
        expected = ours.run(None, {"picture": network_input(picture)[None]})[0]
        found = theirs.run(None, {taken.name: normalized.transpose(2, 0, 1)[None].astype(np.float32)})[0]
        assert np.ptp(expected) > 0.9  # a person is seen; to a matte of nothing anything empty would be near
        np.testing.assert_allclose(found, expected, atol=1e-4)
