"""Files that have broken other services. The manifest next to them states the expected result of each."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskdrop.errors import InputError
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import Output
from sagemaker_model.cutout import Cutout, cut_out
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation import metrics
from sagemaker_model.imaging.pixels import Limits, decode

AWKWARD = Path(__file__).parents[3] / "shared" / "data" / "awkward_inputs"
LIMITS = Limits(IMAGE_BYTES_MAX, 50_000_000)

pytestmark = pytest.mark.skipif(not AWKWARD.is_dir(), reason="the folder shared/data/awkward_inputs is missing")


def rows() -> list[dict[str, str]]:
    if not AWKWARD.is_dir():
        return []
    with (AWKWARD / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rows_that(*expected: str) -> list[object]:
    return [pytest.param(row, id=row["file"]) for row in rows() if row["expect"] in expected]


def process(file: str, engine: Engine, **output: str) -> Cutout:
    data = (AWKWARD / "files" / file).read_bytes()
    return cut_out(data, Options(output=Output(**output)), engine, LIMITS)  # type: ignore[arg-type]


def matte(file: str, engine: Engine) -> np.ndarray:
    data = process(file, engine, channels="alpha").data
    alpha = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert alpha is not None
    return alpha


def iou(file: str, engine: Engine) -> float:
    """Returns the IoU of the predicted and the true mask of the person, at the size of the true mask."""
    truth = cv2.imread(str(AWKWARD / "base" / "person_mask.png"), cv2.IMREAD_GRAYSCALE)
    assert truth is not None
    alpha = cv2.resize(matte(file, engine), truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return metrics.iou(alpha >= 128, truth >= 128)


@pytest.mark.parametrize("row", rows_that("ok", "ok_or_415"))
def test_a_result_is_upright_has_the_size_of_its_image_and_no_metadata(
    row: dict[str, str], engines: dict[str, Engine]
) -> None:
    try:
        cutout = process(row["file"], engines["selfie"])
    except InputError as error:
        assert row["expect"] == "ok_or_415"
        assert str(error.status) in row["http_status"].split("|")  # noqa: PT017
        return
    with Image.open(io.BytesIO(cutout.data)) as result:
        result.load()
        assert result.size == (int(row["out_width"]), int(row["out_height"])) == (cutout.width, cutout.height)
        assert result.mode == "RGBA"
        assert not dict(result.getexif())
        assert getattr(result, "n_frames", 1) == 1
        assert set(result.info) <= {"srgb", "dpi", "maskdrop"}
    assert b"SecretCam" not in cutout.data


@pytest.mark.parametrize("row", rows_that("reject"))
def test_an_invalid_file_raises_one_input_error_that_is_not_retryable(
    row: dict[str, str], engines: dict[str, Engine]
) -> None:
    with pytest.raises(InputError) as caught:
        process(row["file"], engines["selfie"])
    assert str(caught.value.status) in row["http_status"].split("|")
    assert not caught.value.retryable


@pytest.mark.parametrize("row", rows_that("ok_or_reject"))
def test_a_decompression_bomb_is_rejected_or_processed(row: dict[str, str], engines: dict[str, Engine]) -> None:
    try:
        cutout = process(row["file"], engines["selfie"])
    except InputError as error:
        assert str(error.status) in row["http_status"].split("|")  # noqa: PT017
    else:
        assert (cutout.width, cutout.height) == (int(row["out_width"]), int(row["out_height"]))


@pytest.mark.parametrize("row", [pytest.param(r, id=r["file"]) for r in rows() if "mask IoU" in r["checks"]])
def test_the_mask_of_a_person_does_not_depend_on_the_file_format(
    row: dict[str, str], engines: dict[str, Engine]
) -> None:
    tolerance = float(re.search(r"within (\d\.\d+)", row["checks"]).group(1))  # type: ignore[union-attr]
    plain = iou("person_plain.png", engines["selfie"])
    try:
        found = iou(row["file"], engines["selfie"])
    except InputError as error:
        assert str(error.status) in row["http_status"].split("|")  # noqa: PT017
        return
    assert found == pytest.approx(plain, abs=tolerance)


def test_cmyk_red_is_converted_to_rgb_red() -> None:
    rgb = decode((AWKWARD / "files" / "fogra-0-100-100-0.tif").read_bytes(), LIMITS).rgb
    assert rgb.reshape(-1, 3).mean(axis=0) == pytest.approx([226, 0, 26], abs=30)


def test_an_image_without_subject_adds_the_warning_no_subject(engines: dict[str, Engine]) -> None:
    cutout = process("all_black.png", engines["selfie"])
    assert cutout.subject.box is None
    assert any(warning.startswith("no_subject:") for warning in cutout.warnings)


def test_a_fully_transparent_image_stays_transparent(engines: dict[str, Engine]) -> None:
    assert matte("full-transparent.png", engines["selfie"]).max() == 0
