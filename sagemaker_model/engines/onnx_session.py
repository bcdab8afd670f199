"""Runs ONNX files by ONNX Runtime, on the CPU or by CUDA."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.weights.store import InvalidWeights, NotInstalled

CUDA = "CUDAExecutionProvider"

CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
"""Options of the CUDA provider. By default it tries all algorithms of every convolution at the first image, and uses
TF32, which has the precision of float16."""

OUT_OF_MEMORY = ("failed to allocate", "out of memory", "bad allocation", "bad_alloc", "alloc_failed")
"""Parts of ONNX Runtime's messages, in lower case, where an input does not fit into the memory: it has no exception of
its own for that."""


def onnx_session(network: Path | bytes, threads: int, device: str = "cpu", *, keep_memory: bool = True) -> Any:
    """Opens an onnxruntime.InferenceSession, whose `run` may be called from many threads.

    Engines that open the same network with the same options share one session: `auto` and `prompted` run the networks
    of other engines. A server with the default weights uses 614 MB after its start instead of 1,345 MB,
    and starts with 3.4 s of CPU time instead of 4.1 s.

    network: path or content of an ONNX file.
    threads: cores of the CPU for one image: the caller's thread and those that the session adds, which all callers
        share. device: "cpu" or "cuda"; operators without a CUDA kernel run on the CPU.
    keep_memory: whether the session keeps the memory of an image for the next one, which saves time for small inputs.
        ISNet at 1024x1024 takes the same time without, and 1.5 GB at the peak and 0.6 GB afterwards instead of 2.2 GB.
    Raises ModuleNotFoundError without ONNX Runtime, NotInstalled where it cannot run on the device, InvalidWeights for
    a file that is not an ONNX network.
    """
    key = (_identity(network), threads, device, keep_memory)
    session = _sessions.get(key)
    if session is None:
        session = _sessions[key] = _opened(network, threads, device, keep_memory=keep_memory)
    return session


_sessions: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
"""The open sessions. One is closed with the last engine that uses it."""


def _identity(network: Path | bytes) -> tuple[Any, ...]:
    """Returns what differs between two networks: the SHA-256 of a content, or the path and version of a file."""
    if isinstance(network, bytes):
        return (hashlib.sha256(network).hexdigest(),)
    try:
        status = network.stat()
    except OSError:
        return (network,)  # ONNX Runtime reports the missing file
    return network, status.st_ino, status.st_size, status.st_mtime_ns


def _opened(network: Path | bytes, threads: int, device: str, *, keep_memory: bool) -> Any:
    """Opens a new session; see `onnx_session`."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its packages report to Microsoft; read at the import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads take the cores from the threads that decode: without, the same speed and 20 % less CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = keep_memory
    options.log_severity_level = 3  # errors only: it warns of every constant that it folds
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        if CUDA not in onnxruntime.get_available_providers():
            raise NotInstalled(
                "This ONNX Runtime runs on the CPU only: install onnxruntime-gpu instead of onnxruntime, or set "
                "MODEL_DEVICE=cpu."
            )
        providers.insert(0, (CUDA, CUDA_OPTIONS))
    try:
        return onnxruntime.InferenceSession(network, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        name = network if isinstance(network, Path) else "The network"
        raise InvalidWeights(f"{name} is damaged or not an ONNX network: export it again.") from error


def run_first(session: Any, images: NDArray[Any]) -> NDArray[Any]:
    """Runs a network of one input, and computes its first output only.

    Raises MemoryError where the images do not fit into the memory, and ONNX Runtime's exceptions.
    """
    try:
        output: NDArray[Any] = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: images})[0]
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        if any(part in str(error).lower() for part in OUT_OF_MEMORY):
            raise MemoryError(str(error)) from error
        raise
    return output


def run_matting(session: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Runs a matting network of one input: from Nx3xhxw float32 to its output `matte`, Nx1xhxw."""
    mattes: NDArray[np.float32] = session.run(["matte"], {session.get_inputs()[0].name: images})[0]
    return mattes
