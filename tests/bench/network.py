"""Networks alone, by batch and precision, beside the roofline of the device.

On the CPU with all cores: torch and ONNX Runtime. On a GPU torch, and the energy of an image where NVML tells it.
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
"""Runs the network on so many images."""


@dataclass(frozen=True, slots=True)
class Alone:
    """streams: batches at once, each on a core of its own; 1: one batch at a time on all that there is.
    of_roofline: share of what the device can attain. joules: of one image; None where nothing tells it."""

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
    """work: of each network by name. ceilings: by precision."""

    rows: tuple[Alone, ...]
    work: dict[str, roofline.Work]
    ceilings: dict[str, roofline.Ceilings]


def measured(device: str, weights: Path) -> Networks:
    """Raises ModuleNotFoundError without torch."""
    return _on_gpu() if device == "cuda" else _on_cpu(weights)


def _on_cpu(weights: Path) -> Networks:
    import torch

    torch.set_num_threads(cores())
    ceilings = {precision: roofline.ceilings("cpu", precision) for precision in ("float32", "int8")}
    work: dict[str, roofline.Work] = {}
    rows: list[Alone] = []

    def add(name: str, runtime: str, precision: str, batch: int, infer: Infer, streams: int = 1) -> None:
        rows.append(_row(name, runtime, precision, batch, infer, work[name], ceilings[precision], streams=streams))

    shape = (3, modnet.SHORT, modnet.SHORT)
    net = _modnet()
    work["MODNet"] = roofline.counted(_modnet(), *shape)
    for batch in BATCHES:
        add("MODNet", "torch", "float32", batch, _by_torch(net, shape, "cpu", "float32"))
    for precision, file in (("float32", modnet.ONNX), ("int8", modnet.INT8)):
        for batch in BATCHES:
            add("MODNet", "ONNX Runtime", precision, batch, _by_onnx(weights / file, shape, cores()))
        add("MODNet", "ONNX Runtime", precision, 1, _by_onnx(weights / file, shape, 1), streams=cores())
    shape = (3, SAM_SIDE, SAM_SIDE)
    for variant in SAM_ON_CPU:
        name = f"SAM encoder {variant}"
        work[name] = roofline.counted(_encoder(variant, "meta"), *shape)
        add(name, "torch", "float32", 1, _by_torch(_encoder(variant, "cpu"), shape, "cpu", "float32"))
        if (path := weights / f"sam2-{variant}.encoder.onnx").exists():
            add(name, "ONNX Runtime", "float32", 1, _by_onnx(path, shape, cores(), "pixels"))
    return Networks(tuple(rows), work, ceilings)


def _on_gpu() -> Networks:
    import torch

    # The ceiling of float32 is that of float32: TF32, which convolutions take by default, has 10 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    ceilings = {precision: roofline.ceilings("cuda", precision) for precision in PRECISIONS}
    made: dict[str, tuple[Callable[[str], Any], tuple[int, ...]]] = {
        "MODNet": (lambda device: _modnet().to(device), (3, modnet.SHORT, modnet.SHORT))
    }
    for variant in SAM_ON_GPU:
        made[f"SAM encoder {variant}"] = (lambda device, v=variant: _encoder(v, device), (3, SAM_SIDE, SAM_SIDE))
    work: dict[str, roofline.Work] = {}
    rows: list[Alone] = []
    for name, (make, shape) in made.items():
        work[name] = roofline.counted(make("meta"), *shape)
        net = make("cuda")
        for precision in PRECISIONS:
            for batch in BATCHES:
                infer = _by_torch(net, shape, "cuda", precision)
                try:
                    rows.append(
                        _row(name, "torch", precision, batch, infer, work[name], ceilings[precision], joules=_joules)
                    )
                except torch.OutOfMemoryError:
                    break
        del net
        torch.cuda.empty_cache()
    return Networks(tuple(rows), work, ceilings)


def _row(
    name: str,
    runtime: str,
    precision: str,
    batch: int,
    infer: Infer,
    work: roofline.Work,
    ceilings: roofline.Ceilings,
    *,
    streams: int = 1,
    joules: Callable[[], float | None] = lambda: None,
) -> Alone:
    calls = 0

    def work_once() -> None:
        nonlocal calls
        calls += 1
        if streams == 1:
            infer(batch)
        else:
            list(pool.map(infer, [batch] * streams))

    with ThreadPoolExecutor(streams) as pool:
        before, cpu = joules(), time.process_time()
        taken = runs(work_once)
        cpu, after = time.process_time() - cpu, joules()
    total = batch * streams * calls
    rate = batch * streams / statistics.median(taken)
    reached = rate * work.flops / ceilings.attainable(work.intensity(batch, roofline.ITEM_BYTES[precision]))
    spent = None if before is None or after is None else (after - before) / total
    return Alone(name, runtime, precision, batch, rate, cpu / total * 1000, reached, spent, streams)


def _modnet() -> Any:
    import torch

    from sagemaker_model.nets.modnet import MODNet

    torch.manual_seed(0)
    return MODNet().eval().to(memory_format=torch.channels_last)


def _encoder(variant: str, device: str) -> Any:
    from sagemaker_model.nets.sam import Encoder

    return Encoder(sam_network(variant, device))


def _by_torch(net: Any, shape: tuple[int, ...], device: str, precision: str) -> Infer:
    """As the engines run it: in autocast, input and output on the device."""
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


def _by_onnx(path: Path, shape: tuple[int, ...], threads: int, name: str = "picture") -> Infer:
    session = onnx_session(path, threads)
    one = np.random.default_rng(0).random(shape, np.float32)
    return lambda batch: session.run(None, {name: np.broadcast_to(one, (batch, *shape))})


def _joules() -> float | None:
    """That the first GPU has taken since its driver was loaded, by NVML; None where pynvml or the GPU does not tell."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000
    except pynvml.NVMLError:
        return None
