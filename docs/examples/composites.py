"""Makes a data folder for training from a few cut-outs: each is pasted on backgrounds at random sizes and places.

    python composites.py CUTOUTS BACKGROUNDS DATA [COUNT]

The alpha of a cut-out is the mask. Three images in four are for training, the others for validation.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image

SIDE = 320


def composite(cutout: Image.Image, background: Image.Image, choose: random.Random) -> tuple[Image.Image, Image.Image]:
    """Returns an image of SIDE x SIDE pixels and its mask (255 = subject)."""
    image = background.convert("RGB").resize((SIDE, SIDE))
    if choose.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    subject = cutout.crop(cutout.getchannel("A").getbbox()).rotate(choose.uniform(-15, 15), expand=True)
    subject.thumbnail((choose.uniform(0.4, 0.9) * SIDE,) * 2)
    place = choose.randint(0, SIDE - subject.width), choose.randint(0, SIDE - subject.height)
    mask = Image.new("L", image.size)
    mask.paste(subject.getchannel("A"), place)
    image.paste(subject, place, subject)
    return image, mask


def main(cutouts: Path, backgrounds: Path, data: Path, count: int = 40) -> None:
    choose = random.Random(0)  # noqa: S311  (not for security)
    subjects = [Image.open(path).convert("RGBA") for path in sorted(cutouts.glob("*.png"))]
    scenes = [Image.open(path) for path in sorted(backgrounds.iterdir())]
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    rows = ["id,split"]
    for number in range(count):
        image, mask = composite(choose.choice(subjects), choose.choice(scenes), choose)
        image.save(data / "images" / f"{number}.jpg", quality=90)
        mask.save(data / "masks" / f"{number}.png")
        rows.append(f"{number},{'val' if number % 4 == 3 else 'train'}")
    (data / "manifest.csv").write_text("\n".join(rows))


if __name__ == "__main__":
    cutouts, backgrounds, data, *count = sys.argv[1:]
    main(Path(cutouts), Path(backgrounds), Path(data), *map(int, count))
