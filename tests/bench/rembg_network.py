"""Converts portrait.onnx to a file for rembg's session `u2net_custom`, which normalizes RGB for U2-Net.

Two nodes in front of the network undo the normalization; the weights are unchanged. Runs in rembg's virtual environment
with the arguments SOURCE TARGET.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB in 0..1: rembg subtracts MEAN and divides by STD.
Source: sessions/u2net_custom.py of rembg 2.0.86."""


def with_normalized_input(network: onnx.ModelProto) -> onnx.ModelProto:
    """Changes a network for RGB in 0..1, 1x3x320x320, to accept RGB normalized by MEAN and STD; returns it."""
    graph = network.graph
    (network_input,) = graph.input
    constants = {"mean": MEAN, "std": STD}
    for name, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32).reshape(1, 3, 1, 1), name))
    first = (
        helper.make_node("Mul", ["normalized", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], [network_input.name]),
    )
    nodes = [*first, *graph.node]  # in topological order
    del graph.node[:]
    graph.node.extend(nodes)
    network_input.name = "normalized"
    onnx.checker.check_model(network)
    return network


if __name__ == "__main__":
    source, target = sys.argv[1:]
    onnx.save(with_normalized_input(onnx.load(source)), target)
