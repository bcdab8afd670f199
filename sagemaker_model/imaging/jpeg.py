"""Decodes JPEG files and judges by the pixels whether a file is complete (ITU-T T.81).

libjpeg-turbo, in simplejpeg, reports missing data; Pillow's copy does not, and fills the rest of the image with grey.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from maskdrop.errors import UnreadableImage, UnsupportedFormat

Pixels = NDArray[np.uint8]

END = b"\xff\xd9"

COLOURS = {"L": "Gray", "RGB": "RGB", "CMYK": "CMYK"}
"""simplejpeg's colour space for each mode of Pillow."""

_FRAMES = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xCB: "lossless JPEG",
    0xF7: "JPEG-LS",
}
"""Frames (SOF) that decoders do not support."""


def decode_jpeg(data: bytes, mode: str, buffer: Pixels | None = None) -> tuple[Pixels, tuple[str, ...]]:
    """Decodes the pixels of a JPEG file and returns them with warnings.

    mode: Pillow's mode, a key of COLOURS. buffer: an array for the pixels, of their shape. Returns HxW (L), HxWx3 (RGB)
    or HxWx4 (CMYK, 0 = no ink), uint8. A file that lacks nothing but its end is complete. Raises UnreadableImage for a
    file that lacks pixels.
    """
    warnings: tuple[str, ...] = ()
    try:
        pixels = _decoded(data, mode, buffer, strict=True)
    except ValueError as error:
        complete = data if END in data[-64:] else data + END
        try:
            pixels = _decoded(complete, mode, buffer, strict=True)
        except ValueError as reported:
            if "premature end" in str(reported).lower():
                raise UnreadableImage(
                    "The JPEG file is truncated: part of its pixels is missing; upload the whole file."
                ) from error
            pixels = _decoded(complete, mode, buffer, strict=False)
            if "extraneous" not in str(reported):
                warnings = (f"image_damaged: parts of the image may be wrong. The JPEG decoder reports: {reported}.",)
    if missing := missing_detail(data):
        warnings += (missing,)
    return pixels, warnings


def _decoded(data: bytes, mode: str, buffer: Pixels | None, *, strict: bool) -> Pixels:
    pixels = simplejpeg.decode_jpeg(data, COLOURS[mode], strict=strict, buffer=buffer)
    if mode == "CMYK":
        np.subtract(255, pixels, out=pixels)  # as Pillow does: writers of CMYK follow Adobe and store 255 - ink
    return np.asarray(pixels[..., 0] if mode == "L" else pixels)


def missing_detail(data: bytes) -> str:
    """Returns the warning `image_incomplete` for a progressive JPEG whose last scans are missing; else "".

    A progressive JPEG is a series of scans of increasing precision; a file without the last ones is blurred.
    """
    missing = total = 0.0
    try:
        precisions = list(_precisions(data))
    except IndexError:  # the last segment is cut
        return ""
    for bits in precisions:
        total += len(bits)
        missing += sum(1.0 if bit == UNCODED else min(bit, 4) / 8 for bit in bits)
    if not missing:
        return ""
    return (
        f"image_incomplete: {100 * missing / total:.0f} % of the detail is missing: the last scans of the progressive "
        "JPEG were cut off; upload the whole file for a sharp result."
    )


def _precisions(data: bytes) -> Iterator[list[int]]:
    """Yields the lowest bit that the scans of a progressive JPEG code, for the 64 coefficients of each component.

    UNCODED: not at all.
    """
    bits: dict[int, list[int]] = {}
    for marker, at in _markers(data):
        if marker in (0xC0, 0xC1):
            return
        if marker == 0xC2:
            count = data[at + 9]
            bits = {data[at + 10 + 3 * i]: [UNCODED] * 64 for i in range(count)}
        elif marker == 0xDA:
            count = data[at + 4]
            first, last, low = data[at + 5 + 2 * count], data[at + 6 + 2 * count], data[at + 7 + 2 * count] & 15
            for i in range(count):
                coded = bits.get(data[at + 5 + 2 * i])
                if coded:
                    coded[first : last + 1] = [low] * (min(last, 63) + 1 - first)
    yield from bits.values()


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the frames and scans: marker and its offset. Other segments are skipped by their length."""
    at = 2
    while found := _SEGMENT.search(data, at):
        at = found.start()
        marker = data[at + 1]
        if marker == 0xD9:
            return
        if marker in (0xD8, 0x01):  # no length
            at += 2
            continue
        if marker in _FRAME_MARKERS or marker == 0xDA:
            yield marker, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


UNCODED = 255
"""Precision of a coefficient without a scan. A coefficient without its lowest bit counts as an eighth of one."""

_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 and that of JPEG-LS; C4, C8 and CC are other segments."""

_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]", re.DOTALL)
"""The next marker after entropy-coded data, in which 0xFF is followed by 0 or by a restart marker."""


def unsupported_jpeg(data: bytes) -> UnsupportedFormat | None:
    """Returns the error of a JPEG file of a kind that is not decoded, None for other files."""
    for marker, at in _markers(data):
        if marker == 0xDA:
            return None
        if marker in _FRAMES:
            kind = _FRAMES[marker]
        elif (bits := data[at + 4 : at + 5]) and bits != b"\x08":  # none where the file ends in the segment
            kind = f"JPEG with {bits[0]} bits a channel"
        else:
            return None
        return UnsupportedFormat(
            f"The file is a {kind}, which is not supported; send a JPEG of 8 bits, baseline or progressive."
        )
    return None
