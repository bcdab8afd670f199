"""A contact sheet: small versions of images with captions, in one JPEG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, COLUMNS = 240, 12, 6
"""Side of a cell and space between cells in pixels, and images in a row: a sheet is 1,524 pixels wide."""

CAPTION, HEADING = 15, 18
"""Sizes of the text in pixels."""

HEADING_LINES = 3
"""Maximum lines of a heading. A prompt of 10,000 characters would have 80."""

QUALITY = 88


@dataclass(frozen=True, slots=True)
class Group:
    """Images under one heading: (caption, image file) each."""

    heading: str
    images: Sequence[tuple[str, bytes]]


def contact_sheet(groups: Sequence[Group]) -> bytes:
    """Returns a JPEG with the groups one below the other. Transparent pixels are white."""
    columns = min(COLUMNS, max(len(group.images) for group in groups))
    width = max(2, columns) * (CELL + GAP) + GAP
    blocks = [_drawn(group, width) for group in groups]
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _drawn(group: Group, width: int) -> Image.Image:
    heading, caption = ImageFont.load_default(HEADING), ImageFont.load_default(CAPTION)
    characters = int((width - 2 * GAP) / (HEADING * 0.55))
    lines = textwrap.wrap(group.heading, characters, max_lines=HEADING_LINES, placeholder=" …")
    thumbnails = [(text, _thumbnail(data)) for text, data in group.images]
    columns = width // (CELL + GAP)
    rows = [thumbnails[start : start + columns] for start in range(0, len(thumbnails), columns)]
    top = GAP + len(lines) * (HEADING + 6) + 4
    heights = [max(image.height for _, image in row) + CAPTION + 2 * GAP for row in rows]
    block = Image.new("RGB", (width, top + sum(heights)), "white")
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        draw.text((GAP, GAP + number * (HEADING + 6)), line, "black", heading)
    for row, height in zip(rows, heights, strict=True):
        for column, (text, image) in enumerate(row):
            left = GAP + column * (CELL + GAP)
            block.paste(image, (left, top))
            draw.text((left, top + image.height + 4), text, "dimgrey", caption)
        top += height
    return block


def _thumbnail(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((CELL, CELL))
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
