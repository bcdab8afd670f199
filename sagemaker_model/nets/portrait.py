"""Portrait: a small network for mattes of people, with the architecture of MediaPipe's selfie segmentation.

A MobileNetV3 encoder (Howard et al., "Searching for MobileNetV3", ICCV 2019) down to 1/16 of the image's sides, its
segmentation head (LR-ASPP, the same paper), and a decoder with skip connections from the encoder, whose channels are
weighted before they are added (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018). The layers and their order are
those of MediaPipe's published selfie_segmentation.tflite, so that training can start from its weights
(`published.portrait_state`): 106,401 parameters. Its norms are folded into the convolutions; this network has no norms.

In the comments, "at 1/4" is a quarter of the image's height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import hardswish, interpolate, pad, relu


class Portrait(nn.Module):
    """From an image to its matte. Input: Nx3xHxW float, RGB in 0..1, H and W multiples of 32.

    The matte is Nx1xHxW in 0..1, 1 = subject.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 16, 3, stride=2)
        self.to_4 = Bottleneck(16, 16, 16, 3, stride=2, squeezed=8)
        self.to_8 = nn.Sequential(
            Bottleneck(16, 72, 24, 3, stride=2),
            Bottleneck(24, 88, 24, 3),
        )
        self.to_16 = nn.Sequential(
            Bottleneck(24, 96, 32, 5, stride=2, squeezed=24, smooth=True),
            Bottleneck(32, 128, 32, 5, squeezed=32, smooth=True),
            Bottleneck(32, 128, 32, 5, squeezed=32, smooth=True),
            Bottleneck(32, 96, 32, 5, squeezed=24, smooth=True),
            Bottleneck(32, 96, 32, 5, squeezed=24, smooth=True),
        )
        self.head = Head(32, 128)
        self.back_to_8 = Merge(128, 24)
        self.back_to_4 = Merge(24, 16)
        self.back_to_2 = Merge(16, 16)
        self.last = nn.ConvTranspose2d(16, 1, 2, stride=2)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """Returns the matte before the sigmoid, for losses: Nx1xHxW."""
        at_2 = hardswish(self.stem(x))
        at_4 = self.to_4(at_2)
        at_8 = self.to_8(at_4)
        x = self.head(self.to_16(at_8))
        x = self.back_to_8(x, at_8)
        x = self.back_to_4(x, at_4)
        x = self.back_to_2(x, at_2)
        logits: Tensor = self.last(x)
        return logits


class Conv(nn.Conv2d):
    """A convolution that keeps the size or halves it, padded as TensorFlow's "same" for even sides.

    With stride 2 the left and top padding is one pixel less than the right and bottom padding.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, side, stride, groups=groups)
        before, after = (side - stride) // 2, (side - stride + 1) // 2
        self.around = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        # ONNX Runtime fuses the padding into the convolution only if its value is given: 0.7 ms less for a pass.
        return super().forward(pad(x, self.around, value=0.0) if any(self.around) else x)


class Bottleneck(nn.Module):
    """Expands, filters depthwise, projects; adds the input if the shapes are equal.

    squeezed: channels in the middle of the squeeze-and-excitation after the filter; 0 leaves it out.
    smooth: hard-swish instead of ReLU.
    """

    def __init__(
        self,
        inputs: int,
        wide: int,
        outputs: int,
        side: int,
        stride: int = 1,
        squeezed: int = 0,
        *,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.activation = hardswish if smooth else relu
        self.adds = stride == 1 and inputs == outputs
        self.expand = Conv(inputs, wide, 1)
        self.filter = Conv(wide, wide, side, stride, groups=wide)
        self.weigh = ChannelWeights(wide, squeezed) if squeezed else None
        self.project = Conv(wide, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.filter(self.activation(self.expand(x))))
        if self.weigh:
            y = y * self.weigh(y)
        y = self.project(y)
        return x + y if self.adds else y


class ChannelWeights(nn.Module):
    """Returns a weight in 0..1 for each channel, computed from the means of all channels: Nx`channels`x1x1."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = Conv(channels, squeezed, 1)
        self.excite = Conv(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.excite(relu(self.squeeze(mean(x)))))


class Head(nn.Module):
    """LR-ASPP without its skip connection: local features, weighted by features of the whole image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.local = Conv(inputs, outputs, 1)
        self.whole = Conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.local(x)) * torch.sigmoid(self.whole(mean(x)))


class Merge(nn.Module):
    """One step of the decoder: upsamples by 2 and adds the encoder's features of that size, with weighted channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = Conv(inputs, outputs, 1)
        self.weigh = ChannelWeights(outputs, outputs)
        self.mix = Conv(outputs, outputs, 1)
        self.filter = Conv(outputs, outputs, 3, groups=outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # Upsampling first, as published, gives the same result and takes 0.4 ms more for a pass.
        x = interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
        x = skip * self.weigh(skip + x) + x
        x = relu(self.mix(x))
        return x + relu(self.filter(x))


def mean(x: Tensor) -> Tensor:
    """Returns the mean of each channel: NxCx1x1."""
    return x.mean((2, 3), keepdim=True)
