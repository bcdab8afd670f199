"""Canvas, padding, outline and shadow of every task, with a fake engine and a fake detector."""

from __future__ import annotations

import io
import re
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from maskdrop.edit import EDITORS
from maskdrop.errors import ResolutionTooHigh
from maskdrop.options import Options
from maskdrop.output import CONTENT_TYPE
from maskdrop.presets import PRESETS
from sagemaker_model import cutout as cutout_module
from sagemaker_model.cutout import compose_candidates, cut_out
from tests.unit.sagemaker_model.test_instances import FACES, LIMITS, PHOTO, Boxes, process

BOX = {"box": [50, 25, 150, 75]}
SQUARE = {"canvas": "300x300", "padding": "10%"}


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("form", CONTENT_TYPE)
def test_every_format_has_the_canvas_with_its_outline_and_shadow(form: str) -> None:
    output = {**SQUARE, "format": form, "outline": "6px navy", "shadow": "drop 0% 10% 2% 50%"}
    cutout = process(prompt=BOX, output=output)
    assert (cutout.width, cutout.height) == cutout.full_size == (300, 300)
    data = cutout.data
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as files:
            alpha, data = opened(files.read("alpha.png")), files.read("color.jpg")
        assert (alpha.shape, alpha[150, 150], alpha[150, 33]) == ((300, 300), 255, 255)
    pixels = opened(data).astype(int)
    assert pixels.shape[:2] == (300, 300)
    assert np.abs(pixels[150, 33, :3] - (0, 0, 128)).max() < 25, "in the outline"
    if form in ("png", "webp", "avif"):
        assert pixels[[5, 150], [5, 33], 3].tolist() == [0, 255]
        assert 40 < pixels[215, 150, 3] < 200, "in the shadow"


def test_a_mask_has_the_canvas_and_no_shadow() -> None:
    cutout = process(task="mask", prompt=BOX, output={"canvas": "ebay"})
    mask = opened(cutout.data)
    assert mask.shape == (1600, 1600)
    assert (mask[:, 800] > 127).mean() == pytest.approx(0.43, abs=0.01)
    assert (mask[800] > 127).mean() == pytest.approx(0.86, abs=0.01)


@pytest.mark.parametrize("background", ["studio grey", "gradient red blue", "blur", "navy"])
def test_a_new_background_fills_the_canvas(background: str) -> None:
    cutout = process(task="replace", prompt=BOX, output={**SQUARE, "background": background})
    pixels = opened(cutout.data)
    assert pixels.shape == (300, 300, 4)
    assert (pixels[..., 3] == 255).all()


def test_a_background_image_fills_the_canvas() -> None:
    options = Options.from_json({"prompt": BOX, "output": {**SQUARE, "background": "s3://b/k"}})
    stripes = np.repeat(np.array([[(255, 0, 0), (0, 255, 0)]], np.uint8), 8, axis=0)
    file = cv2.imencode(".png", stripes)[1].tobytes()
    pixels = opened(cut_out(PHOTO, options, Boxes(), LIMITS, background=file).data)
    assert (pixels[..., 3] == 255).all()
    assert pixels[150, 5, 2] > 250
    assert pixels[150, 295, 1] > 250


def test_every_instance_fills_its_own_canvas() -> None:
    cutout = process(prompt={"label": "face"}, instances="each", output={"canvas": "200x100", "padding": "0"})
    assert [(part.width, part.height) for part in cutout.parts] == [(200, 100)] * 2
    assert [(opened(part.data)[50, :, 3] > 127).sum() for part in cutout.parts] == pytest.approx([100, 93], abs=5)


def test_the_candidates_of_an_edit_have_the_canvas() -> None:
    options = Options.from_json({"task": "replace", "prompt": BOX, "edit": "a beach", "output": SQUARE})
    files = cut_out(PHOTO, options, Boxes(), LIMITS, editor=EDITORS["stability"]).edit
    assert files
    cutout = compose_candidates(PHOTO, options, files.alpha, [PHOTO], Boxes(), LIMITS)
    assert [(part.width, part.height) for part in cutout.parts] == [(300, 300)]
    assert (opened(cutout.data)[..., 3] == 255).all()


def test_the_box_in_the_result_is_that_of_the_subject_on_the_canvas() -> None:
    cutout = process(prompt=BOX, output=SQUARE)
    assert cutout.subject.box == (50, 25, 150, 75)
    assert cutout.box_in_result == pytest.approx((30, 90, 270, 210), abs=3)


@pytest.mark.parametrize("output", [{"canvas": "10000x10000"}, {"canvas": "1:10000"}])
def test_a_canvas_above_the_limit_of_pixels_is_refused(output: dict[str, str]) -> None:
    with pytest.raises(ResolutionTooHigh, match=r'reduce "output\.canvas"'):
        process(prompt=BOX, output=output)


def test_a_canvas_in_pixels_above_the_limit_is_refused_before_the_image_is_decoded() -> None:
    options = Options.from_json({"output": {"canvas": "10000x10000"}})
    with pytest.raises(ResolutionTooHigh):
        cut_out(b"not an image", options, Boxes(), LIMITS)


def test_a_large_canvas_has_fewer_results_of_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout_module, "RESULT_PIXELS_MAX", 400 * 400)
    cutout = process(prompt={"label": "face"}, instances="each", output={"canvas": "400x400"})
    assert len(cutout.parts) == 1


@pytest.mark.parametrize(
    ("output", "factor"),
    [
        (SQUARE, "2.4"),
        ({"scale": "100%"}, "1.9"),
        ({"canvas": "200x100"}, None),
        ({"canvas": "1:1", "padding": "40%"}, None),
    ],
)
def test_a_warning_reports_that_the_subject_was_enlarged(output: dict[str, str], factor: str | None) -> None:
    warnings = [text for text in process(prompt=BOX, output=output).warnings if text.startswith("enlarged")]
    assert len(warnings) == (factor is not None)
    if factor:
        assert f"enlarged {factor} times" in warnings[0]


def test_a_warning_reports_that_an_instance_was_enlarged() -> None:
    options = {"prompt": {"label": "face"}, "instances": "each", "output": {"canvas": "200x100", "padding": "0"}}
    assert any(re.search(r"enlarged (1\.9|2\.[01]) times", text) for text in process(FACES, **options).warnings)


def test_the_preset_product_is_a_white_square_with_a_tenth_free_on_each_side() -> None:
    output = PRESETS["product"].output.to_json()
    cutout = process(prompt=BOX, output=output)
    pixels = opened(cutout.data)
    assert cutout.content_type == "image/jpeg"
    assert pixels.shape == (cutout.height, cutout.height, 3)
    assert 125 <= cutout.height <= 130, "100 pixels and the soft edge are 80 %"
    assert pixels[:8].min() >= 250
    assert pixels[:, :8].min() >= 250
    assert cutout.box_in_result == pytest.approx((13, 39, 113, 89), abs=2)


def test_the_preset_sticker_is_a_webp_of_512_pixels_with_a_white_outline() -> None:
    cutout = process(prompt=BOX, output=PRESETS["sticker"].output.to_json())
    pixels = opened(cutout.data)
    assert (cutout.content_type, pixels.shape) == ("image/webp", (512, 512, 4))
    assert (pixels[256, 3:7] >= 250).all(), "white and opaque"
    assert cutout.box_in_result == pytest.approx((8, 132, 504, 380), abs=6)
    assert len(cutout.data) < 512 * 1024, "the limit of Telegram"
