"""Image files for fuzzing: valid ones in each accepted format, and seeded mutations of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pylibjxl
from PIL import Image

from maskdrop.sniff import image_type

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Values at which counts, lengths and offsets overflow, change their sign or are empty."""

SIDES = (0, 1, 3, 255, 256, 16_383, 32_768, 65_535)
"""Widths and heights that a header claims."""

FILE_MAX = 200_000
"""Bytes of the largest original and mutation. Larger files cost time and find no other faults."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mutated file. name: the original and the mutations, in order."""

    name: str
    data: bytes


def originals(folder: Path | None = None) -> dict[str, bytes]:
    """Returns small valid files by name, in the formats and kinds that this machine can write.

    folder: further files, of which those up to FILE_MAX bytes are taken.
    """
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3)
    photo = Image.fromarray(np.clip(ramp + rng.normal(0, 9, ramp.shape), 0, 255).astype(np.uint8))
    clear = photo.convert("RGBA")
    clear.putalpha(photo.convert("L"))
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8825)[1] = "N"
    frames = [photo, photo.rotate(90), photo.rotate(180)]
    pages: dict[str, object] = {"save_all": True, "append_images": frames[1:]}
    animated = pages | {"duration": 40}
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (photo, "JPEG", {"exif": exif, "dpi": (300, 300)}),
        "jpeg-progressive": (photo, "JPEG", {"progressive": True, "subsampling": 0}),
        "jpeg-cmyk": (photo.convert("CMYK"), "JPEG", {}),
        "jpeg-grey": (photo.convert("L"), "JPEG", {"restart_marker_blocks": 1}),
        "mpo": (photo, "MPO", pages),
        "png": (photo, "PNG", {"exif": exif}),
        "png-alpha": (clear, "PNG", {}),
        "png-16": (deep, "PNG", {}),
        "png-palette": (photo.convert("P"), "PNG", {"transparency": 3}),
        "png-1": (photo.convert("1"), "PNG", {}),
        "apng": (photo, "PNG", animated),
        "webp": (clear, "WEBP", {"exif": exif}),
        "webp-lossless": (clear, "WEBP", {"lossless": True}),
        "webp-animated": (clear, "WEBP", animated),
        "gif": (photo.convert("P"), "GIF", {}),
        "gif-animated": (photo.convert("P"), "GIF", animated),
        "tiff": (photo, "TIFF", {}),
        "tiff-deflate": (clear, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff-lzw-16": (deep, "TIFF", {"compression": "tiff_lzw"}),
        "tiff-jpeg": (photo, "TIFF", {"compression": "jpeg"}),
        "tiff-pages": (photo, "TIFF", {"save_all": True, "append_images": [photo.rotate(90)]}),
        "tiff-g4": (photo.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff-big": (photo, "TIFF", {"big_tiff": True}),
        "bmp": (photo, "BMP", {}),
        "bmp-palette": (photo.convert("P"), "BMP", {}),
        "avif": (clear, "AVIF", {"speed": 10}),
        "avif-animated": (photo, "AVIF", {"speed": 10, **animated}),
    }
    files = {name: _saved(*how) for name, how in kinds.items()}
    files["jxl"] = pylibjxl.encode(np.asarray(photo))
    files |= {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir() if folder else ())
        if path.is_file() and 0 < path.stat().st_size <= FILE_MAX
    }
    return files


def _saved(image: Image.Image, kind: str, options: Mapping[str, object]) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, kind, **options)
    return file.getvalue()


def mutations(files: Mapping[str, bytes], seed: int) -> Iterator[Mutation]:
    """Yields mutated files without end. The same files and seed give the same mutations."""
    rng, names = Random(seed), sorted(files)  # noqa: S311
    while True:
        name = rng.choice(names)
        data, applied = files[name], [name]
        for kind in rng.choices(sorted(MUTATORS), k=rng.choice((1, 1, 1, 2, 3))):
            data = MUTATORS[kind](data, rng, files)[:FILE_MAX]
            applied.append(kind)
        yield Mutation(" ".join(applied), data)


Mutator = Callable[[bytes, Random, Mapping[str, bytes]], bytes]
"""Returns the mutated bytes of a file; the last argument has all originals."""


def flipped(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    changed = bytearray(data)
    for _n in range(rng.choice((1, 2, 8, 64)) if data else 0):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def header_flipped(data: bytes, rng: Random, files: Mapping[str, bytes]) -> bytes:
    return flipped(data[:64], rng, files) + data[64:]


def truncated(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def shortened(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 64, 1024)) :]


def lengthened(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 4, 64, 4096))) + data[start:]


def repeated(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    part = data[start : start + rng.choice((8, 64, 1024))]
    return data[:start] + part * rng.choice((2, 20, 200)) + data[start:]


def spliced(data: bytes, rng: Random, files: Mapping[str, bytes]) -> bytes:
    """The start of one file and the end of another."""
    other = files[rng.choice(sorted(files))]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def numbers_changed(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    """Overwrites a 16 or 32-bit number with an interesting one: lengths, offsets, counts."""
    changed = bytearray(data)
    for _n in range(rng.choice((1, 1, 3))):
        size = rng.choice((2, 4))
        if len(data) < size:
            break
        value, at = rng.choice(INTERESTING) & (256**size - 1), rng.randrange(len(data) - size + 1)
        changed[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(changed)


def size_claimed(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    """Changes the width and height that a header claims; the checksum of a PNG stays right."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    match image_type(data):
        case "image/png" if len(data) > 33:
            header = struct.pack(">II", width, height) + data[24:29]
            return data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]
        case "image/jpeg":
            at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
            return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :] if at > 0 else data
        case "image/gif":
            return data[:6] + struct.pack("<HH", width, height) + data[10:]
        case "image/bmp":
            return data[:18] + struct.pack("<ii", width, rng.choice((height, -height))) + data[26:]
        case "image/webp" if data[12:16] == b"VP8X":
            size = (max(width, 1) - 1).to_bytes(3, "little") + (max(height, 1) - 1).to_bytes(3, "little")
            return data[:24] + size + data[30:]
        case "image/avif" | "image/heic" if (at := data.find(b"ispe")) > 0:
            return data[: at + 8] + struct.pack(">II", width, height) + data[at + 16 :]
        case "image/tiff" if data[:4] == b"II*\0":
            return _tiff_size_claimed(data, width, height)
        case _:
            return data


def _tiff_size_claimed(data: bytes, width: int, height: int) -> bytes:
    """Changes the values of the tags 256 and 257 in the first directory."""
    changed = bytearray(data)
    at = int.from_bytes(data[4:8], "little")
    for entry in range(at + 2, min(at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), len(data) - 12), 12):
        tag = int.from_bytes(data[entry : entry + 2], "little")
        if tag in (256, 257):
            changed[entry + 8 : entry + 12] = (width if tag == 256 else height).to_bytes(4, "little")
    return bytes(changed)


def metadata_added(data: bytes, rng: Random, _: Mapping[str, bytes]) -> bytes:
    """Adds deep, circular, huge or lying metadata after the signature of a JPEG or PNG; else before the file's end."""
    kind, text = rng.choice(sorted(METADATA.items()))
    body = text(rng)
    match image_type(data):
        case "image/jpeg":
            body = (body + b"\0" * (-len(body) % 2))[:65_000]
            return (
                data[:2]
                + bytes((0xFF, 0xE1 if kind != "profile" else 0xE2))
                + struct.pack(">H", len(body) + 2)
                + body
                + data[2:]
            )
        case "image/png" if len(data) > 33:
            name = {"exif": b"eXIf", "profile": b"iCCP", "xmp": b"iTXt"}[kind]
            if name == b"iTXt":
                body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(body)
            if name == b"iCCP":
                body = b"profile\0\0" + zlib.compress(body)
            chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            return data[:33] + chunk + data[33:]
        case _:
            at = rng.randrange(len(data) + 1)
            return data[:at] + body[:4096] + data[at:]


def _exif(rng: Random) -> bytes:
    """A directory whose entries point at itself, at huge counts, or outside."""
    entries = [
        struct.pack("<HHII", tag, rng.randrange(14), rng.choice(INTERESTING), rng.choice((8, 10, 2**31, 2**32 - 1)))
        for tag in (0x0112, 0x8769, 0x8825, 0xA005, 0x014A, 0x0103, 0x9286)
    ]
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", rng.choice((len(entries), 0xFFFF))) + b"".join(entries)
    return b"Exif\0\0" * rng.randrange(2) + tiff + struct.pack("<I", 8)


def _xmp(rng: Random) -> bytes:
    """Nested elements or entities that expand."""
    depth = rng.choice((10, 1000, 8000))
    entities = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 9))
    nested = b"<a>" * depth + b"&e8;" + b"</a>" * depth
    return (
        b"http://ns.adobe.com/xap/1.0/\0<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e0 'x'>" + entities + b"]>" + nested
    )


def _profile(rng: Random) -> bytes:
    """A colour profile that claims another size or number of tags."""
    header = struct.pack(">I", rng.choice(INTERESTING)) + rng.randbytes(12) + b"RGB XYZ " + rng.randbytes(12) + b"acsp"
    tags = struct.pack(">I", rng.choice(INTERESTING)) + b"".join(
        rng.choice((b"rXYZ", b"A2B0", b"rTRC")) + struct.pack(">II", rng.choice(INTERESTING), rng.choice(INTERESTING))
        for _n in range(rng.choice((1, 400)))
    )
    return b"ICC_PROFILE\0\1\1" * rng.randrange(2) + header.ljust(128, b"\0") + tags


METADATA: dict[str, Callable[[Random], bytes]] = {"exif": _exif, "profile": _profile, "xmp": _xmp}

MUTATORS: dict[str, Mutator] = {
    "flipped": flipped,
    "header-flipped": header_flipped,
    "lengthened": lengthened,
    "metadata-added": metadata_added,
    "numbers-changed": numbers_changed,
    "repeated": repeated,
    "shortened": shortened,
    "size-claimed": size_claimed,
    "spliced": spliced,
    "truncated": truncated,
}
