from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskdrop.errors import UnreadableImage, UnsupportedFormat
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode

LIMITS = Limits(max_bytes=32_000_000, max_pixels=1_000_000)

ROWS, COLUMNS = np.mgrid[0:96, 0:128]
RGB = np.dstack((128 + 100 * np.sin(ROWS / 9), 128 + 100 * np.cos(COLUMNS / 7), 255 - ROWS)).astype(np.uint8)
IMAGE = Image.fromarray(RGB)

KINDS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "4:4:4": {"subsampling": 0},
}


def jpeg(image: Image.Image = IMAGE, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def read(data: bytes) -> DecodedImage:
    return decode(data, LIMITS)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_pillow(kind: str, mode: str) -> None:
    data = jpeg(IMAGE.convert(mode), **KINDS[kind])
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    decoded = read(data)
    assert np.array_equal(decoded.rgb, expected)
    assert decoded.warnings == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lacks_only_its_end_marker_is_complete(kind: str, mode: str) -> None:
    data = jpeg(IMAGE.convert(mode), **KINDS[kind])
    decoded = read(data[:-2])
    assert np.array_equal(decoded.rgb, read(data).rgb)
    assert decoded.warnings == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", ["baseline", "restarts", "4:4:4"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["open", "closed"])
def test_a_file_that_lacks_pixels_is_rejected(kind: str, mode: str, share: float, end: bytes) -> None:
    data = jpeg(IMAGE.convert(mode), **KINDS[kind])
    header = data.index(b"\xff\xda") + 20
    with pytest.raises(UnreadableImage, match="truncated"):
        read(data[: header + round((len(data) - header) * share)] + end)


def test_a_flat_grey_corner_is_not_a_missing_one() -> None:
    grey = RGB.copy()
    grey[48:] = 128
    decoded = read(jpeg(Image.fromarray(grey))[:-2])
    assert decoded.warnings == ()


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["open", "closed"])
def test_a_progressive_file_without_its_last_scans_adds_a_warning_with_the_share(end: bytes) -> None:
    data = jpeg(progressive=True)
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    shares = []
    for count in range(1, len(scans)):
        (warning,) = read(data[: scans[count]] + end).warnings
        assert warning.startswith("image_incomplete:")
        shares.append(int(re.search(r"(\d+) %", warning)[1]))  # type: ignore[index]
    assert shares[0] > 90
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < 10


def test_a_progressive_file_cut_inside_a_scan_is_rejected() -> None:
    data = jpeg(progressive=True)
    with pytest.raises(UnreadableImage, match="truncated"):
        read(data[: len(data) * 9 // 10] + b"\xff\xd9")


def test_bytes_between_the_pixels_and_the_end_are_harmless() -> None:
    data = jpeg()
    assert read(data[:-2] + bytes(4) + data[-2:]).warnings == ()
    assert read(data + bytes(500)).warnings == ()


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\xc1\0\x11\x0c", "12 bits"),
        (b"\xff\xc3\0\x11\x08", "lossless JPEG"),
        (b"\xff\xc5\0\x11\x08", "hierarchical JPEG"),
        (b"\xff\xf7\0\x11\x08", "JPEG-LS"),
    ],
)
def test_the_message_names_the_kind_of_jpeg_that_is_not_supported(start: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        read(jpeg().replace(b"\xff\xc0\0\x11\x08", start))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_a_profile_in_many_segments_is_read() -> None:
    decoded = read(jpeg(icc_profile=SRGB + bytes(1_500_000)))
    assert decoded.warnings == ()


@pytest.mark.parametrize(("mode", "space"), [("RGB", b"GRAY"), ("RGB", b"CMYK"), ("CMYK", b"RGB ")])
def test_a_profile_for_other_channels_is_named_in_a_warning(mode: str, space: bytes) -> None:
    data = jpeg(IMAGE.convert(mode), icc_profile=SRGB[:16] + space + SRGB[20:])
    (warning,) = read(data).warnings
    assert warning.startswith("profile_ignored:")
    assert space.decode().strip() in warning
    assert mode in warning


def test_the_orientation_of_xmp_applies_where_exif_has_none() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert read(jpeg(xmp=xmp)).rgb.shape == (128, 96, 3)
    exif = Image.Exif()
    exif[0x0112] = 1
    assert read(jpeg(xmp=xmp, exif=exif)).rgb.shape == (96, 128, 3)


@pytest.mark.parametrize("length", range(3, 12))
def test_a_file_that_ends_in_the_header_of_its_frame_is_rejected(length: int) -> None:
    frame = b"\xff\xd8\xff\xc2\0\x11\x08\0\x10\0\x10\3"
    with pytest.raises((UnreadableImage, UnsupportedFormat)):
        decode(frame[:length], LIMITS)
