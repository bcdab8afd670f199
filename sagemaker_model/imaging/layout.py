"""Lays out a cut-out on its canvas: crop, scale, position, size, shadow and background of `maskdrop.output.Output`.

The options are combined into one window of the image and one place on the canvas, so pixels are resampled at most once.
Pixels that are only moved are copied exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from maskdrop.background import BackgroundImage, Blur, Colour, Gradient, Position, Studio
from maskdrop.lengths import Margins
from maskdrop.output import PIXELS_MAX, Output, Size
from maskdrop.studio import BACKDROPS
from sagemaker_model.imaging.backdrop import gradient_layer, studio_layer
from sagemaker_model.imaging.composite import Rows, layer, over, resized_cutout, resized_matte
from sagemaker_model.imaging.pixels import DecodedImage, Pixels
from sagemaker_model.imaging.shadow import cast_shadow

Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""

VISIBLE_ALPHA_MIN = 13
"""Of 255 (5 %): lower alpha counts as invisible. A faint haze far from the subject would widen every crop."""

BLUR_SIGMA_MAX = 4.0
"""Largest standard deviation of a Gaussian blur, in pixels. A larger blur is computed on a smaller image and
enlarged."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Geometry of an image in its result.

    frame: the rectangle that becomes the canvas, in the image's pixels; may extend beyond the image.
    window: the part of the image that is visible, in the image's pixels.
    size: width and height of the result in pixels.
    place: the window's rectangle in the result, in the result's pixels.
    """

    frame: Rectangle
    window: Rectangle
    size: tuple[int, int]
    place: Rectangle

    @property
    def full_size(self) -> tuple[int, int]:
        """Width and height of the result without the limit of `Output.size`."""
        x0, y0, x1, y1 = self.frame
        return x1 - x0, y1 - y0

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
    """Computes the layout from alpha HxW uint8. Without a visible subject only `output.size` applies."""
    height, width = alpha.shape
    frame = window = (0, 0, width, height)
    if output.crop or output.scale or output.position:
        box = visible_box(alpha)
        if box is None:
            output = Output(size=output.size)
        else:
            window = box
            frame = _with_margins(box, output.crop) if output.crop else frame
            if output.crop and output.shadow:
                frame = _union(frame, cast_shadow(output.shadow, alpha, box).box or frame)
    frame_width, frame_height = frame[2] - frame[0], frame[3] - frame[1]
    size = _limited(frame_width, frame_height, output.size)
    x, y, width, height = _position_in_frame(output, frame, window)
    scale_x, scale_y = size[0] / frame_width, size[1] / frame_height
    left, right = _pixel_range(x * scale_x, width * scale_x, size[0])
    top, bottom = _pixel_range(y * scale_y, height * scale_y, size[1])
    return Layout(frame, window, size, (left, top, right, bottom))


def visible_box(alpha: Pixels) -> Rectangle | None:
    """Bounding box of the visible pixels (VISIBLE_ALPHA_MIN or more) of alpha HxW uint8; None without any."""
    _, visible = cv2.threshold(alpha, VISIBLE_ALPHA_MIN - 1, 255, cv2.THRESH_BINARY)
    x, y, width, height = cv2.boundingRect(visible.reshape(alpha.shape))
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


def _union(first: Rectangle, second: Rectangle) -> Rectangle:
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def _position_in_frame(output: Output, frame: Rectangle, window: Rectangle) -> tuple[float, float, float, float]:
    """x, y, width and height of the window in the frame, in the image's pixels, before the size is limited."""
    frame_width, frame_height = frame[2] - frame[0], frame[3] - frame[1]
    width, height = window[2] - window[0], window[3] - window[1]
    position, scale = output.position, 1.0
    if output.scale is not None:
        scale = output.scale / 100 * min(frame_width / width, frame_height / height)
        position = position or Position()
    if position is None:
        return window[0] - frame[0], window[1] - frame[1], width, height
    scaled_width, scaled_height = width * scale, height * scale
    x, y = (frame_width - scaled_width) * position.x / 100, (frame_height - scaled_height) * position.y / 100
    return x, y, scaled_width, scaled_height


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


def lay_out(
    rgb: Pixels,
    alpha: Pixels,
    output: Output,
    layout: Layout,
    source: DecodedImage,
    background_image: DecodedImage | None,
) -> tuple[Pixels, Pixels]:
    """Composes the result: colours HxWx3 uint8 and alpha HxW uint8. Returns the arguments if they need no change.

    rgb: HxWx3 uint8, the subject's own colours, and alpha: HxW uint8, both at the image's size. For a matte alone
    `rgb` is returned unchanged. background_image: the image that `output.background` refers to, if any.
    """
    if output.channels == "alpha":
        return rgb, _place_matte(alpha, layout)
    colours, placed_alpha = _place(rgb, alpha, layout)
    layers = []
    if output.shadow and (box := visible_box(alpha)):
        x0, _, x1, _ = layout.window
        resolution = (layout.place[2] - layout.place[0]) / (x1 - x0)
        shadow = cast_shadow(output.shadow, alpha, box, resolution)
        layers.append(shadow.layer(layout.window, layout.place, layout.size))
    if output.background is not None:
        layers.append(_background(output, alpha, layout, source, background_image))
    return over(colours, placed_alpha, *layers) if layers else (colours, placed_alpha)


def _background(
    output: Output, alpha: Pixels, layout: Layout, source: DecodedImage, image: DecodedImage | None
) -> Rows:
    """The background's layer at the result's size."""
    match output.background:
        case Colour() as colour:
            return layer(*_solid(colour, layout.size))
        case Gradient() as gradient:
            return gradient_layer(gradient, layout.size)
        case Studio(name):
            return studio_layer(BACKDROPS[name], layout.size)
        case Blur() as blur:
            return layer(*_blurred(source.rgb, alpha, blur, layout))
        case BackgroundImage() as options if image is not None:
            return _fitted(image, options, layout.size)
    raise ValueError(f"{output.background} was not read; pass it as `background_image`.")


def _place(rgb: Pixels, alpha: Pixels, layout: Layout) -> tuple[Pixels, Pixels]:
    (height, width), (x0, y0, x1, y1), (left, top, right, bottom) = alpha.shape, layout.window, layout.place
    if layout.place == layout.window == (0, 0, width, height) == (0, 0, *layout.size):
        return rgb, alpha
    colours, window_alpha = rgb[y0:y1, x0:x1], alpha[y0:y1, x0:x1]
    if (right - left, bottom - top) != (x1 - x0, y1 - y0):
        colours, window_alpha = resized_cutout(colours, window_alpha, (right - left, bottom - top))
    return _on_canvas(colours, layout), _on_canvas(window_alpha, layout)


def _place_matte(alpha: Pixels, layout: Layout) -> Pixels:
    (x0, y0, x1, y1), (left, top, right, bottom) = layout.window, layout.place
    window_alpha = alpha[y0:y1, x0:x1]
    if (right - left, bottom - top) != (x1 - x0, y1 - y0):
        window_alpha = resized_matte(window_alpha, (right - left, bottom - top))
    return _on_canvas(window_alpha, layout)


def _on_canvas(pixels: Pixels, layout: Layout) -> Pixels:
    """Copies the window's pixels to their place on a canvas of zeros."""
    left, top, right, bottom = layout.place
    width, height = layout.size
    if layout.place == (0, 0, width, height):
        return pixels
    canvas = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    canvas[top:bottom, left:right] = pixels
    return canvas


def _solid(colour: Colour, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Colours and alpha of one colour, as broadcast views of one pixel."""
    width, height = size
    pixel = np.array((colour.red, colour.green, colour.blue), np.uint8)
    return np.broadcast_to(pixel, (height, width, 3)), np.broadcast_to(np.uint8(colour.alpha), (height, width))


def _blurred(rgb: Pixels, alpha: Pixels, blur: Blur, layout: Layout) -> tuple[Pixels, Pixels]:
    """Blurs the image's own background in the frame; opaque.

    Background pixels are weighted by 255 - alpha (at least 1), so the subject's colours do not glow around it as in a
    plain blur.
    """
    height, width = alpha.shape
    radius = max(width, height) * blur.radius / 100
    scale = min(1.0, BLUR_SIGMA_MAX / radius)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    blurred, _ = resized_cutout(rgb, np.maximum(255 - alpha, 1), size, blur=min(radius, BLUR_SIGMA_MAX))
    x0, y0, x1, y1 = (value * scale for value in layout.frame)
    frame_size = max(1, round(x1 - x0)), max(1, round(y1 - y0))
    centre = (x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5
    background = cv2.resize(cv2.getRectSubPix(blurred, frame_size, centre), layout.size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(background, np.uint8), np.broadcast_to(np.uint8(255), background.shape[:2])


def _fitted(image: DecodedImage, options: BackgroundImage, size: tuple[int, int]) -> Rows:
    """Resizes an image to cover the canvas, or to be contained in it, without distortion, as CSS `background-size`
    does."""
    height, width = image.rgb.shape[:2]
    chosen = max if options.fit == "cover" else min
    scale = chosen(size[0] / width, size[1] / height)
    # the part of the image that is visible, and its size and place on the canvas
    crop_width, crop_height = min(width, max(1, round(size[0] / scale))), min(height, max(1, round(size[1] / scale)))
    fitted = min(size[0], max(1, round(width * scale))), min(size[1], max(1, round(height * scale)))
    x, y = _share(width - crop_width, options.position.x), _share(height - crop_height, options.position.y)
    left, top = _share(size[0] - fitted[0], options.position.x), _share(size[1] - fitted[1], options.position.y)
    crop = slice(y, y + crop_height), slice(x, x + crop_width)
    alpha = np.broadcast_to(np.uint8(255), (height, width)) if image.alpha is None else image.alpha
    rgb, alpha = image.rgb[crop], alpha[crop]
    if (crop_width, crop_height) != fitted:
        rgb, alpha = resized_cutout(rgb, np.ascontiguousarray(alpha), fitted)
    if fitted != size:
        place = Layout((0, 0, *size), (0, 0, *fitted), size, (left, top, left + fitted[0], top + fitted[1]))
        rgb, alpha = _on_canvas(rgb, place), _on_canvas(alpha, place)
    if options.fill:
        rgb, alpha = over(rgb, np.ascontiguousarray(alpha), layer(*_solid(options.fill, size)))
    return layer(rgb, alpha)


def _share(free: int, percent: float) -> int:
    return int(free * percent / 100)
