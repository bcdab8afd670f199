"""What the networks are trained to make small. Each loss is a number, the mean of a batch.

Alphas, mattes and details are Nx1xHxW in 0..1, images Nx3xHxW, semantics Nx1 at 1/16 of the sides.
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
"""What a pixel of the edge band counts for above any other. The band has a tenth of the pixels and all of the hair."""

CERTAIN = 0.05
"""An alpha so near to 0 or 1 is one of the two: masks have been through JPEG and resizing."""

PRESENT, FAINT = 0.1, 0.01
"""Of self-consistency, as published: above the first is subject; at or below the second is nothing."""


def segmentation(logits: Tensor, alpha: Tensor, radius: int) -> Tensor:
    """Cross entropy, in which the edge counts more, and 1 - soft IoU, which sees a small subject as well as a large
    one. radius: of the edge band, in pixels."""
    weight = 1 + EDGE_WEIGHT * edge_band(alpha, radius)
    entropy = (weight * binary_cross_entropy_with_logits(logits, alpha, reduction="none")).sum() / weight.sum()
    return entropy + soft_iou_loss(logits.sigmoid(), alpha)


def soft_iou_loss(matte: Tensor, alpha: Tensor) -> Tensor:
    """1 - IoU of each image, with the smaller of both for the intersection and the larger for the union: it is 0 for
    the very alpha, soft or not, and 1 pixel is added to both so that an empty one counts too."""
    shared = torch.minimum(matte, alpha).sum((1, 2, 3))
    joined = torch.maximum(matte, alpha).sum((1, 2, 3))
    return (1 - (shared + 1) / (joined + 1)).mean()


def modnet(semantic: Tensor, detail: Tensor, matte: Tensor, picture: Tensor, alpha: Tensor, radius: int) -> Tensor:
    """MODNet's supervised loss (Ke et al. 2022, equations 1 to 4, with the weights of the published code).

    image: in -1..1, as the network takes it. radius: of the band in which the detail counts, in pixels.
    """
    band = edge_band(alpha, radius) > 0
    at_band = torch.where(band, matte, alpha.round())
    of_semantic = 10 * mse_loss(semantic, coarse(alpha))
    of_detail = 10 * (l1_loss(detail, alpha, reduction="none") * band).mean()
    of_matte = l1_loss(matte, alpha) + 4 * l1_loss(at_band, alpha)
    of_composite = l1_loss(picture * matte, picture * alpha) + 4 * l1_loss(picture * at_band, picture * alpha)
    return of_semantic + of_detail + of_matte + of_composite


def self_consistency(
    semantic: Tensor, detail: Tensor, matte: Tensor, detail_before: Tensor, matte_before: Tensor
) -> Tensor:
    """MODNet's adaptation to images without masks (Ke et al. 2022, section 3.4): its branches are to agree about
    where the person is, while along the outline it is held to what it said before, which would else be smoothed away.
    """
    small = coarse(matte)
    agreement = mse_loss(semantic, _above(small, FAINT)) + mse_loss(small, _above(semantic, FAINT))
    height, width = matte.shape[2:]
    subject = (matte > PRESENT) & (interpolate(semantic, (height, width), mode="bilinear") > PRESENT)
    outline = edge_band(subject.float(), int((height + width) / 2 * 0.05) // 2)
    change = (detail - detail_before).abs() + (matte - matte_before).abs()
    held = (outline * change).sum((1, 2, 3)) / outline.sum((1, 2, 3)).clamp(min=1)
    return 100 * agreement + held.mean()


def edge_band(alpha: Tensor, radius: int) -> Tensor:
    """1 where both subject and background are within `radius` pixels, or the alpha itself is neither; else 0."""
    subject, background = (alpha > CERTAIN).float(), (alpha < 1 - CERTAIN).float()
    return _dilated(subject, radius) * _dilated(background, radius)


def coarse(alpha: Tensor) -> Tensor:
    """At 1/16 of the sides, blurred: what MODNet's first branch is to find. Nx1."""
    small = interpolate(alpha, scale_factor=1 / 16, mode="bilinear")
    weights = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], device=alpha.device) ** 2) / (2 * 0.8**2))  # sigma: 0.8
    weights = weights / weights.sum()
    edge = "reflect" if min(small.shape[2:]) > 1 else "replicate"
    return conv2d(pad(small, (1, 1, 1, 1), mode=edge), (weights[:, None] * weights).to(small.dtype)[None, None])


def _dilated(x: Tensor, radius: int) -> Tensor:
    """The maximum of the square around each pixel, by rows and then by columns."""
    side = 2 * radius + 1
    rows = max_pool2d(x, (1, side), stride=1, padding=(0, radius))
    return max_pool2d(rows, (side, 1), stride=1, padding=(radius, 0))


def _above(x: Tensor, least: float) -> Tensor:
    """As a target: not learned from, and what is faint is nothing."""
    x = x.detach()
    return x * (x > least)
