"""Single-shot detectors of MediaPipe's BlazeFace family: input, anchors, decoding and weighted non-maximum suppression.

The numbers of each network are those of MediaPipe's graphs (github.com/google-ai-edge/mediapipe,
`modules/face_detection/*_common.pbtxt` and `modules/pose_detection/pose_detection_cpu.pbtxt`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.detectors.base import Detections, Floats
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights
from sagemaker_model.weights.tflite import NotSupported, to_onnx

LOGIT_MAX = 100.0
"""Largest absolute value of a logit before the sigmoid: `score_clipping_thresh`."""

OVERLAP_MIN = 0.3
"""IoU from which two candidates are one instance: `min_suppression_threshold`."""

TILE = 1 / 2.25
"""Side of a tile as a share of the image's long side: 3 x 2 or 3 x 3 tiles for usual aspect ratios."""

TILE_OVERLAP = 1 / 3
"""Share of a tile that the next one covers at least."""

TILED_FROM = 288
"""Pixels of the long side from which an image is tiled. The tiles of smaller ones would be enlarged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One network. side: pixels of the square input. strides: pixels between anchors, by layer. points: keypoints of a
    candidate."""

    side: int
    strides: tuple[int, ...]
    points: int


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes of one network, the highest score first.

    boxes: Nx4 float32, x0, y0, x1, y1 in pixels of the image; may reach beyond it. scores: N float32 in 0..1.
    points: NxKx2 float32, x, y of each keypoint.
    """

    boxes: Floats
    scores: Floats
    points: Floats

    def only(self, kept: NDArray[np.bool_]) -> Candidates:
        return Candidates(self.boxes[kept], self.scores[kept], self.points[kept])

    def first(self, count: int) -> Candidates:
        return self.only(np.arange(len(self.scores)) < count)

    def shifted(self, x: int, y: int) -> Candidates:
        """Returns the candidates of a crop in pixels of the image. x, y: position of the crop."""
        offset = np.array([x, y], np.float32)
        return Candidates(self.boxes + np.tile(offset, 2), self.scores, self.points + offset)


def tflite_session(name: str, weights_dir: Path, threads: int) -> Any:
    """Opens the .tflite file of an entry of weights.toml as a session of ONNX Runtime.

    Raises NotInstalled if the file is missing, InvalidWeights if it cannot be used.
    """
    entry = weights.named(name)
    data = weights.read(entry, weights_dir)
    try:
        return onnx_session(to_onnx(data), threads)
    except NotSupported as error:
        raise InvalidWeights(f"{weights.located(entry, weights_dir)} cannot be used: {error}.") from error


class BlazeNet:
    """One network with its anchors."""

    def __init__(self, session: Any, layout: Layout) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._layout = layout
        self._anchors = anchors(layout)

    def detect(self, rgb: Pixels, score_min: float) -> Candidates:
        """Returns all candidates in `rgb`, HxWx3 uint8, with at least this score, before suppression."""
        side = self._layout.side
        height, width = rgb.shape[:2]
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + size[1], left : left + size[0]] = resized(rgb, size)
        planes = square.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(127.5) - np.float32(1)
        values, logits = (output[0] for output in self._session.run(None, {self._input: planes}))
        scores = sigmoid(logits[:, 0])
        kept = np.flatnonzero(scores >= score_min)
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        # Values are offsets from the anchor in pixels of the square: centre and size of the box, then the keypoints.
        pairs = values[kept].reshape(len(kept), 2 + self._layout.points, 2)
        pairs[:, [0, *range(2, pairs.shape[1])]] += self._anchors[kept, None]
        pairs -= np.where(np.arange(pairs.shape[1]) == 1, 0, 1)[None, :, None] * np.array([left, top], np.float32)
        pairs *= np.array([width / size[0], height / size[1]], np.float32)
        centres, sizes = pairs[:, 0], np.abs(pairs[:, 1])
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
        return Candidates(boxes, scores[kept], pairs[:, 2:])


def sigmoid(logits: Floats) -> Floats:
    values: Floats = (1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -LOGIT_MAX, LOGIT_MAX)))).astype(np.float32)
    return values


def anchors(layout: Layout) -> Floats:
    """Returns the centres of the anchors, Nx2 float32, x, y in pixels of the square, in the order of the outputs.

    Each cell has two anchors of each layer, at its middle. Layers of one stride share the cells. MediaPipe adds the
    second anchor where `interpolated_scale_aspect_ratio` is 1; the full-range network, of one layer, has one.
    """
    parts = []
    for stride in dict.fromkeys(layout.strides):
        cells = -(-layout.side // stride)
        count = layout.strides.count(stride) * (2 if len(layout.strides) > 1 else 1)
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * (layout.side / cells)
        parts.append(np.repeat(centres, count, axis=0))
    return np.concatenate(parts).astype(np.float32)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Returns the candidates of several passes, the highest score first. parts: at least one."""
    boxes, scores, points = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "points")
    )
    order = np.argsort(-scores, kind="stable")
    return Candidates(boxes[order], scores[order], points[order])


def suppressed(candidates: Candidates, overlap_min: float = OVERLAP_MIN) -> Candidates:
    """Returns one candidate for each instance: the means of those that overlap, weighted by their scores.

    The score is the highest of them. The candidates must be in the order of their scores.
    """
    rest = np.arange(len(candidates.scores))
    boxes, scores, points = [], [], []
    while len(rest):
        same = iou(candidates.boxes[rest[:1]], candidates.boxes[rest])[0] > overlap_min
        same[0] = True  # a box without area has no overlap with itself
        group = rest[same]
        weight = candidates.scores[group] / candidates.scores[group].sum()
        boxes.append(np.tensordot(weight, candidates.boxes[group], 1))
        points.append(np.tensordot(weight, candidates.points[group], 1))
        scores.append(candidates.scores[group[0]])
        rest = rest[~same]
    return Candidates(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(points, np.float32).reshape(-1, *candidates.points.shape[1:]),
    )


def iou(one: Floats, other: Floats) -> Floats:
    """Returns the IoU of each box of `one`, Nx4, with each of `other`, Mx4: NxM."""
    start, end = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(end - start, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - common
    ratios: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ratios


def tiles(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Returns the boxes of the overlapping square tiles of an image: x0, y0, x1, y1 in pixels.

    The side is TILE of the long side or, for elongated images, the short side, but at least an eighth of the long side.
    Images of at most TILED_FROM pixels have none.
    """
    long, short = max(width, height), min(width, height)
    if long <= TILED_FROM:
        return []
    side = max(1, round(min(long * TILE, max(short, long / 8))))
    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]  # fmt: skip


def _starts(length: int, side: int) -> list[int]:
    """Returns the first pixels of the tiles along one axis."""
    if side >= length:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - TILE_OVERLAP)))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def wanted(label: str, labels: Collection[str]) -> bool:
    """Returns whether the caller wants this label. labels: empty for all; in any letter case."""
    return not labels or label in {one.casefold() for one in labels}


def to_detections(
    label: str, boxes: Floats, scores: Floats, rgb: Pixels, score_min: float, masks: Sequence[Alpha] = ()
) -> Detections:
    """Returns the instances with at least this score, clipped to the image, the highest score first.

    Instances outside the image are dropped. masks: one for each instance, or none.
    """
    height, width = rgb.shape[:2]
    boxes = np.clip(boxes, 0, np.tile(np.array([width, height], np.float32), 2))
    kept = np.flatnonzero((scores >= score_min) & (boxes[:, :2] < boxes[:, 2:]).all(1))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return Detections(
        boxes[kept],
        scores[kept],
        (label,) * len(kept),
        tuple(masks[number] for number in kept.tolist()) if masks else (),
    )
