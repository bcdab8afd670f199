from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sagemaker_model.engines.portrait import SIDE, network_input
from sagemaker_model.weights.store import BUNDLED
from tests.bench.photos import SAMPLE

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

from tests.bench.rembg_network import MEAN, STD, with_normalized_input  # noqa: E402 - it imports onnx


def test_the_file_for_rembg_gives_the_engines_matte_for_normalized_images() -> None:
    network = onnx.load(BUNDLED / "portrait.onnx")
    ours = onnxruntime.InferenceSession(network.SerializeToString())
    theirs = onnxruntime.InferenceSession(with_normalized_input(network).SerializeToString())
    (their_input,) = theirs.get_inputs()
    with Image.open(SAMPLE) as sample:
        person = np.asarray(sample.convert("RGB").resize((SIDE, SIDE)), np.int16)
    random = np.random.default_rng(0)
    for _ in range(3):
        image = (person + random.integers(-40, 41, person.shape)).clip(0, 255).astype(np.uint8)
        normalized = (image / 255 - MEAN) / STD
        expected = ours.run(None, {ours.get_inputs()[0].name: network_input(image)[None]})[0]
        result = theirs.run(None, {their_input.name: normalized.transpose(2, 0, 1)[None].astype(np.float32)})[0]
        assert np.ptp(expected) > 0.9  # the matte has a person: empty mattes would agree trivially
        np.testing.assert_allclose(result, expected, atol=1e-4)
