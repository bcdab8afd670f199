"""Computes the geometry of a result: crop, outline, padding or scale, position, canvas and size.

The options are combined into one window of the image and one place on the canvas, so pixels are resampled at most once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2

from maskdrop.background import Position
from maskdrop.canvas import AspectRatio, Canvas
from maskdrop.lengths import Length, Margins
from maskdrop.output import PIXELS_MAX, Output, Size
from sagemaker_model.imaging.composite import Pixels
from sagemaker_model.imaging.shadow import cast_shadow

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""

VISIBLE_ALPHA_MIN = 13
"""Of 255 (5 %): lower alpha counts as invisible. A faint haze far from the subject would widen every crop."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels whose corners may be between pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    def around(self, margins: Margins) -> Box:
        """With margins, in pixels or in percent of its sides."""
        return Box(
            self.x0 - round(margins.left.of(self.width)),
            self.y0 - round(margins.top.of(self.height)),
            self.x1 + round(margins.right.of(self.width)),
            self.y1 + round(margins.bottom.of(self.height)),
        )

    def grown(self, by: float) -> Box:
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def union(self, other: Box) -> Box:
        return Box(
            min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1)
        )  # fmt: skip

    def within(self, width: float, height: float) -> Box:
        """The box, reduced and moved into an image of `width` x `height` pixels, without distortion."""
        share = min(1.0, width / self.width, height / self.height)
        own_width, own_height = share * self.width, share * self.height
        x0 = min(max(0.0, (self.x0 + self.x1 - own_width) / 2), width - own_width)
        y0 = min(max(0.0, (self.y0 + self.y1 - own_height) / 2), height - own_height)
        return Box(x0, y0, x0 + own_width, y0 + own_height)

    def scale_into(self, room: Box, share: float = 1.0, reserved: float = 0.0) -> float:
        """The scale at which the box fits into a share of a room, with `reserved` pixels of the room on every side."""
        return min((share * room.width - 2 * reserved) / self.width, (share * room.height - 2 * reserved) / self.height)


@dataclass(frozen=True, slots=True)
class Layout:
    """Geometry of an image in its result.

    frame: the rectangle that becomes the canvas, in the image's pixels; may extend beyond the image.
    window: the part of the image that is visible, in the image's pixels.
    full_size: width and height of the result without the limit of `Output.size`, in pixels.
    size: width and height of the result, in pixels.
    place: the window's rectangle in the result, in the result's pixels.
    scale: pixels of the result for one pixel of the image, before rounding.
    outline: width of the outline in pixels of the image; 0 for none.
    """

    frame: Box
    window: Rectangle
    full_size: tuple[int, int]
    size: tuple[int, int]
    place: Rectangle
    scale: float = 1.0
    outline: float = 0.0

    def to_result(self, box: Rectangle) -> Rectangle:
        """Converts a box from the image's pixels to the result's."""
        x0, y0, x1, y1 = self.window
        left, top, right, bottom = self.place
        scale_x, scale_y = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
        return (
            left + round((box[0] - x0) * scale_x),
            top + round((box[1] - y0) * scale_y),
            left + round((box[2] - x0) * scale_x),
            top + round((box[3] - y0) * scale_y),
        )


def plan(output: Output, alpha: Pixels) -> Layout:
    """Computes the layout from alpha HxW uint8. Without a visible subject only `output.size` and `output.canvas`
    apply."""
    image = window = 0, 0, alpha.shape[1], alpha.shape[0]
    frame = Box(*image)
    reads_subject = output.crop or output.padding or output.scale or output.position or output.outline
    subject = visible_box(alpha) if reads_subject else None
    if subject is None:
        output = Output(size=output.size, canvas=output.canvas)
    cropped = output.crop or output.padding
    # An outline in pixels of the canvas is reserved in the room for the subject; any other one widens the subject.
    outline = reserved = 0.0
    if output.outline and subject:
        width = output.outline.width
        if isinstance(output.canvas, Canvas) and width.unit == "px":
            reserved = width.value
        else:
            outline = width.of(max(Box(*subject).width, Box(*subject).height))
    if subject and (cropped or output.scale or output.position):
        window = subject
    if cropped:
        frame = _with_margins(output, alpha, window).grown(outline)
    full_size, room = _canvas(output, frame)
    scale = 1.0
    if isinstance(output.canvas, Canvas):
        scale = frame.scale_into(room, reserved=reserved if cropped else 0.0)
        outline = outline or reserved / scale
    x = (room.x0 + room.x1 - scale * (frame.x0 + frame.x1)) / 2
    y = (room.y0 + room.y1 - scale * (frame.y0 + frame.y1)) / 2
    shown = Box(-x / scale, -y / scale, (full_size[0] - x) / scale, (full_size[1] - y) / scale)
    if output.scale or output.position:
        if output.scale:
            sized = Box(*window) if reserved else Box(*window).grown(outline)
            scale = sized.scale_into(room, output.scale / 100, reserved)
            outline = reserved / scale if reserved else outline
        placed, position = Box(*window).grown(outline), output.position or Position()
        x = room.x0 + (room.width - scale * placed.width) * position.x / 100 - scale * placed.x0
        y = room.y0 + (room.height - scale * placed.height) * position.y / 100 - scale * placed.y0
    size = _limited(*full_size, output.size)
    reduced = size[0] / full_size[0], size[1] / full_size[1]
    left, right = _pixel_range(
        reduced[0] * (x + scale * window[0]), reduced[0] * scale * (window[2] - window[0]), size[0]
    )
    top, bottom = _pixel_range(
        reduced[1] * (y + scale * window[1]), reduced[1] * scale * (window[3] - window[1]), size[1]
    )
    place = left, top, right, bottom
    return Layout(shown, window, full_size, size, place, scale * min(reduced), outline)


def visible_box(alpha: Pixels) -> Rectangle | None:
    """Bounding box of the visible pixels (VISIBLE_ALPHA_MIN or more) of alpha HxW uint8; None without any."""
    _, visible = cv2.threshold(alpha, VISIBLE_ALPHA_MIN - 1, 255, cv2.THRESH_BINARY)
    x, y, width, height = cv2.boundingRect(visible.reshape(alpha.shape))
    return (x, y, x + width, y + height) if width else None


def _with_margins(output: Output, alpha: Pixels, subject: Rectangle) -> Box:
    """The subject with the margins of a crop, which contains its shadow."""
    frame = Box(*subject).around(output.crop or Margins())
    shadow = cast_shadow(output.shadow, alpha, subject).box if output.crop and output.shadow else None
    return frame.union(Box(*shadow)) if shadow else frame


def _canvas(output: Output, frame: Box) -> tuple[tuple[int, int], Box]:
    """Width and height of the canvas without the limit of `output.size`, and its room inside the padding.

    Without a canvas in pixels, it is the smallest with the padding and the aspect ratio that contains the frame.
    """
    padding, canvas = output.padding or Margins(), output.canvas
    if isinstance(canvas, Canvas):
        width, height = canvas.width, canvas.height
    else:
        width = _with_padding(frame.width, padding.left, padding.right)
        height = _with_padding(frame.height, padding.top, padding.bottom)
        if isinstance(canvas, AspectRatio):
            width, height = (
                max(width, round(height * canvas.width / canvas.height)),
                max(height, round(width * canvas.height / canvas.width)),
            )
    room = Box(
        padding.left.of(width),
        padding.top.of(height),
        width - padding.right.of(width),
        height - padding.bottom.of(height),
    )
    return (width, height), room


def _with_padding(length: float, before: Length, after: Length) -> int:
    """The side of a canvas of which `length` pixels remain inside the padding."""
    sides = before, after
    pixels = sum(side.value for side in sides if side.unit == "px")
    share = sum(side.value for side in sides if side.unit == "%") / 100
    return math.ceil(round((length + pixels) / (1 - share), 6))


def _limited(width: int, height: int, size: Size) -> tuple[int, int]:
    """Width and height, reduced to at most the pixels of `size`."""
    pixels_max = PIXELS_MAX[size]
    if pixels_max is None or width * height <= pixels_max:
        return width, height
    scale = math.sqrt(pixels_max / (width * height))
    return min(pixels_max, max(1, int(width * scale))), min(pixels_max, max(1, int(height * scale)))


def _pixel_range(start: float, length: float, size: int) -> tuple[int, int]:
    """Rounds a range to pixels: start and exclusive stop within 0..size; at least one pixel long."""
    rounded = min(size, max(1, round(length)))
    first = min(size - rounded, max(0, round(start)))
    return first, first + rounded
