"""Checks, without unpickling, that a PyTorch checkpoint contains only tensors and plain containers.

A PyTorch checkpoint is a pickle, and a pickle is a program: unpickling an untrusted file can execute any code. The scan
reads the opcodes one by one and accepts only those that rebuild tensors and plain containers. Accepted are the opcodes
that `torch.load(weights_only=True)` knows, and fewer globals. If PyTorch is installed, `torch.load(weights_only=True)`
checks the file as well.
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
"""Suffixes of files that PyTorch writes. Other formats (.tflite, .onnx, .safetensors) contain no pickle."""

PICKLE_BYTES_MAX = 16 * 1024 * 1024
"""Largest pickle of a checkpoint in bytes, without its tensors. SAM ViT-H's, with 594 tensors, is far below 1 MiB."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of a legacy checkpoint, which PyTorch wrote before 1.6, not as a zip archive (torch/serialization.py)."""

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a checkpoint that is a zip archive."""

OPCODES = frozenset(
    {
        "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT",
        "BINUNICODE", "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "GLOBAL", "LONG1",
        "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM",
        "SETITEMS", "SHORT_BINSTRING", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    }
)  # fmt: skip

GLOBALS = re.compile(
    r"collections OrderedDict"
    r"|torch (\w+Storage|Size|device|bfloat16|bool|float(16|32|64)|u?int(8|16|32|64))"
    r"|torch\.storage (Typed|Untyped)Storage"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
"""Globals that a checkpoint may import, as "module name"."""

TENSOR_GLOBALS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")


class _Rejected(Exception):
    """The file is not a checkpoint of weights alone. The message completes a sentence that begins with its name."""


def rejection_reason(path: Path) -> str | None:
    """Why a file is not a checkpoint of weights alone; None if it is accepted.

    The reason completes a sentence that begins with the file's name. Truncation is detected in zip archives and, if
    PyTorch is installed, in legacy checkpoints.
    """
    try:
        with path.open("rb") as file:
            names = set(_globals_in_zip(file) if _is_zip(file) else _globals_in_legacy(file))
    except _Rejected as rejected:
        return str(rejected)
    except (ValueError, EOFError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        return f"is not a PyTorch checkpoint, or is truncated ({error})"
    if not names.intersection(TENSOR_GLOBALS):
        return "contains no tensors"
    return _rejection_by_torch(path)


def _is_zip(file: IO[bytes]) -> bool:
    """Whether PyTorch reads the file as a zip archive: by its first bytes. `zipfile.is_zipfile` also accepts a pickle
    with an archive at its end, of which PyTorch loads the pickle."""
    start = file.read(len(ZIP_MAGIC))
    file.seek(0)
    return start == ZIP_MAGIC


def _globals_in_zip(file: IO[bytes]) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
        if [entry.filename.count("/") for entry in pickles] != [1] or not pickles[0].filename.endswith("/data.pkl"):
            raise _Rejected("is a zip archive, but not a PyTorch checkpoint of tensors alone")
        if pickles[0].file_size > PICKLE_BYTES_MAX:
            raise _Rejected(
                f"contains a pickle of {pickles[0].file_size:,} bytes; at most {PICKLE_BYTES_MAX:,} are accepted"
            )
        yield from _globals(io.BytesIO(archive.read(pickles[0])))


def _globals_in_legacy(file: IO[bytes]) -> Iterator[str]:
    """Legacy layout: five pickles (magic number, protocol, system, object, keys), then the tensors' bytes."""
    pickles = io.BytesIO(file.read(PICKLE_BYTES_MAX))  # in memory: a false length cannot read beyond the end
    if LEGACY_MAGIC not in [argument for _, argument, _ in pickletools.genops(pickles)]:
        raise _Rejected("is a pickle, but not a PyTorch checkpoint")
    pickles.seek(0)
    for _ in range(5):
        yield from _globals(pickles)


def _globals(pickled: IO[bytes]) -> Iterator[str]:
    """Globals that one pickle imports, as "module name"."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name not in OPCODES:
            raise _Rejected(f"is a pickle with more than weights: it contains the opcode {opcode.name}")
        if opcode.name == "GLOBAL":
            if not GLOBALS.fullmatch(str(argument)):
                name = str(argument).replace(" ", ".", 1)
                raise _Rejected(f"is a pickle with more than weights: it imports {name}")
            yield str(argument)


def _rejection_by_torch(path: Path) -> str | None:
    """Why `torch.load(weights_only=True)` rejects the file; None if it loads or torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    try:
        with path.open("rb") as file:
            mmap = _is_zip(file)
        if path.suffix == ".safetensors":  # torch would choose its reader by the suffix
            with path.open("rb") as file:
                torch.load(file, map_location="cpu", weights_only=True)
        else:  # memory-mapped: the tensors' bytes are not read
            torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # noqa: BLE001 - a damaged file can raise any exception
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"is rejected by torch.load(weights_only=True) ({first})"
    return None
