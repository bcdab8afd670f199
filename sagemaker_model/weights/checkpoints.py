"""Reads checkpoints without executing code from them, validates their tensors and loads them strictly.

This module needs torch. No module that `make run` imports may import it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagemaker_model.weights.files import is_safetensors
from sagemaker_model.weights.store import InvalidWeights

State = dict[str, Tensor]
"""A state dict: tensors on the CPU by their names in the network."""

WRAPPERS = ("model", "state_dict")
"""Keys of a checkpoint under which its state dict may be nested."""


METADATA_KEY = "maskdrop"
"""Key in the header of the .safetensors files that training writes: JSON of what a reader needs besides the tensors."""


class WrongHash(InvalidWeights):
    """The SHA-256 of the file is not the expected one."""


class TruncatedWeights(InvalidWeights):
    """The file is truncated or damaged."""


class NotWeights(InvalidWeights):
    """The file contains objects other than named tensors. They are not unpickled."""


class NonFiniteWeights(InvalidWeights):
    """A tensor contains NaN or infinity."""


class MismatchedWeights(InvalidWeights):
    """The tensors belong to another network: names or shapes differ."""


def load_checkpoint(path: Path, sha256: str | None = None) -> State:
    """Loads the tensors of a file written by torch or safetensors and checks that all are finite.

    sha256: expected hash in hexadecimal digits; None to skip the check. Raises InvalidWeights (the file cannot be
    read), WrongHash, TruncatedWeights, NotWeights, NonFiniteWeights.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 is not None and found != sha256:
                raise WrongHash(f"{path} has the SHA-256 {found}, not {sha256}: fetch the weights again.")
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}).") from error
    state = _tensors(_content(path))
    if state is None:
        raise NotWeights(f"{path} does not contain named tensors: use a checkpoint with a state dict.")
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise NonFiniteWeights(
                f"{path} contains NaN or infinity in {name}: training diverged or the file is damaged."
            )
    return state


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the texts that training wrote to the header of a .safetensors file; {} for another file's header.
    Raises NotWeights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise NotWeights(f"{path} cannot be read as a .safetensors file: {error}.") from error
    metadata: dict[str, str] = json.loads(header.get(METADATA_KEY, "{}"))
    return metadata


def load_into(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads every entry of `state` into `net`, strictly.

    Raises MismatchedWeights with the first missing, unknown and misshapen entry.
    """
    expected = net.state_dict()
    differences = [
        *_summary("lacks", [name for name in expected if name not in state]),
        *_summary("has the unknown", [name for name in state if name not in expected]),
        *_summary(
            "has another shape for",
            [
                f"{name} {tuple(state[name].shape)} (not {tuple(tensor.shape)})"
                for name, tensor in expected.items()
                if name in state and state[name].shape != tensor.shape
            ],
        ),
    ]
    if differences:
        raise MismatchedWeights(f"The checkpoint is not for {type(net).__name__}: it {'; it '.join(differences)}.")
    net.load_state_dict(state, strict=True)


def modnet_state(state: Mapping[str, Tensor]) -> State:
    """Converts the published MODNet's state dict to the names of `nets.modnet.MODNet`.

    The published file was saved from DataParallel ("module." before each name) and contains the backbone twice. Raises
    MismatchedWeights if the two copies differ.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    duplicate = {name: plain.pop(name) for name in list(plain) if name.startswith("lr_branch.backbone.")}
    for name, tensor in duplicate.items():
        original = plain.get(name.removeprefix("lr_branch."))
        if original is None or not torch.equal(original, tensor):
            raise MismatchedWeights(f"The checkpoint's two copies of the backbone differ in {name}.")
    return plain


def birefnet_state(state: Mapping[str, Tensor], *, old_tiles: bool) -> State:
    """Converts a published BiRefNet's state dict to the names and the order of tiles of `nets.birefnet.BiRefNet`.

    Published files have any chain of "module." and "_orig_mod." before each name: they were saved from DataParallel and
    compiled networks. old_tiles: the file was trained with the code before November 2024, which stacks the tiles of the
    image as column, row, colour; now the order is colour, row, column. The file itself does not name its order: both
    have the same names and shapes. Raises MismatchedWeights for indices that would read outside of their table.
    """
    plain = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor for name, tensor in state.items()}
    for name, index in plain.items():
        if name.endswith(".relative_position_index"):
            table = plain.get(f"{name.removesuffix('index')}bias_table")
            if table is not None and not (0 <= int(index.min()) <= int(index.max()) < len(table)):
                raise MismatchedWeights(f"The checkpoint's {name} has rows outside of its table: the file is damaged.")
    if old_tiles:
        for name, grid in ((f"decoder.ipt_blk{number}.conv1.weight", 2**number) for number in (2, 3, 4, 5)):
            weight = plain.get(name)
            if weight is not None and weight.ndim == 4 and weight.shape[1] == 3 * grid**2:
                by_tile = weight.reshape(len(weight), grid, grid, 3, *weight.shape[2:])
                plain[name] = by_tile.permute(0, 3, 2, 1, 4, 5).flatten(1, 3).contiguous()
    return plain


def mask_rcnn_state(state: Mapping[str, Tensor]) -> State:
    """Converts torchvision's published Mask R-CNN weights (2019) to the names of its layers since version 0.13.

    Newer names are unchanged. Counters of batch norms are omitted: the network's norms are frozen.
    """

    def renamed(name: str) -> str:
        name = re.sub(r"^(backbone\.fpn\.\w+_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
        name = re.sub(r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
        return re.sub(r"\.mask_fcn([1-4])\.", lambda match: f".{int(match[1]) - 1}.0.", name)

    return {renamed(name): tensor for name, tensor in state.items() if not name.endswith(".num_batches_tracked")}


def _content(path: Path) -> Any:
    """The unpickled content of the file."""
    try:
        if is_safetensors(path):  # not by suffix: an imported file has the suffix that its engine reads
            import safetensors.torch

            return safetensors.torch.load(path.read_bytes())
        with path.open("rb") as file:  # not the path, whose suffix would choose the reader
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NotWeights(
            f"{path} contains objects other than weights; they were not unpickled. Use a checkpoint of tensors only."
        ) from error
    except Exception as error:  # damaged files make torch raise ten exceptions, such as AssertionError and TypeError
        raise TruncatedWeights(f"{path} is truncated, damaged or not a checkpoint of torch: fetch it again.") from error


def _tensors(content: Any) -> State | None:
    """The state dict of the file's content, unwrapped; None if the content is not tensors by name."""
    if not isinstance(content, dict):
        return None
    state = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    valid = all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items())
    return dict(state) if state and valid else None


def _summary(difference: str, names: list[str]) -> list[str]:
    """The first name and the number of further ones; empty without names."""
    if not names:
        return []
    return [f"{difference} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")]
