"""Measures the networks alone, by batch size and precision, against the roofline of the device.

On the CPU: torch and ONNX Runtime with all cores. On a GPU: torch, and the energy of an image if NVML reports it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_model.engines import modnet
from sagemaker_model.engines.onnx_session import onnx_session
from tests.bench import roofline
from tests.bench.measure import cores, runs
from tests.bench.random_weights import sam_network

BATCHES = (1, 2, 4, 8, 16)
PRECISIONS = ("float32", "bfloat16", "float16")
SAM_ON_CPU, SAM_ON_GPU = ("tiny", "vit_b"), ("tiny", "vit_b", "vit_h")
SAM_SIDE = 1024

Infer = Callable[[int], Any]
"""Runs the network on a batch of this size."""


@dataclass(frozen=True, slots=True)
class NetworkTiming:
    """One network at one batch size and precision.

    streams: concurrent batches, one on each core; 1: one batch at a time on the whole device. cpu_ms: CPU milliseconds
    of one image. of_roofline: share of the attainable FLOP/s. joules: energy of one image; None if not reported.
    """

    network: str
    runtime: str
    precision: str
    batch: int
    images_s: float
    cpu_ms: float
    of_roofline: float
    joules: float | None = None
    streams: int = 1


@dataclass(frozen=True, slots=True)
class Networks:
    """All measurements. costs: by network. ceilings: by precision."""

    rows: tuple[NetworkTiming, ...]
    costs: dict[str, roofline.Cost]
    ceilings: dict[str, roofline.Ceilings]


def measured(device: str, weights: Path) -> Networks:
    """Measures the networks on the device. Raises ModuleNotFoundError without torch."""
    return _on_gpu() if device == "cuda" else _on_cpu(weights)


def _on_cpu(weights: Path) -> Networks:
    import torch

    torch.set_num_threads(cores())
    ceilings = {precision: roofline.ceilings("cpu", precision) for precision in ("float32", "int8")}
    costs: dict[str, roofline.Cost] = {}
    rows: list[NetworkTiming] = []

    def add(name: str, runtime: str, precision: str, batch: int, infer: Infer, streams: int = 1) -> None:
        rows.append(_row(name, runtime, precision, batch, infer, costs[name], ceilings[precision], streams=streams))

    shape = (3, modnet.SHORT, modnet.SHORT)
    net = _modnet()
    costs["MODNet"] = roofline.count_cost(_modnet(), *shape)
    for batch in BATCHES:
        add("MODNet", "torch", "float32", batch, _torch_infer(net, shape, "cpu", "float32"))
    for precision, file in (("float32", modnet.ONNX), ("int8", modnet.INT8)):
        for batch in BATCHES:
            add("MODNet", "ONNX Runtime", precision, batch, _onnx_infer(weights / file, shape, cores()))
        add("MODNet", "ONNX Runtime", precision, 1, _onnx_infer(weights / file, shape, 1), streams=cores())
    shape = (3, SAM_SIDE, SAM_SIDE)
    for variant in SAM_ON_CPU:
        name = f"SAM encoder {variant}"
        costs[name] = roofline.count_cost(_encoder(variant, "meta"), *shape)
        add(name, "torch", "float32", 1, _torch_infer(_encoder(variant, "cpu"), shape, "cpu", "float32"))
        if (path := weights / f"sam2-{variant}.encoder.onnx").exists():
            add(name, "ONNX Runtime", "float32", 1, _onnx_infer(path, shape, cores()))
    return Networks(tuple(rows), costs, ceilings)


def _on_gpu() -> Networks:
    import torch

    # TF32, the default of convolutions, has 10 bits of mantissa; the ceiling is that of float32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    ceilings = {precision: roofline.ceilings("cuda", precision) for precision in PRECISIONS}
    made: dict[str, tuple[Callable[[str], Any], tuple[int, ...]]] = {
        "MODNet": (lambda device: _modnet().to(device), (3, modnet.SHORT, modnet.SHORT))
    }
    for variant in SAM_ON_GPU:
        made[f"SAM encoder {variant}"] = (lambda device, v=variant: _encoder(v, device), (3, SAM_SIDE, SAM_SIDE))
    costs: dict[str, roofline.Cost] = {}
    rows: list[NetworkTiming] = []
    for name, (make, shape) in made.items():
        costs[name] = roofline.count_cost(make("meta"), *shape)
        net = make("cuda")
        for precision in PRECISIONS:
            for batch in BATCHES:
                infer = _torch_infer(net, shape, "cuda", precision)
                try:
                    rows.append(
                        _row(name, "torch", precision, batch, infer, costs[name], ceilings[precision], joules=_joules)
                    )
                except torch.OutOfMemoryError:
                    break
        del net
        torch.cuda.empty_cache()
    return Networks(tuple(rows), costs, ceilings)


def _row(
    name: str,
    runtime: str,
    precision: str,
    batch: int,
    infer: Infer,
    cost: roofline.Cost,
    ceilings: roofline.Ceilings,
    *,
    streams: int = 1,
    joules: Callable[[], float | None] = lambda: None,
) -> NetworkTiming:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if streams == 1:
            infer(batch)
        else:
            list(pool.map(infer, [batch] * streams))

    with ThreadPoolExecutor(streams) as pool:
        joules_before, cpu = joules(), time.process_time()
        durations = runs(call)
        cpu, joules_after = time.process_time() - cpu, joules()
    total = batch * streams * calls
    rate = batch * streams / statistics.median(durations)
    reached = rate * cost.flops / ceilings.attainable(cost.intensity(batch, roofline.ITEM_BYTES[precision]))
    spent = None if joules_before is None or joules_after is None else (joules_after - joules_before) / total
    return NetworkTiming(name, runtime, precision, batch, rate, cpu / total * 1000, reached, spent, streams)


def _modnet() -> Any:
    import torch

    from sagemaker_model.nets.modnet import MODNet

    torch.manual_seed(0)
    return MODNet().eval().to(memory_format=torch.channels_last)


def _encoder(variant: str, device: str) -> Any:
    from sagemaker_model.nets.sam import Encoder

    return Encoder(sam_network(variant, device))


def _torch_infer(net: Any, shape: tuple[int, ...], device: str, precision: str) -> Infer:
    """Runs the network as the engines do: with autocast, input and output on the device."""
    import torch

    kind = getattr(torch, precision)
    inputs = {batch: torch.rand(batch, *shape, device=device) for batch in BATCHES}

    def infer(batch: int) -> None:
        x = inputs[batch].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device, kind, enabled=precision != "float32"):
            net(x)
        if device != "cpu":
            torch.cuda.synchronize()

    return infer


def _onnx_infer(path: Path, shape: tuple[int, ...], threads: int) -> Infer:
    session = onnx_session(path, threads)
    (network_input,) = session.get_inputs()
    image = np.random.default_rng(0).random(shape, np.float32)
    return lambda batch: session.run(None, {network_input.name: np.broadcast_to(image, (batch, *shape))})


def _joules() -> float | None:
    """Joules used by the first GPU since its driver was loaded, from NVML; None if unavailable."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000
    except pynvml.NVMLError:
        return None
