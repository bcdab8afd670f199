"""The published MODNet reimplemented without the modules under test: names, shapes and the forward pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, instance_norm, interpolate, linear, relu, relu6

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]

# features.N of the backbone: channels in, expanded, out; stride. Numbers 0 and 18 are single convolutions.
RESIDUALS = {
    1: (32, 32, 16, 1), 2: (16, 96, 24, 2), 3: (24, 144, 24, 1), 4: (24, 144, 32, 2), 5: (32, 192, 32, 1),
    6: (32, 192, 32, 1), 7: (32, 192, 64, 2), 8: (64, 384, 64, 1), 9: (64, 384, 64, 1), 10: (64, 384, 64, 1),
    11: (64, 384, 96, 1), 12: (96, 576, 96, 1), 13: (96, 576, 96, 1), 14: (96, 576, 160, 2), 15: (160, 960, 160, 1),
    16: (160, 960, 160, 1), 17: (160, 960, 320, 1),
}  # fmt: skip
ADDED = {3, 5, 6, 8, 9, 10, 12, 13, 15, 16}

# Blocks of the branches: channels out, in, side of the kernel. Those of PLAIN have neither norm nor ReLU.
BLOCKS = {
    "lr_branch.conv_lr16x": (96, 1280, 5), "lr_branch.conv_lr8x": (32, 96, 5),
    "hr_branch.tohr_enc2x": (32, 16, 1), "hr_branch.conv_enc2x": (32, 35, 3),
    "hr_branch.tohr_enc4x": (32, 24, 1), "hr_branch.conv_enc4x": (64, 64, 3),
    "hr_branch.conv_hr4x.0": (64, 99, 3), "hr_branch.conv_hr4x.1": (64, 64, 3), "hr_branch.conv_hr4x.2": (32, 64, 3),
    "hr_branch.conv_hr2x.0": (64, 64, 3), "hr_branch.conv_hr2x.1": (32, 64, 3), "hr_branch.conv_hr2x.2": (32, 32, 3),
    "hr_branch.conv_hr2x.3": (32, 32, 3), "hr_branch.conv_hr.0": (32, 35, 3),
    "f_branch.conv_lr4x": (32, 32, 5), "f_branch.conv_f2x": (32, 64, 3), "f_branch.conv_f.0": (16, 35, 3),
}  # fmt: skip
PLAIN = {"lr_branch.conv_lr": (1, 32, 3), "hr_branch.conv_hr.1": (1, 32, 1), "f_branch.conv_f.1": (1, 16, 1)}


def shapes() -> Shapes:
    """Returns the shapes of the 751 entries of the published file, named without "module."."""
    backbone = dict(_backbone())
    entries: Shapes = {f"{prefix}{name}": shape for prefix in ("", "lr_branch.") for name, shape in backbone.items()}
    entries |= {"lr_branch.se_block.fc.0.weight": (320, 1280), "lr_branch.se_block.fc.2.weight": (1280, 320)}
    for name, (outputs, inputs, side) in (BLOCKS | PLAIN).items():
        entries[f"{name}.layers.0.weight"] = (outputs, inputs, side, side)
        entries[f"{name}.layers.0.bias"] = (outputs,)
    for name, (outputs, _, _) in BLOCKS.items():
        entries |= _norm(f"{name}.layers.1.bnorm", outputs // 2)
    return entries


def _backbone() -> Iterator[tuple[str, tuple[int, ...]]]:
    at = "backbone.model.features"
    yield f"{at}.0.0.weight", (32, 3, 3, 3)
    yield from _norm(f"{at}.0.1", 32).items()
    for number, (inputs, wide, outputs, _) in RESIDUALS.items():
        layers = [(wide, 1, 3, 3), (outputs, wide, 1, 1)]
        if inputs != wide:
            layers.insert(0, (wide, inputs, 1, 1))
        for place, shape in zip((0, 3, 6), layers, strict=False):
            yield f"{at}.{number}.conv.{place}.weight", shape
            yield from _norm(f"{at}.{number}.conv.{place + 1}", shape[0]).items()
    yield f"{at}.18.0.weight", (1280, 320, 1, 1)
    yield from _norm(f"{at}.18.1", 1280).items()


def _norm(name: str, channels: int) -> Shapes:
    entries: Shapes = {f"{name}.{entry}": (channels,) for entry in ("weight", "bias", "running_mean", "running_var")}
    return entries | {f"{name}.num_batches_tracked": ()}


def state(seed: int = 0) -> State:
    """Returns random tensors for all entries of the published file: "module." before each name, the backbone twice."""
    generator = torch.Generator().manual_seed(seed)
    entries: State = {}
    for name, shape in shapes().items():
        if name.startswith("lr_branch.backbone."):
            entries[name] = entries[name.removeprefix("lr_branch.")].clone()
        elif name.endswith("num_batches_tracked"):
            entries[name] = torch.tensor(1000)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            entries[name] = 0.5 + torch.rand(shape, generator=generator)
        elif name.endswith("weight"):
            inputs = torch.Size(shape[1:]).numel()
            entries[name] = torch.randn(shape, generator=generator) * (2 / inputs) ** 0.5
        else:
            entries[name] = 0.3 * torch.randn(shape, generator=generator)
    return {f"module.{name}": tensor for name, tensor in entries.items()}


def forward(published: State, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns semantic, detail and matte in eval mode for x, Nx3xHxW."""
    w = {name.removeprefix("module."): tensor for name, tensor in published.items()}

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (w[f"{name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, mean, var, weight, bias)

    def plain(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = w[f"{name}.layers.0.weight"]
        return conv2d(x, weight, w[f"{name}.layers.0.bias"], stride, weight.shape[-1] // 2)

    def block(name: str, x: Tensor, stride: int = 1) -> Tensor:
        x = plain(name, x, stride)
        first, second = x.chunk(2, 1)
        return relu(torch.cat((norm(f"{name}.layers.1.bnorm", first), instance_norm(second)), 1))

    def at_scale(x: Tensor, factor: float) -> Tensor:
        return interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    def feature(number: int, x: Tensor) -> Tensor:
        at = f"lr_branch.backbone.model.features.{number}"
        if number in (0, 18):
            stride, padding = (2, 1) if number == 0 else (1, 0)
            return relu6(norm(f"{at}.1", conv2d(x, w[f"{at}.0.weight"], None, stride, padding)))
        inputs, wide, _, stride = RESIDUALS[number]
        y, place = x, 0
        if inputs != wide:
            y, place = relu6(norm(f"{at}.conv.1", conv2d(y, w[f"{at}.conv.0.weight"]))), 3
        y = conv2d(y, w[f"{at}.conv.{place}.weight"], None, stride, 1, 1, wide)
        y = relu6(norm(f"{at}.conv.{place + 1}", y))
        y = norm(f"{at}.conv.{place + 4}", conv2d(y, w[f"{at}.conv.{place + 3}.weight"]))
        return x + y if number in ADDED else y

    features = [x]
    for number in range(19):
        features.append(feature(number, features[-1]))
    enc2x, enc4x, enc32x = features[2], features[4], features[19]

    squeezed = relu(linear(enc32x.mean((2, 3)), w["lr_branch.se_block.fc.0.weight"]))
    weight = torch.sigmoid(linear(squeezed, w["lr_branch.se_block.fc.2.weight"]))
    lr16x = block("lr_branch.conv_lr16x", at_scale(enc32x * weight.unsqueeze(-1).unsqueeze(-1), 2))
    lr8x = block("lr_branch.conv_lr8x", at_scale(lr16x, 2))
    semantic = torch.sigmoid(plain("lr_branch.conv_lr", lr8x, 2))

    enc2x = block("hr_branch.tohr_enc2x", enc2x)
    hr4x = block("hr_branch.conv_enc2x", torch.cat((at_scale(x, 0.5), enc2x), 1), 2)
    hr4x = block("hr_branch.conv_enc4x", torch.cat((hr4x, block("hr_branch.tohr_enc4x", enc4x)), 1))
    hr4x = torch.cat((hr4x, at_scale(lr8x, 2), at_scale(x, 0.25)), 1)
    for number in range(3):
        hr4x = block(f"hr_branch.conv_hr4x.{number}", hr4x)
    hr2x = torch.cat((at_scale(hr4x, 2), enc2x), 1)
    for number in range(4):
        hr2x = block(f"hr_branch.conv_hr2x.{number}", hr2x)
    hr = block("hr_branch.conv_hr.0", torch.cat((at_scale(hr2x, 2), x), 1))
    detail = torch.sigmoid(plain("hr_branch.conv_hr.1", hr))

    lr2x = at_scale(block("f_branch.conv_lr4x", at_scale(lr8x, 2)), 2)
    f2x = block("f_branch.conv_f2x", torch.cat((lr2x, hr2x), 1))
    f = block("f_branch.conv_f.0", torch.cat((at_scale(f2x, 2), x), 1))
    return semantic, detail, torch.sigmoid(plain("f_branch.conv_f.1", f))
