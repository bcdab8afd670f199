"""Writes small TIFF files of layouts that Pillow does not write: planar, WhiteIsZero, Lab, SubIFDs, BigTIFF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

SHORT, LONG, LONG8 = 3, 4, 16


@dataclass(frozen=True)
class Page:
    """One image of a TIFF file: HxWxS samples, uint8 or uint16, its PhotometricInterpretation and layout.

    strips: number of strips of each plane. tile: side of square tiles; 0: strips. tags: further tags, of type LONG.
    """

    samples: np.ndarray
    photometric: int
    planar: bool = False
    compression: int = 1
    predictor: bool = False
    strips: int = 1
    tile: int = 0
    tags: Mapping[int, Sequence[int]] = field(default_factory=dict)
    below: Sequence[Page] = ()


def tiff(pages: Sequence[Page], order: str = "<", big: bool = False) -> bytes:
    """Writes pages as a chain of directories. order: < little-endian, > big-endian."""
    mark = b"II" if order == "<" else b"MM"
    data = bytearray(mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0))))
    link = 8 if big else 4
    for page in pages:
        offset, following = _page(data, page, order, big)
        struct.pack_into(order + ("Q" if big else "I"), data, link, offset)
        link = following
    return bytes(data)


def _page(data: bytearray, page: Page, order: str, big: bool) -> tuple[int, int]:
    samples = page.samples if page.samples.ndim == 3 else page.samples[..., None]
    height, width, count = samples.shape
    bits = samples.dtype.itemsize * 8
    planes = [samples[..., i : i + 1] for i in range(count)] if page.planar else [samples]
    offsets, sizes = [], []
    rows = -(-height // page.strips)
    for plane in planes:
        for block in _blocks(plane, rows, page.tile):
            if page.predictor:
                block = block.copy()
                block[:, 1:] -= block[:, :-1].copy()
            packed = block.astype(order + samples.dtype.str[1:]).tobytes()
            packed = zlib.compress(packed) if page.compression == 8 else packed
            offsets.append(len(data))
            sizes.append(len(packed))
            data += packed + bytes(len(packed) % 2)
    tags: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [bits] * count, 259: [page.compression], 262: [page.photometric],
        277: [count], 284: [2 if page.planar else 1], **page.tags,
    }  # fmt: skip
    if page.predictor:
        tags[317] = [2]
    if page.tile:
        tags |= {322: [page.tile], 323: [page.tile], 324: offsets, 325: sizes}
    else:
        tags |= {273: offsets, 278: [rows], 279: sizes}
    if page.below:
        tags[330] = [_page(data, one, order, big)[0] for one in page.below]
    return _directory(data, tags, order, big)


def _blocks(plane: np.ndarray, rows: int, tile: int) -> list[np.ndarray]:
    height, width = plane.shape[:2]
    if not tile:
        return [plane[top : top + rows] for top in range(0, height, rows)]
    padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [
        padded[top : top + tile, left : left + tile]
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]  # fmt: skip


def _directory(data: bytearray, tags: Mapping[int, Sequence[int]], order: str, big: bool) -> tuple[int, int]:
    """Appends a directory. Returns its offset and that of its link to the next one."""
    kind, letter, inline = (LONG8, "Q", 8) if big else (LONG, "I", 4)
    entries = b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(values) > 1:
            place = len(data)
            data += packed
            packed = struct.pack(order + letter, place)
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values)) + packed
    data += bytes(len(data) % 2)
    offset = len(data)
    data += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
    link = len(data)
    data += bytes(inline)
    return offset, link
