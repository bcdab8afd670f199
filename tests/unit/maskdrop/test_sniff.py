import io

import pytest
from PIL import Image

from maskdrop.sniff import HEAD, image_type, unsupported_kind

FORMATS = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "TIFF": "image/tiff",
    "BMP": "image/bmp", "AVIF": "image/avif",
}  # fmt: skip


@pytest.mark.parametrize(("form", "content_type"), FORMATS.items())
def test_every_format_is_known_by_its_first_bytes(form: str, content_type: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    assert image_type(buffer.getvalue()[:HEAD]) == content_type


@pytest.mark.parametrize(
    ("brands", "content_type"),
    [
        (b"heic\0\0\0\0mif1heic", "image/heic"),
        (b"mif1\0\0\0\0mif1avif", "image/avif"),
        (b"msf1\0\0\0\0hevc", "image/heic"),
        (b"miaf\0\0\0\0mif1", "image/heic"),
        (b"MA1B\0\0\0\0miaf", "image/avif"),
        (b"isom\0\0\0\0mp42" + b"iso2" * 12 + b"avif", "image/avif"),
        (b"isom\0\0\0\0mp42", None),
        (b"qt  \0\0\0\0", None),
    ],
)
def test_a_box_of_brands_is_read_whole(brands: bytes, content_type: str | None) -> None:
    assert image_type((len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands) == content_type


@pytest.mark.parametrize(
    "head", [b"", b"B", b"\xff\xd8", b"%PDF-1.7", b"<svg/>", b"PK\3\4", b"RIFF\0\0\0\0WAVE", b"ftyp"]
)
def test_other_files_are_not_images(head: bytes) -> None:
    assert image_type(head) is None


@pytest.mark.parametrize(
    ("head", "content_type"),
    [
        (b"II+\0\x08\0\0\0", "image/tiff"),
        (b"MM\0+\0\x08\0\0", "image/tiff"),
        (b"\xff\x0a", "image/jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    ],
)
def test_bigtiff_and_jpeg_xl_are_known_by_their_first_bytes(head: bytes, content_type: str) -> None:
    assert image_type(head + bytes(20)) == content_type


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a raw file of a camera (CR3)"),
        (b"\0\0\0\x18ftypisom\0\0\0\1", "a video (MP4)"),
        (b"\n <?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
        (b"<note>", ""),
        (b"hello", ""),
        (b"", ""),
    ],
)
def test_formats_that_are_not_decoded_have_a_name(head: bytes, name: str) -> None:
    assert unsupported_kind(head) == name
