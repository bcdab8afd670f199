"""BiRefNet: cuts out any object at high resolution.

Zheng, Gao, Fan, Liu, Laaksonen, Ouyang, Sebe: "Bilateral Reference for High-Resolution Dichotomous Image
Segmentation", CAAI Artificial Intelligence Research 2024.

A Swin transformer sees the image at its full and at half its size. Four decoder blocks, from 1/32 to 1/4 of the image's
sides, get its features and, as the "inward reference", the image itself: cut into tiles of the size of their map.
The state dict has the entries and shapes of the published checkpoints: 754 for Swin-L, 586 for Swin-T. Those of the
supervision in training (`conv_ms_spvn`, `gdt_convs_pred`) are loaded and not used.
`checkpoints.birefnet_state` reads the published form.

In the comments, C is the embedding width of the backbone, and "at 1/4" is a quarter of the image's height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, scaled_dot_product_attention

from sagemaker_model.nets.deform import Operator, deform_conv

MULTIPLE = 32
"""Height and width of the input must be multiples of it: the tiles of the deepest block have 1/32 of the sides."""

INNER = 64
"""Channels inside a decoder block and inside the blocks of image patches."""

BRANCH = 256
"""Channels of each branch of ASPPDeformable."""

SIDES = (1, 3, 7)
"""Kernel sides of the deformable branches of ASPPDeformable, besides its first, `aspp1`, of side 1."""

GATE = 16
"""Channels from which the gate of a decoder block is computed."""

GRIDS = {5: 32, 4: 16, 3: 8, 2: 4, 1: 1}
"""Tiles along each side of the image for `ipt_blk5` … `ipt_blk1`."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A Swin transformer: embedding width, blocks and attention heads of each stage, side of its windows in tokens."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int


BACKBONES = {
    "T": Backbone(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "L": Backbone(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}
"""Swin-T and Swin-L as published with Swin, by the last letter of their name."""


class BiRefNet(nn.Module):
    """From images to mattes. Input: Nx3xHxW float, RGB normalised by ImageNet's mean and standard deviation, H and W
    multiples of 32. Output: the matte, Nx1xHxW in 0..1."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        width = backbone.width
        self.bb = Swin(backbone)
        self.squeeze_module = nn.Sequential(DecoderBlock(30 * width, 16 * width))
        self.decoder = Decoder(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """Returns the matte before the sigmoid, Nx1xHxW. Raises ValueError for a size that is not a multiple of 32."""
        height, width = x.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(f"BiRefNet's input must have sides that are multiples of {MULTIPLE}; got {width}x{height}")
        full, half = self.bb(x), self.bb(resized(x, (height // 2, width // 2)))
        at_4, at_8, at_16, at_32 = (
            torch.cat((one, resized(other, one.shape[2:])), 1) for one, other in zip(full, half, strict=True)
        )
        context = [resized(one, at_32.shape[2:]) for one in (at_4, at_8, at_16)]
        squeezed = self.squeeze_module(torch.cat((*context, at_32), 1))
        logits: Tensor = self.decoder(x, at_4, at_8, at_16, squeezed)
        return logits


def empty(backbone: Backbone) -> BiRefNet:
    """Returns a network in eval mode without values, in no time: every entry must be loaded."""
    with torch.device("meta"):
        net = BiRefNet(backbone)
    return net.to_empty(device="cpu").eval()


# The backbone


class Swin(nn.Module):
    """Swin transformer, version 1 (Liu et al. 2021). Returns features of C, 2C, 4C and 8C channels at 1/4 … 1/32."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        widths = [backbone.width * 2**stage for stage in range(4)]
        self.patch_embed = PatchEmbedding(widths[0])
        self.layers = nn.ModuleList(
            Stage(width, depth, heads, backbone.window, last=width == widths[-1])
            for width, depth, heads in zip(widths, backbone.depths, backbone.heads, strict=True)
        )
        self.norm0, self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(x)
        features = []
        for stage, norm in zip(self.layers, (self.norm0, self.norm1, self.norm2, self.norm3), strict=True):
            tokens, x = stage(x)
            features.append(norm(tokens).permute(0, 3, 1, 2))
        return tuple(features)


class PatchEmbedding(nn.Module):
    """One token for each 4x4 pixels: from Bx3xHxW to BxH/4xW/4xC. Sides are multiples of 16, so none needs padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return y


class Stage(nn.Module):
    """The blocks of one resolution. Returns their tokens, and those merged for the next stage; the last merges none."""

    def __init__(self, width: int, depth: int, heads: int, window: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, shift=window // 2 if number % 2 else 0) for number in range(depth)
        )
        self.downsample = None if last else PatchMerging(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        return x, self.downsample(x) if self.downsample else x


class SwinBlock(nn.Module):
    """Attention inside windows, then an MLP on each token. Tokens are BxHxWxD."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y


class WindowAttention(nn.Module):
    """Attention among the tokens of each window, with a bias for each distance of two tokens.

    The map is padded with zeros to whole windows. Padding takes part as keys; it is not masked. With a shift, the map
    is rolled, and tokens that were no neighbours before do not see each other.
    """

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, depth = x.shape
        side, tokens = self.window, self.window**2
        # Of integers only, so that an export to ONNX keeps them variable.
        down, across = (height + side - 1) // side, (width + side - 1) // side
        x = pad(x, (0, 0, 0, across * side - width, 0, down * side - height))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        windows = x.view(batch, down, side, across, side, depth).transpose(2, 3).reshape(-1, tokens, depth)
        q, k, v = self.qkv(windows).view(-1, tokens, 3, self.heads, depth // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1)[None].to(q.dtype)
        if self.shift:
            apart = shift_mask(down * side, across * side, side, self.shift, x.device)
            bias = bias.masked_fill(apart[:, None], float("-inf"))
            bias = bias[None].expand(batch, -1, -1, -1, -1).flatten(0, 1)
        y = scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(-1, tokens, depth)
        y = self.proj(y).view(batch, down, across, side, side, depth).transpose(2, 3)
        joined: Tensor = y.reshape(batch, down * side, across * side, depth)
        if self.shift:
            joined = joined.roll((self.shift, self.shift), (1, 2))
        return joined[:, :height, :width]


def relative_positions(window: int) -> Tensor:
    """Returns the row of the bias table for each pair of tokens of a window, int64."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    return (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Returns for each window of a rolled map which pairs of its tokens were no neighbours before, bool.

    The roll brings the first `shift` rows and columns to the end, where they share windows with others.
    """
    rows, columns = (
        (places >= size - window).int() + (places >= size - shift).int()
        for size, places in ((height, torch.arange(height, device=device)), (width, torch.arange(width, device=device)))
    )
    regions = (3 * rows[:, None] + columns).view(height // window, window, width // window, window)
    regions = regions.transpose(1, 2).reshape(-1, window * window)
    return regions[:, None] != regions[:, :, None]


class PatchMerging(nn.Module):
    """Halves height and width, rounded up, and doubles the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        x = pad(x, (0, 0, 0, width % 2, 0, height % 2))
        corners = (x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2])
        y: Tensor = self.reduction(self.norm(torch.cat(corners, 3)))
        return y


# The decoder


class Decoder(nn.Module):
    """From the features to the logits, by one block for each of 1/32, 1/16, 1/8 and 1/4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        patches = {5: 2 * width, 4: 2 * width, 3: width, 2: width // 2, 1: width // 4}
        self.ipt_blk5, self.ipt_blk4, self.ipt_blk3, self.ipt_blk2, self.ipt_blk1 = (
            PatchBlock(3 * GRIDS[number] ** 2, channels) for number, channels in patches.items()
        )
        self.decoder_block4 = DecoderBlock(16 * width + patches[5], 8 * width)
        self.decoder_block3 = DecoderBlock(8 * width + patches[4], 4 * width)
        self.decoder_block2 = DecoderBlock(4 * width + patches[3], 2 * width)
        self.decoder_block1 = DecoderBlock(2 * width + patches[2], width)
        wide = (8 * width, 4 * width, 2 * width)
        self.lateral_block4, self.lateral_block3, self.lateral_block2 = map(Lateral, wide)
        self.gdt_convs_4, self.gdt_convs_3, self.gdt_convs_2 = map(gate_features, wide)
        self.gdt_convs_attn_4, self.gdt_convs_attn_3, self.gdt_convs_attn_2 = (one_channel(GATE) for _ in wide)
        # Used in training only.
        self.gdt_convs_pred_4, self.gdt_convs_pred_3, self.gdt_convs_pred_2 = (one_channel(GATE) for _ in wide)
        self.conv_ms_spvn_4, self.conv_ms_spvn_3, self.conv_ms_spvn_2 = (nn.Conv2d(one, 1, 1) for one in wide)
        self.conv_out1 = one_channel(width + patches[1])

    def forward(self, image: Tensor, at_4: Tensor, at_8: Tensor, at_16: Tensor, at_32: Tensor) -> Tensor:
        p4 = self.decoder_block4(torch.cat((at_32, self.ipt_blk5(tiles(image, GRIDS[5]))), 1))
        p4 = p4 * torch.sigmoid(self.gdt_convs_attn_4(self.gdt_convs_4(p4)))
        s3 = resized(p4, at_16.shape[2:]) + self.lateral_block4(at_16)
        p3 = self.decoder_block3(torch.cat((s3, self.ipt_blk4(tiles(image, GRIDS[4]))), 1))
        p3 = p3 * torch.sigmoid(self.gdt_convs_attn_3(self.gdt_convs_3(p3)))
        s2 = resized(p3, at_8.shape[2:]) + self.lateral_block3(at_8)
        p2 = self.decoder_block2(torch.cat((s2, self.ipt_blk3(tiles(image, GRIDS[3]))), 1))
        p2 = p2 * torch.sigmoid(self.gdt_convs_attn_2(self.gdt_convs_2(p2)))
        s1 = resized(p2, at_4.shape[2:]) + self.lateral_block2(at_4)
        p1 = self.decoder_block1(torch.cat((s1, self.ipt_blk2(tiles(image, GRIDS[2]))), 1))
        return self._logits(p1, image)

    def _logits(self, p1: Tensor, image: Tensor) -> Tensor:
        """Returns conv_out1 of p1 at the image's size and of the image's patches, joined.

        A convolution of one pixel commutes with the resize and splits by channels. So p1 is reduced to one channel
        before it is enlarged: at 2048x2048 that saves 4 GB for Swin-L.
        """
        weight, bias = self.conv_out1.parameters()
        low = conv2d(p1, weight[:, : p1.shape[1]])
        return resized(low, image.shape[2:]) + conv2d(self.ipt_blk1(image), weight[:, p1.shape[1] :], bias)


class DecoderBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, INNER, 3, padding=1)
        self.bn_in = nn.BatchNorm2d(INNER)
        self.dec_att = ASPPDeformable()
        self.conv_out = nn.Conv2d(INNER, outputs, 3, padding=1)
        self.bn_out = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn_out(self.conv_out(self.dec_att(torch.relu(self.bn_in(self.conv_in(x))))))
        return y


class ASPPDeformable(nn.Module):
    """Joins what deformable convolutions of several sizes and the mean of the map see (Chen et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp1 = DeformableBranch(1)
        self.aspp_deforms = nn.ModuleList(map(DeformableBranch, SIDES))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(INNER, BRANCH, 1, bias=False), nn.BatchNorm2d(BRANCH), nn.ReLU()
        )
        self.conv1 = nn.Conv2d((len(SIDES) + 2) * BRANCH, INNER, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(INNER)

    def forward(self, x: Tensor) -> Tensor:
        # conv1 of the concatenated branches is the sum of its parts: one branch is in memory at a time, not five.
        branches = (self.aspp1, *self.aspp_deforms, self.global_avg_pool)
        weights = self.conv1.weight.chunk(len(branches), 1)
        total = conv2d(branches[0](x), weights[0])
        for branch, weight in zip(branches[1:], weights[1:], strict=True):
            total = total + conv2d(branch(x), weight)
        return torch.relu(self.bn1(total))


class DeformableBranch(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.atrous_conv = DeformableConv(side)
        self.bn = nn.BatchNorm2d(BRANCH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.atrous_conv(x)))


class DeformableConv(nn.Module):
    """A deformable convolution whose positions and factors are convolutions of its input.

    operator: computes it; the export to ONNX replaces it.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.padding = side // 2
        self.operator: Operator = deform_conv
        self.offset_conv = nn.Conv2d(INNER, 2 * side**2, side, padding=self.padding)
        self.modulator_conv = nn.Conv2d(INNER, side**2, side, padding=self.padding)
        self.regular_conv = nn.Conv2d(INNER, BRANCH, side, padding=self.padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = 2 * torch.sigmoid(self.modulator_conv(x))
        return self.operator(x, self.offset_conv(x), mask, self.regular_conv.weight, self.padding)


class PatchBlock(nn.Module):
    """Features of the tiles of the image. Two convolutions without an activation between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, INNER, 3, padding=1)
        self.conv_out = nn.Conv2d(INNER, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_out(self.conv1(x))
        return y


class Lateral(nn.Module):
    """Passes features of the encoder to the decoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def gate_features(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, GATE, 3, padding=1), nn.BatchNorm2d(GATE), nn.ReLU())


def one_channel(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 1, 1))


def tiles(image: Tensor, grid: int) -> Tensor:
    """Cuts Bx3xHxW into grid x grid tiles, stacked on the channels: Bx(3 * grid²)xH/gridxW/grid.

    The channels are in the order of the code since November 2024: colour, row, column. `checkpoints.birefnet_state`
    converts checkpoints of the order before.
    """
    batch, channels, height, width = image.shape
    cut = image.reshape(batch, channels, grid, height // grid, grid, width // grid)
    return cut.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels * grid**2, height // grid, width // grid)


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resizes bilinearly to (height, width), corners aligned."""
    return interpolate(x, size=size, mode="bilinear", align_corners=True)
