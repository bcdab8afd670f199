"""Draws the outline of a subject: a band of one colour around its alpha.

The band is computed as the distance to the subject on a plane that may be coarser than the result. Distances change
evenly, so the enlarged band has a sharp and smooth edge.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from maskdrop.background import Colour
from sagemaker_model.imaging.composite import Floats, Pixels, Rows, resized_matte
from sagemaker_model.imaging.planes import Plane

SIDE = 1024
"""Longer side of the subject on the plane, in pixels, where that leaves BAND_MIN pixels for the band."""

BAND_MIN = 8.0
"""Width of the band on its plane, in pixels, where the result has as many: corners are round to a tenth of it."""

SOLID = 64
"""Of 255: alpha from which a pixel has an outline. Fine hair is inside the band, a faint haze has none."""

PART_MIN = 0.001
"""Share of the subject's pixels from which a separate part has an outline. A speck would become a large dot."""

INSIDE = 0.25
"""Pixels of the plane from the centre of a solid pixel to the subject's edge: 0.5 for a hard edge, 0 for a soft one."""

EDGE = 1.0
"""Pixels of the plane beyond the band on which its values reach 0."""


def outline_layer(
    width: float,
    colour: Colour,
    alpha: Pixels,
    box: tuple[int, int, int, int],
    resolution: float,
    window: tuple[int, int, int, int],
    place: tuple[int, int, int, int],
    size: tuple[int, int],
) -> Rows:
    """Draws an outline on a canvas of `size` (width, height), on which `window` of the image is at `place`.

    width: of the band in pixels of the image. alpha: HxW uint8. box: around the subject, x0, y0, x1, y1. resolution:
    pixels of the result for one pixel of the image.
    """
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    scale = min(1.0, resolution, max(SIDE / side, BAND_MIN / width))
    small_size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    small = resized_matte(np.ascontiguousarray(alpha[y0:y1, x0:x1]), small_size)
    border = math.ceil(width * scale + EDGE) + 1
    values = depth(small, width * scale, border)
    scales = small_size[0] / (x1 - x0), small_size[1] / (y1 - y0)
    origin = x0 - border / scales[0], y0 - border / scales[1]
    sharpness = np.float32(255 * resolution / scale)

    def opacity(values: Floats, _rows: slice) -> Pixels:
        values -= np.float32(EDGE)
        values *= sharpness
        values += np.float32(127.5)
        return np.clip(values, 0, 255, out=values).astype(np.uint8)

    return Plane(values, origin, scales, colour).layer(window, place, size, opacity)


def outlined(alpha: Pixels, width: float, border: int) -> Pixels:
    """Returns alpha HxW uint8 with a border on all sides and an outline of `width` pixels."""
    band = np.asarray(np.clip((depth(alpha, width, border) - EDGE) * 255 + 127.5, 0, 255), np.uint8)
    inside = band[border : border + alpha.shape[0], border : border + alpha.shape[1]]
    np.maximum(inside, alpha, out=inside)
    return band


def depth(alpha: Pixels, width: float, border: int) -> Floats:
    """Returns the distance of every pixel to the outer edge of the band, HxW, plus EDGE: EDGE on it, more inside, 0
    outside. alpha: HxW uint8. border: pixels added on all sides."""
    solid = np.asarray(alpha >= SOLID, np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count > 2:
        large = stats[:, cv2.CC_STAT_AREA] >= PART_MIN * solid.sum()
        large[0] = False
        solid = large[labels].astype(np.uint8)
    outside = cv2.copyMakeBorder(1 - solid, border, border, border, border, cv2.BORDER_CONSTANT, value=1)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.maximum(width + INSIDE + EDGE - distance, 0), np.float32)
