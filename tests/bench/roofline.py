"""The roofline model (Williams, Waterman, Patterson 2009): a network can be no faster than the device multiplies, nor
than it moves what the network reads and writes.

FLOPs are those of PyTorch's counter, two for a multiplication with its addition. Bytes are the inputs, weights and
outputs of every convolution and every product with weights, each moved once: norms and activations count as fused with
them, attention as done where its inputs lie. That is the least that can be moved, so the fraction reached is a lower
bound. torch is needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

RUNS = 30
CPU_SIDE, GPU_SIDE = 1024, 8192
"""Of the matrices: large enough that more is no faster."""

COPIED_BYTES = 128 * 2**20
"""More than any cache: 32 MiB here, 50 on an H100."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one image: flops, and activations in elements. weights: elements, moved once a batch."""

    flops: float
    activations: float
    weights: float

    def intensity(self, batch: int, item_bytes: int) -> float:
        """FLOPs for each byte moved."""
        return batch * self.flops / (item_bytes * (batch * self.activations + self.weights))


@dataclass(frozen=True, slots=True)
class Ceilings:
    """flops_s: operations a second of a matrix product. bytes_s: read and written a second by a copy."""

    flops_s: float
    bytes_s: float

    def attainable(self, intensity: float) -> float:
        """FLOP/s."""
        return min(self.flops_s, intensity * self.bytes_s)


def counted(network: Any, *shape: int) -> Work:
    """Of one image of that shape, CxHxW. No value is computed: the network is moved to torch's device `meta`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import FlopCounterMode

    moving = {torch.ops.aten.convolution, torch.ops.aten.mm, torch.ops.aten.addmm}
    moved = 0

    class Moved(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal moved
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket in moving:
                moved += sum(one.numel() for one in tree_leaves((args, out)) if isinstance(one, torch.Tensor))
            return out

    network = network.eval().to("meta")
    weights = sum(weight.numel() for weight in network.parameters())
    with torch.inference_mode(), Moved(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape, device="meta"))
    return Work(counter.get_total_flops(), max(0, moved - weights), weights)


def ceilings(device: str, precision: str) -> Ceilings:
    """Of all that the device has: on a CPU all cores, and the faster of the two libraries that run our networks."""
    import torch

    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copied_s = _least_s(lambda: target.copy_(source), device)
    side = CPU_SIDE if device == "cpu" else GPU_SIDE
    products_s = [_onnx_product_s(side, precision)] if device == "cpu" else []
    if precision != "int8":
        one = torch.randn(side, side, device=device).to(getattr(torch, precision))
        products_s.append(_least_s(lambda: one @ one, device))
    return Ceilings(2 * side**3 / min(products_s), 2 * COPIED_BYTES / copied_s)


def _onnx_product_s(side: int, precision: str) -> float:
    """By ONNX Runtime: in float32, or of u8 by s8, as the quantised networks are."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (side, side), np.uint8), rng.integers(-127, 128, (side, side), np.int8)
    of, to, operator = TensorProto.UINT8, TensorProto.INT32, "MatMulInteger"
    if precision == "float32":
        a, b = a.astype(np.float32), b.astype(np.float32)
        of, to, operator = TensorProto.FLOAT, TensorProto.FLOAT, "MatMul"
    product = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", of, (side, side))],
        [helper.make_tensor_value_info("c", to, (side, side))],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(product, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        onnx.save(model, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _least_s(lambda: session.run(None, {"a": a}), "cpu")


def _least_s(work: Callable[[], Any], device: str) -> float:
    """Of the fastest run: a ceiling is what was reached once, whoever else uses the machine meanwhile."""
    import torch

    work()
    taken = []
    for _ in range(RUNS):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)
