"""Refuses files that are small but expensive to decode, from their bytes, before any pixel is decoded.

A format stores sizes twice: in the container, which readers report, and in the coded image, for which the decoder
allocates memory. Here the coded sizes are checked; the declared ones are checked where the file is opened. Further
limits are for parts of a file that cost time and few bytes: scans of a progressive JPEG, chunks, directories, items.

The checks cost at most 2 percent of the time of decoding. They cover known kinds of files. The decoding processes
(serving/decoding.py) bound the time and memory of every file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from maskdrop.errors import DecodingLimit, ResolutionTooHigh

SIDE_MAX = 65_535
"""Largest side in pixels: the maximum of JPEG. A PNG of 1 x 49,000,000 took 55 s: rows cost more than pixels."""

CODED_MARGIN = 1.25
"""Coded pixels for each accepted pixel: an image is padded to whole tiles. 48 MP of a phone in tiles of 512 have 4
percent more; 4000 x 3000 pixels in tiles of 1024 have 5 percent."""

SCANS = 20
"""Scans of a JPEG with the maximum of pixels; a smaller image may have more, in proportion. Encoders write 10 to 13. A
scan of 49 MP takes 50 ms, and needs 75 bytes."""

SCANS_MAX = 1000
"""Scans of a JPEG of any size."""

PARTS_MAX = 50_000
"""Segments, chunks, blocks or boxes of a file before its pixels. 24 MB in chunks of 1 KiB are 24,000; libraries parse
them in Python, at 11 µs each."""

JUNK_BYTES_MAX = 1024 * 1024
"""Bytes between the segments of a JPEG. Pillow skips each in Python."""

TAGS_MAX = 1000
"""Tags of a TIFF directory. Images have 10 to 60; each damaged one logs a warning."""

DIRECTORIES_MAX = 2000
"""Directories of a TIFF: pages, reduced images and their children."""

ITEMS_MAX = 4096
"""Items of a HEIC or AVIF. A photo of 48 MP in tiles of 512 has 192 tiles and about 20 other items."""

RLE_BYTES_MAX = 2 * 1024 * 1024
"""Bytes of the pixels of a run-length coded BMP, which Pillow decodes in Python: 2 MiB take up to 2 s."""

DEPTH_MAX = 8
"""Levels of boxes, and of images that are derived from others."""


def check(data: bytes, max_pixels: int) -> None:
    """Checks the content of a file that claims to be in one of the accepted formats; other content passes.

    max_pixels: of one image. Raises ResolutionTooHigh and DecodingLimit. A damaged file passes as far as it can be
    read: the decoder reports the damage.
    """
    for magic, offset, checked in _FORMATS:
        if data.startswith(magic, offset):
            try:
                checked(data, max_pixels)
            except (struct.error, IndexError, ValueError, OverflowError):
                return
            return


def check_coded(width: int, height: int, max_pixels: int) -> None:
    """Checks the size of a coded image or of one of its tiles. Raises ResolutionTooHigh."""
    if width * height > max_pixels * CODED_MARGIN:
        raise ResolutionTooHigh(
            f"The file stores {width * height / 1e6:.3g} megapixels. "
            f"At most {max_pixels / 1e6:g} megapixels are accepted; reduce the image."
        )


def check_side(width: int, height: int) -> None:
    """Raises ResolutionTooHigh for a side that is too long."""
    if max(width, height) > SIDE_MAX:
        raise ResolutionTooHigh(
            f"The image has {width} x {height} pixels. A side may have at most {SIDE_MAX} pixels; split the image."
        )


def _check_count(count: int, maximum: int, what: str) -> None:
    if count > maximum:
        raise DecodingLimit(
            f"The file has more than {maximum} {what}, which no ordinary image has; export the image again."
        )


# JPEG (ITU-T T.81)

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def _check_jpeg(data: bytes, max_pixels: int) -> None:
    """Counts the scans, each weighted by the image's pixels, and what precedes the first one."""
    position, junk, parts, scans, pixels = 2, 0, 0, 0, 0
    while found := _NEXT_MARKER.search(data, position):
        start, marker = found.start(), data[found.start() + 1]
        if not scans:
            junk += start - position
            parts += 1
            _check_count(junk, JUNK_BYTES_MAX, "bytes between the segments of a JPEG")
            _check_count(parts, PARTS_MAX, "segments")
        position = start + 2
        if marker == 0xD9 and scans:
            return
        if marker in _WITHOUT_LENGTH or marker == 0xD9:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            pixels = width * height
            check_coded(width, height, max_pixels)
        elif marker == 0xDA:
            scans += 1
            _check_count(scans, SCANS_MAX, "scans")
            if scans * pixels > SCANS * max_pixels:
                raise DecodingLimit(
                    f"The JPEG has more than {scans - 1} scans of {pixels / 1e6:.3g} megapixels; save it as a baseline "
                    "JPEG, which has one."
                )
        position += length


# PNG (W3C, third edition)


def _check_png(data: bytes, _max_pixels: int) -> None:
    if data[12:16] == b"IHDR":  # else the decoder reports the damage, or names the kind
        width, height = struct.unpack_from(">II", data, 16)
        check_side(width, height)
    position, count = 8, 0
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        position += 12 + length
        count += 1
        _check_count(count, PARTS_MAX, "chunks")


# GIF89a


def _check_gif(data: bytes, max_pixels: int) -> None:
    """Checks the canvas, the first frame and what precedes it; only that frame is decoded."""
    position, count = 13 + _gif_colours(data[10]), 0
    width, height = struct.unpack_from("<HH", data, 6)
    check_coded(width, height, max_pixels)
    while data[position] != 0x2C:
        position += 2 if data[position] == 0x21 else 1
        while data[position - 1] and position < len(data) and (length := data[position]):
            position += length + 1
            count += 1
            _check_count(count, PARTS_MAX, "blocks before the first frame")
        position += 1
        count += 1
        _check_count(count, PARTS_MAX, "blocks before the first frame")
    left, top, width, height = struct.unpack_from("<HHHH", data, position + 1)
    check_coded(left + width, top + height, max_pixels)


def _gif_colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


# WebP (RFC 9649)


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Checks the canvas, each frame and each coded image."""
    position, count = 12, 0
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if name == b"VP8X":
            check_coded(1 + _u24(data, body + 4), 1 + _u24(data, body + 7), max_pixels)
        elif name == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            check_coded(width & 0x3FFF, height & 0x3FFF, max_pixels)
        elif name == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            check_coded(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), max_pixels)
        elif name == b"ANMF":
            check_coded(1 + _u24(data, body + 6), 1 + _u24(data, body + 9), max_pixels)
            length = 16  # its chunks follow
        position = body + length + length % 2
        count += 1
        _check_count(count, PARTS_MAX, "chunks")


def _u24(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 3], "little")


# TIFF 6.0 and BigTIFF

_WIDTH, _HEIGHT, _COMPRESSION, _STRIPS, _ROWS_PER_STRIP, _STRIP_SIZES = 256, 257, 259, 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES, _CHILDREN = 322, 323, 324, 325, 330
_JPEG_IN_TIFF = (6, 7)
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""struct's codes of the integer types, by the number of the type. libtiff accepts a size of any of them."""


@dataclass(frozen=True, slots=True)
class _Tiff:
    """A TIFF of either byte order; big: BigTIFF, with 8 bytes for each offset and count."""

    data: bytes
    order: str
    big: bool

    def directory(self, position: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Returns the integer tags of a directory and the position of the next one, 0 after the last.

        Raises DecodingLimit for too many tags, and for one that occurs twice: readers differ in which one they use.
        """
        count_code, offset_code, head, size = ("Q", "Q", 8, 20) if self.big else ("H", "I", 2, 12)
        (count,) = struct.unpack_from(self.order + count_code, self.data, position)
        _check_count(count, TAGS_MAX, "tags in a TIFF directory")
        tags: dict[int, tuple[int, ...]] = {}
        for entry in range(position + head, position + head + count * size, size):
            tag, kind, values = struct.unpack_from(f"{self.order}HH{offset_code}", self.data, entry)
            if tag in tags and tag in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _ROWS_PER_STRIP):
                raise DecodingLimit(f"The TIFF has the tag {tag} twice in one directory; export the image again.")
            tags[tag] = self._values(kind, values, entry + 4 + struct.calcsize(offset_code), offset_code)
        (following,) = struct.unpack_from(self.order + offset_code, self.data, position + head + count * size)
        return tags, following

    def _values(self, kind: int, count: int, position: int, offset_code: str) -> tuple[int, ...]:
        """Returns the values of a tag; () for another type than integers, and for values outside the file: libtiff
        ignores such a tag."""
        code = _TIFF_TYPES.get(kind, "")
        length = struct.calcsize("=" + code) * count
        if not code or length > len(self.data):
            return ()
        if length > struct.calcsize(offset_code):
            (position,) = struct.unpack_from(self.order + offset_code, self.data, position)
        if position + length > len(self.data):
            return ()
        return struct.unpack_from(f"{self.order}{count}{code}", self.data, position)


def _check_tiff(data: bytes, max_pixels: int) -> None:
    """Checks the tiles and strips of each directory, and the JPEG streams in them."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    tiff = _Tiff(data, order, big)
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    waiting, seen = [first], set[int]()
    while waiting:
        position = waiting.pop()
        if position == 0 or position in seen:
            continue
        seen.add(position)
        _check_count(len(seen), DIRECTORIES_MAX, "directories")
        try:
            tags, following = tiff.directory(position)
        except (struct.error, OverflowError):
            continue
        waiting += [following, *tags.get(_CHILDREN, ())]
        _check_tiles(data, tags, max_pixels)


def _check_tiles(data: bytes, tags: dict[int, tuple[int, ...]], max_pixels: int) -> None:
    width, height = (sum(tags.get(tag, ())[:1]) for tag in (_WIDTH, _HEIGHT))
    tile_width, tile_height = (sum(tags.get(tag, ())[:1]) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if tile_width and tile_height:
        check_coded(tile_width, tile_height, max_pixels)
        if width * height <= max_pixels:
            check_coded(_ceil(width, tile_width), _ceil(height, tile_height), max_pixels)
    if sum(tags.get(_COMPRESSION, ())[:1]) in _JPEG_IN_TIFF:
        offsets = (*tags.get(_STRIPS, ()), *tags.get(_TILES, ()))
        sizes = (*tags.get(_STRIP_SIZES, ()), *tags.get(_TILE_SIZES, ()))
        _check_count(len(offsets), PARTS_MAX, "strips or tiles")
        for offset, size in zip(offsets, sizes, strict=False):
            _check_jpeg(data[offset : offset + size], max_pixels)


def _ceil(size: int, step: int) -> int:
    """Rounds up to whole steps."""
    return -(-size // step) * step


# BMP


def _check_bmp(data: bytes, _max_pixels: int) -> None:
    (compression,) = struct.unpack_from("<I", data, 30)
    if compression in (1, 2):
        _check_count(len(data), RLE_BYTES_MAX, "bytes of run-length coded BMP")


# HEIC and AVIF (ISO/IEC 14496-12, 23008-12)


@dataclass(slots=True)
class _Items:
    """The items of a HEIC or AVIF, by id.

    kinds: four letters. properties: of each item. extents: the parts of the file that hold an item. parts: the items
    from which an item is derived.
    """

    data: bytes
    boxes: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    properties: dict[int, list[tuple[bytes, int, int]]] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    parts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    coded: dict[int, int] = field(default_factory=dict)

    def children(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Yields the type of each box between two positions, and the start and end of its body."""
        while start + 8 <= end:
            size, name = struct.unpack_from(">I4s", self.data, start)
            body = start + 8
            if size == 1:
                (size,) = struct.unpack_from(">Q", self.data, body)
                body += 8
            stop = end if size == 0 else min(start + size, end)
            self.boxes += 1
            _check_count(self.boxes, PARTS_MAX, "boxes")
            if stop < body:
                return
            yield name, body, stop
            start = stop

    def read_meta(self, start: int, end: int) -> None:
        inline = next((begin for name, begin, _ in self.children(start, end) if name == b"idat"), 0)
        for name, begin, stop in self.children(start, end):
            if name == b"iinf":
                self._read_kinds(begin, stop)
            elif name == b"iloc":
                self._read_extents(begin, inline)
            elif name == b"iprp":
                self._read_properties(begin, stop)
            elif name == b"iref":
                self._read_references(begin, stop)

    def _read_kinds(self, start: int, end: int) -> None:
        first = start + (6 if self.data[start] == 0 else 8)
        for name, begin, _ in self.children(first, end):
            if name == b"infe" and self.data[begin] >= 2:
                wide = self.data[begin] > 2
                number, _, kind = struct.unpack_from(">IH4s" if wide else ">HH4s", self.data, begin + 4)
                self.kinds[number] = kind
                _check_count(len(self.kinds), ITEMS_MAX, "items")

    def _read_extents(self, position: int, inline: int) -> None:
        data, version = self.data, self.data[position]
        offset_size, length_size, base_size = data[position + 4] >> 4, data[position + 4] & 15, data[position + 5] >> 4
        index_size = data[position + 5] & 15 if version else 0
        id_size = 4 if version == 2 else 2
        position += 6

        def number(size: int) -> int:
            nonlocal position
            position += size
            return int.from_bytes(data[position - size : position], "big")

        for _ in range(min(number(id_size), ITEMS_MAX)):
            item = number(id_size)
            method = number(2) & 15 if version else 0
            number(2)
            base = number(base_size) + (inline if method == 1 else 0)
            extents = []
            for _ in range(min(number(2), ITEMS_MAX)):
                number(index_size)
                offset = number(offset_size)
                extents.append((base + offset, number(length_size)))
            self.extents[item] = extents

    def _read_properties(self, start: int, end: int) -> None:
        boxes: list[tuple[bytes, int, int]] = []
        for name, begin, stop in self.children(start, end):
            if name == b"ipco":
                boxes = list(self.children(begin, stop))
        for name, begin, _ in self.children(start, end):
            if name == b"ipma":
                self._read_associations(begin, boxes)

    def _read_associations(self, position: int, boxes: list[tuple[bytes, int, int]]) -> None:
        code = ">I" if self.data[position] else ">H"
        wide = self.data[position + 3] & 1
        (count,) = struct.unpack_from(">I", self.data, position + 4)
        position += 8
        for _ in range(min(count, ITEMS_MAX)):
            (item,) = struct.unpack_from(code, self.data, position)
            position += struct.calcsize(code)
            for entry in range(position + 1, position + 1 + self.data[position] * (1 + wide), 1 + wide):
                index = struct.unpack_from(">H", self.data, entry)[0] & 0x7FFF if wide else self.data[entry] & 0x7F
                if 0 < index <= len(boxes):
                    self.properties.setdefault(item, []).append(boxes[index - 1])
            position += 1 + self.data[position] * (1 + wide)

    def _read_references(self, start: int, end: int) -> None:
        code, size = (">H", 2) if self.data[start] == 0 else (">I", 4)
        for name, begin, _ in self.children(start + 4, end):
            if name == b"dimg":
                (item,) = struct.unpack_from(code, self.data, begin)
                (count,) = struct.unpack_from(">H", self.data, begin + size)
                sources = struct.unpack_from(f">{count}{code[1]}", self.data, begin + size + 2)
                self.parts[item] = self.parts.get(item, ()) + sources

    def pixels(self, item: int, depth: int = 0) -> int:
        """Returns the pixels that are decoded for an item: a source that is used twice is decoded twice."""
        _check_count(depth, DEPTH_MAX, "levels of derived images")
        if item not in self.coded:
            if sources := self.parts.get(item):
                self.coded[item] = sum(self.pixels(one, depth + 1) for one in sources)
            else:
                self.coded[item] = max((w * h for w, h in self._sizes(item)), default=0)
        return self.coded[item]

    def _sizes(self, item: int) -> Iterator[tuple[int, int]]:
        """Yields every width and height in the bit stream of an item."""
        start, length = next(iter(self.extents.get(item, ())), (0, 0))
        content = self.data[start : start + length] if length else self.data[start:]
        kind, nal_length = self.kinds.get(item, b""), 4
        for name, begin, stop in self.properties.get(item, ()):
            if name == b"ispe":
                yield struct.unpack_from(">II", self.data, begin + 4)
            elif name == b"av1C":
                yield from _av1_sizes(self.data[begin + 4 : stop])
            elif name == b"hvcC":
                nal_length = 1 + (self.data[begin + 21] & 3)
                yield from _hvcc_sizes(self.data[begin:stop])
        if kind == b"av01":
            yield from _av1_sizes(content)
        elif kind in (b"hvc1", b"hev1"):
            yield from _hevc_sizes(content, nal_length)


def _check_heif(data: bytes, max_pixels: int) -> None:
    """Checks the coded size of every item, and of the first sample of every track."""
    items = _Items(data)
    for name, begin, stop in items.children(0, len(data)):
        if name == b"meta":
            items.read_meta(begin + 4, stop)
        elif name == b"moov":
            for width, height in _track_sizes(items, begin, stop):
                check_coded(width, height, max_pixels)
    for item in items.kinds:
        try:
            pixels = items.pixels(item)
        except (struct.error, IndexError):
            continue
        check_coded(pixels, 1, max_pixels)


_CONTAINERS = (b"trak", b"mdia", b"minf", b"stbl")


def _track_sizes(items: _Items, start: int, end: int, depth: int = 0) -> Iterator[tuple[int, int]]:
    """Yields the sizes in the first sample of each track of an image sequence."""
    for name, begin, stop in items.children(start, end):
        if name in _CONTAINERS and depth < DEPTH_MAX:
            yield from _track_sizes(items, begin, stop, depth + 1)
        elif name in (b"stco", b"co64"):
            (offset,) = struct.unpack_from(">I" if name == b"stco" else ">Q", items.data, begin + 8)
            yield from _av1_sizes(items.data[offset:])


@dataclass(slots=True)
class _Bits:
    """Reads bits, the highest first. Raises IndexError at the end."""

    data: bytes
    position: int = 0

    def read(self, count: int) -> int:
        end = self.position + count
        if end > 8 * len(self.data):
            raise IndexError
        first, last = self.position // 8, -(-end // 8)
        self.position = end
        return int.from_bytes(self.data[first:last], "big") >> (8 * last - end) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


_OBU_SEQUENCE_HEADER = 1


def _av1_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the maximum frame size of each AV1 sequence header (AV1 specification, 5.5) in a series of OBUs."""
    position = 0
    for _ in range(PARTS_MAX):
        if position >= len(data):
            return
        kind, extended, sized = data[position] >> 3 & 15, data[position] & 4, data[position] & 2
        position += 2 if extended else 1
        length = len(data)
        if sized:
            length, position = _leb128(data, position)
        if kind == _OBU_SEQUENCE_HEADER:
            yield _av1_size(_Bits(data[position : position + 256]))
        position += length


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """Returns a number and the position behind it."""
    value = 0
    for shift in range(0, 56, 7):
        value |= (data[position] & 0x7F) << shift
        position += 1
        if not data[position - 1] & 0x80:
            break
    return value, position


def _av1_size(bits: _Bits) -> tuple[int, int]:
    bits.read(4)
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        delay, model = 0, 0
        if bits.read(1):  # timing_info
            bits.read(64)
            if bits.read(1):
                bits.exp_golomb()
            model = bits.read(1)
            if model:
                delay = 1 + bits.read(5)
                bits.read(42)
        display = bits.read(1)
        for _ in range(1 + bits.read(5)):
            bits.read(12)
            if bits.read(5) > 7:
                bits.read(1)
            if model and bits.read(1):
                bits.read(2 * delay + 1)
            if display and bits.read(1):
                bits.read(4)
    width_bits, height_bits = 1 + bits.read(4), 1 + bits.read(4)
    return 1 + bits.read(width_bits), 1 + bits.read(height_bits)


_NAL_SPS = 33


def _hvcc_sizes(box: bytes) -> Iterator[tuple[int, int]]:
    """Yields the sizes of the sequence parameter sets in a decoder configuration record."""
    position = 23
    for _ in range(box[22]):
        (count,) = struct.unpack_from(">H", box, position + 1)
        position += 3
        for _ in range(count):
            (length,) = struct.unpack_from(">H", box, position)
            yield from _nal_size(box[position + 2 : position + 2 + min(length, 256)])
            position += 2 + length


def _hevc_sizes(data: bytes, nal_length: int) -> Iterator[tuple[int, int]]:
    """Yields the sizes of the sequence parameter sets in a series of NAL units."""
    position, count = 0, 0
    while position + nal_length < len(data):
        length = int.from_bytes(data[position : position + nal_length], "big")
        position += nal_length
        yield from _nal_size(data[position : position + min(length, 256)])
        position += length
        count += 1
        _check_count(count, PARTS_MAX, "NAL units")


def _nal_size(nal: bytes) -> Iterator[tuple[int, int]]:
    """Yields the size of a sequence parameter set (ITU-T H.265, 7.3.2.2); none of another NAL unit."""
    if len(nal) < 2 or nal[0] >> 1 & 63 != _NAL_SPS:
        return
    bits = _Bits(nal[2:].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 96)
    present = [bits.read(2) for _ in range(8)][:layers] if layers else []
    for one in present:
        bits.read(88 * (one >> 1) + 8 * (one & 1))
    bits.exp_golomb()
    if bits.exp_golomb() == 3:  # chroma_format_idc
        bits.read(1)
    yield bits.exp_golomb(), bits.exp_golomb()


_FORMATS: tuple[tuple[bytes, int, Callable[[bytes, int], None]], ...] = (
    (b"\xff\xd8", 0, _check_jpeg),
    (b"\x89PNG", 0, _check_png),
    (b"GIF8", 0, _check_gif),
    (b"WEBP", 8, _check_webp),
    (b"II", 0, _check_tiff),
    (b"MM", 0, _check_tiff),
    (b"BM", 0, _check_bmp),
    (b"ftyp", 4, _check_heif),
)
"""The first bytes of each format, their position, and the check."""
