"""Mattes by boxes and points where no SAM weights are installed: `portrait` inside the padded box, else `grabcut`.

The model server uses SAM instead of this engine where its weights are installed (`resolve`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from maskdrop.catalog import ENGINES
from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import Box, Prompt, Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.grabcut import GrabCut
from sagemaker_model.engines.portrait import Portrait
from sagemaker_model.engines.two_passes import MATTE_SIDE, Floats
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

PADDING = 0.2
"""Padding around a box before `portrait`, as a share of its sides: the padding of `portrait`'s own second pass."""

FILLED_MIN, LEAKED_MAX = 0.2, 0.5
"""`portrait` has segmented the object of a box if it covers at least this share of the box, and at most this share of
the ring between the box and its padding. Otherwise the object is no person, or not the whole one, and GrabCut takes
it."""

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
        parts = [self._segment_box(rgb, prompt.box, size) for prompt in prompts if prompt.box]
        warnings = dict.fromkeys(warning for part in parts for warning in part.warnings)
        return Alpha(reduce(np.maximum, (part.values for part in parts)), tuple(warnings))

    def _segment_box(self, rgb: Pixels, box: Box, size: tuple[int, int]) -> Alpha:
        """Returns the alpha of the object in one box, at `size` (width, height)."""
        height, width = rgb.shape[:2]
        x0, y0, x1, y1 = _padded(box, width, height)
        inside = self._portrait.predict(np.ascontiguousarray(rgb[y0:y1, x0:x1]), ()).values
        scale_x, scale_y = size[0] / width, size[1] / height
        left, top = int(x0 * scale_x), int(y0 * scale_y)
        right, bottom = max(left + 1, round(x1 * scale_x)), max(top + 1, round(y1 * scale_y))
        values = np.zeros(size[::-1], np.float32)
        values[top:bottom, left:right] = resized(inside, (right - left, bottom - top))[
            : values.shape[0] - top, : values.shape[1] - left
        ]
        if _fits(values, (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)):
            return Alpha(values, (_warning("portrait"),))
        cut = self._grabcut.predict(rgb, (Prompt(box=box),))
        values = cut.values if cut.values.shape == size[::-1] else resized(cut.values, size)
        return Alpha(values, (_warning("grabcut"), *cut.warnings))


def _padded(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    pad_x, pad_y = PADDING * (box[2] - box[0]), PADDING * (box[3] - box[1])
    x0, y0 = max(0, int(box[0] - pad_x)), max(0, int(box[1] - pad_y))
    x1, y1 = min(width, int(np.ceil(box[2] + pad_x))), min(height, int(np.ceil(box[3] + pad_y)))
    return min(x0, width - 1), min(y0, height - 1), max(x1, min(x0, width - 1) + 1), max(y1, min(y0, height - 1) + 1)


def _fits(values: Floats, box: Box) -> bool:
    """Whether the alpha fills the box and does not leak out of it."""
    x0, y0 = int(box[0]), int(box[1])
    x1, y1 = max(x0 + 1, round(box[2])), max(y0 + 1, round(box[3]))
    inside = values[y0:y1, x0:x1]
    total = float(values.sum())
    filled = float(inside.sum())
    return inside.size > 0 and filled >= FILLED_MIN * inside.size and total - filled <= LEAKED_MAX * filled


def _warning(engine: str) -> str:
    return (
        f"fallback_engine: no weights of {' or '.join(PREFERRED)} are installed; {engine} segmented the box "
        f"({ENGINES[engine].subject})."
    )
