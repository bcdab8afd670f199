"""Mattes of anything: people by the passes for people, other things by a general network, chosen for each image.

`PeoplePasses` measures whether the subject is a person. Where people are a small part of the image, the general network
measures how much of the salient object they are: a person on a motorcycle, or behind a product, is not the subject.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.engines.confidence import Calibration
from sagemaker_model.engines.people_passes import Network, PeoplePasses, turned
from sagemaker_model.engines.portrait import Portrait
from sagemaker_model.engines.two_passes import Floats, two_passes
from sagemaker_model.engines.u2netp import SIDE, U2Netp
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

BETTER = ("birefnet-general", "birefnet-general-lite", "isnet-general-use", "isnet-imgly")
"""The engines that segment things on a GPU in place of `u2netp`, the best first. A CPU takes seconds an image."""

MEASUREMENTS = ("person", "certainty", "edge", "agreement", "coverage", "whole")

CALIBRATION = Calibration((0.0,) * 6, (1.0,) * 6, (0.0,) * 6, 0.0)
"""Printed by `maskdrop evaluate --calibrate`: of the measurements."""


class Auto:
    """The engine `auto`."""

    weights_sha256 = ""
    _better: tuple[str, Engine] | None = None
    measurements: tuple[str, ...] = MEASUREMENTS

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Raises InvalidWeights. Without the weights that are not bundled, it is `portrait`."""
        self._device = device
        self._portrait, self._general = Portrait(), U2Netp()
        self._portrait.setup(device, weights_dir, threads)
        self._people: PeoplePasses | None = None
        self.weights_sha256 = self._portrait.weights_sha256
        try:
            self._general.setup(device, weights_dir, threads)
            self._people = PeoplePasses.load(weights_dir, threads, Network(self._general.predict_square, SIDE))
        except NotInstalled as error:
            log.warning("auto is portrait alone: %s", error)
            return
        digests = self._portrait.weights_sha256 + self._general.weights_sha256
        self.weights_sha256 = hashlib.sha256(digests.encode()).hexdigest()

    def assist(self, engines: Mapping[str, Engine]) -> None:
        """Takes the best general engine, on a GPU."""
        if self._device != "cpu":
            self._better = next(((name, engines[name]) for name in BETTER if name in engines), None)

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - the catalogue lists no prompts for it
        return self.examine(rgb)[0]

    def examine(self, rgb: Pixels) -> tuple[Alpha, Floats]:
        """Returns the alpha, and the measurements that its score is made of."""
        if self._people is None:
            alpha = self._portrait.predict(rgb, ())
            return Alpha(alpha.values, kind="person", engine="portrait"), np.zeros(len(MEASUREMENTS), np.float32)
        found = self._people.find(rgb)
        if found.evidence >= PERSON_MIN and self._is_subject(rgb, turned(found.first, -found.turns)):
            values, first = self._people.matte(found), turned(found.first, -found.turns)
            alpha = Alpha(values, kind="person", engine="portrait")
        else:
            values, first = two_passes(rgb, self._general.predict_square, SIDE), found.first
            alpha = Alpha(values, kind="thing", engine="u2netp")
        return alpha, measured(alpha, first)

    def _is_subject(self, rgb: Pixels, people: Floats) -> bool:
        """Whether people are the subject, and not a small part of another salient object. people: their matte, sxs."""
        if float((people >= 0.5).mean()) >= SMALL:
            return True
        salient = self._general.predict_square(resized(rgb, (SIDE, SIDE)))
        share = float((resized(people, (SIDE, SIDE)) * salient).sum()) / max(1.0, float(salient.sum()))
        return share >= PERSON_SHARE_MIN


def measured(alpha: Alpha, first: Floats) -> Floats:
    """Returns the measurements of a matte.

    first: the first pass of the network for people, sxs. person: 1 for a person, 0 for a thing. certainty: mean of
    |2a - 1| over the subject and its edge. edge: share of half-transparent pixels in the subject. agreement: IoU with
    `first`. coverage: logarithm of the share of the image. whole: share of the largest region.
    """
    small = resized(alpha.values, first.shape[::-1])
    subject = small >= 0.1
    certainty = float(np.abs(2 * small[subject] - 1).mean()) if subject.any() else 0.0
    half = float(((small > 0.1) & (small < 0.9)).sum() / max(1, subject.sum()))
    mask = small >= 0.5
    other = first >= 0.5
    agreement = float((mask & other).sum() / max(1, (mask | other).sum()))
    regions = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    whole = float(regions.max() / regions.sum()) if len(regions) else 0.0
    values = (float(alpha.kind == "person"), certainty, half, agreement, float(np.log(mask.mean() + 1e-3)), whole)
    return np.array(values, np.float32)
