"""The images of an edit: the input of the editor, and its output in place of the subject."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from maskdrop.edit import EditorModel
from maskdrop.errors import EditRefused, MaskEmpty, MaskFull
from maskdrop.output import Output
from sagemaker_model.imaging.composite import layer, over
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.pixels import DecodedImage, Pixels
from sagemaker_model.imaging.resize import resized


@dataclass(frozen=True, slots=True)
class EditFiles:
    """Input of the editor.

    alpha: grey PNG in the size of the source. image: JPEG of the source within the editor's limits. mask: grey PNG of
    that size, 255 on the subject, 0 elsewhere.
    """

    alpha: bytes
    image: bytes
    mask: bytes


def edit_files(rgb: Pixels, alpha: Pixels, editor: EditorModel) -> EditFiles:
    """Returns the input of the editor for `rgb`, HxWx3 uint8, with the subject `alpha`, HxW uint8.

    Raises MaskEmpty and MaskFull for an alpha without a subject or without a background, before anything is paid, and
    EditRefused for an aspect ratio that the editor does not accept.
    """
    height, width = alpha.shape
    size = editor.fit(width, height)
    if size is None:
        raise EditRefused(
            f"The editor does not accept an image of {width} x {height} pixels: its longer side may be at most "
            f'{editor.ratio_max:g} times the shorter one. Crop the image, or use "output.background".'
        )
    mask = np.where(resized(alpha, size) >= 128, np.uint8(255), np.uint8(0))
    if not mask.any():
        raise MaskEmpty("No subject was found: choose another engine, or give a prompt.")
    if mask.all():
        raise MaskFull("The subject covers the whole image: no background is left to generate.")
    scaled = rgb if size == (width, height) else resized(rgb, size)
    opaque = np.full(mask.shape, 255, np.uint8)
    return EditFiles(
        alpha=_grey_png(alpha), image=encode(scaled, opaque, Output(format="jpg"), None, {}), mask=_grey_png(mask)
    )


def read_alpha(data: bytes, shape: tuple[int, ...]) -> Pixels:
    """Decodes `EditFiles.alpha` of an image of `shape` (height, width). Raises EditRefused if it is not its alpha."""
    alpha = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if alpha is None or alpha.shape != shape:
        raise EditRefused("The stored alpha does not belong to the image: create the job again.")
    return np.asarray(alpha, np.uint8)


def replaced_subject(image: DecodedImage, alpha: Pixels, generated: DecodedImage) -> tuple[DecodedImage, Pixels]:
    """Returns `image` with the generated pixels in place of the subject, and an opaque alpha, both at its size."""
    height, width = alpha.shape
    front = cv2.resize(generated.rgb, (width, height), interpolation=cv2.INTER_CUBIC)
    opaque = np.full(alpha.shape, 255, np.uint8)
    rgb, _ = over(np.asarray(front, np.uint8), alpha, layer(image.rgb, opaque))
    return replace(image, rgb=rgb), opaque


def _grey_png(grey: Pixels) -> bytes:
    rgb = np.broadcast_to(np.uint8(0), (*grey.shape, 3))
    return encode(rgb, grey, Output(channels="alpha"), None, {})
