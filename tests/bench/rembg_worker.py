"""Runs rembg as a library for `tests.bench.peers`, in its own virtual environment.

Arguments: MATTE PHOTO OPTIONS. MATTE is an image, or a network of U2-Net's kind (.onnx). For each line of standard
input, a number of images, prints the seconds. Writes the last result next to the photo as rembg.png.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from rembg import new_session, remove
from rembg.sessions.base import BaseSession


class FixedMask(BaseSession):  # type: ignore[misc]
    """A session that returns a fixed mask, enlarged to the image as rembg's own sessions do."""

    def __init__(self, matte: Path) -> None:
        with Image.open(matte) as opened:
            self._mask = opened.convert("L")

    def predict(self, img: Image.Image, *_: Any, **__: Any) -> list[Image.Image]:
        return [self._mask.resize(img.size, Image.Resampling.LANCZOS)]


def main() -> None:
    matte, photo, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    network = matte.suffix == ".onnx"
    session = new_session("u2net_custom", model_path=str(matte)) if network else FixedMask(matte)
    data = photo.read_bytes()
    with ThreadPoolExecutor(int(options.pop("threads"))) as pool:
        for line in sys.stdin:
            start = time.perf_counter()
            results = list(pool.map(lambda _: remove(data, session=session, **options), range(int(line))))
            print(time.perf_counter() - start, flush=True)
            photo.with_name("rembg.png").write_bytes(results[-1])


if __name__ == "__main__":
    main()
