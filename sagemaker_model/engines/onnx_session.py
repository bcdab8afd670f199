"""How the engines run an ONNX file on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sagemaker_model.weights.store import InvalidWeights


def onnx_session(path: Path, threads: int) -> Any:
    """An onnxruntime.InferenceSession, whose `run` may be called from many threads. `threads` is the caller's and what
    the session adds to it, which all callers share. Raises ModuleNotFoundError without ONNX Runtime, InvalidWeights for
    a file that is no network."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by spinning take the cores from those that decode: without, the same speed and 20 % less CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: it warns of every constant that it folds
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        raise InvalidWeights(f"{path} is damaged or no ONNX network: export it again.") from error
