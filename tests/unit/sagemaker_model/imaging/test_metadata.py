from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from maskdrop.output import Format, Metadata, Output
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.metadata import SourceMetadata, kept_exif
from sagemaker_model.imaging.pixels import Limits, decode

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)
RGB = np.full((40, 60, 3), 90, np.uint8)
ALPHA = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (40, 1))

BASE, IFD = ExifTags.Base, ExifTags.IFD


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[BASE.Make] = "Camera"
    exif[BASE.Copyright] = "© Eileen".encode()
    exif[BASE.Orientation] = 6
    exif[BASE.StripOffsets] = 99
    exif[IFD.Exif] = {
        BASE.ExposureTime: 0.01, BASE.MakerNote: b"serial", BASE.ExifImageWidth: 4000, BASE.LensModel: "Lens",
    }  # fmt: skip
    exif[IFD.GPSInfo] = {1: "N", 2: (12.0, 30.0, 0.0)}
    return exif


SOURCE = SourceMetadata(camera_exif().tobytes())


def read(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def test_no_metadata_is_kept_by_default() -> None:
    assert kept_exif(SOURCE, "strip", (60, 40)) == b""
    assert Output().metadata == "strip"


@pytest.mark.parametrize("choice", ["keep", "keep_gps"])
def test_exif_is_kept_for_the_new_image(choice: Metadata) -> None:
    exif = read(kept_exif(SOURCE, choice, (60, 40)))
    assert exif[BASE.Make] == "Camera"
    assert exif[BASE.Copyright].encode("latin-1").decode() == "© Eileen"
    assert exif[BASE.Orientation] == 1
    assert BASE.StripOffsets not in exif
    details = exif.get_ifd(IFD.Exif)
    assert details[BASE.LensModel] == "Lens"
    assert (details[BASE.ExifImageWidth], details[BASE.ExifImageHeight]) == (60, 40)
    assert BASE.MakerNote not in details
    assert bool(exif.get_ifd(IFD.GPSInfo)) == (choice == "keep_gps")


def test_the_position_is_written_only_on_request() -> None:
    assert read(kept_exif(SOURCE, "keep_gps", (60, 40))).get_ifd(IFD.GPSInfo)[2] == (12.0, 30.0, 0.0)
    assert b"GPS" not in kept_exif(SOURCE, "keep", (60, 40))


def test_a_thumbnail_is_dropped() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG")
    thumbnail = buffer.getvalue()
    block = camera_exif().tobytes()[6:]
    (first,) = struct.unpack_from(">I", block, 4)
    (count,) = struct.unpack_from(">H", block, first)
    link = first + 2 + 12 * count
    directory = struct.pack(">H2I4x", 0, 0, 0)[:6] + thumbnail
    linked = block[:link] + struct.pack(">I", len(block)) + block[link + 4 :] + directory
    assert thumbnail not in kept_exif(SourceMetadata(linked), "keep", (60, 40))
    assert read(kept_exif(SourceMetadata(linked), "keep", (60, 40)))[BASE.Make] == "Camera"


XMP = (
    '<x:xmpmeta><rdf:Description><dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© Ann &amp; Co</rdf:li></rdf:Alt>'
    "</dc:rights><dc:creator><rdf:Seq><rdf:li>Ann</rdf:li></rdf:Seq></dc:creator></rdf:Description></x:xmpmeta>"
).encode()
IPTC = b"\x1c\x02\x74\x00\x05(c) B" + b"\x1c\x02\x50\x00\x02Bo"


@pytest.mark.parametrize(
    ("source", "copyright_", "artist"),
    [
        (SourceMetadata(xmp=XMP), "© Ann & Co", "Ann"),
        (SourceMetadata(iptc=IPTC), "(c) B", "Bo"),
        (SourceMetadata(camera_exif().tobytes(), XMP, IPTC), "© Eileen", "Ann"),
    ],
    ids=["XMP", "IPTC", "EXIF first"],
)
def test_the_copyright_is_kept_wherever_the_source_states_it(
    source: SourceMetadata, copyright_: str, artist: str
) -> None:
    exif = read(kept_exif(source, "keep", (60, 40)))
    assert exif[BASE.Copyright].encode("latin-1").decode() == copyright_
    assert exif[BASE.Artist] == artist


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"garbage", b"MM\0*\0\0\0\x08\xff\xff", bytes(100)])
def test_damaged_exif_is_dropped(block: bytes) -> None:
    assert kept_exif(SourceMetadata(block), "keep", (60, 40)) == b""


def test_exif_that_is_too_long_for_a_jpeg_is_reduced() -> None:
    exif = camera_exif()
    exif[IFD.Exif] = {BASE.UserComment: bytes(70_000)}
    block = kept_exif(SourceMetadata(exif.tobytes()), "keep", (60, 40))
    assert read(block)[BASE.Make] == "Camera"
    assert len(block) < 65_000


@pytest.mark.parametrize("kind", ["png", "webp", "avif", "jpg", "zip"])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_every_format_carries_exif(kind: Format, channels: str) -> None:
    if kind == "zip" and channels == "alpha":
        return
    data = encode(RGB, ALPHA, Output(kind, channels, metadata="keep"), None, {}, SOURCE)  # type: ignore[arg-type]
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            data = opened.read("color.jpg")
    with Image.open(io.BytesIO(data)) as result:
        assert result.getexif()[BASE.Make] == "Camera"
        assert result.getexif().get(BASE.Orientation, 1) == 1  # Pillow leaves out the 1 in AVIF
        assert not result.getexif().get_ifd(IFD.GPSInfo)
    plain = encode(RGB, ALPHA, Output(kind, channels), None, {}, SOURCE)  # type: ignore[arg-type]
    assert b"Camera" not in plain


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_format_is_read_with_its_exif(kind: str) -> None:
    exif = Image.Exif()
    exif[BASE.Make] = "Camera"
    exif[BASE.Copyright] = "Eileen"
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind, exif=exif)
    kept = read(kept_exif(decode(buffer.getvalue(), LIMITS).metadata, "keep", (60, 40)))
    assert (kept[BASE.Make], kept[BASE.Copyright]) == ("Camera", "Eileen")


def test_the_copyright_of_a_png_in_xmp_is_read() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", pnginfo=info)
    kept = read(kept_exif(decode(buffer.getvalue(), LIMITS).metadata, "keep", (60, 40)))
    assert kept[BASE.Artist] == "Ann"
