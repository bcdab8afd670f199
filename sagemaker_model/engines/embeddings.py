"""A cache of image embeddings: a second prompt on the same image runs the decoder only, not the expensive encoder.

Embeddings are kept in memory and, if a folder is given, on disk too, shared by all processes that use that folder. They
are in half precision: 8.4 MB for an image of SAM 2.1, 2.1 MB for one of SAM 1.
"""

from __future__ import annotations

import logging
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.weights.files import atomic_write

log = logging.getLogger(__name__)

Embedding = tuple[NDArray[np.float16], ...]
"""The feature maps of one image, each 1xCxhxw."""


class EmbeddingCache:
    """A least-recently-used cache of embeddings by the hash of image and weights. Safe to use from many threads.

    memory_bytes, folder_bytes: the budgets; an embedding larger than a budget is not kept there.
    folder: exists and is used by caches only. Files are written atomically; one that another process has deleted counts
    as a miss.
    """

    def __init__(self, memory_bytes: int, folder: Path | None = None, folder_bytes: int = 0) -> None:
        self.bytes = 0
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._folder_bytes = folder_bytes
        self._memory: OrderedDict[str, Embedding] = OrderedDict()
        self._pending: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Embedding | None:
        """Returns the embedding, read-only; None on a miss."""
        with self._lock:
            if (embedding := self._memory.get(key)) is not None:
                self._memory.move_to_end(key)
                return embedding
        embedding = self._read_file(key)
        if embedding is not None:
            self._put_in_memory(key, embedding)
        return embedding

    def put(self, key: str, embedding: Embedding) -> None:
        """Caches the embedding in memory and in the folder."""
        self._put_in_memory(key, embedding)
        self._write_file(key, embedding)

    def get_or_compute(
        self, keys: Collection[str], compute: Callable[[Sequence[str]], Sequence[Embedding]]
    ) -> dict[str, Embedding]:
        """Returns the embeddings of `keys`, and computes those that are missing.

        `compute` is called once, with the keys that are neither cached nor being computed by another thread, and
        returns their embeddings in order. For the keys of other threads, this waits. Raises what `compute` raises, in
        this thread or in the other.
        """
        found = {key: embedding for key in keys if (embedding := self.get(key)) is not None}
        mine: dict[str, Future[Embedding]] = {}
        others: dict[str, Future[Embedding]] = {}
        with self._lock:
            for key in keys:
                if key in found:
                    continue
                if (embedding := self._memory.get(key)) is not None:  # cached meanwhile
                    found[key] = embedding
                elif (future := self._pending.get(key)) is not None:
                    others[key] = future
                else:
                    mine[key] = self._pending[key] = Future()
        if mine:  # computed before the wait, so that no two threads wait for each other
            found |= self._compute(mine, compute)
        return found | {key: future.result() for key, future in others.items()}

    def _compute(
        self, futures: dict[str, Future[Embedding]], compute: Callable[[Sequence[str]], Sequence[Embedding]]
    ) -> dict[str, Embedding]:
        try:
            computed = dict(zip(futures, compute(list(futures)), strict=True))
            for key, embedding in computed.items():
                self.put(key, embedding)
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error)
            raise
        else:
            for key, future in futures.items():
                future.set_result(computed[key])
            return computed
        finally:
            with self._lock:
                for key in futures:
                    del self._pending[key]

    def _put_in_memory(self, key: str, embedding: Embedding) -> None:
        size = _size(embedding)
        if size > self._memory_bytes:
            return
        with self._lock:
            if (old := self._memory.pop(key, None)) is not None:
                self.bytes -= _size(old)
            self._memory[key] = embedding
            self.bytes += size
            while self.bytes > self._memory_bytes:
                _, oldest = self._memory.popitem(last=False)
                self.bytes -= _size(oldest)

    def _read_file(self, key: str) -> Embedding | None:
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:  # verifies checksums
                embedding = tuple(file[name] for name in file.files)
            path.touch()
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            log.warning("the cached embedding %s cannot be read and is computed again: %s", path, error)
            return None
        return embedding

    def _write_file(self, key: str, embedding: Embedding) -> None:
        if self._folder is None or _size(embedding) > self._folder_bytes:
            return
        try:
            with atomic_write(self._folder / f"{key}.npz", concurrent=True, sync=False) as temporary:
                np.savez(temporary, *embedding)
            self._evict_files()
        except OSError as error:
            log.warning("the embedding cannot be written to disk: %s", error)

    def _evict_files(self) -> None:
        """Deletes the least recently used files, by modification time, until the rest is within the budget."""
        files = []
        for path in self._folder.iterdir() if self._folder else ():
            try:
                status = path.stat()
            except FileNotFoundError:  # deleted by another process
                continue
            files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._folder_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


@runtime_checkable
class CachesEmbeddings(Protocol):
    """An engine that caches the embeddings of its images."""

    embeddings: EmbeddingCache


def _size(embedding: Embedding) -> int:
    return sum(values.nbytes for values in embedding)
