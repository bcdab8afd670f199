"""The published BiRefNet reimplemented without the modules under test: names, shapes and the forward pass.

The forward pass is written for tiny networks: attention, deformable convolutions, tiles and patch merging are loops
over single tokens, pixels and channels, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, exp, floor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, gelu, interpolate, layer_norm, linear

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]
Order = Literal["old", "new"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Swin:
    """Embedding width, blocks and heads of each stage, side of a window, shift of every second block."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    shift: int


T = Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 3)
L = Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 6)
TINY = Swin(8, (2, 2, 2, 2), (1, 2, 2, 4), 3, 1)
"""Small enough for loops in Python, with all kinds of layers of the others."""


# Names and shapes


def shapes(swin: Swin) -> Shapes:
    """Returns the shapes of the entries of the published file of this backbone."""
    c = swin.width
    entries = dict(_backbone(swin))
    for name, inputs, outputs in _blocks(c):
        entries |= _decoder_block(name, inputs, outputs)
    for number, (grid, outputs) in _patches(c).items():
        at = f"decoder.ipt_blk{number}"
        entries |= _conv(f"{at}.conv1", 3 * grid * grid, 64, 3) | _conv(f"{at}.conv_out", 64, outputs, 3)
    for number, n in ((2, 2 * c), (3, 4 * c), (4, 8 * c)):
        entries |= _conv(f"decoder.lateral_block{number}.conv", n, n, 1)
        entries |= _conv(f"decoder.conv_ms_spvn_{number}", n, 1, 1)
        entries |= _conv(f"decoder.gdt_convs_{number}.0", n, 16, 3) | _norm(f"decoder.gdt_convs_{number}.1", 16)
        entries |= _conv(f"decoder.gdt_convs_attn_{number}.0", 16, 1, 1)
        entries |= _conv(f"decoder.gdt_convs_pred_{number}.0", 16, 1, 1)
    return entries | _conv("decoder.conv_out1.0", c + c // 4, 1, 1)


def _blocks(c: int) -> list[tuple[str, int, int]]:
    return [
        ("squeeze_module.0", 30 * c, 16 * c),
        ("decoder.decoder_block4", 18 * c, 8 * c),
        ("decoder.decoder_block3", 10 * c, 4 * c),
        ("decoder.decoder_block2", 5 * c, 2 * c),
        ("decoder.decoder_block1", 2 * c + c // 2, c),
    ]


def _patches(c: int) -> dict[int, tuple[int, int]]:
    return {5: (32, 2 * c), 4: (16, 2 * c), 3: (8, c), 2: (4, c // 2), 1: (1, c // 4)}


def _backbone(swin: Swin) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _conv("bb.patch_embed.proj", 3, swin.width, 4).items()
    yield from _pair("bb.patch_embed.norm", swin.width)
    w = swin.window
    for i, (depth, heads) in enumerate(zip(swin.depths, swin.heads, strict=True)):
        d = swin.width * 2**i
        for j in range(depth):
            at = f"bb.layers.{i}.blocks.{j}"
            yield from _pair(f"{at}.norm1", d)
            yield from _pair(f"{at}.norm2", d)
            yield f"{at}.attn.relative_position_bias_table", ((2 * w - 1) ** 2, heads)
            yield f"{at}.attn.relative_position_index", (w * w, w * w)
            for name, outputs, inputs in (
                ("attn.qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.fc1", 4 * d, d), ("mlp.fc2", d, 4 * d),
            ):  # fmt: skip
                yield f"{at}.{name}.weight", (outputs, inputs)
                yield f"{at}.{name}.bias", (outputs,)
        if i < 3:
            yield from _pair(f"bb.layers.{i}.downsample.norm", 4 * d)
            yield f"bb.layers.{i}.downsample.reduction.weight", (2 * d, 4 * d)
        yield from _pair(f"bb.norm{i}", d)


def _decoder_block(at: str, inputs: int, outputs: int) -> Shapes:
    entries = _conv(f"{at}.conv_in", inputs, 64, 3) | _norm(f"{at}.bn_in", 64)
    for branch, k in BRANCHES.items():
        conv = f"{at}.dec_att.{branch}.atrous_conv"
        entries |= _conv(f"{conv}.offset_conv", 64, 2 * k * k, k) | _conv(f"{conv}.modulator_conv", 64, k * k, k)
        entries |= {f"{conv}.regular_conv.weight": (256, 64, k, k)} | _norm(f"{at}.dec_att.{branch}.bn", 256)
    entries |= {f"{at}.dec_att.global_avg_pool.1.weight": (256, 64, 1, 1)}
    entries |= _norm(f"{at}.dec_att.global_avg_pool.2", 256)
    entries |= {f"{at}.dec_att.conv1.weight": (64, 1280, 1, 1)} | _norm(f"{at}.dec_att.bn1", 64)
    return entries | _conv(f"{at}.conv_out", 64, outputs, 3) | _norm(f"{at}.bn_out", outputs)


BRANCHES = {"aspp1": 1, "aspp_deforms.0": 1, "aspp_deforms.1": 3, "aspp_deforms.2": 7}


def _conv(name: str, inputs: int, outputs: int, k: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, k, k), f"{name}.bias": (outputs,)}


def _pair(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _norm(name: str, channels: int) -> Shapes:
    entries: Shapes = {f"{name}.{entry}": (channels,) for entry in ("weight", "bias", "running_mean", "running_var")}
    return entries | {f"{name}.num_batches_tracked": ()}


def state(swin: Swin, seed: int = 0) -> State:
    """Returns random tensors for all entries: offsets of a pixel or two, gates and factors far from constant."""
    generator = torch.Generator().manual_seed(seed)
    entries: State = {}
    for name, shape in shapes(swin).items():
        if name.endswith("num_batches_tracked"):
            entries[name] = torch.tensor(1000)
        elif name.endswith("relative_position_index"):
            entries[name] = torch.tensor(bias_rows(swin.window))
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            entries[name] = 0.5 + torch.rand(shape, generator=generator)
        elif name.endswith("weight"):
            inputs = torch.Size(shape[1:]).numel()
            gain = 0.3 if "offset_conv" in name else 1  # larger offsets would amplify the rounding of float32
            entries[name] = gain * torch.randn(shape, generator=generator) / inputs**0.5
        else:
            entries[name] = 0.3 * torch.randn(shape, generator=generator)
    return entries


def zeros(swin: Swin, dtype: torch.dtype) -> State:
    """Returns entries of zeros in the types of the published file: integers are int64."""
    integers = ("num_batches_tracked", "relative_position_index")
    return {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith(integers) else dtype)
        for name, shape in shapes(swin).items()
    }


def bias_rows(window: int) -> list[list[int]]:
    """Returns the row of the bias table for each pair of tokens of a window."""
    places = [(y, x) for y in range(window) for x in range(window)]
    return [
        [(yi - yj + window - 1) * (2 * window - 1) + (xi - xj + window - 1) for yj, xj in places] for yi, xi in places
    ]


# The forward pass


def forward(published: Mapping[str, Tensor], swin: Swin, x: Tensor, order: Order) -> Tensor:
    """Returns the logits of one image 1x3xHxW in float64; the tiles of the image are stacked in this order."""
    w = {name: tensor.double() for name, tensor in published.items()}
    x = x.double()

    def conv(name: str, x: Tensor) -> Tensor:
        weight = w[f"{name}.weight"]
        return conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (w[f"{name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, mean, var, weight, bias)

    def block(at: str, x: Tensor) -> Tensor:
        x = norm(f"{at}.bn_in", conv(f"{at}.conv_in", x)).clamp(min=0)
        parts = []
        for branch, k in BRANCHES.items():
            name = f"{at}.dec_att.{branch}"
            offset, factor = conv(f"{name}.atrous_conv.offset_conv", x), conv(f"{name}.atrous_conv.modulator_conv", x)
            weight = w[f"{name}.atrous_conv.regular_conv.weight"]
            y = deformable(x[0].numpy(), offset[0].numpy(), 2 * torch.sigmoid(factor[0]).numpy(), weight.numpy(), k)
            parts.append(norm(f"{name}.bn", torch.from_numpy(y)[None]).clamp(min=0))
        pooled = conv(f"{at}.dec_att.global_avg_pool.1", x.mean((2, 3), keepdim=True))
        pooled = norm(f"{at}.dec_att.global_avg_pool.2", pooled).clamp(min=0)
        parts.append(pooled.expand(-1, -1, *x.shape[2:]))
        x = norm(f"{at}.dec_att.bn1", conv(f"{at}.dec_att.conv1", torch.cat(parts, 1))).clamp(min=0)
        return norm(f"{at}.bn_out", conv(f"{at}.conv_out", x))

    def patches(number: int) -> Tensor:
        cut = tiles(x[0].numpy(), _patches(swin.width)[number][0], order)
        at = f"decoder.ipt_blk{number}"
        return conv(f"{at}.conv_out", conv(f"{at}.conv1", torch.from_numpy(cut)[None]))

    def gated(number: int, p: Tensor) -> Tensor:
        g = norm(f"decoder.gdt_convs_{number}.1", conv(f"decoder.gdt_convs_{number}.0", p)).clamp(min=0)
        return p * torch.sigmoid(conv(f"decoder.gdt_convs_attn_{number}.0", g))

    height, width = x.shape[2:]
    full, half = backbone(w, swin, x), backbone(w, swin, enlarged(x, (height // 2, width // 2)))
    x1, x2, x3, x4 = (torch.cat([a, enlarged(b, a.shape[2:])], 1) for a, b in zip(full, half, strict=True))
    x4 = block("squeeze_module.0", torch.cat([enlarged(y, x4.shape[2:]) for y in (x1, x2, x3)] + [x4], 1))
    p = gated(4, block("decoder.decoder_block4", torch.cat([x4, patches(5)], 1)))
    for number, lateral in ((3, x3), (2, x2), (1, x1)):
        s = enlarged(p, lateral.shape[2:]) + conv(f"decoder.lateral_block{number + 1}.conv", lateral)
        p = block(f"decoder.decoder_block{number}", torch.cat([s, patches(number + 1)], 1))
        p = gated(number, p) if number > 1 else p
    return conv("decoder.conv_out1.0", torch.cat([enlarged(p, (height, width)), patches(1)], 1))


def backbone(w: Mapping[str, Tensor], swin: Swin, x: Tensor) -> list[Tensor]:
    x = conv2d(x, w["bb.patch_embed.proj.weight"], w["bb.patch_embed.proj.bias"], 4)[0].permute(1, 2, 0)

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    x = norm("bb.patch_embed.norm", x)
    maps = []
    for i, depth in enumerate(swin.depths):
        for j in range(depth):
            at = f"bb.layers.{i}.blocks.{j}"
            y = norm(f"{at}.norm1", x)
            h, width, d = y.shape
            side = swin.window
            padded = torch.zeros(ceil(h / side) * side, ceil(width / side) * side, d, dtype=y.dtype)
            padded[:h, :width] = y
            table = w[f"{at}.attn.relative_position_bias_table"].numpy()
            qkv = dense(f"{at}.attn.qkv", padded).numpy()
            y = torch.from_numpy(attention(qkv, table, swin.heads[i], side, swin.shift if j % 2 else 0))
            x = x + dense(f"{at}.attn.proj", y)[:h, :width]
            x = x + dense(f"{at}.mlp.fc2", gelu(dense(f"{at}.mlp.fc1", norm(f"{at}.norm2", x))))
        maps.append(norm(f"bb.norm{i}", x).permute(2, 0, 1)[None])
        if i < 3:
            at = f"bb.layers.{i}.downsample"
            x = dense(f"{at}.reduction", norm(f"{at}.norm", torch.from_numpy(merged(x.numpy()))))
    return maps


def attention(qkv: Array, table: Array, heads: int, side: int, shift: int) -> Array:
    """Attention of HxWx3D, whole windows, to HxWxD, one pair of tokens at a time.

    A token moves up and left by `shift`; those that leave the map come back at its end. Two tokens of a window see each
    other if both came back over the same edges, or none did.
    """
    height, width, depth = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    size = depth // heads
    windows: dict[tuple[int, int], list[tuple[int, int, int, int, tuple[bool, bool]]]] = {}
    for y in range(height):
        for x in range(width):
            moved_y, moved_x = (y - shift) % height, (x - shift) % width
            entry = (y, x, moved_y % side, moved_x % side, (y < shift, x < shift))
            windows.setdefault((moved_y // side, moved_x // side), []).append(entry)
    result = np.zeros((height, width, depth))
    for tokens in windows.values():
        for y, x, row, column, back in tokens:
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                query = qkv[y, x, :depth][part]
                shares, values = [], []
                for other_y, other_x, other_row, other_column, other_back in tokens:
                    if other_back != back:
                        continue
                    key, value = (
                        qkv[other_y, other_x, depth : 2 * depth][part],
                        qkv[other_y, other_x, 2 * depth :][part],
                    )
                    line = (row - other_row + side - 1) * (2 * side - 1) + column - other_column + side - 1
                    shares.append(exp(float(query @ key) / size**0.5 + table[line, head]))
                    values.append(value)
                result[y, x, part] = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    return result


def deformable(x: Array, offset: Array, factor: Array, weight: Array, k: int) -> Array:
    """The deformable convolution of CxHxW, one pixel and one tap at a time."""
    _, height, width = x.shape
    result = np.zeros((weight.shape[0], height, width))
    for y in range(height):
        for column in range(width):
            for tap in range(k * k):
                row_of_tap, column_of_tap = divmod(tap, k)
                at_y = y - k // 2 + row_of_tap + offset[2 * tap, y, column]
                at_x = column - k // 2 + column_of_tap + offset[2 * tap + 1, y, column]
                sample = factor[tap, y, column] * bilinear(x, float(at_y), float(at_x))
                result[:, y, column] += weight[:, :, row_of_tap, column_of_tap] @ sample
    return result


def bilinear(x: Array, y: float, column: float) -> Array:
    """The value of CxHxW at a position between its pixels; those outside the map are 0."""
    total = np.zeros(x.shape[0])
    for row in (floor(y), floor(y) + 1):
        for place in (floor(column), floor(column) + 1):
            if 0 <= row < x.shape[1] and 0 <= place < x.shape[2]:
                total += (1 - abs(y - row)) * (1 - abs(column - place)) * x[:, row, place]
    return total


def tiles(x: Array, grid: int, order: Order) -> Array:
    """The grid x grid tiles of 3xHxW, stacked on the channels."""
    height, width = x.shape[1] // grid, x.shape[2] // grid
    result = np.zeros((3 * grid * grid, height, width))
    for row in range(grid):
        for column in range(grid):
            for colour in range(3):
                tile = x[colour, row * height : (row + 1) * height, column * width : (column + 1) * width]
                new, old = (colour * grid + row) * grid + column, (column * grid + row) * 3 + colour
                result[new if order == "new" else old] = tile
    return result


def merged(x: Array) -> Array:
    """Each 2x2 tokens of HxWxD as one of 4D: upper left, lower left, upper right, lower right; zeros beyond the map."""
    height, width, depth = x.shape
    result = np.zeros((ceil(height / 2), ceil(width / 2), 4 * depth))
    for y in range(height):
        for column in range(width):
            quarter = 2 * (column % 2) + y % 2
            result[y // 2, column // 2, quarter * depth : (quarter + 1) * depth] = x[y, column]
    return result


def enlarged(x: Tensor, size: Any) -> Tensor:
    return interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
