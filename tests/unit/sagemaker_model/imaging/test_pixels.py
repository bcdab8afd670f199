from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from maskdrop.errors import (
    EmptyFile,
    FileTooLarge,
    MaskdropError,
    ResolutionTooHigh,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.output import Channels, Format, Output
from sagemaker_model.imaging.encode import SIDE_MAX, encode
from sagemaker_model.imaging.pixels import Limits, decode

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)

QUARTERS = np.zeros((40, 60, 3), np.uint8)
QUARTERS[:20, :30] = (250, 10, 10)  # red at the top left
QUARTERS[:20, 30:] = (10, 250, 10)
QUARTERS[20:, :30] = (10, 10, 250)

STORED_AS = {  # how a camera stores an upright image under each orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_a_rotated_image_is_set_upright_once(kind: str, orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](QUARTERS)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    found = decode(saved(stored, kind, exif=exif, **options), LIMITS).rgb
    assert found.shape == QUARTERS.shape
    assert np.abs(found.astype(int) - QUARTERS)[2:18, 2:28].mean() < 8


def test_an_invalid_orientation_counts_as_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert np.array_equal(decode(saved(Image.fromarray(QUARTERS), "PNG", exif=exif), LIMITS).rgb, QUARTERS)


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    ramp = np.linspace(0, 65535, 256 * 4).reshape(4, 256).astype(np.uint16)
    found = decode(saved(Image.fromarray(ramp), "PNG"), LIMITS).rgb
    assert np.array_equal(found[..., 0], ramp >> 8)


def test_transparency_becomes_alpha_and_hidden_colours_become_white() -> None:
    rgba = np.dstack((QUARTERS, np.full((40, 60), 255, np.uint8)))
    rgba[:20, :30, 3] = 0
    decoded = decode(saved(Image.fromarray(rgba), "PNG"), LIMITS)
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, rgba[..., 3])
    assert (decoded.rgb[:20, :30] == 255).all()
    assert np.array_equal(decoded.rgb[20:], QUARTERS[20:])


def test_an_opaque_alpha_channel_is_dropped() -> None:
    rgba = Image.fromarray(QUARTERS).convert("RGBA")
    assert decode(saved(rgba, "PNG"), LIMITS).alpha is None


def test_a_palette_with_a_transparent_colour_is_decoded() -> None:
    palette = Image.fromarray(QUARTERS).quantize(8)
    transparent = palette.getpixel((0, 0))
    decoded = decode(saved(palette, "PNG", transparency=transparent), LIMITS)
    assert decoded.alpha is not None
    assert decoded.alpha[5, 5] == 0
    assert decoded.alpha[30, 5] == 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_is_converted_to_rgb(mode: str) -> None:
    image = Image.fromarray(QUARTERS).convert(mode)
    decoded = decode(saved(image, "TIFF" if mode == "CMYK" else "PNG"), LIMITS)
    assert decoded.rgb.shape == QUARTERS.shape
    assert decoded.rgb.dtype == np.uint8


def test_cmyk_is_not_inverted() -> None:
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert decode(saved(white, "JPEG"), LIMITS).rgb.min() >= 250


def test_colours_are_converted_from_the_embedded_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    sound = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(saved(Image.fromarray(QUARTERS), "PNG", icc_profile=sound), LIMITS).warnings == ()
    wrong = decode(saved(Image.fromarray(QUARTERS), "PNG", icc_profile=profile), LIMITS)
    assert wrong.warnings[0].startswith("profile_ignored:")
    assert np.array_equal(wrong.rgb, QUARTERS)


def test_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    found = decode(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), LIMITS).rgb
    assert (found == (255, 0, 0)).all()


def test_the_resolution_is_kept_and_rotated_with_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(saved(Image.fromarray(QUARTERS), "PNG", dpi=(300, 150), exif=exif), LIMITS)
    assert decoded.dpi == pytest.approx((150, 300), rel=1e-3)


def test_an_empty_file_is_rejected() -> None:
    with pytest.raises(EmptyFile):
        decode(b"", LIMITS)


def test_a_file_above_the_limit_is_rejected_before_it_is_opened() -> None:
    with pytest.raises(FileTooLarge):
        decode(b"x" * 11, Limits(max_bytes=10, max_pixels=1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_a_resolution_above_the_limit_is_rejected(kind: str) -> None:
    data = saved(Image.new("RGB", (101, 100)), kind)
    with pytest.raises(ResolutionTooHigh):
        decode(data, Limits(max_bytes=len(data), max_pixels=10_000))


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "JPEG2000", "PDF", "EPS"])
def test_other_image_formats_are_rejected(kind: str) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(saved(Image.fromarray(QUARTERS), kind), LIMITS)


@pytest.mark.parametrize("data", [b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"8BPS\0\1", b"\0" * 100])
def test_data_that_is_not_an_image_is_rejected(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(data, LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_truncated_file_raises_an_error_that_is_not_retryable(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises((UnreadableImage, UnsupportedFormat)) as caught:
        decode(data[: len(data) // 2], LIMITS)
    assert not caught.value.retryable


def test_a_flipped_bit_in_a_png_is_detected() -> None:
    data = bytearray(saved(Image.fromarray(QUARTERS), "PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableImage):
        decode(bytes(data), LIMITS)


def test_a_text_chunk_that_decompresses_to_100_megabytes_is_not_read() -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"note\0\0" + zlib.compress(b"0" * 100_000_000))
    decoded = decode(saved(Image.fromarray(QUARTERS), "PNG", pnginfo=info), LIMITS)
    assert np.array_equal(decoded.rgb, QUARTERS)
    assert decoded.warnings == ()


@pytest.mark.parametrize("seed", range(200))
def test_any_damage_gives_an_image_or_an_error_that_is_not_retryable(seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")[seed % 7]
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(saved(Image.fromarray(QUARTERS), kind, **({} if kind in ("GIF", "BMP") else {"exif": exif})))
    for at in random.integers(0, len(data), 6):
        data[at] = random.integers(0, 256)
    try:
        assert decode(bytes(data), LIMITS).rgb.ndim == 3
    except MaskdropError as error:
        assert not error.retryable  # noqa: PT017


ALPHA = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (40, 1))


@pytest.mark.parametrize("kind", ["png", "webp", "avif"])
def test_alpha_is_encoded_losslessly(kind: Format) -> None:
    bands: list[tuple[Channels, str | int]] = [("rgba", "A"), ("alpha", 0)]
    for channels, band in bands:
        data = encode(QUARTERS, ALPHA, Output(kind, channels), None, {})
        with Image.open(io.BytesIO(data)) as result:
            assert result.format == kind.upper()
            assert np.array_equal(np.asarray(result.getchannel(band)), ALPHA)


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_a_jpeg_is_composited_on_white() -> None:
    with Image.open(io.BytesIO(encode(QUARTERS, ALPHA, Output("jpg"), None, {}))) as result:
        assert (result.format, result.mode) == ("JPEG", "RGB")
        found = np.asarray(result).astype(int)
    share = ALPHA[..., None] / 255
    assert np.abs(found - (QUARTERS * share + 255 * (1 - share))).mean() < 3
    assert (found[:, 0] >= 250).all()


def test_a_matte_as_jpeg_is_grey() -> None:
    with Image.open(io.BytesIO(encode(QUARTERS, ALPHA, Output("jpg", "alpha"), None, {}))) as result:
        assert result.mode == "L"
        assert np.abs(np.asarray(result).astype(int) - ALPHA).max() <= 3


def test_a_zip_holds_colours_and_an_exact_matte_of_one_size() -> None:
    files = unzipped(encode(QUARTERS, ALPHA, Output("zip"), (300, 150), {"engine": "selfie"}))
    assert list(files) == ["color.jpg", "alpha.png"]
    with Image.open(io.BytesIO(files["color.jpg"])) as colour, Image.open(io.BytesIO(files["alpha.png"])) as matte:
        assert (colour.format, colour.mode, colour.size) == ("JPEG", "RGB", (60, 40))
        assert (matte.format, matte.mode, matte.size) == ("PNG", "L", (60, 40))
        assert np.array_equal(np.asarray(matte), ALPHA)
        assert colour.info["dpi"] == (300, 150)


def test_a_zip_is_reproducible_byte_for_byte() -> None:
    assert encode(QUARTERS, ALPHA, Output("zip"), None, {}) == encode(QUARTERS, ALPHA, Output("zip"), None, {})


def test_the_colours_of_a_zip_continue_beyond_the_subject_without_the_old_background() -> None:
    alpha = np.zeros((200, 200), np.uint8)
    alpha[60:140, 60:140] = 255
    rgb = np.where(alpha[..., None] > 0, np.array([200, 30, 40], np.uint8), np.array([0, 255, 0], np.uint8))
    colour = unzipped(encode(rgb, alpha, Output("zip"), None, {}))["color.jpg"]
    with Image.open(io.BytesIO(colour)) as opened:
        found = np.asarray(opened).astype(int)
    assert np.abs(found[50:150, 50:150] - (200, 30, 40)).max() <= 6
    assert found[..., 1].max() <= 60


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_jpeg_and_webp_contain_their_colour_space_and_provenance(kind: Format) -> None:
    with Image.open(io.BytesIO(encode(QUARTERS, ALPHA, Output(kind), None, {"engine": "selfie"}))) as result:
        assert "sRGB" in ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(result.info["icc_profile"])))
        assert b'{"engine":"selfie"}' in result.info["xmp"]


@pytest.mark.parametrize(("dpi", "expected"), [((300, 150), (300, 150)), ((70_000, 70_000), None), (None, None)])
def test_a_jpeg_keeps_a_resolution_that_fits_its_header(
    dpi: tuple[float, float] | None, expected: tuple[int, int] | None
) -> None:
    with Image.open(io.BytesIO(encode(QUARTERS, ALPHA, Output("jpg"), dpi, {}))) as result:
        assert result.info.get("dpi") == expected


def test_colours_are_exact_where_visible_and_zero_elsewhere() -> None:
    with Image.open(io.BytesIO(encode(QUARTERS, ALPHA, Output(), None, {}))) as result:
        rgba = np.asarray(result)
    assert np.array_equal(rgba[..., :3][ALPHA > 0], QUARTERS[ALPHA > 0])
    assert not rgba[ALPHA == 0].any()


def test_a_png_contains_its_colour_space_resolution_and_provenance() -> None:
    data = encode(QUARTERS, ALPHA, Output(), (300, 150), {"engine": "selfie"})
    with Image.open(io.BytesIO(data)) as result:
        assert result.info["srgb"] == 1
        assert result.info["dpi"] == pytest.approx((300, 150), rel=1e-3)
        assert json.loads(result.text["maskdrop"]) == {"engine": "selfie"}  # type: ignore[attr-defined]
        assert set(result.info) == {"srgb", "dpi", "maskdrop"}


def test_every_chunk_of_a_png_has_a_correct_checksum() -> None:
    data = encode(QUARTERS, ALPHA, Output(), (300, 150), {"engine": "selfie"})
    at, names = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(body),)
        names.append(body[:4])
        at += 12 + length
    assert names[0] == b"IHDR"
    assert names[-1] == b"IEND"


@pytest.mark.parametrize("kind", SIDE_MAX)
def test_a_result_that_is_too_long_for_its_format_is_rejected_with_a_remedy(kind: Format) -> None:
    long = np.zeros((1, SIDE_MAX[kind] + 1), np.uint8)
    with pytest.raises(ResolutionTooHigh, match=f"at most {SIDE_MAX[kind]}. Use PNG"):
        encode(np.dstack((long, long, long)), long, Output(kind), None, {})


@pytest.mark.parametrize("kind", SIDE_MAX)
def test_a_result_of_the_longest_side_is_written(kind: Format) -> None:
    long = np.zeros((1, SIDE_MAX[kind]), np.uint8)
    assert encode(np.dstack((long, long, long)), long, Output(kind), None, {})


@pytest.mark.parametrize("shape", [(1, 1), (3000, 1), (1, 3000)])
@pytest.mark.parametrize("kind", ["png", "webp", "avif", "jpg", "zip"])
def test_very_thin_images_are_written(shape: tuple[int, int], kind: Format) -> None:
    data = encode(np.zeros((*shape, 3), np.uint8), np.full(shape, 255, np.uint8), Output(kind), None, {})
    with Image.open(io.BytesIO(unzipped(data)["color.jpg"] if kind == "zip" else data)) as result:
        assert result.size == shape[::-1]


@pytest.mark.parametrize("shape", [(1, 1), (63, 5), (64, 5), (65, 70), (200, 3)])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_a_png_of_any_height_holds_every_pixel(shape: tuple[int, int], channels: Channels) -> None:
    random = np.random.default_rng(0)
    rgb, alpha = random.integers(0, 256, (*shape, 3), np.uint8), random.integers(1, 256, shape, np.uint8)
    data = encode(rgb, alpha, Output("png", channels), None, {})
    with Image.open(io.BytesIO(data)) as reopened:
        reopened.verify()
    with Image.open(io.BytesIO(data)) as result:
        assert np.array_equal(np.asarray(result), alpha if channels == "alpha" else np.dstack((rgb, alpha)))


def test_an_image_higher_than_a_strip_keeps_its_rows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 7, 3), np.uint8)
    assert np.array_equal(decode(saved(Image.fromarray(noise), "PNG"), LIMITS).rgb, noise)


def bmp(alpha: np.ndarray, header: int, compression: int) -> bytes:
    """A 32-bit BMP: header of 40, 108 (V4) or 124 (V5) bytes; compression 0 (none), 3 or 6 (masks)."""
    pixels = np.dstack((QUARTERS[..., ::-1], alpha))[::-1].tobytes()
    info = struct.pack("<IiiHHIIiiII", header, 60, 40, 1, 32, compression, len(pixels), 2835, 2835, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    if header > 40:
        info = (info + masks + b"BGRs").ljust(header, b"\0")
    elif compression:
        info += masks[: 12 if compression == 3 else 16]
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + pixels


BMPS = [(40, 0), (40, 3), (40, 6), (108, 3), (124, 0), (124, 3)]


@pytest.mark.parametrize(("header", "compression"), BMPS)
@pytest.mark.parametrize("value", [0, 255])
def test_a_bmp_whose_alpha_is_0_everywhere_is_opaque(header: int, compression: int, value: int) -> None:
    decoded = decode(bmp(np.full((40, 60), value, np.uint8), header, compression), LIMITS)
    assert decoded.alpha is None
    assert np.array_equal(decoded.rgb, QUARTERS)


@pytest.mark.parametrize(("header", "compression"), [(40, 6), (108, 3), (124, 3)])
def test_a_bmp_that_declares_its_alpha_keeps_it(header: int, compression: int) -> None:
    alpha = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    decoded = decode(bmp(alpha, header, compression), LIMITS)
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, alpha)


@pytest.mark.parametrize(("compression", "name"), [(4, "JPEG"), (5, "PNG"), (11, "CMYK")])
def test_the_message_names_the_compression_of_a_bmp(compression: int, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"{name} compression"):
        decode(bmp(np.zeros((40, 60), np.uint8), 40, compression), LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_another_format_whose_alpha_is_0_everywhere_is_transparent(kind: str) -> None:
    rgba = np.dstack((QUARTERS, np.zeros((40, 60), np.uint8)))
    decoded = decode(saved(Image.fromarray(rgba), kind), LIMITS)
    assert decoded.alpha is not None
    assert decoded.alpha.max() == 0


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg xmlns='x'/>", "an SVG drawing"),
        (b"FUJIFILMCCD-RAW 0201", "a raw file of a camera"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a raw file of a camera"),
        (b"\0\0\0\x18ftypisom\0\0\0\1mp42isom", "a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"hello", "not an image"),
    ],
)
def test_the_message_names_the_kind_of_a_file_that_is_not_accepted(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        decode(data + bytes(20), LIMITS)
