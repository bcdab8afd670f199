"""The engines `sam` and `sam2` with a fake network, which draws a disc around the prompt's points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import MARKS_MAX, Prompt
from sagemaker_model.engines import sam
from sagemaker_model.engines.embeddings import Embedding
from sagemaker_model.engines.sam import Sam, Sam2, boxes_around, non_maximum_suppression
from sagemaker_model.weights.store import NotInstalled, known

SIDE = 256
RADIUS = 4.3
"""Radius of the disc in pixels of the masks, which have a quarter of the input's side."""


class Discs:
    """Returns four discs around the mean of a prompt's points, each one pixel larger than the one before.

    Padding points do not count. The scores rise with the size.
    """

    side, prompts_at_once = SIDE, 4

    def __init__(self) -> None:
        self.encoded = 0
        self.decoded: list[tuple[np.ndarray, np.ndarray]] = []

    def encode(self, images: list[np.ndarray]) -> list[Embedding]:
        self.encoded += len(images)
        return [(one[None, :, ::4, ::4].astype(np.float16),) for one in images]

    def decode(self, embedding: Embedding, points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.decoded.append((points, labels))
        y, x = np.mgrid[: SIDE // 4, : SIDE // 4] * 4 + 2
        is_point = labels >= 0
        centres = (points * is_point[..., None]).sum(1) / is_point.sum(1, keepdims=True)
        distance = np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None]) / 4
        radii = RADIUS + np.arange(4)
        logits = (radii[None, :, None, None] - distance[:, None]) * 10
        return logits.astype(np.float32), np.tile(np.array([0.5, 0.9, 0.93, 0.96], np.float32), (len(points), 1))


def make_engine(kind: type[Sam] = Sam2) -> Any:
    engine: Any = kind()
    engine._network = Discs()
    return engine


def image(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


both = pytest.mark.parametrize("kind", [Sam, Sam2])


@both
@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (64, 64), (1200, 400), (40, 30)])
def test_a_point_keeps_its_position_through_encoder_and_mask(kind: type[Sam], width: int, height: int) -> None:
    x, y = 0.7 * width, 0.4 * height
    rgb = np.zeros((height, width, 3), np.uint8)
    spot = max(2, min(width, height) // 20)
    rgb[int(y) - spot : int(y) + spot, int(x) - spot : int(x) + spot] = 255
    engine = make_engine(kind)
    prompts = (Prompt(points=((x, y, 1),)),)
    pixels = engine.prepare(rgb, prompts).pixels
    alpha = engine.predict(rgb, prompts).values

    (points, labels), *_ = engine._network.decoded
    column, row = points[0, 0].astype(int)
    assert labels.tolist() == [[1, -1]]
    assert (pixels[:, row, column] > 2).all(), "the spot is at the point's position in the network's input"

    high, wide = np.nonzero(alpha > 0.5)
    assert abs(wide.mean() / alpha.shape[1] - 0.7) < 0.02
    assert abs(high.mean() / alpha.shape[0] - 0.4) < 0.02
    mask = engine.masks(engine.embed(rgb), (width, height), prompts)
    x0, y0, x1, y1 = mask.boxes[0]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((x, y), abs=0.02 * max(width, height))


def test_sam_keeps_the_aspect_ratio_and_sam2_does_not() -> None:
    rgb = image(400, 100)
    prompts = (Prompt((0, 0, 400, 100)),)
    assert make_engine(Sam).predict(rgb, prompts).values.shape == (SIDE // 4, SIDE)
    assert make_engine(Sam2).predict(rgb, prompts).values.shape == (SIDE, SIDE)
    pixels = make_engine(Sam).prepare(rgb, prompts).pixels
    assert not pixels[:, SIDE // 4 :].any(), "the padding is 0"
    assert np.abs(pixels[:, : SIDE // 4]).mean() > 0.5


@both
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 2), (30000, 20), (20, 30000)])
def test_images_of_any_size_have_an_alpha(kind: type[Sam], width: int, height: int) -> None:
    alpha = make_engine(kind).predict(image(width, height), (Prompt(points=((width / 2, height / 2, 1),)),)).values
    assert alpha.dtype == np.float32
    assert np.isfinite(alpha).all()
    assert 0.5 < alpha.max() <= 1


@both
def test_without_a_prompt_the_error_names_what_is_needed(kind: type[Sam]) -> None:
    with pytest.raises(InvalidPrompt, match="needs a box or points"):
        make_engine(kind).predict(image(9, 9), ())


def test_edges_are_soft() -> None:
    alpha = make_engine().predict(image(200, 200), (Prompt(points=((100, 100, 1),)),)).values
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 100
    assert alpha.min() < 0.001 < 0.999 < alpha.max()


@both
def test_the_subject_is_the_union_of_all_prompts(kind: type[Sam]) -> None:
    prompts = (*(Prompt(points=((40 + 50 * i, 128, 1),)) for i in range(4)), Prompt((100, 20, 140, 60)))
    combined = make_engine(kind).predict(image(256, 256), prompts).values
    separate = [make_engine(kind).predict(image(256, 256), (prompt,)).values for prompt in prompts]
    assert ((combined > 0.5) != (np.max(separate, axis=0) > 0.5)).mean() < 0.002
    assert all(((combined > 0.5) != (one > 0.5)).mean() > 0.02 for one in separate)


@both
def test_prompts_of_unequal_length_keep_their_order(kind: type[Sam]) -> None:
    prompts = (
        Prompt((40, 50, 60, 70)),
        Prompt(points=((200, 60, 1),)),
        Prompt(points=((100, 200, 1), (104, 200, 1))),
        Prompt((150, 150, 170, 170), ((160, 160, 1),)),
        Prompt(points=((60, 130, 1),)),
    )
    centres = [(50, 60), (200, 60), (102, 200), (160, 160), (60, 130)]
    engine = make_engine(kind)
    masks = engine.masks(engine.embed(image(256, 256)), (256, 256), prompts)
    for (x0, y0, x1, y1), centre in zip(masks.boxes, centres, strict=True):
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx(centre, abs=4)


@pytest.mark.parametrize(("kind", "ends"), [(Sam, []), (Sam2, [-1])])
def test_a_box_is_sent_as_its_two_corners(kind: type[Sam], ends: list[int]) -> None:
    engine = make_engine(kind)
    engine.predict(image(SIDE, SIDE), (Prompt((8, 16, 40, 64)), Prompt((8, 16, 40, 64), ((9, 17, 1), (10, 18, 0)))))
    (corners, first), (_, second) = engine._network.decoded
    assert corners[0, :2].tolist() == [[8, 16], [40, 64]]
    assert (first[0].tolist(), second[0].tolist()) == ([2, 3, *ends], [1, 0, 2, 3, *ends])


def test_a_single_point_takes_the_best_of_three_masks_and_an_unambiguous_prompt_its_own() -> None:
    engine = make_engine(Sam)
    single, unambiguous = Prompt(points=((128, 128, 1),)), Prompt(points=((128, 128, 1), (129, 128, 1)))
    masks = engine.masks(engine.embed(image(256, 256)), (256, 256), (single, unambiguous))
    assert masks.scores.tolist() == pytest.approx([0.96, 0.5])
    assert masks.masks[0].sum() > masks.masks[1].sum() > 0


def test_sam2_replaces_the_mask_of_an_unambiguous_prompt_if_it_is_unstable() -> None:
    engine = make_engine(Sam2)
    decode = engine._network.decode

    def unstable(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        logits, scores = decode(*arguments)
        return logits * np.array([1e-3, 1, 1, 1], np.float32)[:, None, None], scores

    engine._network.decode = unstable
    box = (Prompt((100, 100, 150, 150)),)
    assert engine.masks(engine.embed(image(256, 256)), (256, 256), box).scores.tolist() == pytest.approx([0.96])


def test_multimask_returns_three_masks_with_scores_and_boxes() -> None:
    engine = make_engine()
    prompts = (Prompt(points=((128, 128, 1),)), Prompt((20, 20, 60, 60)))
    masks = engine.masks(engine.embed(image(512, 256)), (512, 256), prompts, multimask=True)
    assert masks.masks.shape == (6, 256, 512)
    assert masks.masks.dtype == np.bool_
    assert masks.scores.tolist() == pytest.approx([0.9, 0.93, 0.96] * 2)
    assert np.array_equal(masks.boxes, boxes_around(masks.masks))


def test_a_thousand_prompts_are_decoded_in_chunks() -> None:
    engine = make_engine()
    prompts = tuple(Prompt(points=((i % 250, i // 4, 1),)) for i in range(MARKS_MAX))
    alpha = engine.predict(image(256, 256), prompts).values
    assert alpha.mean() > 0.9
    assert max(len(points) for points, _ in engine._network.decoded) == Discs.prompts_at_once
    assert sum(len(points) for points, _ in engine._network.decoded) == MARKS_MAX


def test_everything_finds_each_object_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake network returns four discs; several points of the grid lie on each."""
    engine = make_engine()
    decode = engine._network.decode

    def quarters(embedding: Embedding, points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return decode(embedding, np.where(points < SIDE / 2, SIDE / 4, 3 * SIDE / 4), labels)

    monkeypatch.setattr(engine._network, "decode", quarters)
    monkeypatch.setattr(sam, "OVERLAP_MAX", 0.4)  # the smaller discs of one point share 0.5 with its largest
    masks = engine.everything(engine.embed(image(400, 200)), (400, 200), points_per_side=6)
    assert masks.masks.shape == (4, 200, 400)
    assert not (masks.masks.sum(axis=0) > 1).any()
    assert sorted((x0 > 200, y0 > 100) for x0, y0, _, _ in masks.boxes.tolist()) == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert masks.scores.tolist() == pytest.approx([0.96] * 4)


def test_everything_leaves_out_masks_with_a_low_expected_iou(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    monkeypatch.setattr(sam, "EXPECTED_IOU_MIN", 0.99)
    masks = engine.everything(engine.embed(image(40, 20)), (40, 20), points_per_side=3)
    assert (masks.masks.shape, masks.scores.shape, masks.boxes.shape) == ((0, 20, 40), (0,), (0, 4))


def test_non_maximum_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10], [0, 0, 5, 5]])
    scores = np.float32([0.5, 0.9, 0.1, 0.8, 0.7])
    assert non_maximum_suppression(boxes, scores, 0.7).tolist() == [1, 4, 2]


def test_an_empty_mask_has_an_empty_box() -> None:
    masks = np.zeros((2, 5, 7), np.bool_)
    masks[1, 1:3, 4:6] = True
    assert boxes_around(masks).tolist() == [[0, 0, 0, 0], [4, 1, 6, 3]]


def test_a_second_prompt_on_an_image_does_not_run_the_encoder() -> None:
    engine = make_engine()
    for x in range(5):
        engine.predict(image(30, 20), (Prompt((x, 0, x + 5, 10)),))
    assert engine._network.encoded == 1
    engine.predict(image(20, 30), (Prompt((0, 0, 5, 10)),))
    assert engine._network.encoded == 2


def test_an_image_that_occurs_twice_in_a_batch_is_encoded_once() -> None:
    engine = make_engine()
    a, b = (engine.prepare(image(*size), (Prompt((0, 0, 5, 5)),)) for size in ((30, 20), (20, 30)))
    embeddings = engine.infer([a, b, a])
    assert engine._network.encoded == 2
    assert np.array_equal(embeddings[0][0], embeddings[2][0])
    assert not np.array_equal(embeddings[0][0], embeddings[1][0])


def test_an_embedding_of_other_weights_is_not_used() -> None:
    engine = make_engine()
    engine.predict(image(30, 20), (Prompt((0, 0, 5, 5)),))
    engine.weights_sha256 = "other"
    engine.predict(image(30, 20), (Prompt((0, 0, 5, 5)),))
    assert engine._network.encoded == 2


@both
def test_without_weights_the_error_names_the_files(kind: type[Sam], tmp_path: Path) -> None:
    with pytest.raises(NotInstalled) as raised:
        kind().setup("cpu", tmp_path)
    published = [one for one in known().values() if one.engine == kind.name]
    assert len(published) == len(kind.hugging_face_folders)
    assert all(one.file in str(raised.value) for one in published)
