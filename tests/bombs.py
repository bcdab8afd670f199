"""Decoding bombs: small files that cost a decoder much time or memory.

Each function returns the bytes of one file. `side` and `count` scale a file, so that a unit test can build a small one.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

from PIL import Image


def scans(side: int = 7000, count: int = 1900) -> bytes:
    """A grey progressive JPEG whose last scan is repeated; a scan of a flat image has about 75 bytes."""
    file = _jpeg(side, progressive=True)
    last = file.rindex(b"\xff\xda")
    return file[:-2] + file[last:-2] * count + b"\xff\xd9"


def scans_in_tiff(side: int = 7000, count: int = 1900) -> bytes:
    """A TIFF with one strip, which is such a JPEG."""
    strip = scans(side, count)
    return tiff({256: side, 257: side, 258: 8, 259: 7, 262: 1, 277: 1, 278: side}, strip)


def fill_bytes(count: int = 8_000_000) -> bytes:
    """A JPEG with 0xFF before its first segment: padding, which Pillow skips byte by byte in Python."""
    file = _jpeg(8)
    return file[:2] + b"\xff" * count + file[2:]


def empty_segments(count: int = 2_000_000) -> bytes:
    file = _jpeg(8)
    return file[:2] + b"\xff\xed\0\2" * count + file[2:]


def arithmetic(side: int = 7000) -> bytes:
    """A progressive JPEG with arithmetic coding, whose decoder goes on where the data end."""
    return scans(side, 15).replace(b"\xff\xc2", b"\xff\xca", 1)


def long_side(length: int = 49_000_000) -> bytes:
    return png(1, length, zeros(2 * length))


def surplus_rows(megabytes: int = 24_000) -> bytes:
    """A PNG of 100x100 whose pixels inflate to far more rows."""
    return png(100, 100, zeros(megabytes * 1_000_000))


def empty_chunks(count: int = 2_000_000) -> bytes:
    file = png(8, 8, zeros(72))
    return file[:33] + _chunk(b"teST", b"") * count + file[33:]


def inflated_profile(megabytes: int = 4000) -> bytes:
    """A PNG with a colour profile of gigabytes."""
    file = png(8, 8, zeros(72))
    return file[:33] + _chunk(b"iCCP", b"p\0\0" + zeros(megabytes * 1_000_000)) + file[33:]


def inflated_texts(count: int = 5000) -> bytes:
    """A PNG with texts of a megabyte each."""
    file, text = png(8, 8, zeros(72)), _chunk(b"zTXt", b"t\0\0" + zeros(1_000_000))
    return file[:33] + text * count + file[33:]


def interlaced(width: int = 65_000, height: int = 760) -> bytes:
    return png(width, height, zeros((width + 8) * height * 2), interlace=1)


def comments(count: int = 3_000_000) -> bytes:
    """A GIF with comments before its first frame; Pillow joins them, which takes quadratic time."""
    file = _gif(8)
    start = file.index(b",")
    return file[:start] + b"!\xfe\2ab\0" * count + file[start:]


def comment_blocks(count: int = 10_000_000) -> bytes:
    """A GIF with one comment in blocks of one byte."""
    file = _gif(8)
    start = file.index(b",")
    return file[:start] + b"!\xfe" + b"\1a" * count + b"\0" + file[start:]


def frames(count: int = 500_000) -> bytes:
    """A GIF of very many frames; only the first is decoded."""
    file = _gif(8)
    start = file.index(b",")
    return file[:-1] + file[start:-1] * count + b";"


def large_frame(side: int = 65_000) -> bytes:
    """A GIF whose canvas is smaller than its frame."""
    file = bytearray(_gif(8))
    struct.pack_into("<HH", file, file.index(b",") + 5, side, side)
    return bytes(file)


def webp_canvas(side: int = 16_383) -> bytes:
    """A WebP whose canvas is larger than its image."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP")
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (side - 1).to_bytes(3, "little") + buffer.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def runs(count: int = 12_000_000) -> bytes:
    """A run-length coded BMP of runs of one pixel, which Pillow decodes in Python."""
    side = int(count**0.5)
    body = (b"\1\0" * side + b"\0\0") * side + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 2, 0) + bytes(8)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def tile(side: int = 26_000) -> bytes:
    """A TIFF of 100x100 with one tile, which is much larger."""
    body = zeros(side * side)
    return tiff({256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}, body)


def width_twice(side: int = 26_000) -> bytes:
    """A TIFF with two widths: 100 and a larger one."""
    file = tiff({256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 278: side}, zeros(side * side))
    return file.replace(struct.pack("<HHII", 257, 4, 1, side), struct.pack("<HHII", 256, 4, 1, 100))


def tags(count: int = 5000) -> bytes:
    """A TIFF with damaged tags, each of which logs a warning."""
    sizes = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8}
    return tiff(sizes, bytes(64), [(40_000 + number, 2, 9, 2**31) for number in range(count)])


def directories(count: int = 500_000) -> bytes:
    """A TIFF with a chain of empty directories after its image."""
    first = tiff({256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8}, bytes(64))
    start = len(first) + len(first) % 2
    chain = b"".join(struct.pack("<HI", 0, start + 6 * number) for number in range(1, count)) + bytes(6)
    return first[:-4] + struct.pack("<I", start) + bytes(start - len(first)) + chain


def avif(side: int = 12_000, declared: int = 100) -> bytes:
    """An AVIF that declares another size than it has."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "AVIF", speed=10, quality=1)
    return buffer.getvalue().replace(
        b"ispe" + struct.pack(">III", 0, side, side), b"ispe" + struct.pack(">III", 0, declared, declared)
    )


def heic(side: int = 16_384, declared: int = 100) -> bytes:
    """A HEIC that declares another size than its sequence parameter set."""
    bits = "0" * 4 + "000" + "1" + "0" * 96 + _exp_golomb(0, 1, side, side) + "1"
    nal = b"\x42\x01" + int(bits.ljust(-8 * (-len(bits) // 8), "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    config = bytes(21) + b"\3\1\x21\0\1" + struct.pack(">H", len(nal)) + nal
    properties = _box(b"ispe", struct.pack(">III", 0, declared, declared)) + _box(b"hvcC", config)
    return _heif(b"heic", {1: b"hvc1"}, properties, {1: (1, 2)})


def grid(tiles: int = 60_000, side: int = 1024) -> bytes:
    """A HEIC that is derived from one tile, which is used very often."""
    properties = _box(b"ispe", struct.pack(">III", 0, 100, 100)) + _box(b"ispe", struct.pack(">III", 0, side, side))
    references = _box(b"iref", bytes(4) + _box(b"dimg", struct.pack(f">HH{tiles}H", 1, tiles, *[2] * tiles)))
    return _heif(b"heic", {1: b"grid", 2: b"hvc1"}, properties, {1: (1,), 2: (2,)}, references)


def items(count: int = 60_000) -> bytes:
    return _heif(b"heic", dict.fromkeys(range(1, count), b"hvc1"), b"", {})


BOMBS: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        scans, scans_in_tiff, fill_bytes, empty_segments, arithmetic, long_side, surplus_rows, empty_chunks,
        inflated_profile, inflated_texts, interlaced, comments, comment_blocks, frames, large_frame, webp_canvas, runs,
        tile, width_twice, tags, directories, heic, grid, items,
    )
}  # fmt: skip
"""Bombs in their full size, by name; without `avif`, whose encoder takes 10 s."""


def png(width: int, height: int, pixels: bytes, *, interlace: int = 0) -> bytes:
    """A grey PNG. pixels: compressed."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def tiff(values: dict[int, int], pixels: bytes, extra: list[tuple[int, int, int, int]] | None = None) -> bytes:
    """A little-endian TIFF with one strip or tile. extra: tags as (tag, type, count, value)."""
    place, size = (324, 325) if 322 in values else (273, 279)
    values = values | {place: 8, size: len(pixels)}
    entries = sorted([(tag, 4, 1, value) for tag, value in values.items()] + (extra or []))
    body = pixels + bytes(len(pixels) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4)


@lru_cache
def _jpeg(side: int, *, progressive: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=progressive)
    return buffer.getvalue()


def _gif(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (side, side)).save(buffer, "GIF")
    return buffer.getvalue()


def zeros(count: int) -> bytes:
    """The zlib stream of `count` zeros, or of up to a megabyte more. Its checksum is wrong."""
    deflate = zlib.compressobj(9)
    first = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    following = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    if count <= 1_000_000:
        return zlib.compress(bytes(count))
    return first + following * (count // 1_000_000) + deflate.flush()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def _heif(
    brand: bytes, kinds: dict[int, bytes], properties: bytes, used: dict[int, tuple[int, ...]], references: bytes = b""
) -> bytes:
    """A HEIF of items without data. used: the numbers of the properties of each item."""
    entries = b"".join(
        _box(b"infe", struct.pack(">IHH4s", 2 << 24, item, 0, kind) + b"\0") for item, kind in kinds.items()
    )
    associations = b"".join(
        struct.pack(f">HB{len(indices)}B", item, len(indices), *indices) for item, indices in used.items()
    )
    meta = (
        _box(b"hdlr", bytes(8) + b"pict" + bytes(13))
        + _box(b"pitm", struct.pack(">IH", 0, 1))
        + _box(b"iinf", struct.pack(">IH", 0, len(kinds)) + entries)
        + _box(b"iprp", _box(b"ipco", properties) + _box(b"ipma", struct.pack(">II", 0, len(used)) + associations))
        + references
    )
    return _box(b"ftyp", brand + bytes(4) + b"mif1" + brand) + _box(b"meta", bytes(4) + meta)


def _exp_golomb(*values: int) -> str:
    return "".join("0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}" for value in values)
