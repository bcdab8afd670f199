"""Mattes of people by MediaPipe's selfie segmentation (Apache-2.0) on OpenCV's dnn, in two passes.

Takes 14 to 23 ms of one core for an image.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.two_passes import Floats, two_passes
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights import store as weights

SIDE = 256
"""Pixels of the network's square input."""


class Selfie:
    """The engine `selfie`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - OpenCV's are set for all
        selfie = weights.named("selfie")
        self._model = np.frombuffer(weights.read(selfie, weights_dir), np.uint8)
        self.weights_sha256 = weights.expected_sha256(selfie, weights_dir) or ""
        self._threads = threading.local()

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        return Alpha(two_passes(rgb, self.predict_square, SIDE))

    def predict_square(self, square: Pixels) -> Floats:
        """SIDExSIDE float32 in 0..1 for SIDExSIDEx3 uint8."""
        net = self._net()
        net.setInput(cv2.dnn.blobFromImage(square, 1 / 255))  # 1x3x256x256 in 0..1
        return np.clip(net.forward().reshape(SIDE, SIDE), 0, 1)

    def _net(self) -> cv2.dnn.Net:
        """Returns this thread's own network: OpenCV's networks hold their input and output."""
        if not hasattr(self._threads, "net"):
            self._threads.net = cv2.dnn.readNetFromTFLite(self._model)
        net: cv2.dnn.Net = self._threads.net
        return net
