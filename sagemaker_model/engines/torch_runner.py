"""Runs a torch network on batches of images.

Half precision, batches and graphs are used after a comparison with float32, one image at a time (verification.py).

On a GPU by CUDA graphs: the hundreds of small kernels of a forward pass are recorded once and launched together. A
graph replays its kernels on the same memory. So each shape and batch size has its own graph, the graphs share their
working memory, and one batch runs at a time. Graphs are recorded before the server is ready, not while it serves.

A batch is copied to the GPU before its graph runs, not while the previous graph runs. For 16 images of 512x672, 66 MB,
the copy takes about 4 ms (estimated, PCIe 4.0 x16), the computation 50 to 100 ms. A second stream would need every
buffer twice. cuDNN chooses its algorithms by rule, not by trial (`torch.backends.cudnn.benchmark`): for 105 graphs of
about 70 convolutions, trials would take minutes at every start.
"""

from __future__ import annotations

import copy
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sagemaker_model.engines.verification import (
    FLOAT32_TOLERANCE,
    HALF_TOLERANCE,
    INFINITE,
    NOT_CONCLUSIVE,
    Comparison,
    Maps,
    Optimisation,
    difference,
    is_conclusive,
    network_inputs,
)

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
Forward = Callable[[Tensor], Sequence[Tensor]]
Pass = Callable[[], Sequence[Tensor]]

FILLED_MIN = 0.75
"""A batch is padded to the next size if at least this share of it is images; else it is split. So 7 images run as 8,
but 9 as 8 and 1: as 16 they would take almost twice as long."""

WARM_UPS = 2
"""Forward passes before a graph is recorded. The first loads kernels and allocates the workspaces of cuBLAS and cuDNN,
which must not happen while recording; the second runs as the graph will."""

NOT_COMPARED = "no comparison fits into the GPU's memory"


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """One batch size of one shape, ready to run: `run` returns the outputs for the content of `pixels`."""

    pixels: Tensor
    run: Pass


class CannotRecord(RuntimeError):
    """torch or CUDA cannot record the forward pass; they raise a plain RuntimeError for it."""


class Recorder(Protocol):
    """Records forward passes for replay."""

    def record(self, run: Pass) -> Pass:
        """Returns a function that replays `run` on the same memory. Raises torch.OutOfMemoryError, CannotRecord."""


class CudaGraphs:
    """Records CUDA graphs that share one memory pool, and therefore run one at a time."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch lacks the annotation
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Pass) -> Pass:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):  # also restores the stream after a failed recording
            for _ in range(WARM_UPS):
                run()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    outputs = run()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise CannotRecord(str(error)) from error

        def replay() -> Sequence[Tensor]:
            graph.replay()
            return outputs

        return replay


@dataclass(frozen=True, slots=True)
class Half:
    """A network in half precision: its weights are cast to `dtype`, and it runs under autocast to `dtype`."""

    forward: Forward
    dtype: torch.dtype


class TorchRunner:
    """Runs a network on batches of images. Safe to call from many threads.

    exact: the network in float32; takes Nx3xhxw float32 on the device, in the memory format channels_last, and returns
    one tensor or more of length N. half: the same network in half precision, for a GPU.
    Before `warm_up`, every image runs alone through `exact`. `warm_up` switches on what gives the same results. Shapes
    that it did not get run one image at a time, others one batch at a time.
    """

    def __init__(
        self, exact: Forward, device: str, half: Half | None = None, recorder: Callable[[], Recorder] | None = None
    ) -> None:
        self._exact, self._half, self._device = exact, half, torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        if self._on_gpu:
            recorder = recorder or CudaGraphs
            torch.backends.cudnn.allow_tf32 = False  # else convolutions in float32 have the precision of float16
        self._new_recorder = recorder
        self._forward, self._dtype = exact, torch.float32
        self._batches: dict[Shape, dict[int, PreparedBatch]] = {}
        self._one_batch = threading.Lock()

    def warm_up(self, shapes: Iterable[Shape], batch_max: int) -> tuple[Comparison, ...]:
        """Prepares batches of 1, 2, 4 … up to `batch_max` in each shape, 3xhxw. Call it once.

        Returns how half precision, batches and graphs compare with `exact` (verification.py), those that are in use.
        After the first that differs, all is prepared again without it, at most three times. Sizes that do not fit into
        the memory are left out: larger batches are then split. Raises EngineUnavailable.
        Estimated, not measured: for MODNet's 21 shapes and batches up to 16, which are 105 graphs, a minute, half of it
        for the comparisons, and 3 GB of an L4's 24 GB: the working memory of the largest batch, and 0.5 GB of outputs.
        Until it returns, both networks are in memory: for SAM's vit_h 3.8 GB instead of 1.3 GB of weights.
        """
        start, free = time.perf_counter(), self._free_bytes()
        sizes = [2**power for power in range(batch_max.bit_length())]
        ordered = sorted(shapes, key=math.prod, reverse=True)  # the other batches use the largest one's memory
        offered: dict[Optimisation, object] = {
            "half": self._half,
            "batch": batch_max > 1,
            "graph": self._new_recorder,
        }
        on = [name for name, available in offered.items() if available]
        failed: list[Comparison] = []
        while True:
            worst: dict[Optimisation, Comparison] = {}
            for new in self._prepare(ordered, sizes, on):
                old = worst.get(new.optimisation, new)
                worst[new.optimisation] = replace(new, difference=new.difference | old.difference)
                if not new.passed:
                    break
            missing = [Comparison(one, INFINITE, HALF_TOLERANCE, NOT_COMPARED) for one in on if one not in worst]
            cause = next((one for one in (*worst.values(), *missing) if not one.passed), None)
            if cause is None:
                break
            failed.append(cause)
            on.remove(cause.optimisation)
        del self._exact, self._half  # frees the memory of the one that is not in use
        log.info(
            "ready for %d shapes with %d batch sizes in total: %.1f s, %.0f MB of GPU memory",
            len(self._batches),
            sum(len(batches) for batches in self._batches.values()),
            time.perf_counter() - start,
            (free - self._free_bytes()) / 1e6,
        )
        return (*worst.values(), *failed)

    def run(self, images: Sequence[Floats]) -> list[Maps]:
        """Returns the outputs of the network for each image, 3xhxw of one shape, in order.

        Each array is a view of its batch's array. Raises torch.OutOfMemoryError.
        """
        batches = self._batches.get(images[0].shape)
        if not batches:
            return [self._run_alone(image, self._forward, self._dtype) for image in images]
        outputs: list[Maps] = []
        with self._one_batch:
            for part, size in split_batch(len(images), batches):
                outputs += self._run_batch(batches[size], images[len(outputs) : len(outputs) + part])
        return outputs

    def _prepare(
        self, shapes: Sequence[Shape], sizes: Sequence[int], on: Sequence[Optimisation]
    ) -> Iterator[Comparison]:
        """Prepares all batches with these optimisations, and yields each comparison with `exact`."""
        self._batches = {}  # before new graphs are recorded: frees the memory of the old ones
        self._forward, self._dtype = self._exact, torch.float32
        if self._half and "half" in on:
            self._forward, self._dtype = self._half.forward, self._half.dtype
        recorder = self._new_recorder() if self._new_recorder and "graph" in on else None
        sizes = sizes if "batch" in on else sizes[:1]
        tolerance = FLOAT32_TOLERANCE if self._dtype == torch.float32 else HALF_TOLERANCE
        with torch.inference_mode():
            memory = torch.zeros(sizes[-1] * math.prod(shapes[0]), device=self._device)
        for shape in shapes:
            images = network_inputs(shape, max(2, sizes[-1]))
            try:
                exact = [self._run_alone(image, self._exact, torch.float32) for image in images]
                if not is_conclusive(exact, tolerance):
                    for one in on:
                        yield Comparison(one, INFINITE, tolerance, NOT_CONCLUSIVE)
                if "half" in on:
                    half = [self._run_alone(image, self._forward, self._dtype) for image in images]
                    yield Comparison("half", difference(half, exact), tolerance)
            except torch.OutOfMemoryError:
                log.warning("an image of %s does not fit into the GPU's memory", shape)
                continue
            self._batches[shape] = {}
            for size in reversed(sizes):
                pixels = memory[: size * math.prod(shape)].view(size, *shape)
                batch = PreparedBatch(pixels, partial(self._forward_pass, self._forward, pixels))
                try:
                    results = self._run_batch(batch, images[:size])
                    if size > 1:
                        yield Comparison("batch", difference(results, exact[:size]), tolerance)
                    if recorder:
                        with inference_context(self._device, self._dtype):
                            batch = PreparedBatch(pixels, recorder.record(batch.run))
                        # In another order than the images on which it was recorded: else an old result would pass.
                        results = self._run_batch(batch, images[: -size - 1 : -1])
                        yield Comparison("graph", difference(results, exact[: -size - 1 : -1]), tolerance)
                    self._batches[shape][size] = batch
                except torch.OutOfMemoryError:
                    log.warning("%d images of %s do not fit into the GPU's memory: such batches are split", size, shape)
                except CannotRecord as error:
                    yield Comparison("graph", INFINITE, tolerance, f"it cannot be recorded: {error}")

    def _run_alone(self, image: Floats, forward: Forward, dtype: torch.dtype) -> Maps:
        with inference_context(self._device, dtype):
            return self._fetch(self._forward_pass(forward, self._stage([image], 1).to(self._device)), 1)[0]

    def _run_batch(self, batch: PreparedBatch, images: Sequence[Floats]) -> list[Maps]:
        """Runs at most as many images as the batch has places."""
        with inference_context(self._device, self._dtype):
            batch.pixels.copy_(self._stage(images, len(batch.pixels)), non_blocking=True)
            return self._fetch(batch.run(), len(images))

    @staticmethod
    def _forward_pass(forward: Forward, pixels: Tensor) -> Sequence[Tensor]:
        return forward(pixels.contiguous(memory_format=torch.channels_last))

    def _stage(self, images: Sequence[Floats], size: int) -> Tensor:
        """Returns the batch in host memory, padded with zeros; for a GPU in pinned memory, which torch reuses."""
        staged = torch.empty((size, *images[0].shape), device="cpu", pin_memory=self._on_gpu)
        np.stack(images, out=staged.numpy()[: len(images)])
        staged[len(images) :] = 0
        return staged

    def _fetch(self, outputs: Sequence[Tensor], count: int) -> list[Maps]:
        """Returns the outputs of the first `count` images, copied before the next batch overwrites them.

        From a GPU they are copied to pinned memory.
        """
        maps = [output[:count].to("cpu", non_blocking=True, copy=True) for output in outputs]
        if self._on_gpu:
            torch.cuda.current_stream().synchronize()
        arrays = [one.numpy() for one in maps]
        return [tuple(array[i] for array in arrays) for i in range(count)]

    def _free_bytes(self) -> int:
        return torch.cuda.mem_get_info(self._device)[0] if self._on_gpu else 0


@contextmanager
def inference_context(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """The context of every forward pass: inference mode, default device and, for half precision, autocast to `dtype`.

    The default device is needed because SAM 1 of transformers creates tensors on it, and a copy from the CPU cannot be
    recorded. Autocast keeps no cache: it would pass tensors of one graph to another.
    """
    half = dtype != torch.float32
    autocast = torch.autocast(device.type, dtype, cache_enabled=False) if half else nullcontext()
    with torch.inference_mode(), device, autocast:
        yield


def split_batch(count: int, sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Splits `count` images into batches of `sizes`. Yields the number of images and the size of each batch."""
    sizes = sorted(sizes)
    while count:
        size = next((size for size in sizes if size >= count), sizes[-1])
        if count < FILLED_MIN * size:
            size = max((smaller for smaller in sizes if smaller <= count), default=size)
        yield min(count, size), size
        count -= min(count, size)


def matting_runner(net: nn.Module, device: str, threads: int) -> TorchRunner:
    """Moves a matting network in eval mode to the device, and returns what runs it: in float32 until its `warm_up`.

    net: returns a matte Nx1xhxw. threads: of torch on a CPU. On a GPU the half precision is float16: bfloat16 has eight
    times its error, for MODNet at most 0.07 (mean 0.0007) against 0.008 (mean 0.0001).
    """
    net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it

    def matte_by(network: nn.Module) -> Forward:
        return lambda x: (network(x)[:, 0],)

    if device == "cpu":
        torch.set_num_threads(threads)
        return TorchRunner(matte_by(net), device)
    exact = copy.deepcopy(net)
    cast_weights(net, torch.float16)
    return TorchRunner(matte_by(exact), device, Half(matte_by(net), torch.float16))


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights of convolutions and linear layers to `dtype`, which autocast would do in every forward pass.

    Normalisation layers keep their weights.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.to(dtype)
