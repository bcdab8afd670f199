"""Selects the metadata of a source that a result may keep: its EXIF and copyright.

A result is a new image: tags that describe the stored pixels of the source, its thumbnail and the maker's notes are
dropped. Maker's notes have no public format, and may hold the position.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from maskdrop.output import Metadata

log = logging.getLogger(__name__)

EXIF_BYTES_MAX = 65_527
"""Largest EXIF block of a JPEG, its prefix included: the segment has a length of 16 bits."""

XMP_BYTES_MAX = 2**20
"""Largest XMP packet that is searched for the copyright."""

Base, IFD = ExifTags.Base, ExifTags.IFD

_KEPT = {
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright,
    Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject,
}  # fmt: skip
"""Tags of the first directory that are kept. The others describe the stored pixels."""

_DROPPED = {Base.MakerNote, Base.ExifInteroperabilityOffset, Base.RelatedSoundFile}
"""Tags of the Exif directory that are dropped."""

_XMP_TEXT = {
    Base.Copyright: re.compile(rb"<dc:rights>.*?<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL),
    Base.Artist: re.compile(rb"<dc:creator>.*?<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL),
}
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


def _loaded(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    try:
        exif.load(block)
    except Exception as error:  # noqa: BLE001 - damaged EXIF raises any exception; the image is usable without it
        log.info("EXIF ignored: %s", error)
    return exif


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
    if len(xmp) > XMP_BYTES_MAX:
        return {}
    found = {tag: pattern.search(xmp) for tag, pattern in _XMP_TEXT.items()}
    return {
        tag: html.unescape(match[1].decode("utf-8", "replace")).strip().encode()
        for tag, match in found.items()
        if match and match[1].strip()
    }


def _iptc_texts(iptc: bytes) -> dict[int, bytes]:
    """Texts of the records: 0x1C, record, number, length of 16 bits, value."""
    texts: dict[tuple[int, int], bytes] = {}
    at = 0
    while at + 5 <= len(iptc) and iptc[at] == 0x1C:
        length = int.from_bytes(iptc[at + 3 : at + 5], "big")
        texts.setdefault((iptc[at + 1], iptc[at + 2]), iptc[at + 5 : at + 5 + length])
        at += 5 + length
    return {tag: texts[name] for tag, name in _IPTC_TEXT.items() if texts.get(name)}
