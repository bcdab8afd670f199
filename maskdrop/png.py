"""Reads and writes PNG files with 8 bits per channel by the standard library (ISO/IEC 15948): masks and backdrops."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate

from maskdrop.errors import UnreadableImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2
"""Colour types."""

CHANNELS = {GREY: 1, RGB: 3}

_INVERSE = bytes(range(255, -1, -1))


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels. Raises UnreadableImage."""
    if data[:8] != SIGNATURE or data[12:16] != b"IHDR" or len(data) < 29:
        raise UnreadableImage("The mask must be a PNG.")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@lru_cache(maxsize=1)  # all candidates of a job have the same mask
def inverted(data: bytes) -> bytes:
    """The PNG of 255 minus each value, for an 8-bit grey PNG without interlacing. Raises UnreadableImage for others."""
    width, height = png_size(data)
    if data[24:29] != bytes((8, GREY, 0, 0, 0)):
        raise UnreadableImage("The mask must be a grey PNG with 8 bits per pixel, without interlacing.")
    rows = (row.translate(_INVERSE) for row in _rows(data, width, height))
    return write_png(width, height, GREY, rows)


def write_png(width: int, height: int, colour_type: int, rows: Iterable[bytes]) -> bytes:
    """A PNG of `height` rows, each of `width` times CHANNELS[colour_type] bytes."""
    # Filter 2 (up): equal or slowly changing rows become zeros or small numbers.
    deflate, parts, previous = zlib.compressobj(6), [], bytes(width * CHANNELS[colour_type])
    for row in rows:
        parts.append(deflate.compress(b"\2" + _difference(row, previous)))
        previous = row
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = b"".join((*parts, deflate.flush()))
    return SIGNATURE + b"".join(_chunk(*one) for one in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")))


def _rows(data: bytes, width: int, height: int) -> Iterator[bytes]:
    """The rows of a grey PNG."""
    try:
        filtered = zlib.decompress(b"".join(body for kind, body in _chunks(data) if kind == b"IDAT"))
    except (zlib.error, struct.error) as error:
        raise UnreadableImage(f"The PNG of the mask is damaged: {error}.") from error
    if len(filtered) < (width + 1) * height:
        raise UnreadableImage("The PNG of the mask is incomplete.")
    above = bytes(width)
    for start in range(0, (width + 1) * height, width + 1):
        above = _unfiltered(filtered[start], filtered[start + 1 : start + 1 + width], above)
        yield above


def _unfiltered(kind: int, line: bytes, above: bytes) -> bytes:
    """The row of a filtered line. above: the row above it."""
    if kind == 0:
        return line
    if kind == 1:  # sub: a running sum
        return bytes(value & 255 for value in accumulate(line))
    if kind == 2:  # up
        return bytes((value + up) & 255 for value, up in zip(line, above, strict=True))
    row, left, corner = bytearray(), 0, 0
    for value, up in zip(line, above, strict=True):
        if kind == 3:  # average
            left = (value + (left + up) // 2) & 255
        else:  # Paeth: of left, up and corner, the one nearest to left + up - corner
            to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
            nearest = left if to_left <= min(to_up, to_corner) else up if to_up <= to_corner else corner
            left = (value + nearest) & 255
        row.append(left)
        corner = up
    return bytes(row)


def _difference(row: bytes, above: bytes) -> bytes:
    if row == above:
        return bytes(len(row))
    return bytes((value - up) & 255 for value, up in zip(row, above, strict=True))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = len(SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, data[start + 8 : start + 8 + length]
        start += length + 12


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
