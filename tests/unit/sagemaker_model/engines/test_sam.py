"""What the engines do around the network, which here draws a disc around the first mark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import MARKS_MAX, Prompt
from sagemaker_model.engines import sam
from sagemaker_model.engines.embeddings import Embedding
from sagemaker_model.engines.sam import Sam, Sam2, apart, boxes_around
from sagemaker_model.weights.store import NotInstalled, known

SIDE = 256
RADIUS = 4.3
"""Of the disc, in pixels of the masks; they have a quarter of the input's side."""


class Discs:
    """The first of the four masks is a disc around the middle of all marks but the last, the others larger by steps.
    The scores rise with the size."""

    side, prompts_at_once = SIDE, 4

    def __init__(self) -> None:
        self.encoded = 0
        self.decoded: list[tuple[np.ndarray, np.ndarray]] = []

    def encode(self, pictures: list[np.ndarray]) -> list[Embedding]:
        self.encoded += len(pictures)
        return [(one[None, :, ::4, ::4].astype(np.float16),) for one in pictures]

    def decode(self, embedding: Embedding, points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.decoded.append((points, labels))
        y, x = np.mgrid[: SIDE // 4, : SIDE // 4] * 4 + 2
        shown = labels >= 0
        middles = (points * shown[..., None]).sum(1) / shown.sum(1, keepdims=True)
        away = np.hypot(x - middles[:, 0, None, None], y - middles[:, 1, None, None]) / 4
        radii = RADIUS + np.arange(4)
        logits = (radii[None, :, None, None] - away[:, None]) * 10
        return logits.astype(np.float32), np.tile(np.float32([0.5, 0.9, 0.93, 0.96]), (len(points), 1))


def engine(kind: type[Sam] = Sam2) -> Sam:
    made = kind()
    made._network = Discs()
    return made


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


both = pytest.mark.parametrize("kind", [Sam, Sam2])


@both
@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (64, 64), (1200, 400), (40, 30)])
def test_a_point_means_the_same_place_on_the_way_in_and_out(kind: type[Sam], width: int, height: int) -> None:
    x, y = 0.7 * width, 0.4 * height
    rgb = np.zeros((height, width, 3), np.uint8)
    spot = max(2, min(width, height) // 20)
    rgb[int(y) - spot : int(y) + spot, int(x) - spot : int(x) + spot] = 255
    made = engine(kind)
    prompts = (Prompt(points=((x, y, 1),)),)
    pixels = made.prepare(rgb, prompts).pixels
    alpha = made.predict(rgb, prompts).values

    (points, labels), *_ = made._network.decoded
    column, row = points[0, 0].astype(int)
    assert labels.tolist() == [[1, -1]]
    assert (pixels[:, row, column] > 2).all(), "the network sees the spot where it is told that it is"

    high, wide = np.nonzero(alpha > 0.5)
    assert abs(wide.mean() / alpha.shape[1] - 0.7) < 0.02
    assert abs(high.mean() / alpha.shape[0] - 0.4) < 0.02
    mask = made.masks(made.embed(rgb), (width, height), prompts)
    x0, y0, x1, y1 = mask.boxes[0]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((x, y), abs=0.02 * max(width, height))


def test_sam_keeps_the_shape_of_the_picture_and_sam2_does_not() -> None:
    rgb = picture(400, 100)
    prompts = (Prompt((0, 0, 400, 100)),)
    assert engine(Sam).predict(rgb, prompts).values.shape == (SIDE // 4, SIDE)
    assert engine(Sam2).predict(rgb, prompts).values.shape == (SIDE, SIDE)
    pixels = engine(Sam).prepare(rgb, prompts).pixels
    assert not pixels[:, SIDE // 4 :].any(), "nothing but zeros where the image is not"
    assert np.abs(pixels[:, : SIDE // 4]).mean() > 0.5


@both
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 2), (30000, 20), (20, 30000)])
def test_pictures_of_any_size_have_an_alpha(kind: type[Sam], width: int, height: int) -> None:
    alpha = engine(kind).predict(picture(width, height), (Prompt(points=((width / 2, height / 2, 1),)),)).values
    assert alpha.dtype == np.float32
    assert np.isfinite(alpha).all()
    assert 0.5 < alpha.max() <= 1


@both
def test_without_a_prompt_it_says_what_is_needed(kind: type[Sam]) -> None:
    with pytest.raises(InvalidPrompt, match="needs a box or points"):
        engine(kind).predict(picture(9, 9), ())


def test_edges_are_soft() -> None:
    alpha = engine().predict(picture(200, 200), (Prompt(points=((100, 100, 1),)),)).values
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 100
    assert alpha.min() < 0.001 < 0.999 < alpha.max()


@both
def test_the_subject_is_the_union_of_all_prompts(kind: type[Sam]) -> None:
    prompts = (*(Prompt(points=((40 + 50 * i, 128, 1),)) for i in range(4)), Prompt((100, 20, 140, 60)))
    together = engine(kind).predict(picture(256, 256), prompts).values
    alone = [engine(kind).predict(picture(256, 256), (prompt,)).values for prompt in prompts]
    assert ((together > 0.5) != (np.max(alone, axis=0) > 0.5)).mean() < 0.002
    assert all(((together > 0.5) != (one > 0.5)).mean() > 0.02 for one in alone)


@both
def test_prompts_of_unequal_length_keep_their_order(kind: type[Sam]) -> None:
    prompts = (
        Prompt((40, 50, 60, 70)),
        Prompt(points=((200, 60, 1),)),
        Prompt(points=((100, 200, 1), (104, 200, 1))),
        Prompt((150, 150, 170, 170), ((160, 160, 1),)),
        Prompt(points=((60, 130, 1),)),
    )
    middles = [(50, 60), (200, 60), (102, 200), (160, 160), (60, 130)]
    made = engine(kind)
    found = made.masks(made.embed(picture(256, 256)), (256, 256), prompts)
    for (x0, y0, x1, y1), middle in zip(found.boxes, middles, strict=True):
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx(middle, abs=4)


@pytest.mark.parametrize(("kind", "ends"), [(Sam, []), (Sam2, [-1])])
def test_a_box_is_its_two_corners(kind: type[Sam], ends: list[int]) -> None:
    made = engine(kind)
    made.predict(picture(SIDE, SIDE), (Prompt((8, 16, 40, 64)), Prompt((8, 16, 40, 64), ((9, 17, 1), (10, 18, 0)))))
    (corners, first), (_, second) = made._network.decoded
    assert corners[0, :2].tolist() == [[8, 16], [40, 64]]
    assert (first[0].tolist(), second[0].tolist()) == ([2, 3, *ends], [1, 0, 2, 3, *ends])


def test_one_click_takes_the_best_of_three_and_a_clear_prompt_the_mask_made_for_it() -> None:
    made = engine(Sam)
    click, clear = Prompt(points=((128, 128, 1),)), Prompt(points=((128, 128, 1), (129, 128, 1)))
    found = made.masks(made.embed(picture(256, 256)), (256, 256), (click, clear))
    assert found.scores.tolist() == pytest.approx([0.96, 0.5])
    assert found.masks[0].sum() > found.masks[1].sum() > 0


def test_sam2_leaves_a_clear_mask_that_is_unsteady() -> None:
    made = engine(Sam2)
    steady = made._network.decode
    made._network.decode = lambda *a: ((found := steady(*a))[0] * np.float32([1e-3, 1, 1, 1])[:, None, None], found[1])
    box = (Prompt((100, 100, 150, 150)),)
    assert made.masks(made.embed(picture(256, 256)), (256, 256), box).scores.tolist() == pytest.approx([0.96])


def test_multimask_gives_three_masks_with_scores_and_boxes() -> None:
    made = engine()
    prompts = (Prompt(points=((128, 128, 1),)), Prompt((20, 20, 60, 60)))
    found = made.masks(made.embed(picture(512, 256)), (512, 256), prompts, multimask=True)
    assert found.masks.shape == (6, 256, 512)
    assert found.masks.dtype == np.bool_
    assert found.scores.tolist() == pytest.approx([0.9, 0.93, 0.96] * 2)
    assert np.array_equal(found.boxes, boxes_around(found.masks))


def test_a_thousand_prompts_are_worked_a_few_at_a_time() -> None:
    made = engine()
    prompts = tuple(Prompt(points=((i % 250, i // 4, 1),)) for i in range(MARKS_MAX))
    alpha = made.predict(picture(256, 256), prompts).values
    assert alpha.mean() > 0.9
    assert max(len(points) for points, _ in made._network.decoded) == Discs.prompts_at_once
    assert sum(len(points) for points, _ in made._network.decoded) == MARKS_MAX


def test_everything_finds_each_thing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four discs, whichever point of the grid meets them."""
    made = engine()
    decode = made._network.decode

    def quarters(embedding: Embedding, points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return decode(embedding, np.where(points < SIDE / 2, SIDE / 4, 3 * SIDE / 4), labels)

    monkeypatch.setattr(made._network, "decode", quarters)
    monkeypatch.setattr(sam, "OVERLAP_MAX", 0.4)  # the smaller discs of one point share 0.5 with its largest
    found = made.everything(made.embed(picture(400, 200)), (400, 200), points_per_side=6)
    assert found.masks.shape == (4, 200, 400)
    assert not (found.masks.sum(axis=0) > 1).any()
    assert sorted((x0 > 200, y0 > 100) for x0, y0, _, _ in found.boxes.tolist()) == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert found.scores.tolist() == pytest.approx([0.96] * 4)


def test_everything_leaves_out_what_the_network_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine()
    monkeypatch.setattr(sam, "EXPECTED_IOU_MIN", 0.99)
    found = made.everything(made.embed(picture(40, 20)), (40, 20), points_per_side=3)
    assert (found.masks.shape, found.scores.shape, found.boxes.shape) == ((0, 20, 40), (0,), (0, 4))


def test_of_boxes_that_overlap_the_best_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10], [0, 0, 5, 5]])
    scores = np.float32([0.5, 0.9, 0.1, 0.8, 0.7])
    assert apart(boxes, scores, 0.7).tolist() == [1, 4, 2]


def test_an_empty_mask_has_an_empty_box() -> None:
    masks = np.zeros((2, 5, 7), np.bool_)
    masks[1, 1:3, 4:6] = True
    assert boxes_around(masks).tolist() == [[0, 0, 0, 0], [4, 1, 6, 3]]


def test_a_second_prompt_on_a_picture_needs_no_encoder() -> None:
    made = engine()
    for x in range(5):
        made.predict(picture(30, 20), (Prompt((x, 0, x + 5, 10)),))
    assert made._network.encoded == 1
    made.predict(picture(20, 30), (Prompt((0, 0, 5, 10)),))
    assert made._network.encoded == 2


def test_a_picture_that_is_twice_in_a_batch_is_encoded_once() -> None:
    made = engine()
    a, b = (made.prepare(picture(*size), (Prompt((0, 0, 5, 5)),)) for size in ((30, 20), (20, 30)))
    found = made.infer([a, b, a])
    assert made._network.encoded == 2
    assert np.array_equal(found[0][0], found[2][0])
    assert not np.array_equal(found[0][0], found[1][0])


def test_an_embedding_of_other_weights_is_not_taken() -> None:
    made = engine()
    made.predict(picture(30, 20), (Prompt((0, 0, 5, 5)),))
    made.weights_sha256 = "other"
    made.predict(picture(30, 20), (Prompt((0, 0, 5, 5)),))
    assert made._network.encoded == 2


@both
def test_without_weights_it_is_not_installed_and_names_the_files(kind: type[Sam], tmp_path: Path) -> None:
    with pytest.raises(NotInstalled) as raised:
        kind().setup("cpu", tmp_path)
    published = [one for one in known().values() if one.engine == kind.name]
    assert len(published) == len(kind.folders)
    assert all(one.file in str(raised.value) for one in published)
