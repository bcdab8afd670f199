"""PNG files by the standard library, against those that Pillow and OpenCV write and read."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from maskdrop.errors import UnreadableImage
from maskdrop.png import GREY, RGB, inverted, png_size, write_png

RANDOM = np.random.default_rng(7)
SMOOTH = np.add.outer(np.arange(40), 3 * np.arange(50)).astype(np.uint8)
MASK = np.zeros((40, 50), np.uint8)
MASK[10:30, 5:45] = 255
IMAGES = {"mask": MASK, "smooth": SMOOTH, "noise": RANDOM.integers(0, 256, (40, 50), np.uint8), "pixel": MASK[:1, :1]}

FILTERS = {
    "none": cv2.IMWRITE_PNG_FILTER_NONE,
    "sub": cv2.IMWRITE_PNG_FILTER_SUB,
    "up": cv2.IMWRITE_PNG_FILTER_UP,
    "average": cv2.IMWRITE_PNG_FILTER_AVG,
    "Paeth": cv2.IMWRITE_PNG_FILTER_PAETH,
    "all": cv2.IMWRITE_PNG_ALL_FILTERS,
}


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("row_filter", FILTERS)
def test_a_png_of_opencv_is_inverted_whatever_its_row_filters_are(name: str, row_filter: str) -> None:
    _, png = cv2.imencode(".png", IMAGES[name], [cv2.IMWRITE_PNG_FILTER, FILTERS[row_filter]])
    assert (decoded(inverted(png.tobytes())) == 255 - IMAGES[name]).all()


@pytest.mark.parametrize("name", IMAGES)
def test_a_png_of_pillow_is_inverted_and_inverting_twice_returns_it(name: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(IMAGES[name]).save(stream, "PNG")
    once = inverted(stream.getvalue())
    assert (decoded(once) == 255 - IMAGES[name]).all()
    assert (decoded(inverted(once)) == IMAGES[name]).all()


def test_a_written_image_is_read_unchanged() -> None:
    pixels = RANDOM.integers(0, 256, (7, 5, 3), np.uint8)
    png = write_png(5, 7, RGB, (row.tobytes() for row in pixels))
    assert png_size(png) == (5, 7)
    assert (decoded(png) == pixels).all()


@pytest.mark.parametrize("mode", ["RGB", "1", "LA"])
def test_a_png_in_another_form_is_refused(mode: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (4, 4)).save(stream, "PNG")
    with pytest.raises(UnreadableImage, match="grey PNG with 8 bits"):
        inverted(stream.getvalue())


def test_a_damaged_png_is_refused() -> None:
    png = write_png(50, 40, GREY, (row.tobytes() for row in IMAGES["noise"]))
    for broken in (b"", b"\xff\xd8\xff", png[:60], png[:50] + b"\0" * 20 + png[70:]):
        with pytest.raises(UnreadableImage):
            inverted(broken)
