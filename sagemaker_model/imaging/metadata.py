"""Selects the metadata of a source that a result may keep: its EXIF and copyright.

A result is a new image: tags that describe the stored pixels of the source, its thumbnail and the maker's notes are
dropped. Maker's notes have no public format, and may hold the position.
"""

from __future__ import annotations

import html
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from maskdrop.output import Metadata

log = logging.getLogger(__name__)

EXIF_BYTES_MAX = 65_527
"""Largest EXIF block of a JPEG, its prefix included: the segment has a length of 16 bits."""

BLOCK_BYTES_MAX = 2**20
"""Largest block that is kept. The blocks of a JPEG XL can be compressed: 100 MB of zeros take 100 bytes."""

Base, IFD = ExifTags.Base, ExifTags.IFD

_KEPT = {
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright,
    Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject,
}  # fmt: skip
"""Tags of the first directory that are kept. The others describe the stored pixels."""

_DROPPED = {Base.MakerNote, Base.ExifInteroperabilityOffset, Base.RelatedSoundFile}
"""Tags of the Exif directory that are dropped."""

_XMP_TEXT = {Base.Copyright: b"<dc:rights>", Base.Artist: b"<dc:creator>"}
"""Elements of Dublin Core."""
TEXT_MAX = 4096
"""Bytes of a copyright or author that are kept from XMP or IPTC."""
_IPTC_TEXT = {Base.Copyright: (2, 116), Base.Artist: (2, 80)}
"""Record and number of IPTC's copyright notice and by-line."""


@dataclass(frozen=True, slots=True)
class SourceMetadata:
    """Metadata of a source, as stored in its file; b"" for what it lacks.

    exif: the EXIF block, with or without the prefix of JPEG. xmp: the XMP packet. iptc: the records of IPTC-IIM.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""

    def bounded(self) -> SourceMetadata:
        """Without the blocks above BLOCK_BYTES_MAX."""
        blocks = (block if len(block) <= BLOCK_BYTES_MAX else b"" for block in (self.exif, self.xmp, self.iptc))
        return SourceMetadata(*blocks)


NO_METADATA = SourceMetadata()


def kept_exif(source: SourceMetadata, choice: Metadata, size: tuple[int, int]) -> bytes:
    """Returns the EXIF block of a result, without the prefix of JPEG; b"" if there is nothing to keep.

    choice: strip keeps nothing; keep drops the position; keep_gps keeps it. size: width and height of the result. The
    orientation is 1. A copyright or an author that only XMP or IPTC names is written as EXIF.
    """
    if choice == "strip":
        return b""
    exif = _loaded(source.exif)
    kept = Image.Exif()
    tags: dict[int, Any] = {tag: _as_bytes(value) for tag, value in exif.items() if tag in _KEPT}
    for tag, text in {**_iptc_texts(source.iptc), **_xmp_texts(source.xmp)}.items():
        tags.setdefault(tag, text)
    details = {tag: _as_bytes(value) for tag, value in _directory(exif, IFD.Exif).items() if tag not in _DROPPED}
    position = _directory(exif, IFD.GPSInfo) if choice == "keep_gps" else {}
    if not (tags or details or position):
        return b""
    for tag, value in tags.items():
        kept[tag] = value
    kept[Base.Orientation] = 1
    if details:
        details |= {Base.ExifImageWidth: size[0], Base.ExifImageHeight: size[1], Base.ColorSpace: 1}
        kept[IFD.Exif] = details
    if position:
        kept[IFD.GPSInfo] = dict(position)
    try:
        block = kept.tobytes()
        if len(block) > EXIF_BYTES_MAX:
            kept.pop(IFD.Exif, None)
            block = kept.tobytes()
    except Exception as error:  # noqa: BLE001 - values of a wrong type raise any exception; the result is usable
        log.info("EXIF dropped: %s", error)
        return b""
    return block.removeprefix(b"Exif\0\0") if len(block) <= EXIF_BYTES_MAX else b""


def exif_of_tiff(data: bytes) -> bytes:
    """Returns the tags of a TIFF file that a result may keep, as EXIF; b"" if they are damaged."""
    exif = _loaded(data)
    try:
        for tag in {*exif} - _KEPT - {IFD.Exif, IFD.GPSInfo}:
            del exif[tag]
        return exif.tobytes()
    except Exception as error:  # noqa: BLE001 - damaged tags raise any exception; the image is usable without them
        log.info("EXIF ignored: %s", error)
        return b""


def _loaded(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    try:
        if _declared_bytes(block.removeprefix(b"Exif\0\0")) <= 2 * len(block):
            exif.load(block)
    except Exception as error:  # noqa: BLE001 - damaged EXIF raises any exception; the image is usable without it
        log.info("EXIF ignored: %s", error)
    return exif


def _declared_bytes(block: bytes) -> int:
    """Returns the bytes of the values that the directories of an EXIF block declare. Pillow copies each: 65,535 values
    that share the bytes of a megabyte take 64 GB."""
    order = "<" if block[:2] == b"II" else ">"
    waiting, seen, total = [int(struct.unpack_from(order + "I", block, 4)[0])], set[int](), 0
    for at in waiting:  # grows by the directories below
        if at in seen or at + 2 > len(block):
            continue
        seen.add(at)
        (count,) = struct.unpack_from(order + "H", block, at)
        count = min(count, (len(block) - at - 2) // 12)
        for tag, kind, number, value in struct.iter_unpack(order + "HHII", block[at + 2 : at + 2 + 12 * count]):
            total += min(number * _VALUE_BYTES.get(kind, 1), len(block))
            waiting += [value] if tag in (IFD.Exif, IFD.GPSInfo, IFD.Interop) else []
    return total


_VALUE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes of a value by the number of its type; 1 of the others."""


def _directory(exif: Image.Exif, name: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(name)
    except Exception as error:  # noqa: BLE001 - as in `_loaded`
        log.info("EXIF directory ignored: %s", error)
        return {}


def _as_bytes(value: Any) -> Any:
    """Texts beyond ASCII as their stored bytes: Pillow decodes them as Latin-1, but writes "?" for them."""
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value


def _xmp_texts(xmp: bytes) -> dict[int, bytes]:
    texts = {tag: _xmp_text(xmp, element) for tag, element in _XMP_TEXT.items()}
    return {tag: text for tag, text in texts.items() if text}


def _xmp_text(xmp: bytes, element: bytes) -> bytes:
    """Returns the first text of an element. One pass: a regular expression took minutes for a megabyte of openings."""
    rest = xmp
    for mark in (element, b"<rdf:li", b">"):
        rest = rest.partition(mark)[2]
    text, closed, _ = rest.partition(b"</rdf:li>")
    return html.unescape(text[:TEXT_MAX].decode("utf-8", "replace")).strip().encode() if closed else b""


def _iptc_texts(iptc: bytes) -> dict[int, bytes]:
    """Texts of the records: 0x1C, record, number, length of 16 bits, value."""
    texts: dict[tuple[int, int], bytes] = {}
    at = 0
    while at + 5 <= len(iptc) and iptc[at] == 0x1C:
        length = int.from_bytes(iptc[at + 3 : at + 5], "big")
        texts.setdefault((iptc[at + 1], iptc[at + 2]), iptc[at + 5 : at + 5 + length])
        at += 5 + length
    return {tag: texts[name][:TEXT_MAX] for tag, name in _IPTC_TEXT.items() if texts.get(name)}
