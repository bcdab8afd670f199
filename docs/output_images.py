"""Draws docs/images/output.jpg, results of the output options, from the photos of samples/.

    python -m docs.output_images

Needs the weights of `make run` and the environment of `make test-models`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from maskdrop.options import Options
from maskdrop.presets import PRESETS
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import load_all
from sagemaker_model.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[1]

CUP, PERSON = "object/coffee.png", "default/astronaut.png"

PANELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (CUP, "preset product", PRESETS["product"].output.to_json()),
    (CUP, "canvas=4:5 padding=12% shadow=contact background=studio white", {}),
    (CUP, "canvas=1000x800 padding=5% 5% 20% 40% background=#eef outline=1% navy", {}),
    (PERSON, "preset sticker", PRESETS["sticker"].output.to_json()),
    (PERSON, "canvas=1:1 padding=12% outline=2% shadow=drop background=salmon", {}),
    (PERSON, "canvas=instagram background=blur", {}),
)
"""Sample, caption and output; {}: that of the caption."""

SIDE, TEXT = 420, 40
"""Pixels of a panel and of its caption."""


def main() -> None:
    sheet = Image.new("RGB", (3 * SIDE, 2 * (SIDE + TEXT)), "white")
    engines = load_all("cpu", ROOT / ".local" / "weights")
    for number, (sample, caption, output) in enumerate(PANELS):
        name = "u2netp" if sample == CUP else "auto"
        options = Options.from_json({"engine": name, "output": output or fields(caption)})
        data = cut_out((ROOT / "samples" / sample).read_bytes(), options, engines[name], ServerSettings().limits).data
        left, top = number % 3 * SIDE, number // 3 * (SIDE + TEXT)
        sheet.paste(panel(data, caption), (left, top))
    sheet.save(ROOT / "docs" / "images" / "output.jpg", quality=88)


def fields(caption: str) -> dict[str, str]:
    """The output of a caption "name=value name=value", whose values may contain spaces."""
    found: dict[str, str] = {}
    for word in caption.split():
        name, equals, value = word.partition("=")
        if equals:
            found[name] = value
        else:
            found[[*found][-1]] += f" {word}"
    return found


def panel(data: bytes, caption: str) -> Image.Image:
    """A result on a checkerboard, where it is transparent, with its caption below."""
    framed = Image.new("RGB", (SIDE, SIDE + TEXT), "white")
    with Image.open(io.BytesIO(data)) as opened:
        result = opened.convert("RGBA")
    result.thumbnail((SIDE - 20, SIDE - 20), Image.Resampling.LANCZOS)
    board = Image.new("RGBA", result.size, "white")
    for x in range(0, result.width, 10):
        for y in range(x % 20, result.height, 20):
            board.paste("#ddd", (x, y, x + 10, y + 10))
    board.alpha_composite(result)
    place = (SIDE - board.width) // 2, (SIDE - board.height) // 2
    framed.paste(board, place)
    draw = ImageDraw.Draw(framed)
    x, y = place
    draw.rectangle((x - 1, y - 1, x + board.width, y + board.height), outline="#bbb")
    words, half = caption.split(), len(caption) // 2
    lines = [caption]
    if len(caption) > 45:
        cut = next(i for i in range(len(words)) if "=" in words[i] and len(" ".join(words[:i])) >= half - 8)
        lines = [" ".join(words[:cut]), " ".join(words[cut:])]
    for row, line in enumerate(lines):
        draw.text((10, SIDE - 6 + 18 * row), line, fill="black", font=ImageFont.load_default(14))
    return framed


if __name__ == "__main__":
    main()
