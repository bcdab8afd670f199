"""Chooses the image of a TIFF file and reads the layouts that Pillow does not (Adobe TIFF 6.0, supplements, BigTIFF).

A TIFF file holds a chain of directories, each an image with its tags; a directory can refer to further ones (SubIFDs).
Cameras, scanners and Photoshop store thumbnails as directories, often the first. The full image is decoded, never the
thumbnail. Raw files are TIFF files, too; they are rejected by name.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop.errors import UnreadableImage, UnsupportedFormat
from sagemaker_model.imaging.colour import PROFILE_BYTES_MAX, lab_to_rgb

Pixels = NDArray[np.uint8]
Samples = NDArray[Any]
"""uint8 or uint16."""

DIRECTORIES_MAX = 64
"""Directories that are searched for the full image."""

SAMPLES_MAX = 16
"""Samples of a pixel in layouts that are read by planes: each takes memory of the image's size."""

TAGS_MAX = 4096
"""Tags of a directory that are read; a longer list is damaged."""

VALUES_MAX = 2**20
"""Values of a tag that are read. One value is an offset of a strip: 1,000,000 rows."""

_TYPES = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
"""struct's format of each type of a value; rationals (5, 10) are pairs."""

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, X_DPI, Y_DPI, PLANAR, DPI_UNIT = (
    273,
    274,
    277,
    278,
    279,
    282,
    283,
    284,
    296,
)
PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_DIRECTORIES = 317, 322, 323, 324, 325, 330
EXTRA, SAMPLE_FORMAT, JPEG_TABLES, ICC, DNG_VERSION = 338, 339, 347, 34675, 50706

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK, LAB, ICC_LAB = 0, 1, 2, 5, 8, 9

RAW_PHOTOMETRIC = {32803, 34892}
"""Colour filter array and LinearRaw (DNG)."""

RAW_COMPRESSION = {32767, 32769, 34713, 65000, 65535}
"""Compression of Sony, of packed raw data, of Nikon, Kodak and Pentax."""

COMPRESSIONS = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    32766: "NeXT",
    32809: "ThunderScan",
    32895: "IT8",
    32908: "PixarFilm",
    33003: "JPEG 2000 (Aperio)",
    33005: "JPEG 2000 (Aperio)",
    34661: "JBIG",
    34676: "SGILog",
    34677: "SGILog24",
    34712: "JPEG 2000",
    34715: "JBIG2",
    34892: "lossy JPEG (DNG)",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Names of compressions that are not decoded. Pillow's libtiff decodes LZW, deflate, PackBits, JPEG, CCITT, LZMA, ZSTD
and LERC."""

_BYTE_STREAMS = {1, 5, 8, 32946, 32773, 34925, 50000}
"""Compressions of a plain sequence of samples: none, LZW, deflate, PackBits, LZMA and ZSTD."""

_STRUCTURE = {
    *range(256, 260),
    262,
    266,
    *range(273, 280),
    284,
    292,
    293,
    317,
    320,
    *range(322, 326),
    338,
    339,
    347,
    530,
    531,
}
"""Tags that describe the pixels."""

_SAMPLE_KINDS = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}

_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4, 8: 3, 9: 3}
"""Colour samples of a pixel by PhotometricInterpretation."""

Tags = Mapping[int, tuple[int | float, ...]]


@dataclass(frozen=True, slots=True)
class Directory:
    """One image of a TIFF file. offset: of its directory. tags: values by number; rationals as floats."""

    offset: int
    tags: Tags

    def value(self, tag: int, default: int = 0) -> int:
        return int(self.tags.get(tag, (default,))[0])

    @property
    def size(self) -> tuple[int, int]:
        return self.value(WIDTH), self.value(HEIGHT)

    @property
    def reduced(self) -> bool:
        """A thumbnail or a mask by its flag."""
        return bool(self.value(SUBFILE) & 5) or self.value(OLD_SUBFILE, 1) == 2

    @property
    def raw(self) -> bool:
        return (
            DNG_VERSION in self.tags
            or self.value(PHOTOMETRIC) in RAW_PHOTOMETRIC
            or self.value(COMPRESSION, 1) in RAW_COMPRESSION
        )


@dataclass(frozen=True, slots=True)
class TiffImage:
    """The full image of a TIFF file.

    data: a TIFF file whose first directory is the image, for Pillow. directory: of the image. first: the
    first directory, whose orientation, resolution and profile also apply to SubIFDs.
    """

    data: bytes
    directory: Directory
    first: Directory

    @property
    def layout(self) -> str:
        """The arrangement of the pixels, for an error message."""
        value = self.directory.value
        return (
            f"{value(SAMPLES, 1)} samples of {value(BITS, 1)} bits, PhotometricInterpretation {value(PHOTOMETRIC)} and "
            f"compression {value(COMPRESSION, 1)}"
        )

    @property
    def by_samples(self) -> bool:
        """Whether `read_samples` must read the pixels, because Pillow does not know their layout."""
        return _by_samples(self.directory)

    @property
    def orientation(self) -> int:
        """EXIF's orientation, 1 to 8."""
        value = self._own(ORIENTATION).value(ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def profile(self) -> bytes | None:
        """The ICC profile; None if it has none."""
        values = self._own(ICC).tags.get(ICC)
        return bytes(int(value) & 255 for value in values) if values else None

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels an inch along the stored x and y; None without a unit."""
        directory = self._own(X_DPI)
        unit = {2: 1.0, 3: 2.54}.get(directory.value(DPI_UNIT, 2))
        x, y = (directory.tags.get(tag, (0.0,))[0] for tag in (X_DPI, Y_DPI))
        if not unit or not all(1 <= one * unit <= 100_000 for one in (x, y)):
            return None
        return x * unit, y * unit

    def _own(self, tag: int) -> Directory:
        return self.directory if tag in self.directory.tags else self.first


def read_tiff(data: bytes) -> TiffImage:
    """Chooses the directory of the full image.

    Raises UnsupportedFormat for raw files and for kinds of TIFF that are not decoded, each named, and UnreadableImage
    for a damaged directory.
    """
    try:
        directory = _chosen(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise UnreadableImage("The directory of the TIFF file is damaged; upload the file again.") from error
    _check_kind(directory)
    first = _first_offset(data)
    if data[:4] == b"MM\0+":  # Pillow does not read BigTIFF in this byte order
        entries = {tag: tuple(map(int, values)) for tag, values in directory.tags.items() if tag in _STRUCTURE}
        data, first_directory = _with_directory(data, entries), _directory(data, first)[0]
        return TiffImage(data, directory, first_directory)
    if directory.offset != first:
        big = data[:4] == b"II+\0"
        patched = bytearray(data)
        struct.pack_into(_order(data) + ("Q" if big else "I"), patched, 8 if big else 4, directory.offset)
        data = bytes(patched)
    return TiffImage(data, directory, _directory(data, first)[0])


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _first_offset(data: bytes) -> int:
    order = _order(data)
    (version,) = struct.unpack_from(order + "H", data, 2)
    return int(struct.unpack_from(order + ("Q" if version == 43 else "I"), data, 8 if version == 43 else 4)[0])


def _directory(data: bytes, offset: int) -> tuple[Directory, int]:
    """Reads a directory; returns it with the offset of the next one, 0 at the end."""
    order, big = _order(data), struct.unpack_from(_order(data) + "H", data, 2)[0] == 43
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    start, entry, inline = (offset + 8, 20, 8) if big else (offset + 2, 12, 4)
    if count > TAGS_MAX:
        raise ValueError(f"a directory has {count} tags")
    tags: dict[int, tuple[int | float, ...]] = {}
    for at in range(start, start + count * entry, entry):
        tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
        rational = kind in (5, 10)
        letter = {5: "I", 10: "i"}.get(kind) or _TYPES.get(kind)
        if letter is None or number == 0 or number > (PROFILE_BYTES_MAX if tag == ICC else VALUES_MAX):
            continue
        form = order + str(number * (2 if rational else 1)) + letter
        size = struct.calcsize(form)
        where = at + entry - inline
        if size > inline:
            (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, where)
        if where + size > len(data):
            continue
        values = struct.unpack_from(form, data, where)
        if rational:
            values = tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=True))
        tags[tag] = values
    end = start + count * entry
    following = 0
    if end + inline <= len(data):
        (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, end)
    return Directory(offset, tags), following


def _chain(data: bytes) -> Iterator[Directory]:
    offset, seen = _first_offset(data), set[int]()
    while offset and offset not in seen and len(seen) < DIRECTORIES_MAX:
        seen.add(offset)
        try:
            directory, offset = _directory(data, offset)
        except (struct.error, ValueError, OverflowError):
            if len(seen) == 1:
                raise
            return
        yield directory


def _chosen(data: bytes) -> Directory:
    """The directory of the full image. Raises UnsupportedFormat for raw files, UnreadableImage if there is none."""
    if data[8:10] == b"CR":
        raise _raw()
    chain = list(_chain(data))
    if not chain:
        raise UnreadableImage("The TIFF file has no image; upload it again.")
    below: list[Directory] = []
    missing = False
    offsets = [offset for one in chain for offset in one.tags.get(SUB_DIRECTORIES, ())]
    for offset in offsets:  # grows by those of SubIFDs
        if len(below) == DIRECTORIES_MAX:
            break
        try:
            below.append(_directory(data, int(offset))[0])
        except (struct.error, ValueError, OverflowError):
            missing = True
            continue
        offsets += below[-1].tags.get(SUB_DIRECTORIES, ())
    if any(one.raw for one in (*chain, *below)):
        raise _raw()
    first = chain[0]
    later = [one for one in (*chain[1:], *below) if not one.reduced and min(one.size) > 0]
    if not first.reduced:
        full = [one for one in later if _is_thumbnail_of(first, one, below)]
        return max(full, key=lambda one: one.size[0] * one.size[1]) if full else first
    if later:
        return later[0] if later[0] in chain else max(later, key=lambda one: one.size[0] * one.size[1])
    if missing:
        raise UnreadableImage("The TIFF file holds a thumbnail, and its full image is missing; upload the whole file.")
    return first


def _raw() -> UnsupportedFormat:
    return UnsupportedFormat(
        "The file is a raw file of a camera (DNG, NEF, CR2, ARW or another), which is not supported; develop it and "
        "send a JPEG, PNG or TIFF."
    )


def _is_thumbnail_of(small: Directory, full: Directory, below: list[Directory]) -> bool:
    """Whether `small` is a thumbnail of a SubIFD without the flag: half as long or less. Pages of a chain are pages."""
    (width, height), (full_width, full_height) = small.size, full.size
    return full in below and full_width >= 2 * width and full_height >= 2 * height


def _check_kind(directory: Directory) -> None:
    """Raises UnsupportedFormat, with a name, for a kind of TIFF that is not decoded."""
    compression = directory.value(COMPRESSION, 1)
    if compression in COMPRESSIONS:
        raise UnsupportedFormat(
            f"The TIFF file has {COMPRESSIONS[compression]} compression, which is not supported; save it without "
            "compression or with LZW, deflate or ZSTD."
        )
    bits, kind = directory.value(BITS, 1), directory.value(SAMPLE_FORMAT, 1)
    name = _SAMPLE_KINDS.get(kind, "integers")
    if bits not in (1, 2, 4, 8, 12, 16) or (kind in _SAMPLE_KINDS and not (kind == 2 and bits == 8)):
        raise UnsupportedFormat(
            f"The TIFF file has {bits} bits a channel, {name}; send unsigned integers of 8 or 16 bits a channel."
        )
    photometric = directory.value(PHOTOMETRIC)
    if photometric not in (0, 1, 2, 3, 5, 6, 8, 9):
        raise UnsupportedFormat(
            f"The TIFF file has the PhotometricInterpretation {photometric}, which is not supported; save it as grey, "
            "RGB or CMYK."
        )


def _by_samples(directory: Directory) -> bool:
    value = directory.value
    photometric, samples, bits = value(PHOTOMETRIC), value(SAMPLES, 1), value(BITS, 1)
    if photometric not in _COLOURS or bits not in (8, 16):
        return False
    planar = value(PLANAR, 1) == 2 and value(COMPRESSION, 1) in _BYTE_STREAMS
    extra = samples - _COLOURS[photometric]
    unusual = planar or photometric in (LAB, ICC_LAB)
    unusual |= photometric == CMYK and extra > 0
    unusual |= photometric == WHITE_IS_ZERO and (bits == 16 or extra > 0)
    readable = bits == 16 or value(COMPRESSION, 1) in _BYTE_STREAMS
    unusual |= photometric == BLACK_IS_ZERO and extra > 0 and readable
    unusual |= photometric == RGB and extra > 1 and readable
    return unusual


def read_samples(image: TiffImage) -> tuple[Image.Image, Image.Image | None]:
    """Reads the colours (mode L, RGB or CMYK, not upright) and alpha, mode L, of a layout that Pillow does not read.

    Every plane is read as a grey image: of planar files each on its own, of others all samples of a row side by side.
    """
    directory = image.directory
    value = directory.value
    width, height = directory.size
    samples, bits, photometric = value(SAMPLES, 1), value(BITS, 1), value(PHOTOMETRIC)
    compression = value(COMPRESSION, 1)
    if samples > SAMPLES_MAX:
        raise UnsupportedFormat(f"The TIFF file has {samples} samples a pixel; at most {SAMPLES_MAX} are supported.")
    if compression not in _BYTE_STREAMS or value(PREDICTOR, 1) not in (1, 2):
        raise UnsupportedFormat(
            "The TIFF file combines this order of samples with a compression that is not supported; save it with "
            "PlanarConfiguration 1 (chunky), or without compression."
        )
    if value(PLANAR, 1) == 2:
        stack = np.stack([_plane(image, index, 1) for index in range(samples)], axis=-1)
    else:
        stack = _plane(image, 0, samples).reshape(height, width, samples)
    if value(PREDICTOR, 1) == 2:
        stack = _undo_predictor(stack, value(TILE_WIDTH) or width)
    if bits == 16:
        stack = (stack >> 8).astype(np.uint8)
    count = _COLOURS[photometric]
    colours, extra = np.ascontiguousarray(stack[..., :count]), directory.tags.get(EXTRA, ())
    alpha = None
    kinds = dict(zip(range(count, samples), extra, strict=False))
    if at := next((index for index, kind in kinds.items() if kind in (1, 2)), 0):
        alpha = np.ascontiguousarray(stack[..., at])
        if kinds[at] == 1:
            colours = _unmultiplied(colours, alpha)
    matte = None if alpha is None else Image.fromarray(alpha)
    if photometric in (LAB, ICC_LAB):
        if photometric == LAB:
            colours[..., 1:] ^= 0x80
        return lab_to_rgb(colours), matte
    if photometric == WHITE_IS_ZERO:
        colours = ~colours
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[count]
    return Image.frombytes(mode, (width, height), colours.tobytes()), matte


def _unmultiplied(colours: Pixels, alpha: Pixels) -> Pixels:
    """Divides associated colours by alpha."""
    share = np.maximum(alpha, 1)[..., None].astype(np.uint16)
    divided = np.minimum((colours.astype(np.uint16) * 255 + share // 2) // share, 255)
    return np.asarray(divided, np.uint8)


def _undo_predictor(stack: Samples, tile: int) -> Samples:
    """Sums the differences between neighbours of a row, from the left edge of each tile."""
    for left in range(0, stack.shape[1], tile):
        part = stack[:, left : left + tile]
        stack[:, left : left + tile] = np.cumsum(part, axis=1, dtype=part.dtype)
    return stack


def _plane(image: TiffImage, index: int, samples: int) -> Samples:
    """Reads one plane of HxW·samples through Pillow, from a directory that calls it grey."""
    tags, data = image.directory.tags, image.data
    width, height = image.directory.size
    value = image.directory.value
    tiled = TILES in tags
    places, sizes = (TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES)
    offsets, counts = tags.get(places, ()), tags.get(sizes, ())
    if not offsets or len(offsets) != len(counts):
        raise UnreadableImage("The TIFF file lacks the places of its pixels; upload it again.")
    share = len(offsets) // value(SAMPLES, 1) if value(PLANAR, 1) == 2 else len(offsets)
    own = slice(index * share, (index + 1) * share)
    entries: dict[int, tuple[int, ...]] = {
        WIDTH: (width * samples,),
        HEIGHT: (height,),
        BITS: (value(BITS),),
        COMPRESSION: (value(COMPRESSION, 1),),
        PHOTOMETRIC: (1,),
        places: tuple(int(one) for one in offsets[own]),
        SAMPLES: (1,),
        sizes: tuple(int(one) for one in counts[own]),
    }
    if tiled:
        entries |= {TILE_WIDTH: (value(TILE_WIDTH) * samples,), TILE_HEIGHT: (value(TILE_HEIGHT),)}
    else:
        entries[ROWS] = (min(value(ROWS, height), height),)
    with Image.open(io.BytesIO(_with_directory(data, entries)), formats=("TIFF",)) as opened:
        opened.load()
        plane: Samples = np.array(opened)
        return plane


def _with_directory(data: bytes, entries: dict[int, tuple[int, ...]]) -> bytes:
    """Appends a directory of 32-bit values to a classic or BigTIFF file and makes it the first, as classic TIFF."""
    order = _order(data)
    start = len(data) + len(data) % 2
    blocks, table = b"", b""
    after = start + 2 + 12 * len(entries) + 4
    for tag in sorted(entries):
        values = entries[tag]
        form, kind = ("B", 7) if tag == JPEG_TABLES else ("I", 4)
        packed = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(packed) > 4:
            place = struct.pack(order + "I", after + len(blocks))
            blocks += packed
            packed = place
        table += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack(order + "H", len(entries)) + table + bytes(4) + blocks
    header = data[:2] + struct.pack(order + "HI", 42, start)
    return header + data[8:] + bytes(start - len(data)) + directory
