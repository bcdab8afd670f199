"""Modulated deformable convolution (Zhu et al. 2019): every tap of the kernel samples the map at a shifted position.

torchvision computes it where its compiled operators work: its build must match torch's. Elsewhere a plain form in torch
does, with the same result up to 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

Operator = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""A deformable convolution with the arguments of `plain_deform_conv`."""

BAND_BYTES = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}
"""Bytes of the samples that the plain form holds at once. On the CPU, more do not fit into its cache (64 MiB: 1.5 times
the time). On a GPU, smaller bands would not keep it busy (estimated). All samples of BiRefNet's largest map are 0.8 GB
for an image of 1024x1024 and 3.3 GB for one of 2048x2048."""

COLUMNS_BYTES = 2**30
"""Bytes of torchvision's samples from which it gets a batch one image at a time: it holds those of up to 32 images."""


def deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Runs a deformable convolution by the fastest form that works on the device; see `plain_deform_conv`."""
    return operator_for(x.device.type)(x, offset, mask, weight, padding)


@cache
def operator_for(device: str) -> Operator:
    """Returns torchvision's form if its operator runs on this type of device, else the plain form."""
    if device not in BAND_BYTES:  # "meta" counts FLOPs, which are the same
        return plain_deform_conv
    try:
        zeros = torch.zeros(1, 1, 1, 1, device=device)
        torchvision_deform_conv(zeros, torch.zeros(1, 2, 1, 1, device=device), zeros, zeros, 0)
    except (ImportError, RuntimeError, NotImplementedError, AttributeError):  # absent, or built for another torch
        return plain_deform_conv
    return torchvision_deform_conv


def torchvision_deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Runs torchvision's operator, in float32 under autocast. See `plain_deform_conv`."""
    from torchvision.ops import deform_conv2d

    columns = 4 * x.numel() * weight.shape[2] * weight.shape[3]
    parts = len(x) if columns > COLUMNS_BYTES else 1
    return torch.cat(
        [
            deform_conv2d(one, shift, weight.to(one.dtype), padding=(padding, padding), mask=scale)
            for one, shift, scale in zip(x.chunk(parts), offset.chunk(parts), mask.chunk(parts), strict=True)
        ]
    )


def plain_deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Convolves BxCxHxW with OxCxkxk at stride 1, and returns BxOxHxW in the type of the weight.

    offset: Bx2k²xHxW, in pixels: channel 2t is dy and 2t+1 dx of tap t = row * k + column. mask: Bxk²xHxW, the factor
    of each sample. padding: (k - 1) / 2. Samples are bilinear; pixels outside the map are 0.

    Runs over bands of the map, so that the memory does not grow with its size. Positions are computed in float32 even
    in half precision: bfloat16 has eight bits, fewer than the number of a column.
    """
    batch, channels, height, width = x.shape
    outputs, side = weight.shape[0], weight.shape[2]
    taps = side * side
    kernel = weight.permute(2, 3, 1, 0).reshape(taps * channels, outputs)
    pixels = x.to(weight.dtype).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    shifts = offset.permute(0, 2, 3, 1).reshape(batch, height, width, taps, 2)
    scales = mask.permute(0, 2, 3, 1)
    exact = torch.promote_types(offset.dtype, torch.float32)
    place = torch.arange(side, device=x.device, dtype=exact) - padding
    tap_y, tap_x = place.repeat_interleave(side), place.repeat(side)
    columns = torch.arange(width, device=x.device, dtype=exact)
    result = torch.empty(batch, height, width, outputs, device=x.device, dtype=weight.dtype)
    row_bytes = width * taps * channels * weight.element_size()
    rows = max(1, BAND_BYTES.get(x.device.type, BAND_BYTES["cuda"]) // row_bytes)
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        lines = torch.arange(band.start, band.stop, device=x.device, dtype=exact)
        for number in range(batch):
            shift = shifts[number, band].to(exact)
            y = lines[:, None, None] + tap_y + shift[..., 0]
            x_ = columns[None, :, None] + tap_x + shift[..., 1]
            index, share = _neighbours(y, x_, height, width)
            share = (share * scales[number, band].to(exact)[..., None]).to(weight.dtype)
            samples = embedding_bag(index.view(-1, 4), pixels[number], per_sample_weights=share.view(-1, 4), mode="sum")
            result[number, band] = (samples.view(-1, taps * channels) @ kernel).view(-1, width, outputs)
    return result.permute(0, 3, 1, 2)


def _neighbours(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns the indices in the map of the four pixels around each position, and their shares, each with a last axis
    of 4. Pixels outside the map have the share 0."""
    top, left = y.floor(), x.floor()
    below, right = y - top, x - left
    rows, columns = torch.stack((top, top, top + 1, top + 1), -1), torch.stack((left, left + 1, left, left + 1), -1)
    shares = torch.stack(((1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right), -1)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return index.nan_to_num().int(), shares * inside  # NaN stays in the shares; as an index it would crash a GPU
