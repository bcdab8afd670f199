"""Mattes of anything by U2-Net-p (Apache-2.0; Qin et al., Pattern Recognition 2020) on ONNX Runtime, in two passes.

The network finds the salient objects of an image: people, animals, things. rembg serves the same file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.engines.two_passes import Floats, two_passes
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights

SIDE = 320
"""Pixels of the network's square input."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
"""Mean and standard deviation of ImageNet, which the training subtracted and divided by: RGB in 0..1."""


class U2Netp:
    """The engine `u2netp`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - small enough for the CPU
        u2netp = weights.named("u2netp")
        self._session = onnx_session(weights.read(u2netp, weights_dir), threads)
        self.weights_sha256 = weights.expected_sha256(u2netp, weights_dir) or ""
        try:
            matte = self.predict_square(np.full((SIDE, SIDE, 3), 128, np.uint8))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise InvalidWeights(f"{weights.located(u2netp, weights_dir)} is not U2-Net-p: fetch it again.") from error
        if matte.shape != (SIDE, SIDE) or not np.isfinite(matte).all():
            raise InvalidWeights(f"{weights.located(u2netp, weights_dir)} gives no matte for a grey image.")

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        return Alpha(two_passes(rgb, self.predict_square, SIDE))

    def predict_square(self, square: Pixels) -> Floats:
        """SIDExSIDE float32 in 0..1 for SIDExSIDEx3 uint8 RGB: the fused map, the first of the network's outputs."""
        output = self._session.get_outputs()[0].name
        matte: Floats = self._session.run([output], {self._session.get_inputs()[0].name: network_input(square)[None]})[
            0
        ][0, 0]
        return matte


def network_input(square: Pixels) -> Floats:
    """Returns the network's input, 3xHxW float32: divided by the image's largest value, as in training."""
    planes = square.transpose(2, 0, 1).astype(np.float32) / np.float32(max(1, int(square.max())))
    return np.ascontiguousarray((planes - MEAN) / STD)
