"""Instances, detections and edits of one image, with a fake engine and a fake detector."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from maskdrop.edit import EDITORS
from maskdrop.errors import EditRefused, InvalidPrompt, MaskEmpty, MaskFull, UnknownLabel
from maskdrop.options import Options
from maskdrop.prompt import Prompts
from sagemaker_model import cutout as cutout_module
from sagemaker_model.cutout import Cutout, compose_candidates, cut_out, detect_objects
from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector

LIMITS = ServerSettings().limits
NOISE = np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8)
PHOTO = cv2.imencode(".png", NOISE[..., ::-1])[1].tobytes()
LEFT, RIGHT = (10.0, 10.0, 60.0, 60.0), (120.0, 20.0, 190.0, 95.0)
FACES = FakeDetector((("face", 0.9, LEFT), ("face", 0.6, RIGHT)))


@dataclass
class Boxes:
    """Segments the whole of each box, or the whole image without a prompt."""

    weights_sha256: str = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None: ...

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        values = np.zeros(rgb.shape[:2], np.float32)
        for prompt in prompts:
            assert prompt.box
            x0, y0, x1, y1 = map(round, prompt.box)
            values[y0:y1, x0:x1] = 1
        return Alpha(values)


def process(detector: FakeDetector = FACES, **options: object) -> Cutout:
    return cut_out(PHOTO, Options.from_json(options), Boxes(), LIMITS, detector=detector, editor=EDITORS["stability"])


def pixels(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_label_returns_one_mask_for_each_instance_and_their_union() -> None:
    cutout = process(task="mask", prompt={"label": "face"}, instances="each")
    assert [(part.label, round(part.score, 2), part.box) for part in cutout.parts] == [
        ("face", 0.9, (10, 10, 60, 60)),
        ("face", 0.6, (120, 20, 190, 95)),
    ]
    left, right = (pixels(part.data) for part in cutout.parts)
    assert {*np.unique(left), *np.unique(right)} == {0, 255}
    assert np.array_equal(pixels(cutout.data), np.maximum(left, right))


def test_a_click_selects_one_instance() -> None:
    cutout = process(task="mask", prompt={"label": "face", "points": [[150, 50]]}, instances="each")
    assert [part.box for part in cutout.parts] == [(120, 20, 190, 95)]


def test_without_sam_a_click_alone_selects_a_person() -> None:
    people = FakeDetector((("person", 0.9, LEFT), ("person", 0.6, RIGHT)))
    assert process(people, prompt={"points": [[30, 30]]}).subject.box == (10, 10, 60, 60)


def test_ignored_instances_are_background() -> None:
    alpha = pixels(process(prompt=[{"box": [0, 0, 200, 100]}, {"label": "face", "mode": "ignore"}]).data)[..., 3]
    assert alpha[30, 30] == 0
    assert alpha[50, 150] == 0
    assert alpha[5, 100] == 255


def test_a_label_that_is_not_found_is_an_empty_result_with_warnings() -> None:
    cutout = process(prompt={"label": "person"}, instances="each")
    assert cutout.subject.box is None
    assert cutout.parts == ()
    assert [warning.split(":")[0] for warning in cutout.warnings] == ["label_not_found", "no_subject"]


def test_a_label_that_no_detector_knows_is_an_error() -> None:
    with pytest.raises(UnknownLabel):
        cut_out(PHOTO, Options.from_json({"prompt": {"label": "face"}}), Boxes(), LIMITS)


def test_a_large_image_has_fewer_results_of_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout_module, "RESULT_PIXELS_MAX", 100 * 200)
    cutout = process(task="mask", prompt={"label": "face"}, instances="each")
    assert [part.box for part in cutout.parts] == [(10, 10, 60, 60)]
    assert np.array_equal(pixels(cutout.data) > 0, pixels(process(task="mask", prompt={"label": "face"}).data) > 0)
    assert [warning.split(":")[0] for warning in cutout.warnings if "instances" in warning] == ["instances_omitted"]


@pytest.mark.parametrize("boxes", [[[0, 0, 1, 1]] * 65, [[0, 0, 200, 100]] * 17])
def test_boxes_that_take_too_long_without_sam_are_refused(boxes: list[list[int]]) -> None:
    with pytest.raises(InvalidPrompt, match="at most 64 boxes"):
        process(prompt=[{"box": box} for box in boxes])
    assert process(engine="grabcut", prompt=[{"box": box} for box in boxes]).data


def test_an_aspect_ratio_beyond_that_of_the_editor_is_refused_before_it_is_paid() -> None:
    wide = cv2.imencode(".png", np.zeros((10, 40, 3), np.uint8))[1].tobytes()
    options = Options.from_json({"task": "replace", "prompt": {"box": [1, 1, 9, 9]}, "edit": "a beach"})
    with pytest.raises(EditRefused, match=r"at most 2\.5 times"):
        cut_out(wide, options, Boxes(), LIMITS, editor=EDITORS["stability"])


def test_detections_are_json_with_boxes_in_pixels() -> None:
    options = Options.from_json({"task": "detect", "prompt": {"label": "face", "min_confidence": 70}})
    cutout = detect_objects(PHOTO, options, FACES, LIMITS)
    assert (cutout.format, cutout.content_type) == ("json", "application/json")
    assert json.loads(cutout.data) == {
        "width": 200,
        "height": 100,
        "engine": "labels",
        "labels": ["face", "person"],
        "detections": [{"label": "face", "score": 0.9, "box": [10, 10, 60, 60]}],
    }
    assert cutout.subject.box == (10, 10, 60, 60)


def test_detections_without_a_prompt_have_every_label_and_no_detection_is_no_error() -> None:
    assert len(json.loads(detect_objects(PHOTO, Options(task="detect"), FACES, LIMITS).data)["detections"]) == 2
    empty = detect_objects(PHOTO, Options(task="detect"), FakeDetector(), LIMITS)
    assert json.loads(empty.data)["detections"] == []
    assert empty.subject.box is None


def test_ignored_labels_are_removed_from_the_detections() -> None:
    both = FakeDetector((("face", 0.9, LEFT), ("person", 0.6, LEFT), ("person", 0.5, RIGHT)))
    options = Options.from_json(
        {"task": "detect", "prompt": [{"label": "person"}, {"label": "face", "mode": "ignore"}]}
    )
    assert [one["box"] for one in json.loads(detect_objects(PHOTO, options, both, LIMITS).data)["detections"]] == [
        [120, 20, 190, 95]
    ]


EDIT: dict[str, Any] = {"task": "replace", "prompt": {"label": "face"}}


def test_an_edit_prepares_alpha_image_and_mask_within_the_limits_of_the_editor() -> None:
    small = EDITORS["stability"]
    cutout = process(**EDIT, edit="a beach")
    assert (cutout.data, cutout.edit is None) == (b"", False)
    assert cutout.edit
    alpha, image, mask = (pixels(data) for data in (cutout.edit.alpha, cutout.edit.image, cutout.edit.mask))
    assert alpha.shape == (100, 200)
    assert image.shape[:2] == mask.shape
    assert min(mask.shape) >= small.side_min
    assert {*np.unique(mask)} == {0, 255}
    assert mask[30, 30] == 255


@pytest.mark.parametrize(("box", "error"), [([0, 0, 200, 100], MaskFull), ([10, 10, 10.001, 10.001], MaskEmpty)])
def test_an_edit_without_a_background_or_a_subject_is_refused_before_it_is_paid(
    box: list[float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        process(task="replace", prompt={"box": box}, edit="a beach")


def generated(colour: tuple[int, int, int]) -> bytes:
    return cv2.imencode(".png", np.full((50, 100, 3), colour[::-1], np.uint8))[1].tobytes()


def test_a_generated_background_keeps_every_opaque_pixel_of_the_source() -> None:
    options = Options.from_json({**EDIT, "edit": {"prompts": ["green", "red"]}})
    edit = process(**EDIT, edit={"prompts": ["green", "red"]}).edit
    assert edit
    files = [generated((0, 200, 0)), generated((200, 0, 0))]
    cutout = compose_candidates(PHOTO, options, edit.alpha, files, Boxes(), LIMITS)
    alpha = pixels(edit.alpha)
    for part, colour in zip(cutout.parts, [(0, 200, 0), (200, 0, 0)], strict=True):
        result = pixels(part.data)
        assert result.shape == (100, 200, 4)
        assert np.array_equal(result[..., :3][alpha == 255], NOISE[alpha == 255])
        assert (result[..., :3][alpha == 0] == colour).all()
        assert result[..., 3].min() == 255
    assert cutout.data == cutout.parts[0].data


def test_a_generated_subject_keeps_every_pixel_of_the_background() -> None:
    edit = {"prompts": ["a balloon"], "change": "subject"}
    files = process(**EDIT, edit=edit).edit
    assert files
    options = Options.from_json({**EDIT, "edit": edit})
    result = pixels(compose_candidates(PHOTO, options, files.alpha, [generated((9, 9, 9))], Boxes(), LIMITS).data)
    alpha = pixels(files.alpha)
    assert np.array_equal(result[..., :3][alpha == 0], NOISE[alpha == 0])
    assert (result[..., :3][alpha == 255] == 9).all()


def test_a_generated_file_that_is_no_image_and_a_foreign_alpha_are_refused() -> None:
    options = Options.from_json({**EDIT, "edit": "a beach"})
    files = process(**EDIT, edit="a beach").edit
    assert files
    with pytest.raises(EditRefused, match="generated"):
        compose_candidates(PHOTO, options, files.alpha, [b"no image"], Boxes(), LIMITS)
    with pytest.raises(EditRefused, match="alpha"):
        compose_candidates(PHOTO, options, generated((1, 1, 1)), [generated((1, 1, 1))], Boxes(), LIMITS)


def test_sam_without_a_prompt_supports_only_the_everything_mode() -> None:
    with pytest.raises(InvalidPrompt, match="mask"):
        process(engine="sam")
