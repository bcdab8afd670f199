"""From an image and its alpha, at the image's own size, to the pixels of the result: crop, scale, position, size and
background of `maskdrop.output.Output`.

All of them together are one window of the image that goes to one place on the canvas, so pixels are resampled at most
once. Whatever keeps its size and is only moved is copied exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from maskdrop.output import PIXELS_MAX, Blur, Colour, Margins, Output, Position, Size
from sagemaker_model.imaging.composite import over, resized, resized_matte
from sagemaker_model.imaging.pixels import Picture, Pixels

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1; the last two are not part of it."""

SHOWN = 13
"""Of 255: what is fainter, 5 %, is not seen, and a haze of it far from the subject would widen every crop."""

SOFT = 4.0
"""Pixels of a blur's standard deviation at the size at which it is worked: any larger blur is worked on a smaller
image and enlarged."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an image goes into its result.

    frame: the part of the image's plane that becomes the canvas, in pixels of the image; may reach beyond it.
    window: the part of the image that is shown, in its pixels.
    size: width and height of the result in pixels.
    place: where the window is in the result, in the result's pixels.
    """

    frame: Rectangle
    window: Rectangle
    size: tuple[int, int]
    place: Rectangle

    @property
    def full(self) -> tuple[int, int]:
        """The size without a limit."""
        x0, y0, x1, y1 = self.frame
        return x1 - x0, y1 - y0

    def placed(self, box: Rectangle) -> Rectangle:
        """A box of the image in pixels of the result."""
        x0, y0, x1, y1 = self.window
        left, top, right, bottom = self.place
        across, down = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
        return (
            left + round((box[0] - x0) * across),
            top + round((box[1] - y0) * down),
            left + round((box[2] - x0) * across),
            top + round((box[3] - y0) * down),
        )


def plan(output: Output, alpha: Pixels) -> Layout:
    """The layout for an image of alpha HxW uint8. Where there is no subject, only the size is followed."""
    height, width = alpha.shape
    frame = window = (0, 0, width, height)
    if output.crop or output.scale or output.position:
        box = shown_in(alpha)
        if box is None:
            output = Output(size=output.size)
        else:
            window = box
            frame = _with_margins(box, output.crop) if output.crop else frame
    room_x, room_y = frame[2] - frame[0], frame[3] - frame[1]
    size = _limited(room_x, room_y, output.size)
    x, y, across, down = _placed(output, frame, window)
    by_x, by_y = size[0] / room_x, size[1] / room_y
    left, right = _whole(x * by_x, across * by_x, size[0])
    top, bottom = _whole(y * by_y, down * by_y, size[1])
    return Layout(frame, window, size, (left, top, right, bottom))


def shown_in(alpha: Pixels) -> Rectangle | None:
    """The box around all of alpha HxW uint8 that can be seen; None where there is nothing."""
    _, seen = cv2.threshold(alpha, SHOWN - 1, 255, cv2.THRESH_BINARY)
    x, y, width, height = cv2.boundingRect(seen.reshape(alpha.shape))
    return (x, y, x + width, y + height) if width else None


def _with_margins(box: Rectangle, margins: Margins) -> Rectangle:
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    return (
        x0 - round(margins.left.of(width)),
        y0 - round(margins.top.of(height)),
        x1 + round(margins.right.of(width)),
        y1 + round(margins.bottom.of(height)),
    )


def _placed(output: Output, frame: Rectangle, window: Rectangle) -> tuple[float, float, float, float]:
    """Where the window is in the frame, x and y, and how wide and high it is there, before the size is limited."""
    room_x, room_y = frame[2] - frame[0], frame[3] - frame[1]
    width, height = window[2] - window[0], window[3] - window[1]
    position, times = output.position, 1.0
    if output.scale is not None:
        times = output.scale / 100 * min(room_x / width, room_y / height)
        position = position or Position()
    if position is None:
        return window[0] - frame[0], window[1] - frame[1], width, height
    across, down = width * times, height * times
    return (room_x - across) * position.x / 100, (room_y - down) * position.y / 100, across, down


def _limited(width: int, height: int, size: Size) -> tuple[int, int]:
    most = PIXELS_MAX[size]
    if most is None or width * height <= most:
        return width, height
    times = math.sqrt(most / (width * height))
    return min(most, max(1, int(width * times))), min(most, max(1, int(height * times)))


def _whole(start: float, length: float, room: int) -> tuple[int, int]:
    """First and last whole pixel of a stretch, inside the room; at least one."""
    whole = min(room, max(1, round(length)))
    first = min(room - whole, max(0, round(start)))
    return first, first + whole


def lay_out(
    rgb: Pixels, alpha: Pixels, output: Output, layout: Layout, picture: Picture, image: Picture | None
) -> tuple[Pixels, Pixels]:
    """Colours HxWx3 uint8 and alpha HxW uint8 of the result; the arguments themselves where nothing is to be done.

    rgb: HxWx3 uint8, the subject's own colours, and alpha: HxW uint8, both at the image's size. For a matte alone the
    colours are left as they are. image: what `output.background` refers to, if it refers to an image.
    """
    if output.channels == "alpha":
        return rgb, _put_matte(alpha, layout)
    colours, shown = _put(rgb, alpha, layout)
    if output.background is None:
        return colours, shown
    if isinstance(output.background, Colour):
        behind, opacity = _plain(output.background, layout.size)
    elif isinstance(output.background, Blur):
        behind, opacity = _blurred(picture.rgb, alpha, output.background, layout)
    else:
        if image is None:
            raise ValueError(f"{output.background} was not read.")
        behind, opacity = _covering(image, layout.size)
    return over(colours, shown, behind, opacity)


def _put(rgb: Pixels, alpha: Pixels, layout: Layout) -> tuple[Pixels, Pixels]:
    (height, width), (x0, y0, x1, y1), (left, top, right, bottom) = alpha.shape, layout.window, layout.place
    if layout.place == layout.window == (0, 0, width, height) == (0, 0, *layout.size):
        return rgb, alpha
    colours, shown = rgb[y0:y1, x0:x1], alpha[y0:y1, x0:x1]
    if (right - left, bottom - top) != (x1 - x0, y1 - y0):
        colours, shown = resized(colours, shown, (right - left, bottom - top))
    return _on_canvas(colours, layout), _on_canvas(shown, layout)


def _put_matte(alpha: Pixels, layout: Layout) -> Pixels:
    (x0, y0, x1, y1), (left, top, right, bottom) = layout.window, layout.place
    shown = alpha[y0:y1, x0:x1]
    if (right - left, bottom - top) != (x1 - x0, y1 - y0):
        shown = resized_matte(shown, (right - left, bottom - top))
    return _on_canvas(shown, layout)


def _on_canvas(pixels: Pixels, layout: Layout) -> Pixels:
    left, top, right, bottom = layout.place
    width, height = layout.size
    if layout.place == (0, 0, width, height):
        return pixels
    canvas = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    canvas[top:bottom, left:right] = pixels
    return canvas


def _plain(colour: Colour, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Views of one pixel: no memory."""
    width, height = size
    one = np.array((colour.red, colour.green, colour.blue), np.uint8)
    return np.broadcast_to(one, (height, width, 3)), np.broadcast_to(np.uint8(colour.alpha), (height, width))


def _blurred(rgb: Pixels, alpha: Pixels, blur: Blur, layout: Layout) -> tuple[Pixels, Pixels]:
    """The frame's own background. The subject's colours are kept out of it as far as there are others within reach: as
    a plain blur would, they would glow around the subject."""
    height, width = alpha.shape
    radius = max(width, height) * blur.radius / 100
    times = min(1.0, SOFT / radius)
    size = max(1, round(width * times)), max(1, round(height * times))
    soft, _ = resized(rgb, np.maximum(255 - alpha, 1), size, blur=min(radius, SOFT))
    x0, y0, x1, y1 = (value * times for value in layout.frame)
    part = max(1, round(x1 - x0)), max(1, round(y1 - y0))
    centre = (x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5
    behind = cv2.resize(cv2.getRectSubPix(soft, part, centre), layout.size, interpolation=cv2.INTER_LINEAR)
    return behind, np.broadcast_to(np.uint8(255), behind.shape[:2])


def _covering(image: Picture, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """The middle of an image, as much of it as covers the canvas without being distorted."""
    height, width = image.rgb.shape[:2]
    times = max(size[0] / width, size[1] / height)
    across, down = min(width, max(1, round(size[0] / times))), min(height, max(1, round(size[1] / times)))
    x, y = (width - across) // 2, (height - down) // 2
    part = slice(y, y + down), slice(x, x + across)
    opacity = np.broadcast_to(np.uint8(255), (height, width)) if image.alpha is None else image.alpha
    if (across, down) == size:
        return image.rgb[part], opacity[part]
    return resized(image.rgb[part], np.ascontiguousarray(opacity[part]), size)
