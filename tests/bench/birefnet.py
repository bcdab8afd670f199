"""`make bench-birefnet`: BiRefNet with random weights, in batches and one image at a time, against the roofline.

    python -m tests.bench.birefnet [SIDE …] [--export]

On the CPU: Swin-T in float32, by default at 256 and 512 pixels. On a GPU: Swin-T and Swin-L as the engines run them, in
float16 and CUDA graphs where their verification passes, at 1024 pixels. "one by one" is float32, one image at a time.
--export, which is on without a side: also exports Swin-T, and compares the file with torch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sagemaker_model.device import choose_device
from sagemaker_model.engines.birefnet import BATCH_PIXELS
from sagemaker_model.engines.onnx_session import onnx_session, run_matting
from sagemaker_model.engines.torch_runner import matting_runner
from sagemaker_model.export.birefnet import to_onnx
from sagemaker_model.export.formats import INPUT_NAME, OUTPUT_NAME
from sagemaker_model.nets.birefnet import BACKBONES, BiRefNet
from tests.bench import roofline
from tests.bench.measure import cores

ROUNDS = 3
"""Alternating rounds of batches and of single images; the median of each is printed."""

IMAGES = 4
"""Images of a round; on a GPU 8 batches."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.birefnet", description=__doc__)
    parser.add_argument("sides", nargs="*", type=int, help="sides of the input in pixels, multiples of 32")
    parser.add_argument("--export", action="store_true", help="export Swin-T to ONNX and compare it with torch")
    arguments = parser.parse_args()
    device = choose_device("auto", require_gpu=False)
    sides = arguments.sides or ([1024] if device == "cuda" else [256, 512])
    for backbone in ("T", "L") if device == "cuda" else ("T",):
        for side in sides:
            measure(backbone, side, device)
    if arguments.export or not arguments.sides:
        export(sides[0])
    return 0


def network(backbone: str) -> BiRefNet:
    torch.manual_seed(0)
    return BiRefNet(BACKBONES[backbone]).eval()


def measure(backbone: str, side: int, device: str) -> None:
    """Prints images/s in batches and one by one, their ratio, the share of the roofline and the peak memory."""
    shape = (3, side, side)
    cost = roofline.count_cost(network(backbone), *shape)
    net = network(backbone)
    alone, batched = matting_runner(net, device, cores()), matting_runner(network(backbone), device, cores())
    batch = min(IMAGES, max(1, BATCH_PIXELS // side**2))
    comparisons = batched.warm_up({shape}, batch)
    precision = "float16" if any(one.optimisation == "half" and one.passed for one in comparisons) else "float32"
    count = IMAGES if device == "cpu" else 8 * batch
    images = [np.random.default_rng(number).normal(size=shape).astype(np.float32) for number in range(count)]

    def in_batches() -> None:
        for start in range(0, count, batch):
            batched.run(images[start : start + batch])

    def one_by_one() -> None:
        for image in images:
            alone.run([image])

    fast, slow = zip(*((rate(in_batches, count), rate(one_by_one, count)) for _ in range(ROUNDS)), strict=True)
    limits = roofline.ceilings(device, precision)
    attainable = limits.attainable(cost.intensity(batch, roofline.ITEM_BYTES[precision]))
    share = statistics.median(fast) * cost.flops / attainable
    print(
        f"Swin-{backbone}, {side}x{side}, {device}: {statistics.median(fast):.3f} images/s in batches of {batch} "
        f"({precision}), {statistics.median(slow):.3f} one by one (float32), ratio "
        f"{statistics.median(a / b for a, b in zip(fast, slow, strict=True)):.2f}; {cost.flops / 1e9:.0f} GFLOP, "
        f"{share:.0%} of the roofline; peak {peak_mb(device):.0f} MB; "
        + ", ".join(f"{one.optimisation} {'on' if one.passed else 'off'}" for one in comparisons),
        flush=True,
    )


def rate(run: Callable[[], None], count: int) -> float:
    """Images a second."""
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def peak_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def export(side: int) -> None:
    """Exports Swin-T, and prints the time, the size of the file, and its difference from torch on one image."""
    net = network("T")
    x = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "birefnet.onnx", time.perf_counter()
        to_onnx(net, path, INPUT_NAME, OUTPUT_NAME)
        seconds = time.perf_counter() - start
        session = onnx_session(path, cores(), keep_memory=False)
        by_onnx_s, by_torch_s = [], []
        with torch.inference_mode():
            for _ in range(ROUNDS):
                start = time.perf_counter()
                found = run_matting(session, x)
                by_onnx_s.append(time.perf_counter() - start)
                start = time.perf_counter()
                expected = net(torch.from_numpy(x)).numpy()
                by_torch_s.append(time.perf_counter() - start)
        print(
            f"Export of Swin-T: {seconds:.0f} s, {path.stat().st_size / 1e6:.0f} MB; {side}x{side}: largest difference "
            f"{np.abs(found - expected).max():.1e}, {statistics.median(by_onnx_s):.2f} s by ONNX Runtime, "
            f"{statistics.median(by_torch_s):.2f} s by torch"
        )


if __name__ == "__main__":
    sys.exit(main())
