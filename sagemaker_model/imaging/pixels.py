"""Decodes image files to upright sRGB pixels.

- The format is detected from the content, and of AVIF, HEIC and TIFF the kind within it.
- Orientation is applied once: EXIF's, and in AVIF and HEIC the rotation of the container alone.
- Colours are converted to sRGB from the embedded profile, or from the colour space that the file names by numbers.
- 16 bits a channel are reduced to 8 by keeping the upper byte.
- The first frame of an animation or of a file with several pages is decoded, never a thumbnail.
- Metadata that the pixels do not need is not read: damage to it does not reject the file.

`encode.py` writes the results.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pi_heif
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from maskdrop.errors import (
    EmptyFile,
    FileTooLarge,
    InputError,
    ResolutionTooHigh,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.sniff import HEAD, image_type, unsupported_kind
from sagemaker_model.imaging import budget
from sagemaker_model.imaging.colour import icc_profile, to_srgb
from sagemaker_model.imaging.composite import STRIP_ROWS
from sagemaker_model.imaging.isobmff import read_heif
from sagemaker_model.imaging.jpeg import COLOURS, decode_jpeg, unsupported_jpeg
from sagemaker_model.imaging.metadata import NO_METADATA, SourceMetadata, exif_of_tiff
from sagemaker_model.imaging.png import PngFile, read_png
from sagemaker_model.imaging.tiff import BITS, ORIENTATION, read_samples, read_tiff

try:
    import pylibjxl
except ImportError:  # no wheel for Linux on ARM
    pylibjxl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

ACCEPTED = "JPEG, PNG, WebP, TIFF, GIF, BMP, HEIC, AVIF or JPEG XL"

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Pillow's transpose for each EXIF orientation; any other value counts as upright."""

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one image file.

    max_bytes: checked before the file is opened. max_pixels: checked from its header, before any pixel is decoded.
    """

    max_bytes: int
    max_pixels: int

    def check_bytes(self, size: int) -> None:
        """Raises EmptyFile or FileTooLarge."""
        if size == 0:
            raise EmptyFile("The file is empty (0 bytes); upload an image file.")
        if size > self.max_bytes:
            raise FileTooLarge(
                f"The file has {size / 2**20:.1f} MiB; at most {self.max_bytes / 2**20:.0f} MiB are accepted."
            )

    def check_pixels(self, width: int, height: int) -> None:
        """Raises ResolutionTooHigh."""
        budget.check_side(width, height)
        if width * height > self.max_pixels:
            raise ResolutionTooHigh(f"The image has {width} x {height} pixels. {self.resolution_message}")

    def check_canvas(self, width: int, height: int) -> None:
        """Checks the size of a result, as that of an image. Raises ResolutionTooHigh."""
        if width * height > self.max_pixels or max(width, height) > budget.SIDE_MAX:
            raise ResolutionTooHigh(
                f"The result would have {width} x {height} pixels. At most {self.max_pixels / 1e6:g} megapixels are "
                f'accepted, and {budget.SIDE_MAX} on a side; reduce "output.canvas", "output.padding" or "output.crop".'
            )

    @property
    def resolution_message(self) -> str:
        return f"At most {self.max_pixels / 1e6:g} megapixels are accepted; reduce the image."


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright image.

    rgb: HxWx3 uint8, sRGB; white where the source is fully transparent, so that engines get no invisible colours.
    alpha: HxW uint8, the source's alpha; None if it is opaque.
    dpi: pixels an inch along x and y; None if the source has no resolution.
    metadata: the source's EXIF, XMP and IPTC, of which a result can keep a part.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    dpi: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    metadata: SourceMetadata = NO_METADATA


@dataclass(frozen=True, slots=True)
class Stored:
    """An image as its file stores it.

    colours: HxW grey or HxWx3 sRGB uint8 that need no conversion; or a Pillow image in mode L, RGB or CMYK.
    alpha: mode L. profile: an ICC profile. orientation: EXIF's, 1 to 8, that is still to be applied.
    dpi, metadata: as in DecodedImage, but dpi along the stored axes.
    """

    colours: Image.Image | Pixels
    alpha: Image.Image | None = None
    profile: bytes | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    metadata: SourceMetadata = NO_METADATA
    warnings: tuple[str, ...] = ()


def decode(data: bytes, limits: Limits) -> DecodedImage:
    """Decodes the first frame of an image file.

    Raises EmptyFile, FileTooLarge, ResolutionTooHigh, DecodingLimit, UnsupportedFormat or UnreadableImage.
    """
    limits.check_bytes(len(data))
    kind = image_type(data[:HEAD])
    if kind is None:
        name = unsupported_kind(data[:HEAD])
        raise UnsupportedFormat(f"The file is {name or 'not an image in an accepted format'}; send {ACCEPTED}.")
    budget.check(data, limits.max_pixels)
    try:
        return _upright(READERS[kind](data, limits))
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if kind == "image/jpeg" and (unsupported := unsupported_jpeg(data)):
            raise unsupported from error
        raise UnsupportedFormat(
            f"The header of the file ({kind}) is damaged or of a kind that is not supported; send {ACCEPTED}."
        ) from error
    except Image.DecompressionBombError as error:
        raise ResolutionTooHigh(limits.resolution_message) from error
    except Exception as error:  # of damaged files: OSError, ValueError, TypeError, SyntaxError and others
        if kind == "image/jpeg" and (unsupported := unsupported_jpeg(data)):
            raise unsupported from error
        raise UnreadableImage("The file is damaged or truncated and cannot be decoded; upload it again.") from error


def _open(data: bytes, form: str, limits: Limits) -> Image.Image:
    """Opens a file with Pillow, in one format, and checks its size."""
    opened = Image.open(io.BytesIO(data), formats=(form,))
    limits.check_pixels(*opened.size)
    return opened


def _jpeg(data: bytes, limits: Limits) -> Stored:
    with _open(data, "JPEG", limits) as opened:
        stored = _described(opened, opened.info.get("icc_profile"))
        if opened.mode not in COLOURS:
            opened.load()
            return replace(stored, colours=_without_alpha(opened))
        is_result = opened.mode == "RGB" and not stored.profile
        buffer = allocate((opened.height, opened.width, 3)) if is_result else None
        pixels, warnings = decode_jpeg(data, opened.mode, buffer)
    if stored.profile or opened.mode == "CMYK":
        return replace(stored, colours=as_image(pixels, opened.mode), warnings=warnings)
    return replace(stored, colours=pixels, warnings=warnings)


def _png(data: bytes, limits: Limits) -> Stored:
    png = read_png(data)
    with _open(png.data, "PNG", limits) as opened:
        opened.info |= {"exif": png.exif} if png.exif else {"xmp": png.xmp} if png.xmp else {}
        if png.depth == 16 and (png.space or "transparency" in opened.info):
            return replace(_described(opened, png.profile, png.warnings), **_sixteen_bits(png, opened))
        opened.load()
        return _loaded(opened, png.profile, png.warnings)


def _sixteen_bits(png: PngFile, opened: Image.Image) -> dict[str, Any]:
    """Colours, alpha and profile of a 16-bit PNG that is not in sRGB, or of which one colour is transparent, by OpenCV:
    Pillow reads the upper byte only."""
    samples: Any = cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16 or samples.shape[:2] != opened.size[::-1]:
        raise UnreadableImage("The PNG file is damaged and cannot be decoded; upload it again.")
    colours = np.ascontiguousarray(samples if samples.ndim == 2 else samples[..., 2::-1])
    alpha = None
    if "transparency" in opened.info:
        same = np.atleast_3d(colours == np.array(opened.info["transparency"])).all(axis=2)
        alpha = Image.fromarray(np.where(same, np.uint8(0), np.uint8(255)))
    elif samples.ndim == 3 and samples.shape[2] == 4:
        alpha = Image.fromarray((samples[..., 3] >> 8).astype(np.uint8))
    if png.space is None:
        return {"colours": as_image((colours >> 8).astype(np.uint8)), "alpha": alpha}
    signal, space = png.space.to_8_bit(colours)
    return {"colours": as_image(np.ascontiguousarray(signal)), "alpha": alpha, "profile": icc_profile(space)}


def _tiff(data: bytes, limits: Limits) -> Stored:
    tiff = read_tiff(data)
    limits.check_pixels(*tiff.directory.size)
    if tiff.by_samples:
        colours, alpha = read_samples(tiff)
        metadata = SourceMetadata(exif_of_tiff(tiff.data))
        return Stored(colours, alpha, tiff.profile, tiff.orientation, tiff.dpi, metadata)
    try:
        opening = _open(tiff.data, "TIFF", limits)
    except UnidentifiedImageError as error:
        raise UnsupportedFormat(
            f"The TIFF file has {tiff.layout}, which is not supported; save it as grey, RGB or CMYK of 8 or 16 bits."
        ) from error
    with opening as opened:
        opened.load()  # Pillow applies the orientation of the directory
        twelve = tiff.directory.value(BITS) == 12
        pixels = Image.fromarray((np.asarray(opened) << 4).astype(np.uint16)) if twelve else opened
        stored = _loaded(pixels, opened.info.get("icc_profile") or tiff.profile)
        metadata = replace(stored.metadata, exif=exif_of_tiff(tiff.data))
    turned = ORIENTATION in tiff.directory.tags
    dpi = tiff.dpi if not turned or tiff.orientation < 5 or tiff.dpi is None else tiff.dpi[::-1]
    return replace(stored, orientation=1 if turned else tiff.orientation, dpi=dpi, metadata=metadata)


def _bmp(data: bytes, limits: Limits) -> Stored:
    compression = int.from_bytes(data[30:34], "little")
    if compression in BMP_COMPRESSIONS:
        raise UnsupportedFormat(
            f"The BMP file has {BMP_COMPRESSIONS[compression]} compression, which is not supported; send {ACCEPTED}."
        )
    if compression == BITFIELDS_WITH_ALPHA and data[14:18] == b"\x28\0\0\0":  # the same bytes as a header of 56
        data = data[:14] + b"\x38" + data[15:30] + b"\3" + data[31:]
    try:
        opening = _open(data, "BMP", limits)
    except OSError as error:
        if "Unsupported BMP" not in str(error):
            raise
        raise UnsupportedFormat(
            "The BMP file stores its channels in an order or width that is not supported; save it with 24 bits a pixel."
        ) from error
    with opening as opened:
        opened.load()
        stored = _loaded(opened, opened.info.get("icc_profile"))
    if stored.alpha and stored.alpha.getextrema() == (0, 0):
        return replace(stored, alpha=None)
    return stored


def _heif(data: bytes, limits: Limits) -> Stored:
    """AVIF by Pillow and HEIC by libheif, by the codec of the primary image."""
    described = read_heif(data)
    codec = described.codec or ("AVIF" if image_type(data[:HEAD]) == "image/avif" else "HEIF")
    if codec not in BRANDS:
        raise UnsupportedFormat(f"The HEIF file holds {codec}, which is not supported; send {ACCEPTED}.")
    if data[8:12] not in BRANDS[codec] or not described.sequence:
        data = data[:8] + BRANDS[codec][0] + data[12:]
    _register_heif()
    try:
        opening = _open(data, codec, limits)
    except UnidentifiedImageError as error:
        if not described.truncated:
            raise
        raise UnreadableImage("The file is truncated: it ends before its last box; upload the whole file.") from error
    with opening as opened:
        frames = getattr(opened, "n_frames", 1)  # not in Pillow's types
        if codec == "HEIF" and frames > 1:
            _check_frame(opened, frames - 1, limits)
        opened.load()
        metadata = _metadata(opened)
        opened.info.pop("xmp", None)  # the container alone rotates
        profile = opened.info.get("icc_profile")
        if profile or not described.space:
            return replace(_loaded(opened, profile), metadata=metadata)
        loaded = _loaded(opened, icc_profile(described.space), described.space.warnings)
        return replace(loaded, metadata=metadata)


def _jxl(data: bytes, limits: Limits) -> Stored:
    """JPEG XL. libjxl applies the orientation."""
    if pylibjxl is None:
        raise UnsupportedFormat("This machine does not read JPEG XL: pylibjxl is not installed. Send a JPEG or PNG.")
    header = pylibjxl.probe(data)
    limits.check_pixels(header["width"], header["height"])
    budget.check_side(header["width"], header["height"])
    pixels, described = pylibjxl.decode(data, metadata=True)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    alpha = None
    if header["has_alpha"] and pixels.shape[2] in (2, 4):
        alpha = Image.fromarray(np.ascontiguousarray(pixels[..., -1]))
        pixels = pixels[..., :-1]
    grey = pixels.shape[2] == 1
    colours = np.ascontiguousarray(pixels[..., 0] if grey else pixels[..., :3])
    return Stored(
        as_image(colours),
        alpha,
        described.get("icc"),
        metadata=SourceMetadata(described.get("exif", b""), described.get("xmp", b"")),
    )


def _other(form: str) -> Callable[[bytes, Limits], Stored]:
    def read(data: bytes, limits: Limits) -> Stored:
        with _open(data, form, limits) as opened:
            opened.load()
            return _loaded(opened, opened.info.get("icc_profile"))

    return read


READERS: dict[str, Callable[[bytes, Limits], Stored]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _other("WEBP"),
    "image/tiff": _tiff,
    "image/gif": _other("GIF"),
    "image/bmp": _bmp,
    "image/heic": _heif,
    "image/avif": _heif,
    "image/jxl": _jxl,
}
"""The decoder of each content type that `maskdrop.sniff` detects."""

BMP_COMPRESSIONS = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
"""Names of compressions of BMP that are not decoded. They are meant for printers."""

BITFIELDS_WITH_ALPHA = 6
"""Compression of a BMP of Windows CE: four masks follow the header of 40 bytes. Pillow reads them in longer headers."""

BRANDS = {
    "AVIF": (b"avif", b"avis", b"mif1", b"msf1"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
}
"""Major brands that the plugin of each codec opens. Others are replaced by the first."""


def _check_frame(opened: Image.Image, number: int, limits: Limits) -> None:
    """Decodes a frame. The last one fails if the HEIF file is truncated; the first one can still be complete."""
    first = opened.tell()
    opened.seek(number)
    limits.check_pixels(*opened.size)
    opened.load()
    opened.seek(first)


@lru_cache(maxsize=1)
def _register_heif() -> None:
    pi_heif.register_heif_opener()


def _described(opened: Image.Image, profile: bytes | None, warnings: Iterable[str] = ()) -> Stored:
    """What the header of an open file says, without its pixels."""
    return Stored(opened, None, profile, _orientation(opened), _dpi(opened), _metadata(opened), tuple(warnings))


def _metadata(opened: Image.Image) -> SourceMetadata:
    info = opened.info
    xmp, photoshop = info.get("xmp", b""), info.get("photoshop")
    return SourceMetadata(
        info.get("exif") or b"",
        xmp if isinstance(xmp, bytes) else b"",
        photoshop.get(_IPTC, b"") if isinstance(photoshop, dict) else b"",
    )


_IPTC = 0x0404
"""Photoshop's resource with the records of IPTC-IIM, in a JPEG."""


def _loaded(opened: Image.Image, profile: bytes | None, warnings: Iterable[str] = ()) -> Stored:
    """The pixels of a loaded image with its header."""
    alpha = opened.convert("RGBA").getchannel("A") if opened.has_transparency_data else None
    return replace(_described(opened, profile, warnings), colours=_without_alpha(opened), alpha=alpha)


def _upright(stored: Stored) -> DecodedImage:
    """Applies the colour profile and the orientation."""
    warnings = list(stored.warnings)
    transpose = _TRANSPOSES.get(stored.orientation)
    alpha = stored.alpha
    if isinstance(stored.colours, Image.Image):
        colours = to_srgb(stored.colours, stored.profile, warnings)
        rgb = _to_array(colours if transpose is None else colours.transpose(transpose))
    else:
        grey = stored.colours.ndim == 2
        rgb = np.asarray(cv2.cvtColor(stored.colours, cv2.COLOR_GRAY2RGB), np.uint8) if grey else stored.colours
        if transpose is not None:
            rgb = np.asarray(_TURNS[stored.orientation](rgb), np.uint8)
    if alpha is not None and transpose is not None:
        alpha = alpha.transpose(transpose)
    transparency = None if alpha is None else np.array(alpha)
    if transparency is not None:
        rgb[transparency == 0] = 255
        if transparency.min() == 255:
            transparency = None
    dpi = stored.dpi if stored.orientation < 5 or stored.dpi is None else stored.dpi[::-1]
    return DecodedImage(rgb, transparency, dpi, tuple(warnings), stored.metadata.bounded())


_TURNS: dict[int, Callable[[Pixels], MatLike]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.flip(pixels, -1),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""_TRANSPOSES for arrays, by OpenCV: NumPy takes ten times as long."""


def _orientation(opened: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. The decoders of HEIF and TIFF rotate the image themselves and report 1."""
    try:
        value = int(opened.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception as error:  # noqa: BLE001 - damaged EXIF raises any exception; the image is usable without it
        log.info("EXIF ignored: %s", error)
        return 1
    return value if value in _TRANSPOSES else 1


def as_image(pixels: Image.Image | Pixels, mode: str = "") -> Image.Image:
    """A Pillow image of HxW (L), HxWx3 (RGB) or HxWx4 (CMYK) uint8."""
    if isinstance(pixels, Image.Image):
        return pixels
    mode = mode or ("L" if pixels.ndim == 2 else "RGB")
    return Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), pixels, "raw", mode, 0, 1)


def _without_alpha(opened: Image.Image) -> Image.Image:
    """The colours in a mode that a profile can be applied to: L, RGB or CMYK, 8 bits a channel."""
    if opened.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))  # Pillow's convert clips at 255
    if opened.mode in ("I", "F"):
        raise UnsupportedFormat("The image has 32 bits a channel; send 8 or 16 bits a channel.")
    if opened.mode in ("L", "RGB", "CMYK"):
        return opened
    return opened.convert("L" if opened.mode in ("1", "LA", "La") else "RGB")


def allocate(shape: tuple[int, ...]) -> Pixels:
    """Returns a new array for decoded pixels; a decoder process replaces the function (serving/decoding.py)."""
    return np.empty(shape, np.uint8)


def _to_array(image: Image.Image) -> Pixels:
    """Converts an RGB image to HxWx3 uint8, in strips: 12 MP take 9 ms.

    np.array(image) takes four times as long and holds the image in memory three times.
    """
    width, height = image.size
    pixels = allocate((height, width, 3))
    for top in range(0, height, STRIP_ROWS):
        pixels[top : top + STRIP_ROWS] = np.asarray(image.crop((0, top, width, min(top + STRIP_ROWS, height))))
    return pixels


def _dpi(opened: Image.Image) -> tuple[float, float] | None:
    """The resolution along x and y in pixels an inch; None if it is missing or not in 1..100,000."""
    try:
        x, y = (float(v) for v in opened.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(v) and 1 <= v <= 100_000 for v in (x, y)):
        return None
    return x, y
