"""Builds checkpoints in PyTorch's formats without PyTorch, to test their scan where PyTorch is not installed."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from typing import Any
from unittest.mock import patch

from sagemaker_model.weights.picklescan import LEGACY_MAGIC

VALUES = struct.pack("<4f", 0.5, -1.0, 2.0, 0.0)


class _Storage:
    """A storage, which a pickle refers to by a persistent id."""


def _global(module: str, name: str) -> Any:
    def function(*_: Any) -> None: ...

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


class _Tensor:
    def __reduce__(self) -> tuple[Any, ...]:
        return REBUILD, (_Storage(), 0, (4,), (1,), False, OrderedDict())


REBUILD = _global("torch._utils", "_rebuild_tensor_v2")
FLOATS = type("FloatStorage", (), {"__module__": "torch"})


class _Pickler(pickle.Pickler):
    storage: tuple[Any, ...] = ("storage", FLOATS, "0", "cpu", 4)

    def persistent_id(self, thing: Any) -> Any:
        return self.storage if isinstance(thing, _Storage) else None


class _LegacyPickler(_Pickler):
    storage = (*_Pickler.storage, None)  # no view of another storage


def pickled(thing: Any, pickler: type[_Pickler] = _Pickler) -> bytes:
    """Pickles `thing` with a fake `torch` module, in which pickle looks up the globals."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    vars(torch)["FloatStorage"], vars(utils)["_rebuild_tensor_v2"] = FLOATS, REBUILD
    buffer = io.BytesIO()
    with patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        pickler(buffer, protocol=2).dump(thing)
    return buffer.getvalue()


def state() -> dict[str, Any]:
    return OrderedDict({"layer.weight": _Tensor(), "layer.bias": _Tensor()})


def a_checkpoint(thing: Any = None, program: bytes | None = None) -> bytes:
    """A checkpoint in the format of `torch.save` since 1.6: a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {
            "data.pkl": program if program is not None else pickled(state() if thing is None else thing),
            "byteorder": b"little",
            "data/0": VALUES,
            "version": b"3\n",
        }.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)  # dated 1980: reproducible
    return buffer.getvalue()


def a_legacy_checkpoint(thing: Any = None) -> bytes:
    """A checkpoint in the format of `torch.save` before 1.6: five pickles and the tensors' bytes."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = (LEGACY_MAGIC, 1001, system, state() if thing is None else thing, ["0"])
    return b"".join(pickled(part, _LegacyPickler) for part in parts) + struct.pack("<q", 4) + VALUES
