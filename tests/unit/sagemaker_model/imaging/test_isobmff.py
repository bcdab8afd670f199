from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdrop.errors import ResolutionTooHigh, UnreadableImage, UnsupportedFormat
from sagemaker_model.imaging.colour import ColourSpace, icc_profile
from sagemaker_model.imaging.isobmff import read_heif
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)

AWKWARD = Path(__file__).parents[5] / "shared" / "data" / "awkward_inputs" / "files"

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
RGB = np.dstack((60 + ROWS * 2, 60 + COLUMNS * 2, 200 - ROWS * 2)).astype(np.uint8)


def avif(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "AVIF", quality=95, subsampling="4:4:4", **options)
    return buffer.getvalue()


def with_nclx(primaries: int, transfer: int) -> bytes:
    data = avif()
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def with_brand(data: bytes, brand: bytes) -> bytes:
    return data[:8] + brand + data[12:]


def read(data: bytes) -> DecodedImage:
    return decode(data, LIMITS)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(int) - expected).mean())


@pytest.mark.parametrize(
    "brand", [b"avif", b"avis", b"avio", b"mif1", b"mif2", b"msf1", b"miaf", b"MA1A", b"MA1B", b"isom"]
)
def test_an_avif_is_read_under_every_brand(brand: bytes) -> None:
    assert np.array_equal(read(with_brand(avif(), brand)).rgb, read(avif()).rgb)


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="the folder shared/data/awkward_inputs is missing")
@pytest.mark.parametrize("brand", [b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1", b"miaf", b"isom"])
def test_a_heic_is_read_under_every_brand(brand: bytes) -> None:
    data = (AWKWARD / "zPug_3.heic").read_bytes()
    assert np.array_equal(read(with_brand(data, brand)).rgb, read(data).rgb)


@pytest.mark.parametrize("codec", [b"j2k1", b"vvc1", b"avc1", b"unci", b"jpeg"])
def test_the_message_names_the_codec_that_is_not_supported(codec: bytes) -> None:
    data = avif()
    at = data.index(b"infe")
    with pytest.raises(UnsupportedFormat, match="HEIF file holds"):
        read(data[:at] + data[at:].replace(b"av01", codec, 1))


def test_colours_are_converted_by_the_code_points_of_the_container() -> None:
    wide = read(with_nclx(12, 13))
    assert wide.warnings == ()
    assert difference(wide.rgb, RGB) > 3
    png = io.BytesIO()
    with Image.open(io.BytesIO(avif())) as opened:
        opened.convert("RGB").save(png, "PNG")
    cicp = b"\0\0\0\4cICP\x0c\x0d\0\1"
    data = png.getvalue()
    same = data[:33] + cicp + struct.pack(">I", zlib.crc32(cicp[4:])) + data[33:]
    assert np.array_equal(wide.rgb, read(same).rgb)


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (1, 1), (2, 2), (1, 6), (99, 13)])
def test_code_points_that_mean_srgb_or_nothing_change_no_pixel(primaries: int, transfer: int) -> None:
    decoded = read(with_nclx(primaries, transfer))
    assert np.array_equal(decoded.rgb, read(avif()).rgb)
    assert decoded.warnings == ()


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_an_hdr_avif_adds_a_warning(transfer: int, name: str) -> None:
    (warning,) = read(with_nclx(9, transfer)).warnings
    assert warning.startswith("hdr_converted:")
    assert name in warning


def test_an_embedded_profile_wins_over_the_code_points() -> None:
    data = avif(icc_profile=icc_profile(ColourSpace()))
    at = data.index(b"colrnclx") + 8
    wide = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert np.array_equal(read(wide).rgb, read(data).rgb)


def test_the_orientation_of_xmp_and_exif_does_not_rotate_an_avif() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert read(avif(xmp=xmp)).rgb.shape == RGB.shape


@pytest.mark.parametrize("seed", range(40))
def test_damaged_boxes_raise_no_other_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(avif())
    for at in random.integers(8, 300, 5):
        data[at] = random.integers(0, 256)
    read_heif(bytes(data))
    read_heif(bytes(data[: random.integers(0, 300)]))


def jxl(pixels: np.ndarray = RGB, **options: object) -> bytes:
    pylibjxl = pytest.importorskip("pylibjxl")
    return pylibjxl.encode(pixels, lossless=True, **options)


def test_a_jpeg_xl_is_decoded_with_its_alpha() -> None:
    alpha = (COLUMNS * 4).astype(np.uint8)
    decoded = read(jxl(np.dstack((RGB, alpha))))
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, alpha)
    assert np.array_equal(decoded.rgb[:, 1:], RGB[:, 1:])
    assert np.array_equal(read(jxl()).rgb, RGB)
    assert np.array_equal(read(jxl(np.ascontiguousarray(RGB[..., :1]))).rgb[..., 2], RGB[..., 0])


def test_a_jpeg_that_was_stored_as_jpeg_xl_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", quality=95)
    pylibjxl = pytest.importorskip("pylibjxl")
    assert difference(read(pylibjxl.jpeg_to_jxl(buffer.getvalue())).rgb, RGB) < 3


def test_the_orientation_of_exif_does_not_rotate_a_jpeg_xl() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read(jxl(exif=exif.tobytes()[6:])).rgb.shape == RGB.shape


def test_a_large_or_truncated_jpeg_xl_is_rejected() -> None:
    with pytest.raises(ResolutionTooHigh):
        decode(jxl(), Limits(1_000_000, 100))
    with pytest.raises(UnreadableImage):
        read(jxl(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:5000])


def test_a_machine_without_the_decoder_of_jpeg_xl_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagemaker_model.imaging.pixels.pylibjxl", None)
    with pytest.raises(UnsupportedFormat, match="JPEG XL"):
        read(b"\xff\x0a" + bytes(20))
