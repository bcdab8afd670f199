"""Is a file weights, and nothing that runs? Answered without running any of it.

A checkpoint of PyTorch is a pickle, and a pickle is a program: loading one from a stranger can do anything. So its
operations are read one by one, and only those pass that rebuild tensors and plain containers: the operations that
`torch.load(weights_only=True)` knows, and fewer names. Where PyTorch is installed, it has the second word.
"""

from __future__ import annotations

import importlib.util
import io
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CHECKPOINTS = frozenset({".bin", ".ckpt", ".pt", ".pth"})
"""Endings of files that PyTorch writes. Others (.tflite, .onnx, .safetensors) hold no program of Python's."""

PROGRAM_BYTES_MAX = 16 * 1024 * 1024
"""Of a checkpoint's pickle, without its tensors. That of SAM ViT-H, with 594 tensors, is far below 1 MiB."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""With it begins a checkpoint that is no zip archive, as PyTorch wrote them before 1.6 (torch/serialization.py)."""

OPERATIONS = frozenset(
    {
        "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT",
        "BINUNICODE", "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "GLOBAL", "LONG1",
        "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM",
        "SETITEMS", "SHORT_BINSTRING", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    }
)  # fmt: skip

NAMES = re.compile(
    r"collections OrderedDict"
    r"|torch (\w+Storage|Size|device|bfloat16|bool|float(16|32|64)|u?int(8|16|32|64))"
    r"|torch\.storage (Typed|Untyped)Storage"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
"""What a checkpoint may name, as "module name"."""

TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")


class _NoWeights(Exception):
    """The message is the reason, as the rest of a sentence that begins with the file's name."""


def flaw(path: Path) -> str | None:
    """Why a file is not a checkpoint with weights alone, as the rest of a sentence that begins with its name; None when
    nothing speaks against it. One cut short is found out where it is a zip archive, or where PyTorch is installed."""
    try:
        with path.open("rb") as file:
            names = set(_names_in_zip(file) if zipfile.is_zipfile(file) else _names_in_legacy(file))
    except _NoWeights as found:
        return str(found)
    except (ValueError, EOFError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        return f"is no checkpoint of PyTorch, or was cut short ({error})"
    if not names.intersection(TENSORS):
        return "holds no tensors"
    return _flaw_by_torch(path)


def _names_in_zip(file: IO[bytes]) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive:
        programs = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
        if [entry.filename.count("/") for entry in programs] != [1] or not programs[0].filename.endswith("/data.pkl"):
            raise _NoWeights("is a zip archive, but not one of PyTorch's with tensors alone")
        if programs[0].file_size > PROGRAM_BYTES_MAX:
            raise _NoWeights(f"holds a program of {programs[0].file_size:,} bytes, too many for weights")
        yield from _names(io.BytesIO(archive.read(programs[0])))


def _names_in_legacy(file: IO[bytes]) -> Iterator[str]:
    """Five pickles, then the tensors' bytes: the magic number, the protocol, the system, the object, the keys."""
    file.seek(0)
    programs = io.BytesIO(file.read(PROGRAM_BYTES_MAX))  # in memory: a length that lies asks for no more than there is
    if LEGACY_MAGIC not in [argument for _, argument, _ in pickletools.genops(programs)]:
        raise _NoWeights("is a pickle, but no checkpoint of PyTorch")
    for _ in range(4):
        yield from _names(programs)


def _names(program: IO[bytes]) -> Iterator[str]:
    """What one pickle names, as "module name"."""
    for operation, argument, _ in pickletools.genops(program):
        if operation.name not in OPERATIONS:
            raise _NoWeights(f"is a pickle that does more than hold weights: it has the operation {operation.name}")
        if operation.name == "GLOBAL":
            if not NAMES.fullmatch(str(argument)):
                name = str(argument).replace(" ", ".", 1)
                raise _NoWeights(f"is a pickle that does more than hold weights: it calls for {name}")
            yield str(argument)


def _flaw_by_torch(path: Path) -> str | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    try:
        # Mapped, the tensors' bytes are not read.
        torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 - a damaged file makes it raise nearly anything
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"is not loaded by PyTorch as weights ({first})"
    return None
