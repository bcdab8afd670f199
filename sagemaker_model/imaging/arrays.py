"""Pixels as they are: NumPy's own file, .npy, for a caller that has its images decoded and wants no file back.

In: HxWx3 uint8, upright sRGB. Out: HxWx4 uint8 with straight alpha, or HxW uint8, the matte alone. No orientation, no
profile, no resolution, no provenance: an array has no place for them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.lib import format as npy

from maskdrop.errors import UnreadablePicture, UnsupportedFormat
from maskdrop.output import Output
from sagemaker_model.imaging.pixels import Limits, Picture, Pixels, with_alpha

CONTENT_TYPE = "application/x-npy"
"""What SageMaker's NumpySerializer and NumpyDeserializer say."""

HEADER_MAX = 10_000
"""Bytes before the pixels: NumPy's own limit. It writes 128."""

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def bytes_max(limits: Limits) -> int:
    """Of one array. Not `max_bytes`, which is of a compressed file: 12 MP are 36 MB. The pixels bound it, and it takes
    no more memory than a file of as many does once it is decoded."""
    return 3 * limits.max_pixels + HEADER_MAX


def read_array(data: bytes, limits: Limits) -> Picture:
    """A view of `data`, which is not unpickled and, in C order, not copied. Raises EmptyFile, FileTooLarge,
    ResolutionTooHigh, UnsupportedFormat for other arrays, UnreadablePicture."""
    replace(limits, max_bytes=bytes_max(limits)).check_bytes(len(data))
    shape, fortran, dtype, start = _header(data)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        size = "x".join(map(str, shape))
        raise UnsupportedFormat(f"An array is HxWx3 uint8, red, green and blue from 0 to 255; not {size} {dtype}.")
    height, width, _ = shape
    limits.check_pixels(width, height)
    if len(data) - start != 3 * height * width:
        raise UnreadablePicture(
            f"The array announces {3 * height * width:,} bytes of pixels and has {len(data) - start:,}."
        )
    rgb = np.frombuffer(data, np.uint8, offset=start).reshape(shape, order="F" if fortran else "C")
    return Picture(np.ascontiguousarray(rgb))


def write_array(
    rgb: Pixels,
    alpha: Pixels,
    output: Output,
    dpi: tuple[float, float] | None,  # noqa: ARG001 - as `pixels.encode`
    provenance: Mapping[str, str],  # noqa: ARG001
) -> bytes:
    """HxWx4 uint8, all zero where alpha is, as in the files; with `output.channels` "alpha" HxW uint8."""
    pixels = alpha
    if output.channels == "rgba":
        pixels = with_alpha(rgb, alpha, cv2.COLOR_RGB2RGBA)
    to = io.BytesIO()
    npy.write_array(to, pixels, allow_pickle=False)
    return to.getvalue()


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether it is in Fortran's order, dtype, and where the pixels begin. Raises UnreadablePicture."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        shape, fortran, dtype = _READERS[version](stream, max_header_size=HEADER_MAX)
    except Exception as error:  # a header is a Python literal: ValueError, TokenError, RecursionError, …
        raise UnreadablePicture("The body is no .npy file of version 1 or 2, or its header is damaged.") from error
    return shape, fortran, dtype, stream.tell()
