"""The loss of detectors without anchor boxes: which cells learn which objects, and how well they do.

Boxes are x0, y0, x1, y1 in pixels of the network's input. `objects` are NxMx5: label, then the box; a label of -1 fills
up rows, because images have different numbers of objects. A is the number of cells, C of classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

CELLS_PER_OBJECT = 13
"""Number of cells that learn one object, as published for TOOD (Feng et al., "TOOD: Task-aligned One-stage Object
Detection", ICCV 2021, section 4.1)."""

SCORE_POWER, IOU_POWER = 1.0, 3.0
"""Powers of score and IoU in the choice of cells (TOOD, equation 1; published 1 and 6). With random weights few cells
predict an object's box, and a power of 6 gives all but the best of them a target near 0. On 28 images at 192 pixels,
mAP50 on them after 240 steps of 8 was 0.20 with a power of 3, and 0.13 with 6."""

FOCUS = 2.0
"""Power of the distance from the target in the class loss (Li et al., "Generalized Focal Loss", NeurIPS 2020, beta)."""

BOX_WEIGHT = 2.0
"""Weight of the box loss; that of the class loss is 1 (TOOD's published configuration)."""

EPSILON = 1e-7


class Assignment(NamedTuple):
    """What each cell learns. target: NxAxC, score of each class in 0..1. box: NxAx4. weight: NxA, 0 for background."""

    target: Tensor
    box: Tensor
    weight: Tensor


def detection(boxes: Tensor, logits: Tensor, centres: Tensor, strides: Tensor, objects: Tensor) -> Tensor:
    """Returns the loss of the predictions, boxes NxAx4 and logits NxAxC, a number.

    centres, strides: of the cells, Ax2 and Ax1. Class loss: quality focal loss with the alignment of box and score as
    the target (Generalized Focal Loss, equation 4). Box loss: 1 - GIoU. Both are divided by the sum of the targets.
    """
    assigned = assign(boxes.detach(), logits.detach().sigmoid(), centres, strides, objects)
    total = assigned.weight.sum().clamp(min=1)
    distance = (assigned.target - logits.sigmoid()).abs() ** FOCUS
    entropy = binary_cross_entropy_with_logits(logits, assigned.target, reduction="none")
    box_loss = (1 - giou(boxes, assigned.box)) * assigned.weight
    return ((distance * entropy).sum() + BOX_WEIGHT * box_loss.sum()) / total


def assign(boxes: Tensor, scores: Tensor, centres: Tensor, strides: Tensor, objects: Tensor) -> Assignment:
    """Assigns each object to the cells whose predictions suit it best, by score and IoU together (TOOD, section 3.2).

    A cell may learn an object if the cell's centre is in the object's box, or nearer than a stride to the box's centre:
    otherwise an object smaller than a stride might have no cell. A cell that suits several objects learns the one with
    the highest IoU.
    """
    labels, truth = objects[..., 0].long(), objects[..., 1:]
    present = labels >= 0
    iou = pairwise_iou(truth, boxes)  # NxMxA
    index = labels.clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    alignment = scores.transpose(1, 2).gather(1, index) ** SCORE_POWER * iou**IOU_POWER
    allowed = _near(truth, centres, strides) & present[..., None]
    best = torch.where(allowed, alignment, -1.0).topk(min(CELLS_PER_OBJECT, scores.shape[1]), dim=2).indices
    chosen = torch.zeros_like(allowed).scatter(2, best, value=True) & allowed
    # One object a cell: the one with the highest IoU among those that chose it.
    owner = torch.where(chosen, iou, -1.0).argmax(1, keepdim=True)  # Nx1xA
    chosen &= torch.zeros_like(chosen).scatter(1, owner, value=True)
    alignment, iou = alignment * chosen, iou * chosen
    # The best cell of an object gets its highest IoU as the target, the others less in proportion (equation 2).
    scale = iou.amax(2, keepdim=True) / alignment.amax(2, keepdim=True).clamp(min=EPSILON**2)
    weight = (alignment * scale).amax(1)  # NxA
    owner = owner[:, 0]
    classes = one_hot(labels.clamp(min=0).gather(1, owner), scores.shape[2])
    box = truth.gather(1, owner[..., None].expand(-1, -1, 4))
    return Assignment(classes * weight[..., None], box, weight)


def pairwise_iou(truth: Tensor, boxes: Tensor) -> Tensor:
    """Returns the IoU of each box of NxMx4 with each of NxAx4: NxMxA."""
    a, b = truth[:, :, None], boxes[:, None]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = sides.prod(-1)
    return intersection / (_area(a) + _area(b) - intersection + EPSILON)


def giou(one: Tensor, other: Tensor) -> Tensor:
    """Returns the generalised IoU, -1..1, of boxes of the same shape ...x4 (Rezatofighi et al., CVPR 2019)."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = _area(one) + _area(other) - intersection + EPSILON
    low, high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    hull = (high - low).prod(-1) + EPSILON
    return intersection / union - (hull - union) / hull


def _near(truth: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Returns whether a cell may learn an object, NxMxA."""
    centre, half = (truth[..., :2] + truth[..., 2:]) / 2, (truth[..., 2:] - truth[..., :2]) / 2
    distance = (centres - centre[:, :, None]).abs()
    return ((distance < half[:, :, None]) | (distance < strides)).all(-1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
