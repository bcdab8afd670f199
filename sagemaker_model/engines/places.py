"""Whether an image shows a place, such as a room, a street or a landscape, rather than a thing: EfficientNet-Lite0.

A general network for salient objects finds something in every room and street. A classifier that knows the classes of
ImageNet tells a place from a thing: docs/things.md.
"""

from __future__ import annotations

from pathlib import Path

from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.engines.u2netp import network_input
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights import store as weights

SIDE = 320
"""Pixels of the network's square input. At 224, for which it was trained, places and things are less far apart."""


class Places:
    """The classifier. Its method may be called from many threads."""

    def __init__(self, weights_dir: Path, threads: int = 1) -> None:
        """Raises InvalidWeights."""
        file = weights.named("places")
        self._session = onnx_session(weights.read(file, weights_dir), threads)
        self.weights_sha256 = weights.expected_sha256(file, weights_dir) or ""

    def share(self, rgb: Pixels) -> float:
        """Returns the probability of a place for `rgb`, HxWx3 uint8 of any size: the sum of such classes' shares."""
        image = network_input(resized(rgb, (SIDE, SIDE)))
        return float(self._session.run(["place"], {"image": image[None]})[0][0])
