import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from maskdrop.errors import DecodingLimit, ResolutionTooHigh, UnreadableImage
from sagemaker_model.imaging.budget import check
from sagemaker_model.imaging.pixels import Limits, decode
from tests import bombs

MEGAPIXEL = 1_000_000


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: bombs.scans(side=1000, count=30), "decoding_limit"),
        (lambda: bombs.scans(side=8, count=1100), "decoding_limit"),
        (lambda: bombs.scans_in_tiff(side=1000, count=30), "decoding_limit"),
        (lambda: bombs.fill_bytes(1_200_000), "decoding_limit"),
        (lambda: bombs.empty_segments(60_000), "decoding_limit"),
        (lambda: bombs.long_side(70_000), "resolution_too_high"),
        (lambda: bombs.empty_chunks(60_000), "decoding_limit"),
        (lambda: bombs.comments(60_000), "decoding_limit"),
        (lambda: bombs.comment_blocks(60_000), "decoding_limit"),
        (lambda: bombs.large_frame(2000), "resolution_too_high"),
        (lambda: bombs.webp_canvas(2000), "resolution_too_high"),
        (lambda: bombs.runs(1_200_000), "decoding_limit"),
        (lambda: bombs.tile(2000), "resolution_too_high"),
        (lambda: bombs.width_twice(2000), "decoding_limit"),
        (bombs.tags, "decoding_limit"),
        (lambda: bombs.directories(3000), "decoding_limit"),
        (lambda: bombs.avif(side=1200), "resolution_too_high"),
        (lambda: bombs.heic(side=2000), "resolution_too_high"),
        (lambda: bombs.grid(tiles=100, side=200), "resolution_too_high"),
        (lambda: bombs.items(5000), "decoding_limit"),
    ],
)
def test_a_small_file_that_is_expensive_to_decode_is_refused_before_it_is_decoded(
    make: Callable[[], bytes], code: str
) -> None:
    with pytest.raises((DecodingLimit, ResolutionTooHigh)) as caught:
        check(make(), MEGAPIXEL)
    assert caught.value.code == code
    assert not caught.value.retryable


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("AVIF", {"speed": 10}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_an_image_of_the_largest_accepted_size_is_decoded(name: str, options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 1000), "navy").save(buffer, name, **options)
    assert decode(buffer.getvalue(), Limits(2**25, MEGAPIXEL)).rgb.shape == (1000, 1000, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bombs.scans(side=1000, count=3),
        lambda: bombs.frames(2000),
        lambda: bombs.surplus_rows(megabytes=2),
        lambda: bombs.heic(side=1000, declared=1000),
        lambda: bombs.grid(tiles=4, side=500),
    ],
)
def test_a_file_within_its_budget_passes(make: Callable[[], bytes]) -> None:
    check(make(), MEGAPIXEL)


@pytest.mark.parametrize("name", [name for name, _ in FORMATS[:6]])
def test_a_truncated_file_passes_to_the_decoder(name: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(buffer, name)
    for length in range(0, len(buffer.getvalue()), 7):
        check(buffer.getvalue()[:length], MEGAPIXEL)


@pytest.mark.parametrize("extra", [(65_000, 4, 9, 2**31), (65_000, 16, 9, 2**31)])
def test_a_damaged_tag_does_not_hide_the_size_of_a_tile(extra: tuple[int, int, int, int]) -> None:
    sizes = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: 2000}
    for file in (
        bombs.tiff({**sizes, 323: 2000}, bombs.zeros(4_000_000), [extra]),
        bombs.tiff(sizes, bombs.zeros(4_000_000), [(323, 9, 1, 2000)]),  # a signed size
    ):
        with pytest.raises(ResolutionTooHigh):
            check(file, MEGAPIXEL)


@pytest.mark.parametrize("head", [b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"])
def test_an_offset_beyond_every_file_is_damage(head: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(head + b"\xff" * 8, Limits(2**25, MEGAPIXEL))


@pytest.mark.parametrize(("width", "height"), [(1, 65_535), (65_535, 1)])
def test_a_side_may_have_65_535_pixels_and_not_one_more(width: int, height: int) -> None:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), Limits(2**25, MEGAPIXEL)).rgb.shape == (height, width, 3)
    buffer = io.BytesIO()
    Image.new("L", (width + (width > 1), height + (height > 1))).save(buffer, "TIFF")
    with pytest.raises(ResolutionTooHigh, match="A side may have at most 65535 pixels"):
        decode(buffer.getvalue(), Limits(2**25, MEGAPIXEL))
