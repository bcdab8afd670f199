"""Files of kinds that public bug reports describe. The manifest next to them states the expected result of each."""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from maskdrop.errors import InputError, UnreadableImage, UnsupportedFormat
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.options import Options
from sagemaker_model.cutout import Cutout, cut_out
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation import metrics
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode

REPORTED = Path(__file__).parents[3] / "shared" / "data" / "reported_inputs"
LIMITS = Limits(IMAGE_BYTES_MAX, 50_000_000)

pytestmark = pytest.mark.skipif(not REPORTED.is_dir(), reason="the folder shared/data/reported_inputs is missing")

SAME_AS_PLAIN = {
    "bmp32_v5_alpha_all_zero.bmp": 3, "cicp_display_p3.png": 2, "comfy_workflow_ztxt.png": 3, "icc_1200kb.png": 3,
    "iccp_bad_crc.png": 3, "linear_gama1_16bit.png": 2, "mif1_brand.avif": 3, "p3_cicp.avif": 2, "planar_rgb16.tif": 3,
    "xmp6.avif": 3, "pq_cicp.avif": 6, "cmyk_alpha.tif": 3, "lab16.tif": 3, "no_eoi.jpg": 6,
}  # fmt: skip
"""Largest mean difference of the colours from plain.png, of 255. JPEG, PQ and AVIF change colours by their coding."""

ERRORS = {
    "dng_thumbnail_first.dng": (UnsupportedFormat, "raw file"),
    "truncated_50_eoi.jpg": (UnreadableImage, "truncated"),
    "webp_in_tiff.tif": (UnsupportedFormat, "WebP compression"),
}

OTHERS = {
    "already_cut_out.png", "bigtiff.tif", "cutout_at_50_percent.png", "grey16_miniswhite.tif",
    "grey_with_ProPhotoRGB.jpg",
}  # fmt: skip
"""Files with a test of their own."""


def read(file: str) -> bytes:
    return (REPORTED / "files" / file).read_bytes()


@cache
def decoded(file: str) -> DecodedImage:
    return decode(read(file), LIMITS)


@cache
def plain() -> Image.Image:
    with Image.open(REPORTED / "plain.png") as opened:
        return opened.convert("RGB")


def difference(found: np.ndarray, expected: object) -> float:
    return float(np.abs(found.astype(int) - np.asarray(expected, int)).mean())


def rgba(cutout: Cutout) -> np.ndarray:
    with Image.open(io.BytesIO(cutout.data)) as opened:
        return np.array(opened)


def test_every_row_of_the_manifest_has_a_test() -> None:
    with (REPORTED / "manifest.csv").open(newline="") as file:
        rows = {row["file"] for row in csv.DictReader(file)}
    assert rows == {*SAME_AS_PLAIN, *ERRORS, *OTHERS}


@pytest.mark.parametrize(("file", "most"), SAME_AS_PLAIN.items())
def test_the_colours_are_those_of_the_plain_image(file: str, most: float) -> None:
    assert difference(decoded(file).rgb, plain()) < most


@pytest.mark.parametrize("file", SAME_AS_PLAIN)
def test_the_cutout_is_that_of_the_plain_image(file: str, engines: dict[str, Engine]) -> None:
    expected = rgba(cut_out((REPORTED / "plain.png").read_bytes(), Options(), engines["portrait"], LIMITS))
    found = rgba(cut_out(read(file), Options(), engines["portrait"], LIMITS))
    source = decoded(file).alpha
    if source is not None:
        expected[..., 3] = np.rint(expected[..., 3] * (source / 255))
    assert metrics.iou(found[..., 3] >= 128, expected[..., 3] >= 128) >= 0.98


@pytest.mark.parametrize("file", [*SAME_AS_PLAIN, "bigtiff.tif", "grey16_miniswhite.tif", "grey_with_ProPhotoRGB.jpg"])
def test_a_warning_is_added_only_where_the_result_differs(file: str) -> None:
    expected = {"iccp_bad_crc.png": ["profile_ignored"], "pq_cicp.avif": ["hdr_converted"]}
    assert [warning.partition(":")[0] for warning in decoded(file).warnings] == expected.get(file, [])


@pytest.mark.parametrize("file", ERRORS)
def test_an_unsupported_or_damaged_file_is_rejected_with_a_message_that_names_the_kind(file: str) -> None:
    kind, text = ERRORS[file]
    with pytest.raises(InputError, match=text) as caught:
        decode(read(file), LIMITS)
    assert type(caught.value) is kind


def test_a_cutout_that_is_sent_in_again_does_not_change(engines: dict[str, Engine]) -> None:
    with Image.open(io.BytesIO(read("already_cut_out.png"))) as opened:
        source = np.array(opened)
    found = rgba(cut_out(read("already_cut_out.png"), Options(), engines["portrait"], LIMITS))
    assert np.abs(found[..., 3].astype(int) - source[..., 3]).max() <= 2
    soft = (source[..., 3] > 0) & (source[..., 3] < 255)
    assert np.abs(found.astype(int) - source)[soft].max() <= 2


def test_a_half_opaque_subject_keeps_its_alpha_and_colours(engines: dict[str, Engine]) -> None:
    with Image.open(io.BytesIO(read("cutout_at_50_percent.png"))) as opened:
        source = np.array(opened)
    found = rgba(cut_out(read("cutout_at_50_percent.png"), Options(), engines["portrait"], LIMITS))
    subject = source[..., 3] >= 120
    assert np.abs(found[..., 3].astype(int) - source[..., 3])[subject].max() <= 2
    assert difference(found[..., :3][subject], source[..., :3][subject]) < 2


def test_a_bigtiff_has_its_own_size() -> None:
    assert decoded("bigtiff.tif").rgb.shape == (320, 320, 3)


def test_sixteen_bit_grey_of_a_scanner_is_not_a_negative() -> None:
    assert difference(decoded("grey16_miniswhite.tif").rgb, plain().convert("L").convert("RGB")) < 1


def test_an_rgb_profile_applies_to_a_grey_image() -> None:
    with Image.open(io.BytesIO(read("grey_with_ProPhotoRGB.jpg"))) as opened:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(opened.info["icc_profile"]))
        expected = ImageCms.profileToProfile(opened.convert("RGB"), profile, ImageCms.createProfile("sRGB"))
    assert difference(decoded("grey_with_ProPhotoRGB.jpg").rgb, expected) < 2
