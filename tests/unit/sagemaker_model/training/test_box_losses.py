from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets.tiny_detector import TinyDetector, cells  # noqa: E402 - needs torch
from sagemaker_model.training import box_losses  # noqa: E402
from sagemaker_model.training.box_losses import CELLS_PER_OBJECT, IOU_POWER, assign, detection, giou, pairwise_iou  # noqa: E402

SIDE = 64

CENTRES, STRIDES = cells(SIDE, SIDE)


def objects(*rows: tuple[float, ...]) -> torch.Tensor:
    """Returns the objects of one image, filled up with a row without an object."""
    return torch.tensor([*rows, (-1.0,) * 5])[None]


def predictions(around: torch.Tensor, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the same box and a score of 0.5 for every cell."""
    return around.expand(1, len(CENTRES), 4), torch.full((1, len(CENTRES), classes), 0.5)


def test_giou_of_known_boxes() -> None:
    one = torch.tensor([[0.0, 0, 2, 2]] * 4)
    other = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2], [0, 0, 1, 1]])
    # Half an overlap: 2/6 without waste in the hull. Disjoint: 0 - (12 - 8) / 12. Inside: 1/4.
    assert giou(one, other).tolist() == pytest.approx([1, 1 / 3, -1 / 3, 1 / 4], abs=1e-5)


def test_the_iou_is_of_every_pair() -> None:
    truth = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 1, 1]]])
    boxes = torch.tensor([[[0.0, 0, 2, 1], [1, 1, 2, 2], [5, 5, 6, 6]]])
    assert torch.allclose(pairwise_iou(truth, boxes), torch.tensor([[[0.5, 0.25, 0], [0.5, 0, 0]]]), atol=1e-5)


def test_cells_in_a_box_learn_its_object_and_the_others_background() -> None:
    box = torch.tensor([16.0, 16, 48, 48])
    assigned = assign(*predictions(box), CENTRES, STRIDES, objects((1, 16, 16, 48, 48)))
    learning = assigned.weight[0] > 0
    inside, near = ((CENTRES > 16) & (CENTRES < 48)).all(1), ((CENTRES - 32).abs() < STRIDES).all(1)
    assert learning.sum() == CELLS_PER_OBJECT
    assert not (learning & ~inside & ~near).any()
    assert (assigned.box[0][learning] == box).all()
    # All cells predict the same, so that all have the highest IoU as their target, for class 1 only.
    assert torch.allclose(assigned.target[0][learning], torch.tensor([0.0, 1]), atol=1e-5)
    assert not assigned.target[0][~learning].any()


def test_the_cell_whose_box_suits_best_has_the_highest_target() -> None:
    boxes, scores = predictions(torch.tensor([16.0, 16, 48, 40]))
    boxes = boxes.clone()
    at = int(((torch.tensor([28.0, 28.0]) == CENTRES).all(1)).nonzero()[0])
    boxes[0, at] = torch.tensor([16.0, 16, 48, 48])
    weight = assign(boxes, scores, CENTRES, STRIDES, objects((0, 16, 16, 48, 48))).weight[0]
    assert weight.argmax() == at
    assert weight[at] == pytest.approx(1, abs=1e-5)
    assert weight[weight > 0].min() == pytest.approx(0.75**IOU_POWER, abs=1e-4)


def test_an_object_smaller_than_a_cell_is_learned() -> None:
    box = torch.tensor([9.0, 9, 11, 11])
    assert not ((CENTRES > 9) & (CENTRES < 11)).all(1).any()
    assert assign(*predictions(box), CENTRES, STRIDES, objects((0, 9, 9, 11, 11))).weight.sum() > 0.99


def test_a_cell_learns_the_object_that_its_box_overlaps_most() -> None:
    near, far = (0.0, 16, 16, 48, 48), (1.0, 8, 8, 56, 56)
    assigned = assign(*predictions(torch.tensor(near[1:])), CENTRES, STRIDES, objects(far, near))
    shared = (assigned.weight[0] > 0) & ((CENTRES > 16) & (CENTRES < 48)).all(1)
    owners = assigned.box[0][shared]
    assert (owners == torch.tensor(near[1:])).all(1).any()
    for box, target in zip(owners, assigned.target[0][shared], strict=True):
        assert int(target.argmax()) == (0 if torch.equal(box, torch.tensor(near[1:])) else 1)


def test_the_loss_is_small_for_exact_predictions_and_larger_for_each_error() -> None:
    box, truth = torch.tensor([16.0, 16, 48, 48]), objects((1, 16, 16, 48, 48))
    boxes, _ = predictions(box)
    target = assign(boxes, torch.full((1, len(CENTRES), 2), 0.5), CENTRES, STRIDES, truth).target
    exact = (target.clamp(1e-4, 1 - 1e-4)).logit()
    best = detection(boxes, exact, CENTRES, STRIDES, truth)
    assert best < 0.01
    assert detection(boxes + 4, exact, CENTRES, STRIDES, truth) > best + 0.1
    assert detection(boxes, -exact, CENTRES, STRIDES, truth) > best + 0.1


def test_the_loss_of_a_background_cell_is_that_of_the_quality_focal_loss() -> None:
    boxes, _ = predictions(torch.tensor([0.0, 0, 8, 8]))
    logits = torch.full((1, len(CENTRES), 2), math.log(0.25 / 0.75))
    expected = 2 * len(CENTRES) * 0.25**2 * -math.log(0.75)
    assert detection(boxes, logits, CENTRES, STRIDES, objects()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rows", [(), ((0.0, 5, 5, 40, 30), (1.0, 9, 9, 10, 10))])
def test_every_weight_has_a_finite_gradient(rows: tuple[tuple[float, ...], ...]) -> None:
    torch.manual_seed(0)
    net = TinyDetector(("a", "b"), 4)
    boxes, logits = net(torch.rand(1, 3, SIDE, SIDE))
    box_losses.detection(boxes, logits, CENTRES, STRIDES, objects(*rows)).backward()
    gradients = [weight.grad for weight in net.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
