"""Content types by magic numbers: names and headers of files are not trusted."""

from __future__ import annotations

HEAD = 64
"""Bytes that identify a content type."""

MAGIC = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"BM": "image/bmp",
}

HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
"""Brands in the `ftyp` box at the start of a file (ISO/IEC 14496-12; 23008-12 for HEIF; AV1 Image File Format)."""


def image_type(head: bytes) -> str | None:
    """The content type of a file that begins with `head`, for formats that the container reads; None for others."""
    for magic, content_type in MAGIC.items():
        if head.startswith(magic):
            return content_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), HEAD)
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
        if brands & AVIF_BRANDS:
            return "image/avif"
        if brands & HEIF_BRANDS:
            return "image/heic"
    return None
