"""Mattes of anything: people by the passes for people, other things by a general network, chosen for each image.

`PeoplePasses` measures whether the subject is a person. Where people are a small part of the image, the general network
measures how much of the salient object they are: a person on a motorcycle, or behind a product, is not the subject.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.engines.confidence import Calibration
from sagemaker_model.engines.people_passes import Network, PeoplePasses, turned
from sagemaker_model.engines.places import Places
from sagemaker_model.engines.portrait import Portrait
from sagemaker_model.engines.two_passes import Floats, certain
from sagemaker_model.engines.u2netp import SIDE, U2Netp, find_salient
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import NotInstalled

log = logging.getLogger(__name__)

PERSON_MIN = 0.5
"""Lowest evidence of a person. On the people of the validation set it is 0.7 or more for 98 %; of 58 objects, the dolls
with a face and the photos with a real person have more."""

SMALL = 0.1
"""Share of the image up to which people are small: the salient object may be another one."""

PERSON_SHARE_MIN = 0.15
"""Lowest share of the salient object that people are, where the subject is a person."""

OBJECT_MIN = 0.16
"""Lowest probability of an object, else the image has no subject. One object has 0.17, the others 0.5 or more."""

SURE_OBJECT_MIN = 0.5
"""The same where there are people, who are the subject then: a thing of a scene is no larger subject than a person."""

OBJECT = Calibration(
    means=(-1.5492, 0.7235, -2.4815, 0.3014),
    scales=(1.1216, 0.3565, 2.0165, 0.4112),
    weights=(-2.6629, 0.6511, 1.1648, 1.1784),
    bias=-0.5712,
)
"""Probability of an object, by the logit of the share of places, the agreement of the general network with its mirrored
pass, the logarithm of the share of the image, and the agreement times the share of the matte that the network for
people has found too: it marks a thing before a background. Fitted to 58 photos of objects, which all have one, and
80 empty scenes, of which 6 have one; in ten-fold cross-validation, 1 photo has none and 6 scenes have one. Without the
places, 5 photos had none."""

PART_MIN = 0.95
"""Share of a salient object inside the one that the network for people finds, from which it is a part of that one."""

REST_MIN = 0.9
"""Mean of the rest of that object in the matte of the network for people, from which the whole counts. It helps 3 of
the 58 objects, most of all a toy whose head alone is salient. With 0.75 the mean IoU is lower."""

SAME_MIN = 0.6
"""IoU of the masks of both networks from which they show the same thing. Then the network for people has a third of the
votes: the mean IoU of the objects is 0.004 to 0.009 higher."""

BETTER = ("birefnet-general", "birefnet-general-lite", "isnet-general-use", "isnet-imgly")
"""The engines that segment things on a GPU in place of `u2netp`, the best first. A CPU takes seconds an image."""

MEASUREMENTS = ("person", "certainty", "edge", "agreement", "coverage", "whole")

CALIBRATION = Calibration(
    means=(0.806, 0.9642, 0.0597, 0.8989, -1.3179, 0.9921),
    scales=(0.3954, 0.0356, 0.057, 0.2144, 0.6111, 0.0467),
    weights=(1.102, 1.0936, -1.3182, 0.2195, -0.5774, 0.3175),
    bias=2.4980,
)
"""Weights of the measurements, as `maskdrop evaluate --calibrate` printed them for 241 people and 58 objects."""


class Auto:
    """The engine `auto`."""

    weights_sha256 = ""
    measurements: tuple[str, ...] = MEASUREMENTS
    _better: tuple[str, Engine] | None = None

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Raises InvalidWeights. Without the weights that are not bundled, it is `portrait`."""
        self._device = device
        self._portrait, self._general = Portrait(), U2Netp()
        self._portrait.setup(device, weights_dir, threads)
        self._places = Places(weights_dir, threads)
        self._people: PeoplePasses | None = None
        self.weights_sha256 = self._portrait.weights_sha256
        try:
            self._general.setup(device, weights_dir, threads)
            self._people = PeoplePasses.load(weights_dir, threads, Network(self._general.predict_square, SIDE))
        except NotInstalled as error:
            log.warning("auto finds people only: %s", error)
            return
        digests = self._portrait.weights_sha256 + self._general.weights_sha256 + self._places.weights_sha256
        self.weights_sha256 = hashlib.sha256(digests.encode()).hexdigest()

    def assist(self, engines: Mapping[str, Engine]) -> None:
        """Takes the best general engine, on a GPU."""
        if self._device != "cpu":
            self._better = next(((name, engines[name]) for name in BETTER if name in engines), None)

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        alpha, measurements = self.examine(rgb)
        if self._people is None or alpha.engine in BETTER:
            return alpha  # not calibrated
        return replace(alpha, score=0.0 if alpha.kind == "none" else CALIBRATION.score(measurements))

    def examine(self, rgb: Pixels) -> tuple[Alpha, Floats]:
        """Returns the alpha, and the measurements that its score is made of."""
        if self._people is None:
            values = self._portrait.predict(rgb, ()).values
            return Alpha(values, kind="person", engine="portrait"), np.zeros(len(MEASUREMENTS), np.float32)
        found = self._people.find(rgb)
        image, first = turned(found.image, -found.turns), turned(found.first, -found.turns)
        person = found.evidence >= PERSON_MIN
        object_min = SURE_OBJECT_MIN if person else OBJECT_MIN
        alpha = None if person and self._is_subject(image, first) else self._thing(rgb, image, first, object_min)
        if alpha is None or (person and alpha.kind == "none"):
            alpha = Alpha(self._people.matte(found), kind="person", engine="portrait")
        return alpha, measured(alpha, first)

    def _is_subject(self, image: Pixels, people: Floats) -> bool:
        """Whether people are the subject, and not a small part of another salient object. people: their matte, sxs."""
        if float((people >= 0.5).mean()) >= SMALL:
            return True
        salient = self._general.predict_square(resized(image, (SIDE, SIDE)))
        return _share(salient, people) >= PERSON_SHARE_MIN

    def _thing(self, rgb: Pixels, image: Pixels, people: Floats, object_min: float) -> Alpha:
        """Returns the alpha of a thing, of the kind "none" where an object is less probable than `object_min`.

        image: `rgb` scaled to the matte's size. people: the matte of the network for people, sxs, which often finds the
        thing too.
        """
        if self._better:
            name, engine = self._better
            return replace(engine.predict(rgb, ()), kind="thing", engine=name)
        found = find_salient(image, self._general.predict_square)
        small = resized(found.values, (SIDE, SIDE))
        seen = found.agreement * _share(small, people)
        evidence = (_logit(self._places.share(image)), found.agreement, math.log(found.area + 1e-3), seen)
        if OBJECT.score(np.array(evidence, np.float32)) < object_min:
            return Alpha(np.zeros_like(found.values), kind="none", engine="u2netp")
        values = found.values
        if _is_part(small, resized(people, (SIDE, SIDE))):
            values = np.maximum(values, certain(resized(people, values.shape[::-1])))
        elif _iou(small, people) >= SAME_MIN:
            values = values + (resized(people, values.shape[::-1]) - values) / np.float32(3)
            values = np.clip(3 * values - 1, 0, 1)
        return Alpha(values, kind="thing", engine="u2netp")


def _logit(probability: float) -> float:
    return math.log((probability + 0.003) / (1.003 - probability))


def _share(salient: Floats, people: Floats) -> float:
    """Returns the share of a salient matte, SIDExSIDE, that the network for people has found too, sxs."""
    return float((resized(people, (SIDE, SIDE)) * salient).sum()) / max(1.0, float(salient.sum()))


def _is_part(salient: Floats, whole: Floats) -> bool:
    """Whether a salient object is a part of a larger one that another matte of the same shape shows sharply."""
    part, larger = salient >= 0.5, whole >= 0.5
    rest = larger & ~part
    inside = (part & larger).sum() >= PART_MIN * part.sum()
    return bool(inside and rest.any() and whole[rest].mean() >= REST_MIN)


def _iou(one: Floats, other: Floats) -> float:
    """Returns the IoU of two masks of one shape."""
    a, b = one >= 0.5, other >= 0.5
    return float((a & b).sum() / max(1, (a | b).sum()))


def measured(alpha: Alpha, first: Floats) -> Floats:
    """Returns the measurements of a matte.

    first: the first pass of the network for people, sxs. person: 1 for a person, 0 for a thing. certainty: mean of
    |2a - 1| over the subject and its edge. edge: share of half-transparent pixels in the subject. agreement: IoU with
    `first`. coverage: logarithm of the share of the image. whole: share of the largest region.
    """
    small = resized(alpha.values, first.shape[::-1])
    subject = small >= 0.1
    certainty = float(np.abs(2 * small[subject] - 1).mean()) if subject.any() else 0.0
    half = float((subject & (small < 0.9)).sum() / max(1, subject.sum()))
    mask = small >= 0.5
    regions = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    whole = float(regions.max() / regions.sum()) if len(regions) else 0.0
    coverage = float(np.log(mask.mean() + 1e-3))
    return np.array([alpha.kind == "person", certainty, half, _iou(small, first), coverage, whole], np.float32)
