"""Faces by MediaPipe's BlazeFace (Apache-2.0), the networks for short and full range, on ONNX Runtime.

The full-range network proposes faces in the whole image and in overlapping tiles. The short-range network proposes in
the whole image and confirms each proposal in a crop around it. Measured: docs/models.md, "Detectors".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from sagemaker_model.detectors.base import Detections, Floats
from sagemaker_model.detectors.blaze import (
    BlazeNet,
    Candidates,
    Layout,
    iou,
    joined,
    suppressed,
    tflite_session,
    tiles,
    to_detections,
    wanted,
)
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights import store as weights

LABEL = "face"

SHORT = Layout(side=128, strides=(8, 16, 16, 16), points=6)
FULL = Layout(side=192, strides=(4,), points=6)

PROPOSAL_MIN = 0.4
"""Lowest score of a proposal of the full-range network."""

SHORT_PROPOSAL_MIN = 0.8
"""Lowest score of a proposal of the short-range network in the whole image. At 0.5 it adds 37 false faces to 249
images."""

PROPOSALS_MAX = 100
"""Proposals that are confirmed, the highest scores first: it bounds the time for one image."""

CONFIDENCE_MIN = 0.675
"""Lowest score of a face. Precision and recall have the highest harmonic mean there."""

CONFIRMATION = 1 / 3
"""Weight of the short-range network's score in that of a face; the rest is that of the proposal."""

CROP = 2.5
"""Side of the crop for the confirmation, in sides of the proposal's box."""

TILE_FACE_MAX = 0.5
"""Largest face of a tile as a share of its side. The whole image shows larger ones better."""

TILED_FROM = 288
"""Pixels of the long side from which an image is tiled. The tiles of smaller ones would be enlarged."""


class Faces:
    """The detector `faces`."""

    weights_sha256 = ""
    labels: tuple[str, ...] | None = (LABEL,)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002 - small enough for the CPU
        self._short = BlazeNet(tflite_session("faces-short", weights_dir, threads), SHORT)
        self._full = BlazeNet(tflite_session("faces-full", weights_dir, threads), FULL)
        self.weights_sha256 = weights.expected_sha256(weights.named("faces-full"), weights_dir) or ""

    def detect(
        self,
        rgb: Pixels,
        labels: Collection[str] = (),
        min_confidence: float = 0.0,
        *,
        masks: bool = False,  # noqa: ARG002 - has none
    ) -> Detections:
        if not wanted(LABEL, labels):
            return to_detections(LABEL, np.empty((0, 4), np.float32), np.empty(0, np.float32), rgb, 0)
        proposals = suppressed(joined([*self._proposals(rgb)])).first(PROPOSALS_MAX)
        boxes, scores = self._confirmed(rgb, proposals)
        return to_detections(LABEL, boxes, scores, rgb, min_confidence or CONFIDENCE_MIN)

    def _proposals(self, rgb: Pixels) -> Iterator[Candidates]:
        yield self._full.detect(rgb, PROPOSAL_MIN)
        yield self._short.detect(rgb, SHORT_PROPOSAL_MIN)
        height, width = rgb.shape[:2]
        for x0, y0, x1, y1 in tiles(width, height):
            found = self._full.detect(rgb[y0:y1, x0:x1], PROPOSAL_MIN)
            # A face that reaches beyond the tile is whole in another tile, or in the image.
            start, end = found.boxes[:, :2], found.boxes[:, 2:]
            limits = np.array([[0 if x0 else -np.inf, 0 if y0 else -np.inf], [x1 - x0, y1 - y0]], float)
            limits[1][np.array([x1, y1]) == (width, height)] = np.inf
            whole = ((start >= limits[0]) & (end <= limits[1])).all(1)
            small = (end - start).max(1, initial=0) < TILE_FACE_MAX * max(x1 - x0, y1 - y0)
            yield found.only(whole & small).shifted(x0, y0)

    def _confirmed(self, rgb: Pixels, proposals: Candidates) -> tuple[Floats, Floats]:
        """Returns the boxes and scores of the proposals after the short-range network has seen each from near."""
        boxes, scores = proposals.boxes.copy(), proposals.scores * np.float32(1 - CONFIRMATION)
        for number, box in enumerate(proposals.boxes):
            square, x, y = _crop(rgb, box)
            found = suppressed(self._short.detect(square, 0.05)).shifted(x, y)
            same = np.flatnonzero(iou(box[None], found.boxes)[0] > 0.2)
            if len(same):
                boxes[number] = (box + found.boxes[same[0]]) / 2
                scores[number] += np.float32(CONFIRMATION) * found.scores[same[0]]
        return boxes, scores


def _crop(rgb: Pixels, box: Floats) -> tuple[Pixels, int, int]:
    """Returns the square around the box, black beyond the image, and the position of its corner: x, y in pixels."""
    side = max(8, round(float((box[2:] - box[:2]).max()) * CROP))
    x, y = (round(float(middle) - side / 2) for middle in (box[:2] + box[2:]) / 2)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, rgb.shape[1]), min(y + side, rgb.shape[0])
    square = np.zeros((side, side, 3), np.uint8)
    if x0 < x1 and y0 < y1:
        square[y0 - y : y1 - y, x0 - x : x1 - x] = rgb[y0:y1, x0:x1]
    return square, x, y
