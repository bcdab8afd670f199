"""Content types by magic numbers: names and headers of files are not trusted."""

from __future__ import annotations

HEAD = 256
"""Bytes that identify a content type. The list of brands of an AVIF or HEIC file has 20 to 60."""

MAGIC = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"II+\0": "image/tiff",  # BigTIFF
    b"MM\0+": "image/tiff",
    b"BM": "image/bmp",
    b"\xff\x0a": "image/jxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": "image/jxl",
}

HEIF_BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf",
}  # fmt: skip
AVIF_BRANDS = {b"avif", b"avis", b"avio", b"MA1A", b"MA1B"}
"""Brands in the `ftyp` box at the start of a file (ISO/IEC 14496-12; 23008-12 for HEIF; AV1 Image File Format)."""

OTHERS = {
    b"FUJIFILMCCD-RAW": "a raw file of a camera (RAF)",
    b"IIRO": "a raw file of a camera (ORF)",
    b"IIRS": "a raw file of a camera (ORF)",
    b"MMOR": "a raw file of a camera (ORF)",
    b"IIU\0": "a raw file of a camera (RW2)",
    b"\0MRM": "a raw file of a camera (MRW)",
    b"FOVb": "a raw file of a camera (X3F)",
    b"8BPS": "a Photoshop file (PSD)",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file (EPS)",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"II\xbc\x01": "a JPEG XR file",
    b"\x76\x2f\x31\x01": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance HDR file",
    b"#?RGBE": "a Radiance HDR file",
    b"\0\0\x01\0": "an icon (ICO)",
    b"\0\0\x02\0": "a cursor (CUR)",
    b"icns": "an icon (ICNS)",
    b"qoif": "a QOI file",
    b"farbfeld": "a Farbfeld file",
    b"DDS ": "a DDS texture",
    b"BPG\xfb": "a BPG file",
    b"gimp xcf": "a GIMP file (XCF)",
    b"AT&TFORM": "a DjVu file",
    b"\x8aMNG": "an MNG animation",
    b"P1": "a PBM file", b"P2": "a PGM file", b"P3": "a PPM file", b"P4": "a PBM file", b"P5": "a PGM file",
    b"P6": "a PPM file", b"P7": "a PAM file", b"Pf": "a PFM file", b"PF": "a PFM file",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
    b"RIFF": "a RIFF file (video or sound)",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile (WMF)",
    b"\x01\0\0\0": "a Windows metafile (EMF)",
    b"\x93NUMPY": "a NumPy array",
    b"SIMPLE  =": "a FITS file",
}  # fmt: skip
"""Formats that are not decoded, by magic numbers, as the end of the sentence "The file is …"."""

OTHER_BRANDS = {
    b"crx ": "a raw file of a camera (CR3)",
    b"qt  ": "a video (QuickTime)",
    b"M4V ": "a video (MP4)",
    b"M4A ": "a sound file (MP4)",
}

TEXTS = {
    b"<svg": "an SVG drawing",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<?xml": "an XML document",
}
"""Formats by a text near the start, in lower case; the first row that is found counts."""


def image_type(head: bytes) -> str | None:
    """The content type of a file that begins with `head`, for formats that the container reads; None for others."""
    for magic, content_type in MAGIC.items():
        if head.startswith(magic):
            return content_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    brands = _brands(head)
    if brands & AVIF_BRANDS:
        return "image/avif"
    if brands & HEIF_BRANDS:
        return "image/heic"
    return None


def unsupported_kind(head: bytes) -> str:
    """The name of a format that is not decoded, such as "a PDF document"; "" if it is not known."""
    if brands := _brands(head):
        return next((name for brand, name in OTHER_BRANDS.items() if brand in brands), "a video (MP4)")
    for magic, name in OTHERS.items():
        if head.startswith(magic):
            return name
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for mark, name in TEXTS.items() if text.startswith(b"<") and mark in text), "")


def _brands(head: bytes) -> set[bytes]:
    """Major and compatible brands of the `ftyp` box; empty for other files."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), HEAD, len(head))
    return {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
