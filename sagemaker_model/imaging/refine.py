"""Enlarges an engine's small matte to the image's size and refines its edges.

At a small size, soft pixels move towards the alpha that explains their colour, between those of the subject and of the
background beside them. Enlarging adds the image's detail by the linear model of a guided filter (He, Sun, Tang 2010;
He, Sun 2015). Mean IoU of `portrait` on 241 images of people (`maskdrop evaluate`): 0.9509 enlarged only, 0.9518 here;
error of the composites in the band around soft edges: docs/edges.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import Floats, halved, resized, sampled, shrunk

Box = tuple[slice, slice]
"""Rows and columns."""

GUIDE_SIDE = 1024
"""Pixels of the long side at which the filter's coefficients are computed."""

RADIUS = 2
"""Radius of the filter in pixels at that size: less than a pixel of a 320-pixel matte. With 12, an edge that really is
wide (hair, blur) became narrow: the error on white of `make bench-peers` was 5.3."""

SMOOTHNESS = 65.0
"""Variance of grey (0..255) below which the image counts as flat: about eight levels, squared. The filter's epsilon."""

UNCERTAIN = 0.1
"""From this value to 1 - this value the matte takes the image's detail. Towards 0 and 1 its weight falls to 0."""

KNOWN = 0.05
"""Up to this value, and from 1 - this value, a pixel's colour counts as the background's or the subject's, except
next to an unknown one."""

REACH = 1 / 80
"""Distance at which those colours are looked up, as a share of the long side: four pixels of a 320-pixel matte."""

FEW = 1.0
"""Mean of the mask of known pixels, 0..255, up to which a pixel has no known pixel nearby."""

CONTRAST = 60.0
"""Distance of two colours (RGB, 0..255) at which a projection counts half."""

AWAY = 30.0
"""Distance of a pixel's colour from the line between both (RGB, 0..255): the standard deviation of its trust."""

PROJECTION = 0.5
"""Weight of a projection. Mean error of alpha in the band, of 255, on 29 people (`portrait`) and 28 things (`u2netp`):
18.7 and 43.2 without, 18.0 and 41.8 with it; with 0.8 17.8 and 40.8, but the error on white of `make bench-peers` is
2.8, because a striped subject has no single colour."""

CERTAIN = 1e-4
"""A matte value nearer than this to 0 or 1 counts as 0 or 1: the filter would change it by a quarter of a level."""

STRIP_ROWS = 128
"""Rows whose soft pixels are computed at once: their arrays stay in the CPU cache."""

TILE = 128
"""Side in pixels of the tiles in which `_model` looks for edges."""


def to_full_size(matte: Floats, rgb: Pixels) -> Pixels:
    """Enlarges and refines a matte hxw float32 in 0..1, which covers the image `rgb` HxWx3 uint8: alpha HxW uint8."""
    height, width = rgb.shape[:2]
    scale = min(1.0, GUIDE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    guide = shrunk(rgb, size)
    refined = _projected(resized(matte, size), guide)
    if scale == 1:  # the model would return the matte
        return np.asarray(cv2.convertScaleAbs(refined, alpha=255), np.uint8).reshape(height, width)
    slope, offset = _model(refined, guide)
    model = cv2.merge((slope, offset))
    alpha = resized(np.asarray(cv2.convertScaleAbs(refined, alpha=255), np.uint8).reshape(size[::-1]), (width, height))
    for top in range(0, height, STRIP_ROWS):
        strip = slice(top, top + STRIP_ROWS)
        values = alpha[strip].reshape(-1)  # a view
        at = np.flatnonzero(cv2.inRange(alpha[strip], 1, 254) != 0)
        if at.size:
            rows, columns = np.divmod(at, width)
            (found,) = sampled([model], (height, width), rows + top, columns)
            colours = rgb[strip].reshape(-1, 1, 3).take(at, 0)
            values[at] = np.clip(np.rint((found[:, 0] * _grey(colours)[:, 0] + found[:, 1]) * 255), 0, 255)
    return alpha


def _model(refined: Floats, rgb: Pixels) -> tuple[Floats, Floats]:
    """Fits the linear model alpha = slope * grey + offset that gives a refined matte HxW at the size of its image HxWx3
    uint8.

    Returns slope and offset, HxW each. Enlarged, the model adds the detail of the image. Where the matte is certain,
    slope is 0.
    """
    grey = _grey(rgb)
    slope, offset = np.zeros_like(refined), refined.copy()
    for box in mask_boxes(cv2.inRange(refined, CERTAIN, 1 - CERTAIN)):
        box = _expanded(box, 1)  # a pixel of the larger image lies between two of these
        around = _expanded(box, 2 * RADIUS)
        inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, around, strict=True))
        fitted = _fit(grey[around], refined[around])[inside]
        fitted *= np.clip((0.5 - np.abs(refined[box] - 0.5)) / UNCERTAIN, 0, 1)
        slope[box] = fitted
        np.subtract(refined[box], fitted * grey[box], out=offset[box])
    return slope, offset


def _grey(rgb: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8).reshape(rgb.shape[:2])


def _projected(matte: Floats, rgb: Pixels) -> Floats:
    """Moves the unknown pixels of a matte HxW towards the alpha that explains their colour; rgb: HxWx3 uint8.

    The colour of a half-transparent pixel lies between those of the subject and of the background beside it. Its place
    on that line is its alpha. Pixels far from the line keep the matte, and so do those between similar colours.
    """
    square = np.ones((3, 3), np.uint8)
    subject = cv2.erode(cv2.inRange(matte, 1 - KNOWN, 2), square)
    background = cv2.erode(cv2.inRange(matte, -1, KNOWN), square)
    unknown = np.flatnonzero(cv2.bitwise_or(subject, background) == 0)
    if not unknown.size:
        return matte
    (fore, sees_fore), (back, sees_back) = (_nearby(rgb, known, unknown) for known in (subject, background))
    fore -= back  # from here on the line between both
    above = _planes(rgb.reshape(-1, 3)[unknown]) - back
    length = np.maximum(_dot(fore, fore), 1)
    place = np.clip(_dot(above, fore) / length, 0, 1)
    above -= place * fore  # from here on the distance from the line
    trust = np.exp(_dot(above, above) / (-2 * AWAY**2)) * (length / (length + CONTRAST**2))
    result = matte.copy()
    values = result.reshape(-1)
    before = values[unknown]
    values[unknown] = before + PROJECTION * trust * (sees_fore & sees_back) * (place - before)
    return result


def _nearby(rgb: Pixels, known: MatLike, at: NDArray[np.intp]) -> tuple[Floats, NDArray[np.bool_]]:
    """Mean colour of the known pixels near each of the pixels `at`, 3xN, and whether there are any, N.

    rgb: HxWx3 uint8. known: HxW uint8, 0 or 255. at: N indexes of pixels. The means are computed at half the size.
    """
    side = 2 * max(1, round(REACH * max(known.shape) / 2)) + 1
    colours, weight = (
        cv2.boxFilter(halved(values), cv2.CV_32F, (side, side)) for values in (cv2.copyTo(rgb, known), known)
    )
    even = 2 * weight.shape[0], 2 * weight.shape[1]  # also of an odd side, which `halved` extends
    colours, weights = sampled([colours, weight], even, *np.divmod(at, known.shape[1]))
    found = weights[:, 0]
    scale: Floats = np.divide(255, np.maximum(found, FEW), dtype=np.float32)
    return _planes(colours) * scale, found > FEW


def _planes(colours: NDArray[Any]) -> Floats:
    """Colours Nx3 as 3xN float32: NumPy is fast on long runs."""
    return np.ascontiguousarray(colours.T, np.float32)


def _dot(a: Floats, b: Floats) -> Floats:
    """Dot products of the columns of two arrays 3xN."""
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], np.float32)


def mask_boxes(mask: MatLike) -> Iterator[Box]:
    """Bounding box of the non-zero pixels in each tile of a mask HxW uint8 that has any."""
    for top, left in product(*(range(0, side, TILE) for side in mask.shape)):
        x, y, width, height = cv2.boundingRect(mask[top : top + TILE, left : left + TILE])
        if width:
            yield slice(top + y, top + y + height), slice(left + x, left + x + width)


def _fit(guide: Pixels, matte: Floats) -> Floats:
    """The slope of the guided filter's linear model alpha = slope * grey + offset for a crop, HxW.

    guide: grey, HxW uint8. matte: HxW float32 in 0..1. The slope equals that of the whole image from 2 * RADIUS pixels
    off the crop's sides. A crop stays in the CPU cache.
    """
    mean_guide = _box_mean(guide)
    variance = _box_mean(cv2.multiply(guide, guide, dtype=cv2.CV_16U))
    slope = _box_mean(cv2.multiply(guide, matte, dtype=cv2.CV_32F))
    variance -= mean_guide * mean_guide
    slope -= mean_guide * _box_mean(matte)  # the covariance
    slope /= variance + SMOOTHNESS
    return _box_mean(slope)


def _box_mean(values: NDArray[Any]) -> Floats:
    """Mean over the square of RADIUS around each pixel, HxW."""
    side = (2 * RADIUS + 1, 2 * RADIUS + 1)
    means = cv2.boxFilter(values, cv2.CV_32F, side, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(means.reshape(values.shape), np.float32)


def _expanded(box: Box, by: int) -> Box:
    """The box with `by` more pixels on each side; NumPy cuts a slice at the end of the image."""
    rows, columns = box
    return slice(max(0, rows.start - by), rows.stop + by), slice(max(0, columns.start - by), columns.stop + by)
