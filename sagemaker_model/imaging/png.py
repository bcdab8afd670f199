"""Reads the chunks of a PNG file (W3C PNG, third edition).

Pillow rejects a file for a text chunk of more than 1 MB or for a wrong checksum of any chunk. Here only the chunks that
describe the pixels are passed on: damage to others does not reject the image.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from isal import isal_zlib

from maskdrop.errors import UnreadableImage
from sagemaker_model.imaging.colour import PROFILE_BYTES_MAX, Chromaticities, ColourSpace, icc_profile

SIGNATURE = b"\x89PNG\r\n\x1a\n"

XMP_KEYWORD = b"XML:com.adobe.xmp\0"

METADATA_BYTES_MAX = 2**20
"""Largest EXIF or XMP chunk that is read: Pillow's limit of a text."""

_PASSED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"pHYs"}
"""Chunks that Pillow gets."""

_READ = _PASSED | {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"iTXt"}

_VISIBLE = {
    b"tRNS": "transparency",
    b"cICP": "colour space",
    b"iCCP": "colour profile",
    b"sRGB": "colour space",
    b"gAMA": "gamma",
    b"cHRM": "primaries",
}
"""Ancillary chunks that change pixels, with the words of the warning."""


@dataclass(slots=True)
class PngFile:
    """A PNG file by its chunks.

    data: a file with the chunks that Pillow needs. depth: bits a sample. profile: the colour space as an ICC profile.
    space: the colour space where no ICC profile is embedded; None: sRGB or embedded. exif, xmp: b"" if absent.
    """

    data: bytes
    depth: int
    profile: bytes | None = None
    space: ColourSpace | None = None
    exif: bytes = b""
    xmp: bytes = b""
    warnings: list[str] = field(default_factory=list)


def read_png(data: bytes) -> PngFile:
    """Parses the chunks. Raises UnreadableImage for a wrong checksum of a chunk that is needed to decode the pixels.

    The last chunk may be cut: Pillow decides whether pixels are missing.
    """
    view = memoryview(data)
    passed: list[bytes | memoryview] = [SIGNATURE]
    found: dict[bytes, bytes] = {}
    warnings: list[str] = []
    xmp = b""
    closed = False
    for name, start, stop in _chunks(data):
        if name not in _READ and name[0] & 0x20:
            continue
        complete = stop + 4 <= len(data)
        body = view[start:stop]
        checksum = isal_zlib.crc32(body, isal_zlib.crc32(name))
        if complete and checksum != int.from_bytes(view[stop : stop + 4], "big"):
            if name[0] & 0x20:
                if name in _VISIBLE:
                    kind = "profile_ignored" if name == b"iCCP" else "chunk_ignored"
                    warnings.append(
                        f"{kind}: the PNG chunk {name.decode()} ({_VISIBLE[name]}) is damaged and was ignored."
                    )
                continue
            raise UnreadableImage(
                f"The PNG chunk {name.decode('latin-1')} is damaged (checksum); upload the file again."
            )
        if not complete and name != b"IDAT":
            break
        if not complete and not body:
            raise UnreadableImage("The PNG file is truncated: it ends before its last chunk; upload the whole file.")
        if name in _PASSED or not name[0] & 0x20:
            closed = name == b"IEND"
            if complete:
                passed.append(view[start - 8 : stop + 4])
            else:
                passed += struct.pack(">I4s", len(body), name), body, struct.pack(">I", checksum)
        elif name == b"iTXt":
            if body[: len(XMP_KEYWORD)] == XMP_KEYWORD and len(body) <= METADATA_BYTES_MAX:
                xmp = bytes(body[len(XMP_KEYWORD) + 4 :]) if not body[len(XMP_KEYWORD)] else b""
        elif name not in found and len(body) <= PROFILE_BYTES_MAX:
            found[name] = bytes(body)
        if closed:
            break
    if not closed:
        passed.append(b"\0\0\0\0IEND\xaeB`\x82")
    depth = data[24] if len(data) > 24 else 8
    png = PngFile(b"".join(passed), depth, warnings=warnings, xmp=xmp)
    exif = found.get(b"eXIf", b"")
    png.exif = exif if len(exif) <= METADATA_BYTES_MAX else b""
    _set_colour(png, found)
    return png


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the name of each chunk and the start and end of its body; the last body may be cut."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, min(at + 8 + length, len(data))
        at += 12 + length


def _set_colour(png: PngFile, found: dict[bytes, bytes]) -> None:
    """Sets profile and space by the precedence of the standard: cICP, iCCP, sRGB, then gAMA with cHRM."""
    cicp = found.get(b"cICP", b"")
    if len(cicp) == 4 and cicp[0] != 2 and cicp[2] == 0:
        png.space = ColourSpace.of_cicp(cicp[0], cicp[1])
    elif b"iCCP" in found:
        png.profile = _profile(found[b"iCCP"], png.warnings)
    elif b"sRGB" not in found and len(found.get(b"gAMA", b"")) == 4:
        (gama,) = struct.unpack(">I", found[b"gAMA"])
        png.space = ColourSpace.of_gamma(gama / 100_000, _chromaticities(found.get(b"cHRM", b"")))
    if png.space:
        png.profile = icc_profile(png.space)
        png.warnings += png.space.warnings


def _chromaticities(body: bytes) -> Chromaticities | None:
    if len(body) != 32:
        return None
    white, *primaries = zip(*[(value / 100_000 for value in struct.unpack(">8I", body))] * 2, strict=True)
    return (*primaries, white)  # type: ignore[return-value]


def _profile(body: bytes, warnings: list[str]) -> bytes | None:
    """Decompresses the ICC profile of an iCCP chunk; None, with a warning, if it is damaged or too large."""
    _, _, rest = body.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(rest[1:], PROFILE_BYTES_MAX)
    except zlib.error:
        profile = b""
    if not profile or not inflate.eof:
        warnings.append(
            "profile_ignored: the colour profile is damaged or above 16 MiB; the colours were read as sRGB."
        )
        return None
    return profile
