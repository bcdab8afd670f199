"""Our network as a file for rembg's session `u2net_custom`, which hands its network RGB normalized as U2-Net wants it.
That is undone in front of ours, whose weights stay as they are. Runs in rembg's own virtual environment; reads SOURCE
TARGET on its command line.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of RGB in 0..1: rembg takes MEAN away and divides by STD. Source: sessions/u2net_custom.py of rembg 2.0.86."""


def folded(network: onnx.ModelProto) -> onnx.ModelProto:
    """`network`, which takes RGB in 0..1, 1x3x320x320, for RGB normalized by MEAN and STD. `network` is changed."""
    graph = network.graph
    (picture,) = graph.input
    constants = {"mean": MEAN, "std": STD}
    for name, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32).reshape(1, 3, 1, 1), name))
    first = (
        helper.make_node("Mul", ["normalized", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], [picture.name]),
    )
    nodes = [*first, *graph.node]  # each after those whose results it takes
    del graph.node[:]
    graph.node.extend(nodes)
    picture.name = "normalized"
    onnx.checker.check_model(network)
    return network


if __name__ == "__main__":
    source, target = sys.argv[1:]
    onnx.save(folded(onnx.load(source)), target)
