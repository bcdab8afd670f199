"""Runs a torch network on batches of images.

On a GPU by CUDA graphs: the hundreds of small kernels of a forward pass are recorded once and launched together. A
graph replays its kernels on the same memory. So each shape and batch size has its own graph, the graphs share their
working memory, and one batch runs at a time. Graphs are recorded before the server is ready, not while it serves.

A batch is copied to the GPU before its graph runs, not while the previous graph runs: 16 images of 512x672 are 66 MB,
about 4 ms (estimated, PCIe 4.0 x16) before 50 to 100 ms of computation. A second stream would need every buffer twice.
cuDNN chooses its algorithms by rule, not by trial (`torch.backends.cudnn.benchmark`): for 105 graphs of about 70
convolutions, trials would take minutes at every start.
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
"""A batch is padded to the next size if at least this share of it is images; else it is split. So 7 images run as 8,
but 9 as 8 and 1: as 16 they would take almost twice as long."""

WARM_UPS = 2
"""Forward passes before a graph is recorded. The first loads kernels and allocates the workspaces of cuBLAS and cuDNN,
which must not happen while recording; the second runs as the graph will."""


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


class TorchRunner:
    """Runs `forward` on batches of images. Safe to call from many threads.

    forward: takes Nx3xhxw float32 on the device, in the memory format channels_last, and returns one tensor or more of
    length N. On a GPU it runs under autocast to `dtype`, on the CPU in float32.
    Before `warm_up`, and in shapes that `warm_up` did not get, batches run without a graph. Warmed-up shapes run one
    batch at a time.
    """

    def __init__(
        self, forward: Forward, device: str, dtype: torch.dtype, recorder: Callable[[], Recorder] | None = None
    ) -> None:
        self._forward, self._device, self._dtype = forward, torch.device(device), dtype
        self._on_gpu = self._device.type == "cuda"
        if recorder is None and self._on_gpu:
            recorder = CudaGraphs
        self._recorder = recorder() if recorder else None
        self._batches: dict[Shape, dict[int, PreparedBatch]] = {}
        self._one_batch = threading.Lock()

    def warm_up(self, shapes: Iterable[Shape], batch_max: int) -> None:
        """Prepares batches of 1, 2, 4 … up to `batch_max` in each shape, 3xhxw.

        Sizes that do not fit into the memory are left out: larger batches are then split. If recording fails, forward
        passes run without graphs.
        Estimated, not measured: for MODNet's 21 shapes and batches up to 16, which are 105 graphs, half a minute and 3
        GB of an L4's 24 GB: the working memory of the largest batch, and 0.5 GB of outputs.
        """
        start, free = time.perf_counter(), self._free_bytes()
        sizes = [2**power for power in range(batch_max.bit_length())]
        ordered = sorted(shapes, key=math.prod, reverse=True)  # the other batches use the largest one's memory
        with torch.inference_mode():
            memory = torch.zeros(sizes[-1] * math.prod(ordered[0]), device=self._device)
        for shape in ordered:
            ready = {size: self._prepare(memory, size, shape) for size in reversed(sizes)}
            self._batches[shape] = {size: batch for size, batch in ready.items() if batch is not None}
        log.info(
            "ready for %d shapes with %d batch sizes in total, with%s graphs: %.1f s, %.0f MB of GPU memory",
            len(self._batches),
            sum(len(batches) for batches in self._batches.values()),
            "" if self._recorder else "out",
            time.perf_counter() - start,
            (free - self._free_bytes()) / 1e6,
        )

    def run(self, images: Sequence[Floats]) -> list[tuple[NDArray[Any], ...]]:
        """Returns the outputs of `forward` for each image, 3xhxw of one shape, in order.

        Each array is a view of its batch's array. Raises torch.OutOfMemoryError.
        """
        count, batches = len(images), self._batches.get(images[0].shape)
        if not batches:
            with inference_context(self._device, self._dtype):
                return self._fetch(self._forward_pass(self._stage(images, count).to(self._device)), count)
        outputs: list[tuple[NDArray[Any], ...]] = []
        with self._one_batch, inference_context(self._device, self._dtype):
            for part, size in split_batch(count, batches):
                staged = self._stage(images[len(outputs) : len(outputs) + part], size)
                batches[size].pixels.copy_(staged, non_blocking=True)
                outputs += self._fetch(batches[size].run(), part)
        return outputs

    def _prepare(self, memory: Tensor, size: int, shape: Shape) -> PreparedBatch | None:
        """Returns the prepared batch; None if it does not fit into the memory."""
        pixels = memory[: size * math.prod(shape)].view(size, *shape)
        run = partial(self._forward_pass, pixels)
        try:
            with inference_context(self._device, self._dtype):
                if self._recorder:
                    try:
                        return PreparedBatch(pixels, self._recorder.record(run))
                    except CannotRecord:
                        log.warning(
                            "a CUDA graph cannot be recorded: forward passes run without graphs, slower", exc_info=True
                        )
                        self._recorder = None
                run()
        except torch.OutOfMemoryError:
            log.warning("%d images of %s do not fit into the GPU's memory: such batches are split", size, shape)
            return None
        return PreparedBatch(pixels, run)

    def _forward_pass(self, pixels: Tensor) -> Sequence[Tensor]:
        return self._forward(pixels.contiguous(memory_format=torch.channels_last))

    def _stage(self, images: Sequence[Floats], size: int) -> Tensor:
        """Returns the batch in host memory, padded with zeros; for a GPU in pinned memory, which torch reuses."""
        staged = torch.empty((size, *images[0].shape), device="cpu", pin_memory=self._on_gpu)
        np.stack(images, out=staged.numpy()[: len(images)])
        staged[len(images) :] = 0
        return staged

    def _fetch(self, outputs: Sequence[Tensor], count: int) -> list[tuple[NDArray[Any], ...]]:
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
    """The context of every forward pass: inference mode, default device and, on a GPU, autocast.

    The default device is needed because SAM 1 of transformers creates tensors on it, and a copy from the CPU cannot be
    recorded. Autocast keeps no cache: it would pass tensors of one graph to another.
    """
    autocast = torch.autocast("cuda", dtype, cache_enabled=False) if device.type == "cuda" else nullcontext()
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


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights of convolutions and linear layers to `dtype`, which autocast would do in every forward pass.

    Normalisation layers keep their weights.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.to(dtype)
