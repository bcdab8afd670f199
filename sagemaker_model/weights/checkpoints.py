"""Checkpoints of networks: read without running what is in them, checked, and loaded strictly.

torch is needed here, and nowhere that `make run` imports.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagemaker_model.weights.store import InvalidWeights

State = dict[str, Tensor]
"""Tensors on the CPU by their names in the network."""

WRAPPERS = ("model", "state_dict")
"""Under which of a file's entries the tensors may lie."""


class OtherWeights(InvalidWeights):
    """The file is not the one that was meant: another hash."""


class TruncatedWeights(InvalidWeights):
    """The file broke off, or was damaged."""


class NotWeights(InvalidWeights):
    """The file holds something else than named tensors. What else it holds was not run."""


class NonFiniteWeights(InvalidWeights):
    """A tensor holds NaN or infinity."""


class MismatchedWeights(InvalidWeights):
    """The tensors are another network's: names or shapes differ."""


def load_checkpoint(path: Path, sha256: str | None = None) -> State:
    """The tensors of a file that torch or safetensors saved, all finite; `sha256` is checked where it is known.

    Raises InvalidWeights (there is no such file), OtherWeights, TruncatedWeights, NotWeights, NonFiniteWeights.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 is not None and found != sha256:
                raise OtherWeights(f"{path} has the SHA-256 {found}, not {sha256}: fetch the weights again.")
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}).") from error
    state = _tensors(_content(path))
    if state is None:
        raise NotWeights(f"{path} holds something else than named tensors.")
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise NonFiniteWeights(f"{path} holds NaN or infinity in {name}: its training failed or it was damaged.")
    return state


def load_into(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Every entry of `state` into `net`. Raises MismatchedWeights, naming the first difference of each kind."""
    wanted = net.state_dict()
    faults = [
        *_first("lacks", [name for name in wanted if name not in state]),
        *_first("has the unknown", [name for name in state if name not in wanted]),
        *_first(
            "has another shape for",
            [
                f"{name} {tuple(state[name].shape)} (not {tuple(tensor.shape)})"
                for name, tensor in wanted.items()
                if name in state and state[name].shape != tensor.shape
            ],
        ),
    ]
    if faults:
        raise MismatchedWeights(f"The checkpoint is not for {type(net).__name__}: it {'; it '.join(faults)}.")
    net.load_state_dict(state, strict=True)


def modnet_state(state: Mapping[str, Tensor]) -> State:
    """The published MODNet's entries by the names of our network: it was saved from DataParallel ("module." before each
    name) and holds its backbone twice. Raises MismatchedWeights where the two copies differ."""
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    copy = {name: plain.pop(name) for name in list(plain) if name.startswith("lr_branch.backbone.")}
    for name, tensor in copy.items():
        twin = plain.get(name.removeprefix("lr_branch."))
        if twin is None or not torch.equal(twin, tensor):
            raise MismatchedWeights(f"The checkpoint's two copies of the backbone differ in {name}.")
    return plain


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load(path.read_bytes())
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NotWeights(f"{path} holds something else than weights, which was not run.") from error
    except Exception as error:  # damaged files make torch raise ten kinds, AssertionError and TypeError among them
        raise TruncatedWeights(f"{path} is truncated, damaged or no checkpoint of torch: fetch it again.") from error


def _tensors(content: Any) -> State | None:
    """What lies in the file, out of its wrapper; None unless it is tensors by name."""
    if not isinstance(content, dict):
        return None
    state = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    whole = all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items())
    return dict(state) if state and whole else None


def _first(fault: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{fault} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")]
