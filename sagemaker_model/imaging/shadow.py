"""Makes a subject's shadow from its alpha.

A shadow is soft, so it is computed on a small plane around the subject (planes.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from maskdrop.shadow import DropShadow, Shadow
from sagemaker_model.imaging.composite import Pixels, Rows, dithered, resized_matte
from sagemaker_model.imaging.outline import outlined
from sagemaker_model.imaging.planes import Plane

SIGMA_MAX = 4.0
"""Largest standard deviation of a drop shadow on its plane, in pixels: smoother than a linear enlargement can show."""

CONTACT_SIDE = 400
"""Longer side of the subject on the plane of a contact shadow, in pixels."""

SOLID = 96
"""Of 255: alpha from which a pixel touches the floor. Fine hair does not."""

PART_MIN = 0.01
"""Share of the subject's pixels from which a separate part has its own place on the floor. Smaller parts are specks."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the two layers of a contact shadow. All lengths are shares of the longer side of the part that touches.

    share: of the shadow's opacity. reach: height above the floor at which it has 1/e of its strength. follow: how far
    it follows a lower edge that rises, from 0, flat on the floor, to 1. behind, before: its depth from the lower edge
    away from the viewer and towards the viewer; the floor is seen at a flat angle, so it is shallow. blur: standard
    deviations across and down.
    """

    share: float
    reach: float
    follow: float
    behind: float
    before: float
    blur: tuple[float, float]


LAYERS = (
    Layer(0.5, 0.08, 1.0, 0.05, 0.008, (0.012, 0.006)),
    Layer(0.5, 0.2, 0.55, 0.06, 0.03, (0.05, 0.024)),
)
"""The dark line where the subject touches the floor, and the soft shadow around it. Chosen by eye on photos."""


@dataclass(frozen=True, slots=True)
class CastShadow:
    """A shadow. plane: its opacity of 0..255 before `opacity`, in percent, is applied."""

    plane: Plane
    opacity: float

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x0, y0, x1, y1 around the shadow in the image's pixels; may extend beyond the image. None without one."""
        return self.plane.box

    def layer(self, window: tuple[int, int, int, int], place: tuple[int, int, int, int], size: tuple[int, int]) -> Rows:
        """Draws the shadow on a canvas of `size` (width, height), on which `window` of the image is at `place`."""
        share = np.float32(self.opacity / 100)
        return self.plane.layer(window, place, size, lambda values, rows: dithered(values * share, rows))


def cast_shadow(
    shadow: Shadow, alpha: Pixels, box: tuple[int, int, int, int], resolution: float = 1.0, outline: float = 0.0
) -> CastShadow:
    """Computes a shadow from alpha HxW uint8. box: around the subject, x0, y0, x1, y1. resolution: pixels of the result
    for one pixel of the image. outline: width of the subject's outline in pixels of the image."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    side = max(width, height)
    if isinstance(shadow, DropShadow):
        deviation = max(side * shadow.blur / 100, 0.1)
        wanted = SIGMA_MAX / deviation
        moved = side * shadow.x / 100, side * shadow.y / 100
    else:
        deviation = side * max(layer.blur[0] for layer in LAYERS)
        wanted = CONTACT_SIDE / side
        moved = 0.0, 0.0
    scale = min(1.0, resolution, wanted)
    small_size = max(1, round(width * scale)), max(1, round(height * scale))
    scales = small_size[0] / width, small_size[1] / height
    small = resized_matte(np.ascontiguousarray(alpha[y0:y1, x0:x1]), small_size)
    band = math.ceil(outline * scale) + 1 if outline else 0
    if outline:
        small = outlined(small, outline * scale, band)
    border = math.ceil(3 * deviation * scale) + 2
    if isinstance(shadow, DropShadow):
        plane = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_CONSTANT, value=0)
        plane = cv2.GaussianBlur(plane, (0, 0), deviation * scale, borderType=cv2.BORDER_CONSTANT)
    else:
        # an outline closes a subject that the image cuts off
        plane = _contact(small, border, side * scale, cut_off=y1 == alpha.shape[0] and not outline)
    origin = x0 + moved[0] - (border + band) / scales[0], y0 + moved[1] - (border + band) / scales[1]
    return CastShadow(Plane(np.asarray(plane, np.uint8), origin, scales, shadow.colour), shadow.opacity)


def _contact(alpha: Pixels, border: int, longer_side: float, *, cut_off: bool) -> Pixels:
    """The plane of a contact shadow, with a border on all sides.

    Each separate part of the subject touches the floor with its own lowest edge; the higher the edge rises above the
    lowest point, the weaker the shadow. cut_off: the subject may continue below the image; a part that does has no
    lowest edge and no shadow.
    """
    height, width = alpha.shape[0] + 2 * border, alpha.shape[1] + 2 * border
    planes = [np.zeros((height, width), np.float32) for _ in LAYERS]
    solid = np.asarray(alpha >= SOLID, np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    rows = np.arange(height, dtype=np.float32)[:, None]
    for part in range(1, count):
        x, y, part_width, part_height, area = (int(value) for value in stats[part])
        if area < PART_MIN * solid.sum() or (cut_off and y + part_height == alpha.shape[0]):
            continue
        inside = labels[y : y + part_height, x : x + part_width] == part
        above_floor = np.argmax(inside[::-1], axis=0).astype(np.float32)
        side = max(part_width, part_height)
        columns = slice(border + x, border + x + part_width)
        for plane, layer in zip(planes, LAYERS, strict=True):
            edge = border + y + part_height - layer.follow * above_floor
            near = (rows > edge - layer.behind * side) & (rows < edge + layer.before * side)
            strength = np.exp(-((above_floor / (layer.reach * side)) ** 2))
            plane[:, columns] = np.maximum(plane[:, columns], near * strength)
    shadow = np.zeros((height, width), np.float32)
    for plane, layer in zip(planes, LAYERS, strict=True):
        across, down = (max(share * longer_side, 0.1) for share in layer.blur)
        shadow += layer.share * cv2.GaussianBlur(plane, (0, 0), across, sigmaY=down, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(np.rint(shadow * 255), np.uint8)
