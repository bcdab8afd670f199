"""Exports BiRefNet to ONNX with its operator DeformConv, for any batch, height and width that is a multiple of 32.

rembg's files compute the deformable convolutions by gathers on large tensors instead, for one image of 1024x1024 only.
ONNX Runtime has the operator since 1.28.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagemaker_model.nets.birefnet import BiRefNet, DeformableConv
from sagemaker_model.nets.deform import plain_deform_conv

OPSET = 19
"""ONNX operator set: the first with DeformConv."""


class NativeDeformConv(torch.autograd.Function):
    """`plain_deform_conv`, exported as one DeformConv."""

    @staticmethod
    def forward(_: Any, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, padding: int) -> Tensor:
        return plain_deform_conv(x, offset, mask, weight, padding)

    @staticmethod
    def symbolic(graph: Any, x: Any, offset: Any, mask: Any, weight: Any, padding: int) -> Any:
        outputs, _, height, width = weight.type().sizes()
        bias = graph.op("Constant", value_t=torch.zeros(outputs))
        node = graph.op(
            "DeformConv", x, weight, offset, bias, mask, kernel_shape_i=[height, width], pads_i=[padding] * 4
        )
        return node.setType(x.type().with_sizes([None, outputs, None, None]))


def to_onnx(net: BiRefNet, path: Path, input_name: str, output_name: str) -> None:
    """Exports from `input_name` Nx3xHxW to `output_name` Nx1xHxW, in float32. At published size it takes a minute."""
    free = {0: "n", 2: "h", 3: "w"}
    with _native(net), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated exporter, and of sizes that it might take for constants
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2, 3, 64, 96),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: free, output_name: free},
        )


@contextmanager
def _native(net: BiRefNet) -> Iterator[None]:
    """Computes the network's deformable convolutions by NativeDeformConv."""
    layers = [module for module in net.modules() if isinstance(module, DeformableConv)]
    before = [layer.operator for layer in layers]
    for layer in layers:
        layer.operator = NativeDeformConv.apply
    try:
        yield
    finally:
        for layer, operator in zip(layers, before, strict=True):
            layer.operator = operator
