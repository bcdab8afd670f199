"""What a dear encoder saw in an image, kept: a second prompt on the same image then costs the cheap decoder alone.

In memory, and where a folder is given on disk too, shared by all processes that are given the same one. Half precision:
8.4 MB for an image of SAM 2.1, 2.1 MB of SAM 1.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Embedding = tuple[NDArray[np.float16], ...]
"""The maps of one image, each 1xCxhxw."""


class EmbeddingCache:
    """Embeddings by a hash that names image and weights. The least recently used go first. Safe to use from many
    threads.

    memory_bytes, folder_bytes: the budgets; an embedding above one is not kept there.
    folder: must be there; what lies in it belongs to caches alone. A file is written whole or not at all, and one
    that another process deletes meanwhile is just not there.
    """

    def __init__(self, memory_bytes: int, folder: Path | None = None, folder_bytes: int = 0) -> None:
        self.bytes = 0
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._folder_bytes = folder_bytes
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self._making: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Embedding | None:
        """The embedding, read-only; None when it is not kept."""
        with self._lock:
            if (embedding := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return embedding
        embedding = self._read(key)
        if embedding is not None:
            self._remember(key, embedding)
        return embedding

    def put(self, key: str, embedding: Embedding) -> None:
        self._remember(key, embedding)
        self._write(key, embedding)

    def get_or_make(
        self, keys: Collection[str], make: Callable[[Sequence[str]], Sequence[Embedding]]
    ) -> dict[str, Embedding]:
        """The embeddings of `keys`. `make` is called once, with those that are neither kept nor being made by another
        thread, and gives theirs in order; for what another makes, this waits. Raises what `make` raises, here or
        there."""
        found = {key: embedding for key in keys if (embedding := self.get(key)) is not None}
        mine: dict[str, Future[Embedding]] = {}
        others: dict[str, Future[Embedding]] = {}
        with self._lock:
            for key in keys:
                if key in found:
                    continue
                if (embedding := self._kept.get(key)) is not None:  # put there since
                    found[key] = embedding
                elif (future := self._making.get(key)) is not None:
                    others[key] = future
                else:
                    mine[key] = self._making[key] = Future()
        if mine:  # before the waiting: nobody waits for one who waits
            found |= self._make(mine, make)
        return found | {key: future.result() for key, future in others.items()}

    def _make(
        self, futures: dict[str, Future[Embedding]], make: Callable[[Sequence[str]], Sequence[Embedding]]
    ) -> dict[str, Embedding]:
        try:
            made = dict(zip(futures, make(list(futures)), strict=True))
            for key, embedding in made.items():
                self.put(key, embedding)
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error)
            raise
        else:
            for key, future in futures.items():
                future.set_result(made[key])
            return made
        finally:
            with self._lock:
                for key in futures:
                    del self._making[key]

    def _remember(self, key: str, embedding: Embedding) -> None:
        size = _size(embedding)
        if size > self._memory_bytes:
            return
        with self._lock:
            if (old := self._kept.pop(key, None)) is not None:
                self.bytes -= _size(old)
            self._kept[key] = embedding
            self.bytes += size
            while self.bytes > self._memory_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.bytes -= _size(oldest)

    def _read(self, key: str) -> Embedding | None:
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:  # it verifies checksums
                embedding = tuple(file[name] for name in file.files)
            path.touch()
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            log.warning("the kept embedding %s cannot be read and is made anew: %s", path, error)
            return None
        return embedding

    def _write(self, key: str, embedding: Embedding) -> None:
        if self._folder is None or _size(embedding) > self._folder_bytes:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as file:
                np.savez(file, *embedding)
            Path(file.name).replace(self._folder / f"{key}.npz")
            self._clear()
        except OSError as error:
            log.warning("the embedding is not kept on disk: %s", error)

    def _clear(self) -> None:
        """Deletes the files used longest ago until the rest is within the budget; `touch` says when one was used."""
        files = []
        for path in self._folder.iterdir() if self._folder else ():
            try:
                status = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._folder_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


@runtime_checkable
class Embeds(Protocol):
    """An engine that keeps what it saw."""

    embeddings: EmbeddingCache


def _size(embedding: Embedding) -> int:
    return sum(values.nbytes for values in embedding)
