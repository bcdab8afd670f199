"""People, by our network Portrait on ONNX Runtime, in two passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.engines.two_passes import Floats, two_passes
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights

SIDE = 320
"""Pixels of the network's square input."""

MARGIN = 0.2
"""Of the box's sides, for the second pass: it has seen boxes with up to 0.3 in training, and with this the mean IoU is
0.001 higher than with the 0.12 of `selfie`; with 0.25 it finds somebody in one empty scene more."""


class Portrait:
    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - small enough for the CPU
        portrait = weights.named("portrait")
        self.weights_sha256 = weights.verify(portrait, weights_dir)
        path = weights.located(portrait, weights_dir)
        self._session = onnx_session(path, threads)
        grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
        try:
            matte = self._look(grey)
        except Exception as error:  # ONNX Runtime's exceptions have no common root
            raise InvalidWeights(f"{path} is not Portrait: export it again.") from error
        if matte.shape != (SIDE, SIDE) or not np.isfinite(matte).all():
            raise InvalidWeights(f"{path} makes no matte of a grey image: export it again.")

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        return Alpha(two_passes(rgb, self._look, SIDE, MARGIN))

    def _look(self, seen: Pixels) -> Floats:
        """SIDExSIDE float32 in 0..1 for SIDExSIDEx3 uint8."""
        return self._session.run(["matte"], {"picture": _planes(seen)[None]})[0][0, 0]


def prepared(picture: Pixels, side: int = SIDE) -> Floats:
    """The network's input for an image of any size: 3x`side`x`side` float32, RGB in 0..1."""
    return _planes(resized(picture, (side, side)))


def _planes(seen: Pixels) -> Floats:
    return np.ascontiguousarray(seen.transpose(2, 0, 1), np.float32) / np.float32(255)
