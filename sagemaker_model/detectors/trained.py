"""The detector `detector`: finds the classes that the user trained it on, by ONNX Runtime on the CPU.

`maskdrop train detector` and `maskdrop train rt-detr` write its weights, `maskdrop export` converts them to the ONNX
file that this module reads: from `picture`, Nx3xSxS float32, RGB in 0..1, letterboxed, to `boxes`, NxAx4 float32,
x0, y0, x1, y1 in pixels of the square, and `scores`, NxAxC float32 in 0..1, both before suppression. The file's
metadata have `names`, the C labels as a JSON list, and `side`, the side S in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from maskdrop.errors import UnknownLabel
from maskdrop.prompt import LABEL_MAX
from sagemaker_model.detectors.base import Detections, Floats, listed
from sagemaker_model.detectors.suppression import suppress
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.imaging.letterbox import letterboxed
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights

INPUT_NAME, BOXES_NAME, SCORES_NAME = "picture", "boxes", "scores"
"""Names of the tensors in the ONNX files: part of the file format."""

SCORE_MIN = 0.3
"""Lowest score without `min_confidence`: the previous system's threshold in its page. Evaluation passes a lower one."""


SIDE_MAX = 4096
"""Maximum side of the network's input in pixels: 0.2 GB as float32."""


class Trained:
    """The detector `detector`.

    labels: the classes in the order of training, so that a position is the class index of `POST /detect-airplane`.
    """

    weights_sha256 = ""
    labels: tuple[str, ...] | None = None

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - runs on the CPU
        """threads: cores for one image. The server chooses it so that its workers share the cores; ONNX Runtime's own
        default would use all cores for every image."""
        detector = weights.named("detector")
        self.weights_sha256 = weights.verify(detector, weights_dir)
        path = weights.located(detector, weights_dir)
        self._session = onnx_session(path, threads)
        try:
            self.labels, self._side = _metadata(self._session)
            boxes, scores = self._run(np.full((self._side, self._side, 3), 128, np.uint8))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise InvalidWeights(
                f"{path} is not a detector that `maskdrop export` wrote: {error!s:.300} Export it again."
            ) from error
        shapes = boxes.shape[1:], scores.shape[1:]
        if shapes != ((4,), (len(self.labels),)) or not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise InvalidWeights(f"{path} returns invalid boxes for a grey image: train it longer and export it again.")

    def detect(
        self,
        rgb: Pixels,
        labels: Collection[str] = (),
        min_confidence: float = 0.0,
        *,
        masks: bool = False,  # noqa: ARG002
    ) -> Detections:
        """Returns the instances in an image, without masks. Raises UnknownLabel for a label it was not trained on."""
        known = self.labels or ()
        square, placement = letterboxed(rgb, self._side)
        boxes, scores = self._run(square)
        found = suppress(
            placement.to_image(boxes), scores[:, self._columns(labels)], min_confidence or SCORE_MIN, placement.size
        )
        names = [known[column] for column in self._columns(labels)]
        return Detections(found.boxes, found.scores, tuple(names[index] for index in found.classes))

    def _columns(self, labels: Collection[str]) -> list[int]:
        """Returns the indexes of these labels, in any letter case; of all without labels. Raises UnknownLabel."""
        known = self.labels or ()
        index = {label.casefold(): number for number, label in enumerate(known)}
        if unknown := [label for label in labels if label.casefold() not in index]:
            raise UnknownLabel(
                f"The detector does not know the label {unknown[0]!r:.80}; known labels: {listed(known)}."
            )
        return sorted({index[label.casefold()] for label in labels}) or list(range(len(index)))

    def _run(self, square: Pixels) -> tuple[Floats, Floats]:
        """Returns boxes Ax4 and scores AxC for a letterboxed image."""
        boxes, scores = self._session.run([BOXES_NAME, SCORES_NAME], {INPUT_NAME: network_input(square)[None]})
        return boxes[0], scores[0]


def network_input(square: Pixels) -> Floats:
    """Returns the network's input for a letterboxed image: 3xSxS float32, RGB in 0..1."""
    return np.ascontiguousarray(square.transpose(2, 0, 1), np.float32) / np.float32(255)


def _metadata(session: Any) -> tuple[tuple[str, ...], int]:
    """Returns labels and side. Raises KeyError, ValueError for a file without them."""
    metadata = session.get_modelmeta().custom_metadata_map
    names, side = tuple(json.loads(metadata["names"])), int(metadata["side"])
    if not names or not all(isinstance(name, str) and 1 <= len(name) <= LABEL_MAX for name in names):
        raise ValueError(f"A label must have 1 to {LABEL_MAX} characters; got {names!r:.200}.")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("Two labels are equal but for their letter case.")
    if not 1 <= side <= SIDE_MAX:
        raise ValueError(f"The side must be 1 to {SIDE_MAX} pixels; got {side}.")
    return names, side
