"""Runs ONNX files on the CPU by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.weights.store import InvalidWeights


def onnx_session(network: Path | bytes, threads: int) -> Any:
    """Opens an onnxruntime.InferenceSession, whose `run` may be called from many threads.

    network: path or content of an ONNX file.
    threads: cores for one image: the caller's thread and those that the session adds, which all callers share.
    Raises ModuleNotFoundError without ONNX Runtime, InvalidWeights for a file that is not an ONNX network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads take the cores from the threads that decode: without, the same speed and 20 % less CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: it warns of every constant that it folds
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        name = network if isinstance(network, Path) else "The network"
        raise InvalidWeights(f"{name} is damaged or not an ONNX network: export it again.") from error


def run_matting(session: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Runs a matting network of one input: from Nx3xhxw float32 to its output `matte`, Nx1xhxw."""
    mattes: NDArray[np.float32] = session.run(["matte"], {session.get_inputs()[0].name: images})[0]
    return mattes
