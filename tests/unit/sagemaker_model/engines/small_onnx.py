"""Small ONNX files with the input and output of the models of engines/onnx_models.py, written without the package onnx.

The network is one convolution of one pixel: a weighted sum of the normalised red, green and blue. A probability is its
sigmoid; of a model with logits the engine applies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sagemaker_model.engines.onnx_models import MODELS, Model
from sagemaker_model.weights.store import import_file, named

FLOAT, FLOAT16 = 1, 10
"""Numbers in TensorProto.DataType."""

BRIGHT = (4.0, 4.0, 4.0)
"""Weights of a network for which everything brighter than the mean of its model is the subject."""


def network(
    side: int | None,
    weights: Sequence[float] = BRIGHT,
    *,
    batch: int | str = 1,
    sigmoid: bool = True,
    dtype: type[np.floating] = np.float32,
    output: str = "map",
) -> bytes:
    """Returns the file. side: of its input, None for any. batch: images of an input, or a name for any number.
    sigmoid: whether it ends with one. output: name of its output."""
    sides: tuple[int | str, int | str] = ("h", "w") if side is None else (side, side)
    kind = FLOAT if dtype is np.float32 else FLOAT16
    kernel = np.array(weights, dtype).reshape(1, 3, 1, 1)
    dims = b"".join(_number(1, size) for size in kernel.shape)
    nodes = [_node("Conv", ["image", "kernel"], "sum" if sigmoid else output)]
    nodes += [_node("Sigmoid", ["sum"], output)] if sigmoid else []
    graph = [
        *(_part(1, node) for node in nodes),
        _part(2, b"small"),
        _part(5, dims + _number(2, kind) + _part(8, b"kernel") + _part(9, kernel.tobytes())),
        _part(11, _declared("image", kind, (batch, 3, *sides))),
        _part(12, _declared(output, kind, (batch, 1, *sides))),
    ]
    return _number(1, 8) + _part(7, b"".join(graph)) + _part(8, _number(2, 13))


def install(name: str, folder: Path, data: bytes | None = None) -> Path:
    """Imports a small network for a row of MODELS into a weights folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "small"
    model: Model = MODELS[name]
    file.write_bytes(data or network(model.side, sigmoid=not model.logits))
    import_file(named(name), file, folder, own=True)
    file.unlink()
    return folder


# Protocol buffers


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    names = b"".join(_part(1, name.encode()) for name in inputs)
    return names + _part(2, output.encode()) + _part(4, kind.encode())


def _declared(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_part(1, _number(1, one) if isinstance(one, int) else _part(2, one.encode())) for one in shape)
    return _part(1, name.encode()) + _part(2, _part(1, _number(1, kind) + _part(2, dims)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
