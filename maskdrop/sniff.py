"""What a file is, by its first bytes: names and headers are whatever their sender wrote."""

from __future__ import annotations

HEAD = 64
"""Bytes that are enough to tell."""

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
"""Of the box `ftyp` that such a file begins with (ISO/IEC 14496-12; 23008-12 for HEIF, AV1 Image File Format)."""


def picture_type(head: bytes) -> str | None:
    """The content type of an image that begins with `head`, of the formats that the container reads; None for anything
    else."""
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
