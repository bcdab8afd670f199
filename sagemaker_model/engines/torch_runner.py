"""How torch runs a network on batches of images.

On a GPU by CUDA graphs: the hundreds of small kernels of a pass, recorded once and started together. A graph repeats
what was recorded at the same addresses, so there is one for each shape and each size of batch, they share the memory
that they work in, and one batch runs at a time. Graphs are recorded before the server is ready, not while it serves.

A batch is copied to the GPU before its graph and not beside the one before it: 16 images of 512x672 are 66 MB, some
4 ms (estimated, PCIe 4.0 x16) before 50 to 100 ms of work, and a second stream would need every buffer twice. cuDNN
chooses its algorithms by rule, not by trying them (`torch.backends.cudnn.benchmark`): for 105 graphs of some 70
convolutions that would take minutes of every start.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
Forward = Callable[[Tensor], Sequence[Tensor]]
Pass = Callable[[], Sequence[Tensor]]

FILLED_MIN = 0.75
"""A batch is filled up to the next size when this share of it is images; else it is split. So 7 run as 8, but 9 as 8
and 1: as 16 they would take almost twice as long."""

WARM_UPS = 2
"""Passes before a graph is recorded: the first loads kernels and makes the workspaces of cuBLAS and cuDNN, which must
not happen while recording; the second runs as the graph will."""


@dataclass(frozen=True, slots=True)
class Step:
    """One size of batch in one shape, ready: what is in `pixels` when `run` is called comes out."""

    pixels: Tensor
    run: Pass


class CannotRecord(RuntimeError):
    """What torch and CUDA refuse to record, they refuse with a plain RuntimeError."""


class Recorder(Protocol):
    def record(self, run: Pass) -> Pass:
        """What does again what `run` does now, at the same addresses. Raises torch.OutOfMemoryError, CannotRecord."""


class CudaGraphs:
    """Graphs that share one pool of memory, and so run one at a time."""

    def __init__(self) -> None:
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def record(self, run: Pass) -> Pass:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):  # also puts back the stream that torch leaves when recording fails
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


class TorchRunner:
    """Runs `forward`, which takes images Nx3xhxw float32 on the device, in the memory format channels_last, and gives
    one tensor or more of length N. On a GPU it works under autocast to `dtype`; on the CPU in float32.

    Until `warm_up`, and in shapes that it was not told, batches run as they are, without a graph. Safe to call from
    many threads; what is warmed up runs one batch at a time.
    """

    def __init__(
        self, forward: Forward, device: str, dtype: torch.dtype, recorder: Callable[[], Recorder] | None = None
    ) -> None:
        self._forward, self._device, self._dtype = forward, torch.device(device), dtype
        self._on_gpu = self._device.type == "cuda"
        if recorder is None and self._on_gpu:
            recorder = CudaGraphs
        self._recorder = recorder() if recorder else None
        self._steps: dict[Shape, dict[int, Step]] = {}
        self._one_batch = threading.Lock()

    def warm_up(self, shapes: Iterable[Shape], batch_max: int) -> None:
        """Makes ready batches of 1, 2, 4 … up to `batch_max` in each shape, 3xhxw. Sizes that do not fit into the
        memory are left out: larger batches are then run in parts. Where recording fails, passes run without graphs.

        Estimated, no GPU was at hand: for MODNet's 21 shapes and batches up to 16, which are 105 graphs, half a minute
        and 3 GB of an L4's 24: what the largest batch works in, and 0.5 GB of outputs.
        """
        start, free = time.perf_counter(), self._free_bytes()
        sizes = [2**power for power in range(batch_max.bit_length())]
        ordered = sorted(shapes, key=math.prod, reverse=True)  # what the largest batch took, the others take again
        with torch.inference_mode():
            memory = torch.zeros(sizes[-1] * math.prod(ordered[0]), device=self._device)
        for shape in ordered:
            ready = {size: self._step(memory, size, shape) for size in reversed(sizes)}
            self._steps[shape] = {size: step for size, step in ready.items() if step is not None}
        log.info(
            "ready for %d shapes, %d sizes of batches in all, with%s graphs: %.1f s, %.0f MB of the GPU",
            len(self._steps),
            sum(len(steps) for steps in self._steps.values()),
            "" if self._recorder else "out",
            time.perf_counter() - start,
            (free - self._free_bytes()) / 1e6,
        )

    def run(self, pictures: Sequence[Floats]) -> list[tuple[NDArray[Any], ...]]:
        """What `forward` gives for each of the images, 3xhxw of one shape, in order; each array is a view of its
        batch's. Raises torch.OutOfMemoryError."""
        count, steps = len(pictures), self._steps.get(pictures[0].shape)
        if not steps:
            with mode(self._device, self._dtype):
                return self._fetched(self._passed(self._staged(pictures, count).to(self._device)), count)
        found: list[tuple[NDArray[Any], ...]] = []
        with self._one_batch, mode(self._device, self._dtype):
            for some, size in parts(count, steps):
                staged = self._staged(pictures[len(found) : len(found) + some], size)
                steps[size].pixels.copy_(staged, non_blocking=True)
                found += self._fetched(steps[size].run(), some)
        return found

    def _step(self, memory: Tensor, size: int, shape: Shape) -> Step | None:
        """None where the memory is too small for it."""
        pixels = memory[: size * math.prod(shape)].view(size, *shape)
        run = partial(self._passed, pixels)
        try:
            with mode(self._device, self._dtype):
                if self._recorder:
                    try:
                        return Step(pixels, self._recorder.record(run))
                    except CannotRecord:
                        log.warning("a CUDA graph cannot be recorded: passes run without, slower", exc_info=True)
                        self._recorder = None
                run()
        except torch.OutOfMemoryError:
            log.warning("%d images of %s do not fit into the GPU's memory: they run in parts", size, shape)
            return None
        return Step(pixels, run)

    def _passed(self, pixels: Tensor) -> Sequence[Tensor]:
        return self._forward(pixels.contiguous(memory_format=torch.channels_last))

    def _staged(self, pictures: Sequence[Floats], size: int) -> Tensor:
        """The batch on the host, filled up with zeros; for a GPU in pinned memory, which torch keeps for the next."""
        staged = torch.empty((size, *pictures[0].shape), device="cpu", pin_memory=self._on_gpu)
        np.stack(pictures, out=staged.numpy()[: len(pictures)])
        staged[len(pictures) :] = 0
        return staged

    def _fetched(self, outputs: Sequence[Tensor], count: int) -> list[tuple[NDArray[Any], ...]]:
        """Of the first `count` images, copied before the next batch overwrites them; from a GPU to pinned memory."""
        maps = [output[:count].to("cpu", non_blocking=True, copy=True) for output in outputs]
        if self._on_gpu:
            torch.cuda.current_stream().synchronize()
        arrays = [one.numpy() for one in maps]
        return [tuple(array[i] for array in arrays) for i in range(count)]

    def _free_bytes(self) -> int:
        return torch.cuda.mem_get_info(self._device)[0] if self._on_gpu else 0


@contextmanager
def mode(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """How every pass runs. The device is also where networks make tensors of their own unless they say otherwise: SAM 1
    of transformers would make some on the CPU, and a copy from there cannot be recorded. Autocast keeps no cache: it
    would hand one graph what another has made."""
    autocast = torch.autocast("cuda", dtype, cache_enabled=False) if device.type == "cuda" else nullcontext()
    with torch.inference_mode(), device, autocast:
        yield


def parts(count: int, sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """How `count` images are run in batches of `sizes`: the images and the size of each batch."""
    sizes = sorted(sizes)
    while count:
        size = next((size for size in sizes if size >= count), sizes[-1])
        if count < FILLED_MIN * size:
            size = max((smaller for smaller in sizes if smaller <= count), default=size)
        yield min(count, size), size
        count -= min(count, size)


def lowered(module: nn.Module, dtype: torch.dtype) -> None:
    """Turns the weights of convolutions and linear layers to `dtype`, which autocast would do again in every pass.
    Norms keep theirs."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.to(dtype)
