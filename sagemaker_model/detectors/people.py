"""People by MediaPipe's pose detector and pose network (Apache-2.0) on ONNX Runtime, with one mask a person.

The pose detector finds the hip centre of each person and a point that gives the size and rotation of the body, in the
whole image and in overlapping tiles. The pose network gets the rotated square around the body. It returns whether the
square shows a person, and the mask of that one person. The box is that of the mask. With `masks`, the engine `portrait`
refines each mask.
Measured: docs/models.md, "Detectors".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sagemaker_model.detectors.base import Detections, Floats
from sagemaker_model.detectors.blaze import (
    BlazeNet,
    Candidates,
    Layout,
    joined,
    sigmoid,
    suppressed,
    tflite_session,
    tiles,
    to_detections,
    wanted,
)
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.portrait import Portrait
from sagemaker_model.engines.two_passes import ASPECT_MAX, MATTE_SIDE, certain, extended
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights import store as weights

LABEL = "person"

POSE = Layout(side=224, strides=(8, 16, 32, 32, 32), points=4)

SIDE = 256
"""Pixels of the pose network's square input and mask."""

BODY_SCALE = 1.25
"""Side of the square around a body, in the double distance of the hip centre from the point of size. With MediaPipe's
older 1.5 the mean IoU of the masks is 0.009 lower."""

CONFIDENCE_MIN = 0.55
"""Lowest score of a person: the detector's score times the pose network's. At 0.5, precision is 0.05 lower on both data
sets and recall is at most 0.03 higher."""

PROPOSAL_MIN = 0.2
"""Lowest score of the proposals that become one body, as in MediaPipe's graph."""

PROPOSALS_MAX = 40
"""Proposals that the pose network sees, the highest scores first: it bounds the time for one image."""

OVERLAP_MAX = 0.3
"""IoU of two masks above which they show one person."""

REGION_AREA_MIN = 0.05
"""Smallest area of a region of a mask that widens the box, as a share of the largest region's."""

MARGIN = 0.1
"""Padding of the box for `portrait`, as a share of its sides."""

REACH = 0.06
"""Distance around the pose network's mask in which the one of `portrait` counts, in long sides of the box. The rest may
be another person."""

AGREEMENT_MIN = 0.6
"""IoU of the two masks below which the pose network's is the result: `portrait` has found something else."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """One person in the scaled image.

    mask: hxw float32 in 0..1. box: x0, y0, x1, y1 in its pixels. turns: quarter turns to the left that make the body
    upright, 0 to 3.
    """

    mask: Floats
    box: Floats
    score: float
    turns: int


class Bodies:
    """The pose detector and the pose network: from an image to the masks of its people."""

    def __init__(self, weights_dir: Path, threads: int = 1) -> None:
        """Raises NotInstalled if a file is missing, InvalidWeights if one cannot be used."""
        self._detector = BlazeNet(tflite_session("people-detection", weights_dir, threads), POSE)
        self._pose = tflite_session("people-landmark", weights_dir, threads)
        self._pose_input = self._pose.get_inputs()[0].name

    def find(
        self, image: Pixels, score_min: float, *, closer: Callable[[list[Body]], bool] | None = None
    ) -> list[Body]:
        """Returns each person once, the highest score first. image: HxWx3 uint8, sides of at most MATTE_SIDE.

        closer: whether to search overlapping tiles too, which finds small people and groups; it gets the people of the
        whole image. None: always. The tiles take about 90 ms; the whole image 14 ms; each body 20 ms.
        """
        proposals = suppressed(self._detector.detect(image, PROPOSAL_MIN))
        bodies = self._seen(image, proposals, score_min)
        if closer is None or closer(bodies):
            parts = [proposals]
            for x0, y0, x1, y1 in tiles(image.shape[1], image.shape[0]):
                parts.append(self._detector.detect(image[y0:y1, x0:x1], PROPOSAL_MIN).shifted(x0, y0))
            bodies = self._seen(image, suppressed(joined(parts)), score_min)
        kept: list[Body] = []
        for body in sorted(bodies, key=lambda one: -one.score):
            if all(mask_iou(body.mask, other.mask) <= OVERLAP_MAX for other in kept):
                kept.append(body)
        return kept

    def _seen(self, image: Pixels, proposals: Candidates, score_min: float) -> list[Body]:
        """Returns the proposals that the pose network confirms. The score of a body cannot be higher than proposed."""
        likely = proposals.only(proposals.scores >= score_min).first(PROPOSALS_MAX)
        bodies = (
            self._person(image, points[0], points[1], float(score))
            for points, score in zip(likely.points, likely.scores, strict=True)
        )
        return [body for body in bodies if body and body.score >= score_min]

    def _person(self, image: Pixels, centre: Floats, top: Floats, score: float) -> Body | None:
        """Runs the pose network on the square around a body; None if it shows nobody."""
        matrix = body_matrix(centre, top)
        if matrix is None:
            return None
        square = cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        planes = square.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        _, presence, logits, _, _ = self._pose.run(None, {self._pose_input: planes})
        mask: Floats = np.asarray(
            cv2.warpAffine(
                sigmoid(logits[0, 0]), matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            ),
            np.float32,
        )
        box = mask_box(mask)
        if box is None:
            return None
        return Body(mask, box, float(np.float32(score * presence[0, 0])), quarter_turns(centre, top))


class People:
    """The detector `people`."""

    weights_sha256 = ""
    labels: tuple[str, ...] | None = (LABEL,)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        self._bodies = Bodies(weights_dir, threads)
        self._portrait = Portrait()
        self._portrait.setup(device, weights_dir, threads)
        self.weights_sha256 = weights.expected_sha256(weights.named("people-detection"), weights_dir) or ""

    def detect(
        self, rgb: Pixels, labels: Collection[str] = (), min_confidence: float = 0.0, *, masks: bool = False
    ) -> Detections:
        height, width = rgb.shape[:2]
        scale = min(1.0, MATTE_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = resized(rgb, size)
        score_min = min_confidence or CONFIDENCE_MIN
        people = self._bodies.find(image, score_min) if wanted(LABEL, labels) else []
        boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
        boxes *= np.tile(np.array([width / size[0], height / size[1]], np.float32), 2)
        scores = np.array([person.score for person in people], np.float32)
        alphas = [Alpha(self._refined(image, person)) for person in people] if masks else []
        return to_detections(LABEL, boxes, scores, rgb, score_min, alphas)

    def _refined(self, image: Pixels, person: Body) -> Floats:
        """Returns the mean of the person's mask and that of `portrait` on the padded box, where the two agree."""
        height, width = image.shape[:2]
        length = person.box[2:] - person.box[:2]
        start = np.floor(np.maximum(person.box[:2] - MARGIN * length, 0)).astype(int).tolist()
        end = np.ceil(np.minimum(person.box[2:] + MARGIN * length, [width, height])).astype(int).tolist()
        x0, x1 = extended(start[0], end[0], int((end[1] - start[1]) / ASPECT_MAX), width)
        y0, y1 = extended(start[1], end[1], int((end[0] - start[0]) / ASPECT_MAX), height)
        reach = 2 * round(float(length.max()) * REACH / 2) + 1
        near = cv2.dilate(person.mask, np.ones((reach, reach), np.uint8)) >= 0.5
        matte = np.zeros_like(person.mask)
        matte[y0:y1, x0:x1] = self._portrait.predict_crop(image[y0:y1, x0:x1])
        matte[~near] = 0
        if mask_iou(matte, person.mask) < AGREEMENT_MIN:
            return certain(person.mask)
        return certain((matte + person.mask) / np.float32(2))


def body_matrix(centre: Floats, top: Floats) -> Floats | None:
    """Returns the 2x3 matrix from pixels of the image to the pose network's square, for `cv2.warpAffine`.

    In the square, `centre` is in the middle and `top` straight above it. None if the two points coincide.
    """
    x, y = (top - centre).astype(float)
    length = float(np.hypot(x, y))
    if length < 1:
        return None
    scale = SIDE / (2 * BODY_SCALE * length)
    rotation = np.array([[-y, x], [-x, -y]]) / length * scale
    # Pixel (0, 0) of OpenCV has its middle at 0, and that of the points at 0.5.
    offset = SIDE / 2 - 0.5 - rotation @ (centre - 0.5)
    return np.hstack([rotation, offset[:, None]]).astype(np.float32)


def quarter_turns(centre: Floats, top: Floats) -> int:
    """Returns the quarter turns to the left, 0 to 3, after which `top` is about straight above `centre`."""
    x, y = (top - centre).astype(float)
    return round(math.degrees(math.atan2(x, -y)) / 90) % 4


def mask_box(mask: Floats) -> Floats | None:
    """Returns the box around the regions of a mask, x0, y0, x1, y1 in its pixels; None without any.

    Regions of less than REGION_AREA_MIN of the largest are noise.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats((mask >= 0.5).astype(np.uint8))
    if count == 1:
        return None
    regions = stats[1:]
    regions = regions[regions[:, cv2.CC_STAT_AREA] >= REGION_AREA_MIN * regions[:, cv2.CC_STAT_AREA].max()]
    start = regions[:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    end = start + regions[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    return np.concatenate([start.min(0), end.max(0)]).astype(np.float32)


def mask_iou(one: Floats, other: Floats) -> float:
    inside, also = one >= 0.5, other >= 0.5
    return float((inside & also).sum() / max(1, (inside | also).sum()))
