"""Chooses the device on which the networks run, once when the server starts. Every response names it."""

from __future__ import annotations

import importlib.util
from typing import Literal

from maskdrop.errors import MaskdropError

Device = Literal["cpu", "cuda"]


class NoGpu(MaskdropError):
    """A GPU is requested or required, and torch cannot use one."""

    code = "no_gpu"


def choose_device(requested: str, *, require_gpu: bool) -> Device:
    """Returns "cpu" or "cuda" for the request "cpu", "cuda" or "auto" (cuda if available, else cpu).

    Raises NoGpu if cuda is requested or required and torch is missing, is built without CUDA, or finds no CUDA device.
    """
    if requested == "cpu" and not require_gpu:
        return "cpu"
    reason = _why_no_cuda()
    if reason is None:
        return "cuda"
    if requested == "cuda" or require_gpu:
        raise NoGpu(f"A GPU is required, but {reason}.")
    return "cpu"


def _why_no_cuda() -> str | None:
    """Returns the reason why torch cannot use CUDA; None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    if torch.version.cuda is None:
        return "this torch is built for the CPU only"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device (no GPU, or its driver is too old for this CUDA)"
    return None
