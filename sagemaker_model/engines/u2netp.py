"""Mattes of anything by U2-Net-p (Apache-2.0; Qin et al., Pattern Recognition 2020) on ONNX Runtime, in two passes.

The network finds the salient objects of an image: people, animals, things. rembg serves the same file. Mean IoU of each
step: docs/u2netp.md.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.engines.two_passes import (
    MATTE_SIDE,
    Floats,
    Predict,
    blend,
    certain,
    padded_box,
    predict_mirrored,
    region_boxes,
)
from sagemaker_model.engines.verification import IMAGE
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights

log = logging.getLogger(__name__)

SIDE = 320
"""Pixels of the network's square input."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
"""Mean and standard deviation of ImageNet, which the training subtracted and divided by: RGB in 0..1."""

MARGIN = 0.2
"""Padding on each side of the second pass's box, as a share of the box's side. With 0.1 and 0.35 the mean IoU is up to
0.002 lower."""

SECOND_SHARE = 0.5
"""Weight of the second pass inside its box. With 1 the mean IoU is 0.005 lower: the network also sees less there."""

SHARP_MIN = 0.95
"""Mean of a matte over itself from which it needs no second view: 40 of the 58 objects. With 0.9 and 0.97 the mean IoU
is 0.003 lower, with the second view of all images 0.002."""

SECOND_BOX_MAX = 0.5
"""Share of the image up to which the box of the objects gets a pass of its own: 4 of the 58 objects. With a pass for
all boxes the mean IoU is 0.002 lower."""

QUADRANTS = (0.420, 0.167, 0.918, 0.532)
"""Mean of the original network's result on each quadrant of the built-in photo: upper left and right, lower left and
right."""

DIFFERENCE_MAX = 0.02
"""Largest difference of the quantised network from QUADRANTS. Usual is 0.005; a CPU without VNNI may saturate the sums
of products of 8-bit integers."""

SALIENCE_MIN = -2.8
"""Lowest `Salient.salience` of an image with a subject. The 58 objects of the evaluation have -2.5 or more. Without
the rule 55 of 80 scenes without people have a subject, with it 33: they show furniture, houses and cars."""


@dataclass(frozen=True, slots=True)
class Salient:
    """The salient objects of an image.

    values: hxw float32 in 0..1 over the whole image, h and w <= MATTE_SIDE.
    weight: mean of the matte over itself, 0..1: 1 for a sharp matte, less the more pixels are uncertain.
    agreement: of the image and its mirrored image, 0..1; 1 for a matte so sharp that the latter was not looked at.
    area: share of the image's pixels that are at least half opaque.
    """

    values: Floats
    weight: float
    agreement: float
    area: float

    @property
    def salience(self) -> float:
        """Evidence that the image has a subject: the logit of a logistic regression on 58 objects and 80 scenes without
        people. In a scene the network is uncertain, and it finds other things in the mirrored image. Not a probability:
        a scene may have a salient thing."""
        return 5.76 * self.weight + 3.76 * self.agreement + 1.79 * float(np.log(self.area + 0.003)) - 5.68


class U2Netp:
    """The engine `u2netp`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - small enough for the CPU
        """Takes the quantised copy of the network where it gives the original's results on this CPU."""
        original, quantised = weights.named("u2netp"), weights.named("u2netp-int8")
        network = weights.read(original, weights_dir)
        self._session = onnx_session(weights.read(quantised, weights_dir), threads)
        self.weights_sha256 = weights.expected_sha256(original, weights_dir) or ""
        if self._difference() > DIFFERENCE_MAX:
            log.warning("u2netp runs in float32: 8-bit integers give other results on this CPU")
            self._session = onnx_session(network, threads)
            if self._difference() > DIFFERENCE_MAX:
                raise InvalidWeights(f"{weights.located(original, weights_dir)} is not U2-Net-p: fetch it again.")

    def _difference(self) -> float:
        """The largest difference from QUADRANTS; infinite for a network of another form."""
        photo = resized(np.asarray(Image.open(IMAGE).convert("RGB")), (SIDE, SIDE))
        try:
            quadrants = resized(self.predict_square(photo), (2, 2)).ravel()
        except Exception:  # ONNX Runtime's exceptions have no common base class
            log.exception("the network cannot be run")
            return float("inf")
        difference = float(np.abs(quadrants - np.array(QUADRANTS)).max())
        return difference if np.isfinite(difference) else float("inf")

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        found = find_salient(rgb, self.predict_square)
        if found.salience < SALIENCE_MIN:
            return Alpha(np.zeros_like(found.values), kind="none")
        return Alpha(found.values)

    def predict_square(self, square: Pixels) -> Floats:
        """SIDExSIDE float32 in 0..1 for SIDExSIDEx3 uint8 RGB: the fused map, the first of the network's outputs."""
        return _run(self._session, network_input(square))


def find_salient(rgb: Pixels, predict: Predict) -> Salient:
    """Finds the salient objects of `rgb`, HxWx3 uint8, in one to three runs of the network.

    Where the matte of the image is not sharp, the network also sees the mirrored image, and the larger value counts per
    pixel: it misses parts of objects more often than it adds some. Objects that are small in the image get a second
    pass, on their box.

    predict: runs the network on SIDExSIDEx3 uint8.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, MATTE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = resized(rgb, size)
    square = resized(image, (SIDE, SIDE))
    first, agreement = predict(square), 1.0
    if _weight(first) < SHARP_MIN:
        mirrored = predict_mirrored(predict, square)
        agreement = _agreement(first, mirrored)
        first = np.maximum(first, mirrored)
    values = resized(first, size)
    if regions := region_boxes(first, size):
        box = x0, y0, x1, y1 = padded_box(regions, size, MARGIN)
        if (x1 - x0) * (y1 - y0) <= SECOND_BOX_MAX * size[0] * size[1]:
            second = predict(resized(image[y0:y1, x0:x1], (SIDE, SIDE)))
            blend(values, resized(second, (x1 - x0, y1 - y0)), box, SECOND_SHARE)
    return Salient(certain(values), _weight(first), agreement, float((first >= 0.5).mean()))


def _weight(matte: Floats) -> float:
    return float(np.square(matte).sum() / max(1e-6, float(matte.sum())))


def _agreement(one: Floats, other: Floats) -> float:
    """Soft Dice coefficient of two mattes; 1 for two empty ones."""
    total = float(np.square(one).sum() + np.square(other).sum())
    return float(2 * (one * other).sum() / total) if total > 1e-6 else 1.0


def network_input(square: Pixels) -> Floats:
    """Returns the network's input, 3xHxW float32: divided by the image's largest value, as in training."""
    planes = square.transpose(2, 0, 1).astype(np.float32) / np.float32(max(1, int(square.max())))
    return np.ascontiguousarray((planes - MEAN) / STD)


def _run(session: Any, planes: Floats) -> Floats:
    outputs = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: planes[None]})
    matte: Floats = outputs[0][0, 0]
    return matte
