"""Layouts of TIFF files that scanners, Photoshop, cameras and printers write, made here by `tiff_files`."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskdrop.errors import InputError, UnreadableImage, UnsupportedFormat
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode
from tests.unit.sagemaker_model.imaging.tiff_files import Page, tiff

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)

ROWS, COLUMNS = np.mgrid[0:40, 0:60]
RGB = np.dstack((ROWS * 6, COLUMNS * 4, 255 - ROWS * 3)).astype(np.uint8)
GREY = (ROWS * 4 + COLUMNS).astype(np.uint8)
ALPHA = np.maximum(COLUMNS * 4, 1).astype(np.uint8)
CMYK = np.array(Image.fromarray(RGB).convert("CMYK"))
LAB = np.array(
    ImageCms.profileToProfile(
        Image.fromarray(RGB), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
)

LAYOUTS = [
    pytest.param({"planar": planar, "compression": compression, "predictor": predictor, "strips": strips, "tile": tile},
                 id=f"{'planar' if planar else 'chunky'}-{compression}-{'predictor' if predictor else 'plain'}-{tile}")
    for planar in (False, True)
    for compression, predictor in ((1, False), (8, False), (8, True))
    for strips, tile in ((3, 0), (1, 16))
]  # fmt: skip


def sixteen(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.uint16) * 257


def read(*pages: Page, order: str = "<", big: bool = False) -> DecodedImage:
    return decode(tiff(pages, order, big), LIMITS)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(int) - expected).mean())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "bigtiff"])
def test_rgb_of_16_bits_is_read_in_every_layout(layout: dict[str, int], order: str, big: bool) -> None:
    assert np.array_equal(read(Page(sixteen(RGB), 2, **layout), order=order, big=big).rgb, RGB)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_not_a_negative(layout: dict[str, int], order: str, bits: int) -> None:
    stored = 255 - GREY if bits == 8 else 65535 - sixteen(GREY)
    assert np.array_equal(read(Page(stored, 0, **layout), order=order).rgb[..., 0], GREY)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
def test_the_alpha_of_a_cmyk_file_is_read(layout: dict[str, int], bits: int) -> None:
    stored = np.dstack((CMYK, ALPHA))
    page = Page(sixteen(stored) if bits == 16 else stored, 5, tags={338: [2]}, **layout)  # type: ignore[arg-type]
    decoded = read(page)
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, ALPHA)
    assert np.array_equal(decoded.rgb, np.asarray(Image.fromarray(CMYK, "CMYK").convert("RGB")))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_is_converted_to_srgb(photometric: int, bits: int) -> None:
    stored = LAB.copy()
    if photometric == 9:
        stored[..., 1:] ^= 0x80
    page = Page(stored if bits == 8 else stored.astype(np.uint16) << 8, photometric)
    assert difference(read(page).rgb, RGB) < 2


def test_an_unspecified_extra_sample_is_not_alpha() -> None:
    decoded = read(Page(sixteen(np.dstack((RGB, ALPHA, ALPHA))), 2, tags={338: [0, 0]}))
    assert decoded.alpha is None
    assert np.array_equal(decoded.rgb, RGB)


def test_associated_alpha_is_divided_out() -> None:
    stored = np.rint(RGB * (ALPHA[..., None] / 255)).astype(np.uint8)
    decoded = read(Page(np.dstack((stored, ALPHA)), 2, planar=True, tags={338: [1]}))
    opaque = ALPHA > 128
    assert decoded.alpha is not None
    assert np.abs(decoded.rgb.astype(int) - RGB)[opaque].max() <= 1


def test_grey_of_12_bits_keeps_its_upper_8() -> None:
    packed = np.repeat(GREY[:, ::2], 2, axis=1)
    pairs = packed.reshape(40, 30, 2).astype(np.uint16) << 4
    first, second = pairs[..., 0], pairs[..., 1]
    stored = np.stack((first >> 4, (first & 15) << 4 | second >> 8, second & 255), axis=-1).astype(np.uint8)
    page = Page(stored.reshape(40, 90), 1, tags={256: [60], 258: [12]})
    assert np.array_equal(read(page).rgb[..., 0], packed)


THUMBNAIL = Page(RGB[::4, ::4], 2, tags={254: [1]})


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "bigtiff"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_full_image_is_decoded_and_not_the_thumbnail_before_it(order: str, big: bool, bits: int) -> None:
    full = Page(RGB if bits == 8 else sixteen(RGB), 2)
    assert np.array_equal(read(THUMBNAIL, full, order=order, big=big).rgb, RGB)
    assert np.array_equal(read(Page(RGB[::4, ::4], 2, tags={254: [1]}, below=[full]), order=order, big=big).rgb, RGB)


def test_a_smaller_directory_with_a_full_one_below_is_a_thumbnail_without_its_flag() -> None:
    parent = Page(RGB[::4, ::4], 2, below=[Page(RGB[::2, ::2], 2, tags={254: [1]}), Page(RGB, 2)])
    assert np.array_equal(read(parent).rgb, RGB)


def test_a_pyramid_keeps_its_first_directory() -> None:
    assert np.array_equal(read(Page(RGB, 2, below=[THUMBNAIL])).rgb, RGB)
    assert np.array_equal(read(Page(RGB, 2), THUMBNAIL).rgb, RGB)


def test_the_first_of_several_pages_is_decoded() -> None:
    assert read(Page(RGB[::4, ::4], 2), Page(RGB, 2)).rgb.shape == (10, 15, 3)


def test_the_orientation_of_the_first_directory_applies_to_the_one_below() -> None:
    parent = Page(RGB[::4, ::4], 2, tags={254: [1], 274: [3]}, below=[Page(RGB, 2)])
    assert np.array_equal(read(parent).rgb, RGB[::-1, ::-1])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("planar", [False, True])
def test_every_layout_is_set_upright(orientation: int, planar: bool) -> None:
    turns = {1: 0, 3: 2, 6: 1, 8: -1}[orientation]
    stored = np.ascontiguousarray(np.rot90(RGB, turns))
    assert np.array_equal(read(Page(sixteen(stored), 2, planar=planar, tags={274: [orientation]})).rgb, RGB)


@pytest.mark.parametrize(
    "tags",
    [{254: [1], 50706: [0x01040000]}, {262: [32803]}, {262: [34892]}, {259: [34713]}, {259: [32767]}, {259: [65535]}],
    ids=["DNG", "CFA", "LinearRaw", "NEF", "ARW", "PEF"],
)
@pytest.mark.parametrize("below", [False, True])
def test_raw_files_are_named(tags: dict[int, list[int]], below: bool) -> None:
    page = Page(RGB, 2, tags=tags)
    with pytest.raises(UnsupportedFormat, match="raw file"):
        read(Page(RGB[::4, ::4], 2, tags={254: [1]}, below=[page]) if below else page)


def test_a_canon_raw_file_is_named() -> None:
    with pytest.raises(UnsupportedFormat, match="raw file"):
        decode(b"II*\0\x10\0\0\0CR\2\0" + bytes(100), LIMITS)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({259: [50001]}, "WebP compression"),
        ({259: [34712]}, "JPEG 2000 compression"),
        ({259: [52546]}, "JPEG XL compression"),
        ({259: [6]}, "old-style JPEG compression"),
        ({259: [34661]}, "JBIG compression"),
        ({258: [32] * 3, 339: [3] * 3}, "32 bits a channel, floating-point"),
        ({258: [64] * 3, 339: [3] * 3}, "64 bits a channel, floating-point"),
        ({258: [32] * 3}, "32 bits a channel, integers"),
        ({258: [16] * 3, 339: [2] * 3}, "16 bits a channel, signed integers"),
        ({262: [10]}, "PhotometricInterpretation 10"),
        ({262: [32845]}, "PhotometricInterpretation 32845"),
        ({258: [10] * 3}, "10 bits a channel"),
    ],
)
def test_the_message_names_the_kind_of_tiff_that_is_not_supported(tags: dict[int, list[int]], name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        read(Page(RGB, 2, tags=tags))


def test_a_pixel_of_many_samples_is_rejected() -> None:
    with pytest.raises(UnsupportedFormat, match="40 samples a pixel"):
        read(Page(np.zeros((4, 4, 40), np.uint16), 5))


def test_a_planar_file_with_jpeg_compression_is_named_or_read() -> None:
    with pytest.raises((UnsupportedFormat, UnreadableImage)):
        read(Page(sixteen(RGB), 2, planar=True, tags={259: [7]}))


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_gives_an_image_or_an_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    page = Page(sixteen(np.dstack((CMYK, ALPHA))), 5, planar=bool(seed % 2), compression=(1, 8)[seed % 3 == 0],
                tags={338: [2]}, below=[THUMBNAIL])  # fmt: skip
    data = bytearray(tiff([page], "<>"[seed % 5 == 0], big=seed % 7 == 0))
    for at in random.integers(len(data) - 300, len(data), 6):
        data[at] = random.integers(0, 256)
    try:
        assert decode(bytes(data), LIMITS).rgb.ndim == 3
    except InputError as error:
        assert not error.retryable  # noqa: PT017


def test_directories_that_point_to_themselves_are_read_once() -> None:
    data = bytearray(tiff([Page(RGB, 2, tags={254: [1]})]))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert np.array_equal(decode(bytes(data), LIMITS).rgb, RGB)
