"""Reads the boxes of AVIF and HEIC files (ISO/IEC 14496-12 and 23008-12): codec and colour space.

Brands do not tell the codec: a file of the brand mif1 can hold AV1, HEVC or JPEG. The decoders convert no colours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sagemaker_model.imaging.colour import ColourSpace

META_BYTES_MAX = 4 * 2**20
"""Largest `meta` or `moov` box that is read. An item takes about 100 bytes of it."""

CODECS = {
    b"av01": "AVIF",
    b"hvc1": "HEIF",
    b"hev1": "HEIF",
    b"jpeg": "JPEG",
    b"mjpg": "JPEG",
    b"j2k1": "JPEG 2000",
    b"avc1": "H.264",
    b"vvc1": "H.266",
    b"evc1": "EVC",
    b"unci": "uncompressed pixels",
    b"jxl1": "JPEG XL",
}
"""Codecs by the type of an item or a sample. AVIF and HEIF are decoded."""

_CONTAINERS = {b"iprp", b"ipco", b"trak", b"mdia", b"minf", b"stbl"}
"""Boxes that hold only boxes."""


@dataclass(frozen=True, slots=True)
class HeifFile:
    """codec: a value of CODECS; "" if it was not found. space: the colour space of the nclx; None: sRGB or unknown.
    sequence: whether the file holds a sequence of images."""

    codec: str
    space: ColourSpace | None = None
    sequence: bool = False


def read_heif(data: bytes) -> HeifFile:
    """Parses the boxes before the pixels. A damaged file gives an empty result: the decoder reports the damage."""
    try:
        return _read(data)
    except (struct.error, IndexError):
        return HeifFile("")


def _read(data: bytes) -> HeifFile:
    types: list[bytes] = []
    colours: list[ColourSpace | None] = []
    primary, items = 0, dict[int, bytes]()
    properties: list[bytes] = []
    links: dict[int, list[int]] = {}
    sequence = False
    for name, body in _boxes(data):
        if name == b"meta":
            for inner, content in _boxes(body[4:META_BYTES_MAX]):
                if inner == b"pitm":
                    primary = int.from_bytes(content[4 : 6 if content[0] == 0 else 8], "big")
                elif inner == b"iinf":
                    items = _items(content)
                elif inner == b"iprp":
                    for part, value in _boxes(content):
                        if part == b"ipco":
                            properties = [kind + bytes(box) for kind, box in _boxes(value)]
                        elif part == b"ipma":
                            links |= _associations(value)
        elif name == b"moov":
            sequence = True
            at = bytes(body[:META_BYTES_MAX])
            types += [kind for kind in CODECS if kind in at]
            start = at.find(b"colrnclx")
            if start > 0:
                colours.append(_nclx(at[start : start + 15]))
    own = [properties[i - 1] for i in links.get(primary, ()) if 0 < i <= len(properties)]
    colours = [_nclx(one) for one in own if one.startswith(b"colrnclx")] + colours
    kind = items.get(primary, b"")
    if kind not in CODECS:  # a grid or another derived image: the codec is that of its parts
        kind = next((one for one in (*items.values(), *types) if one in CODECS), b"")
    return HeifFile(CODECS.get(kind, ""), colours[0] if colours else None, sequence)


def _nclx(box: bytes) -> ColourSpace | None:
    primaries, transfer = struct.unpack_from(">HH", box, 8)
    return ColourSpace.of_cicp(primaries, transfer)


def _boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yields the type and the body of each box."""
    view, at = memoryview(data), 0
    while at + 8 <= len(view):
        size, name = struct.unpack_from(">I4s", view, at)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", view, at + 8)
            header = 16
        elif size == 0:
            size = len(view) - at
        if size < header:
            return
        yield name, view[at + header : at + size]
        at += size


def _items(content: memoryview) -> dict[int, bytes]:
    """Types of the items by their IDs, from the body of `iinf`."""
    items = {}
    for name, entry in _boxes(content[6 if content[0] == 0 else 8 :]):
        if name == b"infe" and entry[0] >= 2:
            wide = 2 if entry[0] == 2 else 4
            items[int.from_bytes(entry[4 : 4 + wide], "big")] = bytes(entry[6 + wide : 10 + wide])
    return items


def _associations(content: memoryview) -> dict[int, list[int]]:
    """Numbers of the properties of each item, from the body of `ipma`."""
    id_bytes, long = (2 if content[0] == 0 else 4), content[3] & 1
    (count,) = struct.unpack_from(">I", content, 4)
    at, links = 8, dict[int, list[int]]()
    for _ in range(min(count, len(content))):
        if at + id_bytes >= len(content):
            break
        item = int.from_bytes(content[at : at + id_bytes], "big")
        number = content[at + id_bytes]
        at += id_bytes + 1
        width = 2 if long else 1
        raw = content[at : at + number * width]
        mask = 0x7FFF if long else 0x7F
        links[item] = [int.from_bytes(raw[i : i + width], "big") & mask for i in range(0, len(raw), width)]
        at += number * width
    return links
