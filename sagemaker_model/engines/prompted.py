"""Mattes by boxes and points where no SAM weights are installed: `portrait` and `u2netp` inside the padded box, else
`grabcut`.

On 58 photos of objects with their true boxes, mean IoU: GrabCut 0.825, `u2netp` 0.833, this engine 0.892.

The model server uses SAM instead of this engine where its weights are installed (`resolve`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.catalog import ENGINES
from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import Box, Prompt, Prompts
from sagemaker_model.detectors.targets import union
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.grabcut import GrabCut
from sagemaker_model.engines.portrait import Portrait
from sagemaker_model.engines.two_passes import MATTE_SIDE, Floats, certain
from sagemaker_model.engines.u2netp import SIDE, U2Netp
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import NotInstalled

PADDING = 0.2
"""Padding around a box before `portrait`, as a share of its sides: the padding of `portrait`'s own second pass."""

AGREEMENT_MIN = 0.85
"""IoU of the masks of `portrait` and `u2netp` from which they show the same object: their mean is the result."""

FIT_MIN = 0.8
"""IoU of the bounding box of a mask with the box of the prompt from which the mask is the object, and not a part of it
or more than it. If neither mask has it, GrabCut segments the box."""

BOXES_MAX, BOX_AREAS_MAX = 64, 16.0
"""Maximum number of boxes without SAM, and maximum sum of their areas in areas of the image. GrabCut takes 1.3 s for a
box of most of a photo and 0.2 s for a small one on one core; the model server's deadline is 60 s."""

PREFERRED = ("sam2", "sam")
"""The engines that replace this one, the better first."""


def resolve(name: str, installed: Collection[str]) -> str:
    """Returns the engine that serves requests for `name`: SAM for `prompted`, where it is installed."""
    if name != "prompted":
        return name
    return next((engine for engine in PREFERRED if engine in installed), name)


def check_boxes(boxes: Sequence[Box], width: int, height: int) -> None:
    """Raises InvalidPrompt for boxes in an image of width x height pixels that exceed the time of one image."""
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) / (width * height)
    if len(boxes) > BOXES_MAX or areas > BOX_AREAS_MAX:
        raise InvalidPrompt(
            f"Without SAM an image may have at most {BOXES_MAX} boxes, with at most {BOX_AREAS_MAX:g} times the "
            f"image's area; got {len(boxes)} boxes with {areas:.1f} times the area. Use fewer prompts, a higher "
            f'"min_confidence", or install {" or ".join(PREFERRED)}.'
        )


class Prompted:
    """The engine `prompted`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        self._portrait, self._grabcut = Portrait(), GrabCut()
        self._portrait.setup(device, weights_dir, threads)
        self.weights_sha256 = self._portrait.weights_sha256
        self._general: U2Netp | None = U2Netp()
        try:
            self._general.setup(device, weights_dir, threads)
        except NotInstalled:
            self._general = None

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        """Raises InvalidPrompt without a prompt, and for a prompt without a box or a label."""
        if not prompts or any(prompt.box is None for prompt in prompts):
            raise InvalidPrompt(
                "Points without a label need the weights of SAM, which this server does not have. Use a box or a "
                f"label, or install {' or '.join(PREFERRED)}."
            )
        height, width = rgb.shape[:2]
        scale = min(1.0, MATTE_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return union(self._segment_box(rgb, prompt.box, size) for prompt in prompts if prompt.box)

    def _segment_box(self, rgb: Pixels, box: Box, size: tuple[int, int]) -> Alpha:
        """Returns the alpha of the object in one box, at `size` (width, height)."""
        height, width = rgb.shape[:2]
        scale_x, scale_y = size[0] / width, size[1] / height
        small = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
        x0, y0, x1, y1 = _padded(box, width, height)
        crop = np.ascontiguousarray(rgb[y0:y1, x0:x1])
        place = (int(x0 * scale_x), int(y0 * scale_y), round(x1 * scale_x), round(y1 * scale_y))
        found = {"portrait": _placed(self._portrait.predict(crop, ()).values, place, size)}
        if self._general:
            square = self._general.predict_square(resized(crop, (SIDE, SIDE)))
            found["u2netp"] = _inside(_placed(certain(square), place, size), small)
            if _iou(found["portrait"] >= 0.5, found["u2netp"] >= 0.5) >= AGREEMENT_MIN:
                both = certain((found["portrait"] + 2 * found["u2netp"]) / np.float32(3))
                return Alpha(both, (_warning("u2netp"),), engine="u2netp")
        best = max(found, key=lambda name: _fit(found[name], small))
        if _fit(found[best], small) >= FIT_MIN:
            return Alpha(found[best], (_warning(best),), engine=best)
        cut = self._grabcut.predict(rgb, (Prompt(box=box),))
        values = cut.values if cut.values.shape == size[::-1] else resized(cut.values, size)
        return Alpha(values, (_warning("grabcut"), *cut.warnings), engine="grabcut")


def _padded(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    pad_x, pad_y = PADDING * (box[2] - box[0]), PADDING * (box[3] - box[1])
    x0, y0 = max(0, int(box[0] - pad_x)), max(0, int(box[1] - pad_y))
    x1, y1 = min(width, int(np.ceil(box[2] + pad_x))), min(height, int(np.ceil(box[3] + pad_y)))
    return min(x0, width - 1), min(y0, height - 1), max(x1, min(x0, width - 1) + 1), max(y1, min(y0, height - 1) + 1)


def _placed(inside: Floats, place: tuple[int, int, int, int], size: tuple[int, int]) -> Floats:
    """Returns the alpha of a crop at its place, x0, y0, x1, y1, in an image of `size` (width, height)."""
    left, top = place[:2]
    right, bottom = max(left + 1, place[2]), max(top + 1, place[3])
    values = np.zeros(size[::-1], np.float32)
    values[top:bottom, left:right] = resized(inside, (right - left, bottom - top))[
        : values.shape[0] - top, : values.shape[1] - left
    ]
    return values


def _inside(values: Floats, box: Box) -> Floats:
    """Returns the alpha inside the box, 0 outside."""
    x0, y0, x1, y1 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
    kept = np.zeros_like(values)
    kept[y0:y1, x0:x1] = values[y0:y1, x0:x1]
    return kept


def _fit(values: Floats, box: Box) -> float:
    """Returns the IoU of the bounding box of the alpha with the box."""
    x, y, width, height = cv2.boundingRect((values >= 0.5).astype(np.uint8))
    x0, y0, x1, y1 = box
    common = max(0.0, min(x + width, x1) - max(x, x0)) * max(0.0, min(y + height, y1) - max(y, y0))
    return common / max(1.0, width * height + (x1 - x0) * (y1 - y0) - common)


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _warning(engine: str) -> str:
    return (
        f"fallback_engine: no weights of {' or '.join(PREFERRED)} are installed; {engine} segmented the box "
        f"({ENGINES[engine].subject})."
    )
