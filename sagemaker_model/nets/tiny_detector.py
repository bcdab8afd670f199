"""TinyDetector: a small anchor-free network for object detection on CPUs.

- Backbone: strided and residual 3x3 convolutions (He et al., "Deep Residual Learning", CVPR 2016) down to 1/32 of the
  image's sides. Dense convolutions of few channels train faster on a CPU than depthwise ones of many.
- Neck: a feature pyramid (Lin et al., "Feature Pyramid Networks", CVPR 2017) over 1/8, 1/16 and 1/32.
- Head: one for all levels, with separate branches for classes and boxes, one prediction a cell and no anchor boxes
  (Tian et al., "FCOS", ICCV 2019; Ge et al., "YOLOX", arXiv 2107.08430, section 2.1).

In the comments, "at 1/4" is a quarter of the image's height and width. A is the number of cells of all levels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

STRIDES = (8, 16, 32)
"""Pixels between two cells at each level."""

PRIOR = 0.01
"""Initial score of every class in every cell. Most cells are background: without it, their loss hides that of the
objects at the start (Lin et al., "Focal Loss", ICCV 2017, section 3.3)."""

LOG_SIZE_MAX = 6.0
"""Maximum logarithm of a box's side in cells: 403 cells, so that an untrained network overflows nowhere."""


class TinyDetector(nn.Module):
    """From an image to boxes and logits. Input: Nx3xHxW float, RGB in 0..1, H and W multiples of 32.

    names: labels of the classes, in the order of the logits. filters: channels at 1/2; 16 have 2.0 million parameters.
    The boxes are NxAx4, x0, y0, x1, y1 in pixels of the input; the logits NxAxC. Both are of all cells, before
    suppression. Raises ValueError without names.
    """

    def __init__(self, names: Sequence[str], filters: int = 16) -> None:
        super().__init__()
        if not names:
            raise ValueError("A detector needs at least one class.")
        self.names, self.filters = tuple(names), filters
        f, neck = filters, 4 * filters
        self.to_4 = nn.Sequential(Conv(3, f, stride=2), Conv(f, 2 * f, stride=2))
        self.to_8 = nn.Sequential(Conv(2 * f, 4 * f, stride=2), Residual(4 * f))
        self.to_16 = nn.Sequential(Conv(4 * f, 8 * f, stride=2), Residual(8 * f), Residual(8 * f))
        self.to_32 = nn.Sequential(Conv(8 * f, 10 * f, stride=2), Residual(10 * f), Residual(10 * f))
        self.lateral = nn.ModuleList(Conv(channels, neck, size=1) for channels in (4 * f, 8 * f, 10 * f))
        self.smooth = nn.ModuleList(Conv(neck, neck) for _ in STRIDES[1:])
        self.class_branch = nn.Sequential(Conv(neck, neck), nn.Conv2d(neck, len(names), 1))
        self.box_branch = nn.Sequential(Conv(neck, neck), nn.Conv2d(neck, 4, 1))
        nn.init.constant_(self.class_branch[-1].bias, math.log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]

    @property
    def metadata(self) -> dict[str, str]:
        """Texts for the header of a weights file, from which `restored` creates the network."""
        return {"names": json.dumps(self.names), "filters": str(self.filters)}

    @classmethod
    def restored(cls, metadata: Mapping[str, str]) -> TinyDetector:
        """Creates the untrained network of a weights file. Raises KeyError, ValueError for other metadata."""
        return cls(json.loads(metadata["names"]), int(metadata["filters"]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        at_8 = self.to_8(self.to_4(image))
        at_16 = self.to_16(at_8)
        at_32 = self.to_32(at_16)
        fine, middle, coarse = (lateral(x) for lateral, x in zip(self.lateral, (at_8, at_16, at_32), strict=True))
        middle = self.smooth[1](middle + interpolate(coarse, scale_factor=2.0))
        fine = self.smooth[0](fine + interpolate(middle, scale_factor=2.0))
        levels = (fine, middle, coarse)
        logits = torch.cat([self.class_branch(level).flatten(2) for level in levels], 2)
        raw = torch.cat([self.box_branch(level).flatten(2) for level in levels], 2).float()
        centres, strides = cells(image.shape[2], image.shape[3], image.device)
        return decode(raw.transpose(1, 2), centres, strides), logits.transpose(1, 2)


class Conv(nn.Sequential):
    """A convolution, a norm and SiLU."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.SiLU(),
        )


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return silu(x + self.second(self.first(x)))


def cells(height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Returns the centres of all cells, Ax2 (x, y), and their strides, Ax1, both in pixels of the input."""
    centres, strides = [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
        centres.append((torch.stack((x, y), 2).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((rows * columns, 1), float(stride), device=device))
    return torch.cat(centres), torch.cat(strides)


def decode(raw: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Converts the output of the box branch to boxes, NxAx4 in pixels: two offsets of the centre in cells, and the
    logarithms of width and height in cells (YOLOX, section 2.1)."""
    centre = centres + raw[..., :2] * strides
    half = raw[..., 2:].clamp(max=LOG_SIZE_MAX).exp() * strides / 2
    return torch.cat((centre - half, centre + half), -1)
