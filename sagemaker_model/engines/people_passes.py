"""Mattes of people by `portrait`, the pose network of the detector `people`, `selfie` and a network for anything.

`find` looks for people: first passes, bodies and faces. It tells how likely the subject is a person. `matte` adds the
second passes, one for each person of a group, and joins the networks. At 1 MP they take 85 and 26 ms of one core.
Measured step by step: docs/training-log.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.detectors.blaze import BlazeNet, tflite_session
from sagemaker_model.detectors.faces import FULL
from sagemaker_model.detectors.people import CONFIDENCE_MIN, Bodies, Body, mask_iou
from sagemaker_model.engines import portrait, selfie
from sagemaker_model.engines.two_passes import (
    CERTAINTY_MIN,
    MATTE_SIDE,
    Box,
    Floats,
    Predict,
    blend,
    blend_weights,
    certain,
    one_pass,
    padded_box,
    region_boxes,
)
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

BODY_MIN = 0.4
"""Lowest score of a body that counts as evidence. A vote needs the detector's CONFIDENCE_MIN."""

FACE_MIN = 0.3
"""Lowest score of a face that counts as evidence."""

AGREEMENT_MIN = 0.4
"""IoU of a body's mask with the other matte from which the body counts. Alone, each network takes trees and statues for
people: of 80 empty scenes, 6 get a matte without it and 4 with it."""

DOUBT = 0.95
"""IoU of the first pass of `portrait` with its mean with `selfie` below which an image is doubtful. There, the vote of
`selfie` helps everyday photos (IoU of 19: 0.750 to 0.764) and groups (0.882 to 0.909); elsewhere it blurs edges."""

ROBUST_SHARE = 1 / 3
"""Weight of `selfie` against `portrait` in doubtful images."""

GENERAL_SHARE = 1 / 3
"""Weight of the network for anything against those for people."""

UNSURE_EDGE = 0.06
"""Half-transparent pixels of a matte, as a share of the opaque ones, from which the network for anything votes: for a
fourth of the images. It takes as long as all other networks together. Mean IoU: docs/training-log.md."""

POSE_SHARE = 1 / 3
"""Weight of the pose network's masks against the other networks. With 0.41 the people of everyday photos gain, upper
halves lose 0.001; with 1/2 they lose 0.004."""

SMALL = 0.1
"""Share of the image, of a body's box or of all people, below which more people may be too small to be seen."""

PEOPLE_MAX = 6
"""People with a pass of their own, the highest scores first: it bounds the time for one image."""

PERSON_AREA_MIN = 0.1
"""Smallest area of a person's box for a pass of its own, as a share of the largest person's."""

OWN_PASS_MAX = 0.6
"""Largest share of the box of all people up to which one person's box gets a pass of its own."""

REGION_AREA_MIN = 0.3
"""Smallest area of a region without a body, as a share of the largest region with one. Smaller ones are passers-by or
things: without them the mean IoU of street photos is 0.004 higher, and that of composed groups 0.004 lower."""

BODY_SHARE_MIN = 0.1
"""Share of a body's mask that lies in a region, from which the region has this body."""

UNCERTAIN = 1 / 3
"""Values below it become 0, values above 1 - UNCERTAIN become 1: a network alone decides nothing. A thing that a person
holds is none to the pose network and would show as a veil."""

HAZE_REACH = 0.03
"""Distance from the subject, in long sides of the matte, beyond which half-transparent values are no edge of it."""


class Network(NamedTuple):
    """A network with a square input. side: its pixels."""

    predict: Predict
    side: int


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The people of an image, before the second passes.

    evidence: calibrated probability that the subject of the image is a person, 0..1.
    image: the scaled image, turned to the left by `turns` quarter turns, so that its first person is upright.
    first: the matte of the first pass over this image, sxs float32 in 0..1.
    bodies: the people of whom the pose detector is sure, in this image, the highest score first.
    doubtful: whether the networks for people disagree about more than edges.
    """

    evidence: float
    image: Pixels
    turns: int
    first: Floats
    bodies: tuple[Body, ...]
    doubtful: bool

    @property
    def people(self) -> int:
        return len(self.bodies)


class PeoplePasses:
    """The networks for people. Its methods may be called from many threads."""

    def __init__(
        self, fine: Network, robust: Network, bodies: Bodies, faces: BlazeNet, general: Network | None = None
    ) -> None:
        """fine, robust: two networks for people; the second one votes in doubtful images. general: one for anything, if
        it may vote."""
        self._fine = fine
        self._robust = robust
        self._bodies = bodies
        self._faces = faces
        self._general = general

    @classmethod
    def load(cls, weights_dir: Path, threads: int = 1, general: Network | None = None) -> PeoplePasses:
        """Takes `portrait` and `selfie`. Raises NotInstalled for a missing file, InvalidWeights for one of no use."""
        fine, robust = portrait.Portrait(), selfie.Selfie()
        fine.setup("cpu", weights_dir, threads)
        robust.setup("cpu", weights_dir, threads)
        return cls(
            Network(fine.predict_square, portrait.SIDE),
            Network(robust.predict_square, selfie.SIDE),
            Bodies(weights_dir, threads),
            BlazeNet(tflite_session("faces-full", weights_dir, threads), FULL),
            general,
        )

    def find(self, rgb: Pixels) -> Found:
        """Looks for people in `rgb`, HxWx3 uint8 of any size."""
        height, width = rgb.shape[:2]
        scale = min(1.0, MATTE_SIDE / max(height, width))
        image = resized(rgb, (max(1, round(width * scale)), max(1, round(height * scale))))
        square = resized(image, (self._fine.side, self._fine.side))
        fine = self._fine.predict(square)
        first = self._with_robust(square, fine)
        doubtful = mask_iou(fine, first) < DOUBT
        small = float((first >= 0.5).mean()) < SMALL
        bodies = self._bodies.find(image, BODY_MIN, closer=lambda seen: len(seen) > 1 or (small and not _large(seen)))
        matte = resized(first, (image.shape[1], image.shape[0]))
        bodies = [body for body in bodies if self._agrees(image, matte, body)]
        body_score = max((body.score for body in bodies), default=0.0)
        sure = tuple(body for body in bodies if body.score >= CONFIDENCE_MIN)
        turns = sure[0].turns if sure else 0
        if turns:
            image = turned(image, turns)
            first = self._pass(image)
            sure = tuple(_turned_body(body, turns) for body in sure)
        evidence = person_evidence(body_score, self._face(image, resized(first, (image.shape[1], image.shape[0]))))
        return Found(evidence, image, turns, first, sure, doubtful)

    def _face(self, image: Pixels, matte: Floats) -> float:
        """Returns the highest score of a face times the share of it that the other network takes for a person."""
        faces = self._faces.detect(image, FACE_MIN)
        best = 0.0
        for box, score in zip(np.rint(faces.boxes).astype(int).clip(0), faces.scores, strict=True):
            inside = matte[box[1] : box[3], box[0] : box[2]]
            best = max(best, float(score) * float((inside >= 0.5).mean()) if inside.size else 0.0)
        return best

    def _agrees(self, image: Pixels, matte: Floats, body: Body) -> bool:
        """Whether the other network sees this body too, in its first pass or in one over the body."""
        x0, y0, x1, y1 = padded_box([body.box], (image.shape[1], image.shape[0]), portrait.MARGIN)
        mask = body.mask[y0:y1, x0:x1]
        if mask_iou(matte[y0:y1, x0:x1], mask) >= AGREEMENT_MIN:
            return True
        own = turned(self._pass(turned(image[y0:y1, x0:x1], body.turns)), -body.turns)
        return mask_iou(resized(own, (x1 - x0, y1 - y0)), mask) >= AGREEMENT_MIN

    def matte(self, found: Found) -> Floats:
        """Returns the matte of the people, hxw float32 in 0..1 over the whole image, h and w <= MATTE_SIDE."""
        image, size = found.image, (found.image.shape[1], found.image.shape[0])
        regions = region_boxes(found.first, size)
        boxes = [*regions, *(body.box for body in found.bodies)]
        if not boxes:
            return turned(np.zeros(size[::-1], np.float32), -found.turns)
        matte = resized(found.first, size)
        box = x0, y0, x1, y1 = padded_box(boxes, size, portrait.MARGIN)
        crop = image[y0:y1, x0:x1]
        predict = self._mean if found.doubtful else self._fine.predict
        blend(matte, one_pass(crop, predict, self._fine.side), box)
        if len(boxes) > 1:
            self._own_passes(matte, found, regions, box, predict)
        joined = self._with_bodies(matte, found)
        if self._general and _edge_share(joined) > UNSURE_EDGE:
            general = self._general.predict(resized(crop, (self._general.side, self._general.side)))
            blend(matte, resized(general, (x1 - x0, y1 - y0)), box, GENERAL_SHARE)
            joined = self._with_bodies(matte, found)
        return turned(joined, -found.turns)

    def _with_bodies(self, matte: Floats, found: Found) -> Floats:
        """Returns the matte joined with the masks of the bodies, and stretched."""
        joined = matte.copy()
        if found.bodies:
            masks = np.maximum.reduce([body.mask for body in found.bodies])
            joined += np.float32(POSE_SHARE) * self._near(found, matte.shape[::-1]) * (masks - matte)
            without_passers_by(joined, found.bodies)
        return without_haze(certain(joined, UNCERTAIN))

    def _pass(self, image: Pixels) -> Floats:
        return self._mean(resized(image, (self._fine.side, self._fine.side)))

    def _mean(self, square: Pixels) -> Floats:
        """Runs both networks for people and returns their weighted mean."""
        return self._with_robust(square, self._fine.predict(square))

    def _with_robust(self, square: Pixels, fine: Floats) -> Floats:
        side = self._robust.side
        robust = resized(self._robust.predict(resized(square, (side, side))), (self._fine.side, self._fine.side))
        return fine + np.float32(ROBUST_SHARE) * (robust - fine)

    def _near(self, found: Found, size: tuple[int, int]) -> Floats:
        """Returns the weight of the pose network for each pixel: it knows nothing beyond the boxes of its people."""
        weights = np.zeros(size[::-1], np.float32)
        for body in found.bodies:
            box = x0, y0, x1, y1 = padded_box([body.box], size, portrait.MARGIN)
            np.maximum(weights[y0:y1, x0:x1], blend_weights(box, size), out=weights[y0:y1, x0:x1])
        return weights

    def _own_passes(self, matte: Floats, found: Found, regions: Sequence[Floats], box: Box, predict: Predict) -> None:
        """Gives each person a pass. It may lose others who reach into the person's box: the larger value counts."""
        size = (matte.shape[1], matte.shape[0])
        people = [(body.box, body.turns) for body in found.bodies]
        people += [(one, 0) for one in regions if all(_covered(one, body.box) < 0.5 for body in found.bodies)]
        largest = max(_area(one) for one, _ in people)
        for one, turns in people[:PEOPLE_MAX]:
            own = x0, y0, x1, y1 = padded_box([one], size, portrait.MARGIN)
            if _area(one) < PERSON_AREA_MIN * largest or _area(own) > OWN_PASS_MAX * _area(box):
                continue
            inside = matte[y0:y1, x0:x1]
            values = turned(one_pass(turned(found.image[y0:y1, x0:x1], turns), predict, self._fine.side), -turns)
            np.maximum(inside, blend_weights(own, size) * values, out=inside)


def person_evidence(body: float, face: float) -> float:
    """Returns the probability that the subject is a person, from the highest scores of a body and of a face, 0..1.

    Logistic regression on 241 validation images with people, 19 everyday ones, 80 empty scenes and 58 objects, both
    classes with the same weight. At 0.5, 238 and 18 are persons, none of the scenes is, and two of the objects are:
    dolls. In five-fold cross-validation 1.3 % are wrong.
    """
    return 1 / (1 + math.exp(6.43 - 9.55 * body**2 - 7.53 * face**2))


def without_passers_by(matte: Floats, bodies: Sequence[Body]) -> None:
    """Clears the small regions of a matte in which there is no body, in place."""
    _, regions = cv2.connectedComponents((matte >= CERTAINTY_MIN).astype(np.uint8))
    areas = np.bincount(regions.ravel())
    has_body = np.zeros(len(areas), bool)
    for body in bodies:
        inside = np.bincount(regions[body.mask >= 0.5], minlength=len(areas))
        has_body |= inside >= BODY_SHARE_MIN * max(1, inside.sum())
    has_body[0] = False  # the background
    if has_body.any():
        kept = has_body | (areas >= REGION_AREA_MIN * areas[has_body].max())
        matte[~kept[regions]] = 0


def without_haze(matte: Floats) -> Floats:
    """Clears half-transparent values far from the subject, in place: they are a veil over the background, no edge."""
    reach = 2 * max(1, round(HAZE_REACH * max(matte.shape))) + 1
    near = cv2.dilate((matte >= 0.5).astype(np.uint8), np.ones((reach, reach), np.uint8))
    matte[near == 0] = 0
    return matte


def _edge_share(matte: Floats) -> float:
    half = (matte > 0.02) & (matte < 0.98)
    return float(half.sum() / max(1, (matte >= 0.5).sum()))


def turned(values: NDArray[Any], turns: int) -> NDArray[Any]:
    """Turns HxW or HxWxC to the left by quarter turns."""
    return np.ascontiguousarray(np.rot90(values, turns))


def _turned_body(body: Body, turns: int) -> Body:
    height, width = body.mask.shape
    x0, y0, x1, y1 = body.box
    box = ((x0, y0, x1, y1), (y0, width - x1, y1, width - x0), (width - x1, height - y1, width - x0, height - y0),
           (height - y1, x0, height - y0, x1))[turns]  # fmt: skip
    return Body(turned(body.mask, turns), np.array(box, np.float32), body.score, (body.turns - turns) % 4)


def _large(bodies: Sequence[Body]) -> bool:
    """Whether a body is so large that others of its size were seen too."""
    return any(_area(body.box) >= SMALL * body.mask.size for body in bodies)


def _covered(box: Floats, other: Floats) -> float:
    """Returns the share of a box that another one covers."""
    start, end = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    return float(np.clip(end - start, 0, None).prod()) / max(1e-6, _area(box))


def _area(box: Box | Floats) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
