"""The loss functions of the networks. Each loss is a number, the mean of a batch.

Alphas, mattes and details are Nx1xHxW in 0..1, images Nx3xHxW, semantics Nx1xhxw at 1/16 of the sides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    conv2d,
    interpolate,
    l1_loss,
    max_pool2d,
    mse_loss,
    pad,
)

EDGE_WEIGHT = 4.0
"""Extra weight of a pixel in the edge band. The band has a tenth of the pixels and all of the hair."""

CERTAIN = 0.05
"""An alpha within this distance of 0 or 1 counts as 0 or 1: JPEG and resizing change masks a little."""

PRESENT, FAINT = 0.1, 0.01
"""Thresholds of self-consistency, as published: above the first is subject; at or below the second is background."""


def segmentation(logits: Tensor, alpha: Tensor, radius: int) -> Tensor:
    """Cross entropy with extra weight on the edge, plus 1 - soft IoU, which weighs small and large subjects equally.

    radius: of the edge band, in pixels.
    """
    weight = 1 + EDGE_WEIGHT * edge_band(alpha, radius)
    entropy = (weight * binary_cross_entropy_with_logits(logits, alpha, reduction="none")).sum() / weight.sum()
    return entropy + soft_iou_loss(logits.sigmoid(), alpha)


def soft_iou_loss(matte: Tensor, alpha: Tensor) -> Tensor:
    """1 - IoU of each image, with the minimum of both as the intersection and the maximum as the union.

    It is 0 if the matte equals the alpha, soft or not. One pixel is added to both sums, so that empty alphas count too.
    """
    intersection = torch.minimum(matte, alpha).sum((1, 2, 3))
    union = torch.maximum(matte, alpha).sum((1, 2, 3))
    return (1 - (intersection + 1) / (union + 1)).mean()


def modnet(semantic: Tensor, detail: Tensor, matte: Tensor, image: Tensor, alpha: Tensor, radius: int) -> Tensor:
    """MODNet's supervised loss (Ke et al. 2022, equations 1 to 4, with the weights of the published code).

    image: in -1..1, as the network takes it. radius: of the band in which the detail counts, in pixels.
    """
    band = edge_band(alpha, radius) > 0
    band_matte = torch.where(band, matte, alpha.round())
    semantic_loss = 10 * mse_loss(semantic, coarse(alpha))
    detail_loss = 10 * (l1_loss(detail, alpha, reduction="none") * band).mean()
    matte_loss = l1_loss(matte, alpha) + 4 * l1_loss(band_matte, alpha)
    composite_loss = l1_loss(image * matte, image * alpha) + 4 * l1_loss(image * band_matte, image * alpha)
    return semantic_loss + detail_loss + matte_loss + composite_loss


def self_consistency(
    semantic: Tensor, detail: Tensor, matte: Tensor, previous_detail: Tensor, previous_matte: Tensor
) -> Tensor:
    """MODNet's adaptation to images without masks (Ke et al. 2022, section 3.4).

    The branches must agree on where the person is. Along the outline, the outputs must stay close to the previous
    ones; without this term, training would smooth the outline away.
    """
    small = coarse(matte)
    agreement = mse_loss(semantic, _target(small, FAINT)) + mse_loss(small, _target(semantic, FAINT))
    height, width = matte.shape[2:]
    subject = (matte > PRESENT) & (interpolate(semantic, (height, width), mode="bilinear") > PRESENT)
    outline = edge_band(subject.float(), int((height + width) / 2 * 0.05) // 2)
    change = (detail - previous_detail).abs() + (matte - previous_matte).abs()
    outline_change = (outline * change).sum((1, 2, 3)) / outline.sum((1, 2, 3)).clamp(min=1)
    return 100 * agreement + outline_change.mean()


def edge_band(alpha: Tensor, radius: int) -> Tensor:
    """Returns 1 where both subject and background are within `radius` pixels, or alpha is neither; else 0."""
    subject, background = (alpha > CERTAIN).float(), (alpha < 1 - CERTAIN).float()
    return _dilate(subject, radius) * _dilate(background, radius)


def coarse(alpha: Tensor) -> Tensor:
    """Returns alpha at 1/16 of the sides, blurred: the target of MODNet's first branch. Nx1xhxw."""
    small = interpolate(alpha, scale_factor=1 / 16, mode="bilinear")
    weights = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], device=alpha.device) ** 2) / (2 * 0.8**2))  # sigma: 0.8
    weights = weights / weights.sum()
    edge = "reflect" if min(small.shape[2:]) > 1 else "replicate"
    return conv2d(pad(small, (1, 1, 1, 1), mode=edge), (weights[:, None] * weights).to(small.dtype)[None, None])


def _dilate(x: Tensor, radius: int) -> Tensor:
    """Returns the maximum of the square around each pixel, by rows and then by columns."""
    side = 2 * radius + 1
    rows = max_pool2d(x, (1, side), stride=1, padding=(0, radius))
    return max_pool2d(rows, (side, 1), stride=1, padding=(radius, 0))


def _target(x: Tensor, minimum: float) -> Tensor:
    """Returns x as a target without a gradient, with values up to the minimum set to 0."""
    x = x.detach()
    return x * (x > minimum)
