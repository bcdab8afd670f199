from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskdrop.errors import UnreadableImage
from sagemaker_model.imaging.colour import PRIMARIES, SRGB_PRIMARIES, ColourSpace, icc_profile
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode

LIMITS = Limits(max_bytes=32_000_000, max_pixels=1_000_000)

ROWS, COLUMNS = np.mgrid[0:40, 0:60]
RGB = np.dstack((40 + ROWS * 4, 30 + COLUMNS * 3, 230 - ROWS * 4)).astype(np.uint8)


def srgb_linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def matrix(primaries: int) -> np.ndarray:
    """From linear RGB to XYZ (SMPTE RP 177), written out apart from the code under test."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in PRIMARIES[primaries]]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def in_space(primaries: int, signal: Callable[[np.ndarray], np.ndarray], bits: int = 8) -> np.ndarray:
    """RGB in another colour space: linear light by other primaries and a transfer."""
    light = srgb_linear(RGB / 255) @ (np.linalg.inv(matrix(primaries)) @ matrix(1)).T
    top = 2**bits - 1
    return np.rint(signal(np.clip(light, 0, 1)) * top).astype(np.uint16 if bits == 16 else np.uint8)


def chunk(name: bytes, body: bytes, *, damaged: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ damaged)


def png(pixels: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of HxW, HxWx3 or HxWx4 uint8 or uint16, with chunks before the pixels."""
    height, width = pixels.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[pixels.reshape(height, width, -1).shape[2]]
    rows = pixels.reshape(height, -1).astype(pixels.dtype.newbyteorder(">"))
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, pixels.dtype.itemsize * 8, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(body)),
            chunk(b"IEND", b""),
        )
    )


def read(data: bytes) -> DecodedImage:
    return decode(data, LIMITS)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(int) - expected).mean())


def srgb_signal(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


SPACES = {
    "Display P3": (12, 13, srgb_signal),
    "BT.2020 SDR": (9, 14, lambda light: np.where(light < 0.0181, light * 4.5, 1.0993 * light**0.45 - 0.0993)),
    "DCI P3, gamma 2.6": (11, 17, lambda light: (light * 48 / 52.37) ** (1 / 2.6)),
    "gamma 2.2": (1, 4, lambda light: light ** (1 / 2.2)),
    "PAL, gamma 2.8": (5, 5, lambda light: light ** (1 / 2.8)),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_are_converted_by_their_code_points(name: str, bits: int) -> None:
    primaries, transfer, signal = SPACES[name]
    stored = in_space(primaries, signal, bits)
    decoded = read(png(stored, chunk(b"cICP", bytes((primaries, transfer, 0, 1)))))
    if PRIMARIES[primaries][3] == PRIMARIES[1][3]:
        assert difference(decoded.rgb, RGB) < 1.5
    else:  # another white: adapted, so that grey stays grey
        assert difference(decoded.rgb, RGB) < 12
    assert decoded.warnings == ()


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_converted_with_a_warning(transfer: int, name: str) -> None:
    space = ColourSpace.of_cicp(9, transfer)
    assert space is not None
    levels = np.linspace(0, 1, 4096)
    light = space.linear(levels)
    stored = in_space(9, lambda wanted: np.interp(wanted, light, levels))
    decoded = read(png(stored, chunk(b"cICP", bytes((9, transfer, 0, 1)))))
    assert difference(decoded.rgb, RGB) < 2.5
    assert decoded.warnings[0].startswith("hdr_converted:")
    assert name in decoded.warnings[0]


def test_hdr_white_is_203_candelas() -> None:
    pq, hlg = ColourSpace.of_cicp(9, 16), ColourSpace.of_cicp(9, 18)
    assert pq is not None
    assert hlg is not None
    assert pq.linear(np.array([0.5806, 0.5])) == pytest.approx(
        [1, 0.454], abs=0.01
    )  # BT.2408, table 1: 58 % and 92 cd/m²
    assert hlg.linear(np.array([0.75])) == pytest.approx([1])


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_gamma_chunk_is_applied(gamma: float, bits: int) -> None:
    stored = in_space(1, lambda light: light ** (1 / gamma), bits)
    decoded = read(png(stored, chunk(b"gAMA", struct.pack(">I", round(100_000 / gamma)))))
    assert difference(decoded.rgb, RGB) < 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_gamma_chunk_is_applied_to_grey_and_keeps_alpha(bits: int) -> None:
    top = 2**bits - 1
    light = srgb_linear(RGB[..., 0] / 255)
    grey = np.rint(light * top).astype(np.uint16 if bits == 16 else np.uint8)
    assert difference(read(png(grey, chunk(b"gAMA", struct.pack(">I", 100_000)))).rgb[..., 0], RGB[..., 0]) < 1
    stored = np.dstack((in_space(1, lambda one: one, bits), np.full(RGB.shape[:2], top // 2, grey.dtype)))
    decoded = read(png(stored, chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert decoded.alpha is not None
    assert (decoded.alpha == 127).all()
    assert difference(decoded.rgb, RGB) < 1


def primaries_chunk(primaries: int) -> bytes:
    red, green, blue, white = PRIMARIES[primaries]
    return chunk(b"cHRM", struct.pack(">8I", *(round(one * 100_000) for xy in (white, red, green, blue) for one in xy)))


def test_primaries_of_a_gamma_chunk_are_applied() -> None:
    stored = in_space(12, lambda light: light ** (1 / 2.2))
    decoded = read(png(stored, chunk(b"gAMA", struct.pack(">I", 45455)), primaries_chunk(12)))
    assert difference(decoded.rgb, RGB) < 1


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", struct.pack(">I", 45455))],
        [chunk(b"gAMA", struct.pack(">I", 45455)), primaries_chunk(1)],
        [chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", bytes(32))],
        [chunk(b"gAMA", bytes(4))],
        [chunk(b"gAMA", struct.pack(">I", 2**31))],
        [primaries_chunk(12)],
        [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))],
        [chunk(b"cICP", bytes((1, 13, 0, 1))), chunk(b"gAMA", struct.pack(">I", 100_000))],
        [chunk(b"cICP", bytes((1, 1, 0, 1)))],
        [chunk(b"cICP", bytes((2, 2, 0, 1)))],
        [chunk(b"cICP", bytes((77, 13, 0, 1)))],
    ],
)
def test_colour_chunks_that_mean_srgb_or_nothing_change_no_pixel(chunks: list[bytes]) -> None:
    decoded = read(png(RGB, *chunks))
    assert np.array_equal(decoded.rgb, RGB)
    assert decoded.warnings == ()


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * 3_000_000),
        chunk(b"eXIf", b"MM\0*" + bytes(3_000_000)),
        chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(ICC + bytes(3_000_000))),
        chunk(b"prVt", bytes(3_000_000)),
    ],
    ids=["zTXt", "iTXt", "tEXt", "XMP", "EXIF", "ICC", "private"],
)
def test_metadata_above_a_megabyte_does_not_reject_the_file(extra: bytes) -> None:
    decoded = read(png(RGB, extra))
    assert np.array_equal(decoded.rgb, RGB)
    assert decoded.warnings == ()


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"bKGD", b"tIME", b"prVt", b"sBIT"])
def test_a_damaged_chunk_that_changes_no_pixel_is_ignored(name: bytes) -> None:
    decoded = read(png(RGB, chunk(name, bytes(9), damaged=True)))
    assert np.array_equal(decoded.rgb, RGB)
    assert decoded.warnings == ()


@pytest.mark.parametrize(
    ("extra", "warning"),
    [
        (chunk(b"iCCP", b"p\0\0" + zlib.compress(ICC), damaged=True), "profile_ignored"),
        (chunk(b"iCCP", b"p\0\0" + zlib.compress(ICC)[:200]), "profile_ignored"),
        (chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(20_000_000))), "profile_ignored"),
        (chunk(b"gAMA", struct.pack(">I", 100_000), damaged=True), "chunk_ignored"),
        (chunk(b"cHRM", bytes(32), damaged=True), "chunk_ignored"),
        (chunk(b"cICP", bytes((12, 13, 0, 1)), damaged=True), "chunk_ignored"),
        (chunk(b"tRNS", bytes(6), damaged=True), "chunk_ignored"),
    ],
)
def test_a_damaged_chunk_that_changes_pixels_adds_a_warning(extra: bytes, warning: str) -> None:
    decoded = read(png(RGB, extra))
    assert np.array_equal(decoded.rgb, RGB)
    assert [one.partition(":")[0] for one in decoded.warnings] == [warning]


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"IEND"])
def test_a_damaged_chunk_of_the_pixels_rejects_the_file(name: bytes) -> None:
    data = bytearray(png(RGB))
    at = data.index(name)
    (length,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 + length] ^= 1  # the checksum
    with pytest.raises(UnreadableImage, match=name.decode()):
        read(bytes(data))


def test_a_file_that_lacks_only_its_end_is_complete() -> None:
    data = png(RGB)
    assert np.array_equal(read(data[:-12]).rgb, RGB)  # IEND
    assert np.array_equal(read(data[:-16]).rgb, RGB)  # and the checksum of IDAT


def test_a_file_that_lacks_pixels_is_rejected() -> None:
    noise = np.random.default_rng(0).integers(0, 256, RGB.shape, np.uint8)
    data = png(noise)
    with pytest.raises(UnreadableImage):
        read(data[: len(data) * 9 // 10])
    with pytest.raises(UnreadableImage):
        read(data[: len(data) * 9 // 10] + chunk(b"IEND", b""))


def test_a_profile_of_another_class_of_images_is_named() -> None:
    grey = io.BytesIO()
    Image.fromarray(RGB).save(grey, "PNG", icc_profile=ICC[:16] + b"CMYK" + ICC[20:])
    decoded = read(grey.getvalue())
    assert np.array_equal(decoded.rgb, RGB)
    assert "CMYK" in decoded.warnings[0]


def test_an_rgb_profile_converts_a_grey_image() -> None:
    space = ColourSpace(SRGB_PRIMARIES, 4, 1.0)
    grey = io.BytesIO()
    stored = np.rint(srgb_linear(RGB[..., 0] / 255) * 255).astype(np.uint8)
    Image.fromarray(stored).save(grey, "PNG", icc_profile=icc_profile(space))
    decoded = read(grey.getvalue())
    assert difference(decoded.rgb[..., 0], RGB[..., 0]) < 1
    assert decoded.warnings == ()


def test_the_default_image_of_an_animation_is_decoded_without_its_frames() -> None:
    frames = chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fdAT", bytes(8), damaged=True)
    assert np.array_equal(read(png(RGB, *frames)).rgb, RGB)
