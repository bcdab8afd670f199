"""Composes a result by its layout (geometry.py): the subject, its outline and shadow, and the background.

Pixels are resampled at most once; pixels that are only moved are copied exactly.
"""

from __future__ import annotations

import cv2
import numpy as np

from maskdrop.background import BackgroundImage, Blur, Colour, Gradient, Studio
from maskdrop.output import Output
from maskdrop.studio import BACKDROPS
from sagemaker_model.imaging.backdrop import gradient_layer, studio_layer
from sagemaker_model.imaging.composite import Rows, layer, over, resized_cutout, resized_matte, solid
from sagemaker_model.imaging.geometry import Box, Layout, visible_box
from sagemaker_model.imaging.outline import outline_layer
from sagemaker_model.imaging.pixels import DecodedImage, Pixels
from sagemaker_model.imaging.shadow import cast_shadow

BLUR_SIGMA_MAX = 4.0
"""Largest standard deviation of a Gaussian blur, in pixels. A larger blur is computed on a smaller image and
enlarged."""


COARSER = 8
"""Ratio of the sides of the image on which the background of a blur is continued inside the subject."""


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
    subject = visible_box(alpha) if output.outline or output.shadow else None
    where = layout.window, layout.place, layout.size
    if output.outline and subject:
        colour = output.outline.colour
        layers.append(outline_layer(layout.outline, colour, alpha, subject, layout.scale, *where))
    if output.shadow and subject:
        shadow = cast_shadow(output.shadow, alpha, subject, layout.scale, layout.outline)
        layers.append(shadow.layer(*where))
    if output.background is not None:
        layers.append(_background(output, alpha, layout, source, background_image))
    return over(colours, placed_alpha, *layers) if layers else (colours, placed_alpha)


def _background(
    output: Output, alpha: Pixels, layout: Layout, source: DecodedImage, image: DecodedImage | None
) -> Rows:
    """The background's layer at the result's size."""
    match output.background:
        case Colour() as colour:
            return layer(*solid(colour, layout.size))
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


def _blurred(rgb: Pixels, alpha: Pixels, blur: Blur, layout: Layout) -> tuple[Pixels, Pixels]:
    """Blurs the image's own background in the frame; opaque. A frame that extends beyond the image is covered by it.

    Background pixels are weighted by 255 - alpha (at least 1), so the subject's colours do not glow around it as in a
    plain blur. Inside the subject, which can be visible on a larger canvas, a coarser blur continues the background.
    """
    height, width = alpha.shape
    radius = max(width, height) * blur.radius / 100
    scale = min(1.0, BLUR_SIGMA_MAX / radius)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    blurred, seen = resized_cutout(rgb, np.maximum(255 - alpha, 1), size, blur=min(radius, BLUR_SIGMA_MAX))
    coarse_size = -(-size[0] // COARSER), -(-size[1] // COARSER)
    coarse, _ = resized_cutout(blurred, seen, coarse_size, blur=BLUR_SIGMA_MAX)
    filling = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    opaque = np.broadcast_to(np.uint8(255), seen.shape)
    visible = np.asarray(cv2.convertScaleAbs(seen, alpha=4), np.uint8).reshape(seen.shape)
    blurred, _ = over(blurred, visible, layer(filling, opaque))
    part = layout.frame.within(width, height)
    centre = (part.x0 + part.x1) / 2 * scale - 0.5, (part.y0 + part.y1) / 2 * scale - 0.5
    small = cv2.getRectSubPix(blurred, (max(1, round(part.width * scale)), max(1, round(part.height * scale))), centre)
    background = cv2.resize(small, layout.size, interpolation=cv2.INTER_LINEAR)
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
        place = Layout(Box(0, 0, *size), (0, 0, *fitted), size, size, (left, top, left + fitted[0], top + fitted[1]))
        rgb, alpha = _on_canvas(rgb, place), _on_canvas(alpha, place)
    if options.fill:
        rgb, alpha = over(rgb, np.ascontiguousarray(alpha), layer(*solid(options.fill, size)))
    return layer(rgb, alpha)


def _share(free: int, percent: float) -> int:
    return int(free * percent / 100)
