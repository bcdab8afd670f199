"""Mattes of people by the network Portrait of this project, on ONNX Runtime, in two passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session, run_matting
from sagemaker_model.engines.two_passes import Floats, one_pass, two_passes
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights

SIDE = 320
"""Pixels of the network's square input."""

MARGIN = 0.2
"""Padding on each side of the second pass's box, as a share of the box's side. Training used up to 0.3. The mean IoU is
0.001 higher than with the 0.12 of `selfie`; with 0.25 the engine finds a person in one more empty scene."""


class Portrait:
    """The engine `portrait`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - small enough for the CPU
        portrait = weights.named("portrait")
        self.weights_sha256 = weights.verify(portrait, weights_dir)
        path = weights.located(portrait, weights_dir)
        self._session = onnx_session(path, threads)
        grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
        try:
            matte = self.predict_square(grey)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise InvalidWeights(f"{path} is not Portrait: export it again.") from error
        if matte.shape != (SIDE, SIDE) or not np.isfinite(matte).all():
            raise InvalidWeights(f"{path} gives no matte for a grey image: export it again.")

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        return Alpha(two_passes(rgb, self.predict_square, SIDE, MARGIN))

    def predict_crop(self, rgb: Pixels) -> Floats:
        """Returns the matte of a crop that one person fills, HxWx3 uint8, in one pass: HxW float32 in 0..1."""
        return one_pass(rgb, self.predict_square, SIDE)

    def predict_square(self, square: Pixels) -> Floats:
        """SIDExSIDE float32 in 0..1 for SIDExSIDEx3 uint8."""
        matte: Floats = run_matting(self._session, to_planes(square)[None])[0, 0]
        return matte


def network_input(image: Pixels, side: int = SIDE) -> Floats:
    """Returns the network's input for an image of any size: 3x`side`x`side` float32, RGB in 0..1."""
    return to_planes(resized(image, (side, side)))


def to_planes(square: Pixels) -> Floats:
    """Returns an image HxWx3 as 3xHxW float32, RGB in 0..1."""
    return np.ascontiguousarray(square.transpose(2, 0, 1), np.float32) / np.float32(255)
