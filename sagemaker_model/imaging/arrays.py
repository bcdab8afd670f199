"""Reads and writes decoded images as NumPy .npy files, for callers that decode images themselves.

Input: HxWx3 uint8, upright sRGB. Output: HxWx4 uint8 with straight alpha, or HxW uint8, the matte alone. An .npy file
cannot hold orientation, colour profile, resolution or provenance.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.lib import format as npy

from maskdrop.errors import UnreadableImage, UnsupportedFormat
from maskdrop.output import Output
from sagemaker_model.imaging.encode import with_alpha
from sagemaker_model.imaging.metadata import NO_METADATA, SourceMetadata
from sagemaker_model.imaging.pixels import DecodedImage, Limits, Pixels

CONTENT_TYPE = "application/x-npy"
"""Content type that SageMaker's NumpySerializer and NumpyDeserializer use."""

HEADER_MAX = 10_000
"""Largest .npy header in bytes: NumPy's default limit. NumPy writes 128."""

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def bytes_max(limits: Limits) -> int:
    """Largest .npy file in bytes, from `max_pixels`.

    `max_bytes` does not apply: it limits compressed files, and 12 MP are 36 MB as an array. A compressed file of as
    many pixels takes the same memory once it is decoded.
    """
    return 3 * limits.max_pixels + HEADER_MAX


def read_array(data: bytes, limits: Limits) -> DecodedImage:
    """Reads an HxWx3 uint8 image from an .npy file, without unpickling; C-ordered data is not copied.

    Raises EmptyFile, FileTooLarge, ResolutionTooHigh, UnsupportedFormat for other shapes and dtypes, UnreadableImage.
    """
    replace(limits, max_bytes=bytes_max(limits)).check_bytes(len(data))
    shape, fortran_order, dtype, offset = _header(data)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        size = "x".join(map(str, shape))
        raise UnsupportedFormat(
            f"The array has shape {size} and dtype {dtype}; send HxWx3 uint8: red, green and blue from 0 to 255."
        )
    height, width, _ = shape
    limits.check_pixels(width, height)
    if len(data) - offset != 3 * height * width:
        raise UnreadableImage(
            f"The header declares {3 * height * width:,} bytes of pixels, but {len(data) - offset:,} follow; "
            "send the whole array."
        )
    rgb = np.frombuffer(data, np.uint8, offset=offset).reshape(shape, order="F" if fortran_order else "C")
    return DecodedImage(np.ascontiguousarray(rgb))


def write_array(
    rgb: Pixels,
    alpha: Pixels,
    output: Output,
    dpi: tuple[float, float] | None,  # noqa: ARG001 - same parameters as `encode.encode`
    provenance: Mapping[str, str],  # noqa: ARG001
    metadata: SourceMetadata = NO_METADATA,  # noqa: ARG001
) -> bytes:
    """Writes an .npy file: HxWx4 uint8 RGBA, or alpha alone, HxW uint8, if `output.channels` is "alpha".

    All channels are 0 where alpha is 0, as in the image files.
    """
    pixels = alpha
    if output.channels == "rgba":
        pixels = with_alpha(rgb, alpha, cv2.COLOR_RGB2RGBA)
    buffer = io.BytesIO()
    npy.write_array(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Parses the header: shape, whether in Fortran order, dtype, and offset of the pixels. Raises UnreadableImage."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        shape, fortran_order, dtype = _READERS[version](stream, max_header_size=HEADER_MAX)
    except Exception as error:  # a header is a Python literal: ValueError, TokenError, RecursionError, …
        raise UnreadableImage(
            "The body is not an .npy file of version 1 or 2, or its header is damaged; write it with numpy.save."
        ) from error
    return shape, fortran_order, dtype, stream.tell()
