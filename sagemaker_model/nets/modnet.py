"""MODNet: portrait matting in one pass (Ke, Sun, Li, Yan, Lau: "MODNet: Real-Time Trimap-Free Portrait Matting via
Objective Decomposition", AAAI 2022).

Three branches on a MobileNetV2: the first locates the person, at 1/16 of the image's sides; the second finds the
outline, at 1/2; the third joins both to the matte. Entries and shapes of the state dict are those of the published
checkpoint, except that the published file has the backbone twice (`checkpoints.modnet_state` reads it): 439 entries,
6,487,075 parameters.

In the comments, "at 1/4" is a quarter of the image's height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

TAPS = (1, 3, 18)
"""Indices of the backbone's features that the branches use: 16 channels at 1/2, 24 at 1/4, 1280 at 1/32."""

WIDTH = 32
"""Channels of the branches."""


class MODNet(nn.Module):
    """From an image to its matte. Input: Nx3xHxW float, RGB in -1..1, H and W multiples of 32.

    In eval mode it returns the matte, Nx1xHxW in 0..1. In training mode it returns (semantic, detail, matte), all in
    0..1: semantic Nx1 at 1/16, detail and matte Nx1xHxW. Detail is meaningful only in the uncertain band around the
    subject.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.lr_branch = LowResolution()
        self.hr_branch = HighResolution()
        self.f_branch = Fusion()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        at_2, at_4, at_32 = self.backbone(x)
        lr8x = self.lr_branch(at_32)
        hr2x = self.hr_branch(x, at_2, at_4, lr8x)
        matte: Tensor = self.f_branch(x, lr8x, hr2x)
        if not self.training:
            return matte
        return self.lr_branch.semantic(lr8x), self.hr_branch.detail(x, hr2x), matte


class LowResolution(nn.Module):
    """Locates the person: lr8x, 32 channels at 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.se_block = SqueezeExcite(1280, 320)
        self.conv_lr16x = Conv(1280, 96, 5)
        self.conv_lr8x = Conv(96, WIDTH, 5)
        self.conv_lr = Conv(WIDTH, 1, 3, stride=2, plain=True)

    def forward(self, at_32: Tensor) -> Tensor:
        lr16x = self.conv_lr16x(scaled(self.se_block(at_32), 2))
        lr8x: Tensor = self.conv_lr8x(scaled(lr16x, 2))
        return lr8x

    def semantic(self, lr8x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv_lr(lr8x))


class HighResolution(nn.Module):
    """Finds the outline: hr2x, 32 channels at 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.tohr_enc2x = Conv(16, WIDTH, 1)
        self.conv_enc2x = Conv(WIDTH + 3, WIDTH, 3, stride=2)
        self.tohr_enc4x = Conv(24, WIDTH, 1)
        self.conv_enc4x = Conv(2 * WIDTH, 2 * WIDTH, 3)
        self.conv_hr4x = nn.Sequential(
            Conv(3 * WIDTH + 3, 2 * WIDTH, 3),
            Conv(2 * WIDTH, 2 * WIDTH, 3),
            Conv(2 * WIDTH, WIDTH, 3),
        )
        self.conv_hr2x = nn.Sequential(
            Conv(2 * WIDTH, 2 * WIDTH, 3),
            Conv(2 * WIDTH, WIDTH, 3),
            Conv(WIDTH, WIDTH, 3),
            Conv(WIDTH, WIDTH, 3),
        )
        self.conv_hr = nn.Sequential(Conv(WIDTH + 3, WIDTH, 3), Conv(WIDTH, 1, 1, plain=True))

    def forward(self, x: Tensor, at_2: Tensor, at_4: Tensor, lr8x: Tensor) -> Tensor:
        enc2x = self.tohr_enc2x(at_2)
        hr4x = self.conv_enc2x(torch.cat((scaled(x, 1 / 2), enc2x), 1))
        hr4x = self.conv_enc4x(torch.cat((hr4x, self.tohr_enc4x(at_4)), 1))
        hr4x = self.conv_hr4x(torch.cat((hr4x, scaled(lr8x, 2), scaled(x, 1 / 4)), 1))
        hr2x: Tensor = self.conv_hr2x(torch.cat((scaled(hr4x, 2), enc2x), 1))
        return hr2x

    def detail(self, x: Tensor, hr2x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv_hr(torch.cat((scaled(hr2x, 2), x), 1)))


class Fusion(nn.Module):
    """Joins location and outline to the matte."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_lr4x = Conv(WIDTH, WIDTH, 5)
        self.conv_f2x = Conv(2 * WIDTH, WIDTH, 3)
        self.conv_f = nn.Sequential(Conv(WIDTH + 3, WIDTH // 2, 3), Conv(WIDTH // 2, 1, 1, plain=True))

    def forward(self, x: Tensor, lr8x: Tensor, hr2x: Tensor) -> Tensor:
        lr2x = scaled(self.conv_lr4x(scaled(lr8x, 2)), 2)
        f2x = self.conv_f2x(torch.cat((lr2x, hr2x), 1))
        return torch.sigmoid(self.conv_f(torch.cat((scaled(f2x, 2), x), 1)))


class Conv(nn.Module):
    """A convolution that divides the size by `stride`, then HalfNorm and ReLU; only the convolution if `plain`."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, *, plain: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(inputs, outputs, side, stride, padding=side // 2))
        if not plain:
            self.layers.extend((HalfNorm(outputs), nn.ReLU(inplace=True)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class HalfNorm(nn.Module):
    """Batch norm on the first half of the channels, instance norm without parameters on the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = channels // 2
        self.bnorm = nn.BatchNorm2d(self.first)
        self.inorm = nn.InstanceNorm2d(channels - self.first)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.bnorm(x[:, : self.first]), self.inorm(x[:, self.first :])), 1)


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a weight in 0..1, computed from the means of all channels (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.fc(x.mean((2, 3)))
        return x * weight[:, :, None, None]  # not expand_as: LiteRT's converter does not support it


class Backbone(nn.Module):
    """Returns the features of the image at 1/2, 1/4 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MobileNetV2()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taps = []
        for number, layer in enumerate(self.model.features):
            x = layer(x)
            if number in TAPS:
                taps.append(x)
        at_2, at_4, at_32 = taps
        return at_2, at_4, at_32


class MobileNetV2(nn.Module):
    """MobileNetV2 without the classifier (Sandler et al. 2018, table 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(*conv_norm(3, 32, 3, stride=2)))
        inputs = 32
        for expansion, outputs, count, first_stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for number in range(count):
                stride = first_stride if number == 0 else 1
                self.features.append(InvertedResidual(inputs, outputs, stride, expansion))
                inputs = outputs
        self.features.append(nn.Sequential(*conv_norm(inputs, 1280, 1)))


class InvertedResidual(nn.Module):
    """Expands, filters depthwise, projects; adds the input if the shapes are equal."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *(conv_norm(inputs, wide, 1) if expansion > 1 else ()),
            *conv_norm(wide, wide, 3, stride=stride, groups=wide),
            *conv_norm(wide, outputs, 1)[:2],  # no ReLU6 after the projection
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


def conv_norm(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, ...]:
    """Returns the three layers of a step of the backbone: convolution, batch norm, ReLU6."""
    return (
        nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def scaled(x: Tensor, factor: float) -> Tensor:
    """Resizes bilinearly, corners not aligned."""
    return interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
