"""Roofline model (Williams, Waterman, Patterson 2009): FLOP/s and memory bandwidth of the device bound the speed.

FLOPs are counted by PyTorch; a multiply-add counts as two. Bytes are the inputs, weights and outputs of every
convolution and every matrix product with weights, each moved once. Norms and activations count as fused with them, and
attention moves nothing. This is the least possible traffic, so the reached share of the roofline is a lower bound.
Needs torch.
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
"""Sides of the multiplied matrices; larger ones reach no more FLOP/s."""

COPIED_BYTES = 128 * 2**20
"""Bytes of the copy: more than any cache (32 MiB on the CPU that was measured, 50 MiB on an H100)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one image: flops; activations, in elements. weights: in elements, moved once a batch."""

    flops: float
    activations: float
    weights: float

    def intensity(self, batch: int, item_bytes: int) -> float:
        """Arithmetic intensity: FLOPs per byte moved."""
        return batch * self.flops / (item_bytes * (batch * self.activations + self.weights))


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Limits of a device. flops_s: FLOP/s of a matrix product. bytes_s: bytes read and written a second by a copy."""

    flops_s: float
    bytes_s: float

    def attainable(self, intensity: float) -> float:
        """FLOP/s that the device can reach at an arithmetic intensity."""
        return min(self.flops_s, intensity * self.bytes_s)


def count_cost(network: Any, *shape: int) -> Cost:
    """Counts the cost of one image of shape CxHxW on torch's device `meta`, without computing values."""
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
    return Cost(counter.get_total_flops(), max(0, moved - weights), weights)


def ceilings(device: str, precision: str) -> Ceilings:
    """Measures the ceilings of the whole device: on a CPU with all cores and the faster of torch and ONNX Runtime."""
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
    """Seconds of a matrix product in ONNX Runtime: float32, or uint8 by int8 as in the quantised networks."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (side, side), np.uint8), rng.integers(-127, 128, (side, side), np.int8)
    dtype, result_dtype, operator = TensorProto.UINT8, TensorProto.INT32, "MatMulInteger"
    if precision == "float32":
        a, b = a.astype(np.float32), b.astype(np.float32)
        dtype, result_dtype, operator = TensorProto.FLOAT, TensorProto.FLOAT, "MatMul"
    product = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", dtype, (side, side))],
        [helper.make_tensor_value_info("c", result_dtype, (side, side))],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(product, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        onnx.save(model, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _least_s(lambda: session.run(None, {"a": a}), "cpu")


def _least_s(call: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of RUNS calls, which other load on the machine disturbs least."""
    import torch

    call()
    durations = []
    for _ in range(RUNS):
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return min(durations)
