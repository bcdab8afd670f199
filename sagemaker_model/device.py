"""The device on which the networks run, chosen once when the server starts and said in every answer."""

from __future__ import annotations

import importlib.util

from maskdrop.errors import MaskdropError


class NoGpu(MaskdropError):
    code = "no_gpu"


def choose(wanted: str, *, require_gpu: bool) -> str:
    """ "cpu" or "cuda". `wanted` may also be "auto": cuda where there is one. Raises NoGpu when cuda was wanted or
    required and torch is missing, was built without it, or finds none."""
    if wanted == "cpu" and not require_gpu:
        return "cpu"
    missing = _why_no_cuda()
    if missing is None:
        return "cuda"
    if wanted == "cuda" or require_gpu:
        raise NoGpu(f"A GPU is required, and {missing}.")
    return "cpu"


def _why_no_cuda() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    if torch.version.cuda is None:
        return "this torch was built for the CPU alone"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device (no GPU, or its driver is too old for this CUDA)"
    return None
