"""The SQLite database of `maskdrop serve`: one connection, and a lock around every transaction.

Several processes may use the file at once: `maskdrop keys` beside the server. In WAL mode a commit does not wait for
the disk; after a power cut the last commits may be missing, and the file is intact.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskdrop.errors import MaskdropError, TableUnavailable

FILE = "maskdrop.db"

LOCK = "server.lock"
"""File that a running server locks. The lock ends with its process, even after a kill -9."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS registry (
    kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, expires_at REAL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, bytes INTEGER NOT NULL, content_type TEXT NOT NULL,
    metadata TEXT NOT NULL, written_at REAL NOT NULL, PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, owner TEXT NOT NULL, recency TEXT NOT NULL, job TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_recency ON jobs (recency);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, recency);
"""


class FolderInUse(MaskdropError):
    """Another server uses the folder of the database."""

    code = "folder_in_use"


class Database:
    """Opens `folder`/maskdrop.db, which only its owner may read: it holds digests of keys and webhook secrets.

    Raises TableUnavailable.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        with _translated():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / FILE
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection in a transaction that other processes wait for. Raises TableUnavailable."""
        with _translated(), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends some transactions itself, of a full disk for one
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection for one query. Raises TableUnavailable."""
        with _translated(), self._lock:
            yield self._connection

    def close(self) -> None:
        """Waits for the transaction of another thread: SQLite crashes the process if its connection is closed."""
        with self._lock:
            self._connection.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other servers from the folder: each would process the unfinished jobs of the other once more.

    Raises FolderInUse, TableUnavailable.
    """
    with _translated():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"Another server uses the folder {folder}: stop it, or use another folder (--data, SERVE_DATA)."
            ) from None
        yield


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise TableUnavailable(f"The database cannot be used: {error}.") from error
