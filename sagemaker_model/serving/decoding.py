"""Decodes image files in processes that are bounded in time and memory and can be killed.

A file can make a decoder slow, use much memory or crash it, and a thread cannot be stopped. Known kinds of such files
are refused before (imaging/budget.py). The processes are no sandbox: they run as the same user.

    worker thread ── file ──► decoder process: pixels.decode
                  ◄─ pixels ─

The processes are forks of one that has imported the libraries (`forkserver`): a start takes 10 ms and 15 MB. File and
pixels pass through memory that both processes map: a pipe would copy 36 MB for 12 MP, and new memory would cost as much
as the copy. The memory is a file without a name (memfd), because /dev/shm of a container has 64 MB.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import math
import mmap
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import struct
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.errors import DecodingLimit, InputError, Internal, UnreadableImage
from sagemaker_model.imaging import pixels
from sagemaker_model.imaging.pixels import DecodedImage, Limits, decode

log = logging.getLogger(__name__)

START_S = 60.0
"""Seconds for the start of a process. The first one waits for the import of the libraries."""

SLOW_S = 2.0
"""Seconds after which a decoder process gets a lower priority, and its worker thread lends its place to other images.
12 MP take 0.05 to 0.5 s by format."""

SLOW_NICE = 5
"""Priority of a slow decoder: a third of the CPU time of other processes."""

WALL_FACTOR = 4
"""Seconds for each second of CPU time that a decoder may take: on a busy machine, a slow one gets a third of a core."""

IMAGES_MAX = 1000
"""Images after which a process is replaced, so that leaks of a library end."""

KEPT_BYTES = 48 * 1024 * 1024
"""Shared memory of an idle process that is kept: the pixels of 12 MP with alpha. New memory takes 0.5 ms a megabyte."""

KEPT_FREED_BYTES = 128 * 1024 * 1024
"""Private memory of a process that is kept when it is free: a PNG of 12 MP needs it all. With the server's 64 MiB and
16 MiB, each such PNG faulted in 17,000 pages again, an eighth of its time."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""The numbers of these parameters of glibc's mallopt."""

_MMAP_THRESHOLD_MAX = 32 * 1024 * 1024
"""The largest value that glibc accepts. Larger arrays are returned to the kernel at once."""

ALIGNMENT = 64
"""Bytes to which arrays are aligned."""

MESSAGE_BYTES = 1024
"""Upper bound of a message."""

TEMPORARY_FOLDER_CHARACTERS = 70
"""Longest path of the temporary folder in which the socket of the forkserver fits: its path may have 107 characters on
Linux and 103 on macOS, and the names that Python adds have 32."""

_FILE = struct.Struct("<QQQ")
"""The message to a process: bytes of the file, and the limits."""

_PLACE = struct.Struct("<QQ")
"""The message from a process: start and length in the shared memory, of the pickled image and of each array."""

_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


def prepare() -> None:
    """Starts the process of which decoders are forks. It imports the libraries, while the caller loads its engines."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    if len(tempfile.gettempdir()) > TEMPORARY_FOLDER_CHARACTERS:
        tempfile.tempdir = "/tmp"  # noqa: S108 - Python makes a folder in it that no other user can read
    forkserver.ensure_running()


class Decoders:
    """A pool of decoder processes. Thread-safe; `decode` is an `ImageReader`.

    kept: idle processes that are kept. cpu_s: seconds of CPU time for one file. memory_bytes: memory for one file, in
    addition to that of an idle process; the decoded pixels do not count. limits: the highest of all calls. lend: called
    in the thread of `decode` if the file is slow.
    """

    def __init__(
        self,
        kept: int,
        cpu_s: float,
        memory_bytes: int,
        limits: Limits,
        lend: Callable[[], None] = lambda: None,
    ) -> None:
        self._kept, self._cpu_s, self._memory_bytes, self._limits, self._lend = kept, cpu_s, memory_bytes, limits, lend
        self._idle: list[_Decoder] = []  # append and pop are atomic
        self._busy: set[_Decoder] = set()
        # At its exit, multiprocessing sends SIGTERM to its processes, which decoders ignore, and waits for them.
        atexit.register(self.close)

    def start(self) -> None:
        """Starts the processes that are kept, so that the first images do not wait for them."""
        self._idle += [self._new() for _ in range(self._kept - len(self._idle))]

    def decode(self, data: bytes, limits: Limits) -> DecodedImage:
        """Decodes a file as `pixels.decode` does, in one of the processes, which is busy until the image is freed.

        Raises what `pixels.decode` raises, DecodingLimit for a file that takes too much time or memory,
        UnreadableImage for one that crashes the decoder, and Internal if another process killed the decoder.
        """
        limits.check_bytes(len(data))
        decoder = self._take()
        try:
            image, pixels = decoder.decode(data, limits, self._lend)
        except BaseException:
            self._give_back(decoder)
            raise
        weakref.finalize(pixels, self._give_back, decoder).atexit = False
        return image

    def close(self) -> None:
        """Ends all processes, busy ones too."""
        self._kept = 0
        for one in (*self._idle, *self._busy):
            one.close()
        atexit.unregister(self.close)

    def _new(self) -> _Decoder:
        """Its shared memory has room for the file or its metadata, colours that are turned, and alpha."""
        return _Decoder(self._cpu_s, self._memory_bytes, 8 * self._limits.max_pixels + 2 * self._limits.max_bytes)

    def _take(self) -> _Decoder:
        decoder = None
        while decoder is None:
            try:
                decoder = self._idle.pop()
            except IndexError:
                decoder = self._new()
            if not decoder.usable:
                decoder.close()
                decoder = None
        self._busy.add(decoder)
        return decoder

    def _give_back(self, decoder: _Decoder) -> None:
        self._busy.discard(decoder)
        if decoder.usable and len(self._idle) < self._kept:
            decoder.trim()
            self._idle.append(decoder)
        else:
            decoder.close()


class _Shared:
    """Memory that a decoder process shares with the server. `size` is an upper bound: only pages in use are allocated.

    Arrays in it are views of one array of bytes; the server frees the memory with the last view.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._memory = mmap.mmap(descriptor, size)
        self._used = 0

    def all(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._memory, np.uint8)

    def clear(self) -> None:
        self._used = 0

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Returns a new array of bytes; outside the shared memory if it does not fit."""
        size, start = math.prod(shape), self._used
        if start + size > len(self._memory):
            return np.empty(shape, np.uint8)
        self._used = -(-(start + size) // ALIGNMENT) * ALIGNMENT
        return self.all()[start : start + size].reshape(shape)

    def place(self, part: bytes | memoryview) -> tuple[int, int]:
        """Returns the start and length of `part`, which is copied if it is not in the shared memory."""
        array = np.frombuffer(part, np.uint8)
        start = _start(array) - _start(self.all())
        if not 0 <= start < len(self._memory):
            copy = self.empty(array.shape)
            copy[:] = array
            start = _start(copy) - _start(self.all())
        return start, array.size

    def trim(self) -> None:
        """Frees the pages of a large image."""
        if hasattr(mmap, "MADV_REMOVE"):  # Linux
            self._memory.madvise(mmap.MADV_REMOVE, KEPT_BYTES)


def _start(array: NDArray[np.uint8]) -> int:
    """The position of an array in memory."""
    return int(array.__array_interface__["data"][0])


class _Decoder:
    """One decoder process, with one file at a time."""

    def __init__(self, cpu_s: float, memory_bytes: int, shared_bytes: int) -> None:
        self._cpu_s, self._images, self._spent, self._large = cpu_s, 0, False, False
        prepare()
        self._socket, theirs = socket.socketpair()
        self._process = multiprocessing.get_context("forkserver").Process(
            target=serve, args=(theirs, cpu_s, memory_bytes, shared_bytes), daemon=True
        )
        self._process.start()
        theirs.close()
        with _anonymous_file() as file:
            os.ftruncate(file.fileno(), shared_bytes)
            self._shared = _Shared(file.fileno(), shared_bytes)
            socket.send_fds(self._socket, [b"memory"], [file.fileno()])
        self._receive(START_S)  # a start does not count as the time of an image

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def usable(self) -> bool:
        """Whether the process can decode another file. An idle one sends nothing but its end."""
        if self._spent or self._images >= IMAGES_MAX:
            return False
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def decode(self, data: bytes, limits: Limits, lend: Callable[[], None]) -> tuple[DecodedImage, NDArray[np.uint8]]:
        """Returns the image, and the shared memory that holds its arrays. Raises what `Decoders.decode` raises."""
        self._images += 1
        ends = time.monotonic() + WALL_FACTOR * self._cpu_s
        pixels = self._shared.all()
        pixels[: len(data)] = np.frombuffer(data, np.uint8)
        try:
            self._socket.settimeout(SLOW_S)
            self._socket.sendall(_FILE.pack(len(data), limits.max_bytes, limits.max_pixels))
            message = self._receive(SLOW_S)
            if message is None:
                self._slow_down()
                lend()
                message = self._receive(max(ends - time.monotonic(), 0.001))
        except OSError:  # the process has ended
            message = b""
        if not message:
            raise self._failure(timed_out=message is None)
        content, *buffers = (pixels[start : start + length].data for start, length in _PLACE.iter_unpack(message))
        self._large = len(data) + sum(map(len, buffers)) > KEPT_BYTES
        result = pickle.loads(content, buffers=buffers)  # noqa: S301 - written by `serve`
        if isinstance(result, Exception):
            raise result
        return result, pixels

    def _receive(self, timeout_s: float) -> bytes | None:
        """Returns a message; None after the timeout, b"" if the process has ended."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(MESSAGE_BYTES)
        except TimeoutError:
            return None

    def _slow_down(self) -> None:
        self._spent = True
        with contextlib.suppress(OSError):  # the process has just ended
            os.setpriority(os.PRIO_PROCESS, self.pid, SLOW_NICE)

    def _failure(self, *, timed_out: bool) -> Exception:
        """Returns the error for a process that has not responded, and ends it."""
        self._spent = True
        if timed_out:
            self._process.kill()
        self._process.join(SLOW_S)
        code = self._process.exitcode or 0
        log.warning("a decoder process ended with its image: exit code %d", code)
        if timed_out or -code == signal.SIGXCPU:
            return DecodingLimit(
                f"The file takes more than {self._cpu_s:g} s to decode; save it again as a baseline JPEG or a PNG "
                "without interlacing, or reduce the image."
            )
        if -code in _CRASHES:
            return UnreadableImage("The file is damaged and makes its decoder fail; export the image again.")
        return Internal("The process that decoded the image was killed; try again.")

    def trim(self) -> None:
        """Frees the shared memory of a large image."""
        if self._large:
            self._shared.trim()

    def close(self) -> None:
        """Ends the process."""
        self._spent = True
        self._socket.close()
        if self._process.is_alive():
            self._process.kill()


def serve(connection: socket.socket, cpu_s: float, memory_bytes: int, shared_bytes: int) -> None:
    """Decodes the files that the connection brings, until it is closed: the program of a decoder process.

    It ignores SIGTERM and SIGINT, which a process group gets together: the server drains first, then closes it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # a hostile file causes thousands
    cv2.setNumThreads(1)
    _keep_freed_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, (descriptor, *_), _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1)
    shared = _Shared(descriptor, shared_bytes)
    pixels.allocate = shared.empty
    _limit_memory(memory_bytes)
    connection.sendall(b"ready")
    with connection, contextlib.suppress(ConnectionError):  # the server has ended
        while message := connection.recv(MESSAGE_BYTES):
            size, *limits = _FILE.unpack(message)
            data = shared.all()[:size].tobytes()
            shared.clear()
            _limit_time(cpu_s)
            buffers: list[pickle.PickleBuffer] = []
            content = pickle.dumps(_decoded(data, Limits(*limits)), protocol=5, buffer_callback=buffers.append)
            parts: list[bytes | memoryview] = [content, *(buffer.raw() for buffer in buffers)]
            connection.sendall(b"".join(_PLACE.pack(*shared.place(part)) for part in parts))
            del data, content, buffers, parts


def _decoded(data: bytes, limits: Limits) -> DecodedImage | InputError:
    """Returns the error instead of raising it. Libraries report exhausted memory by several exceptions."""
    too_large = DecodingLimit(
        "Decoding the file takes more memory than that of any ordinary image; reduce the image or send a JPEG."
    )
    try:
        return decode(data, limits)
    except InputError as error:
        return too_large if "memory" in str(error.__cause__).lower() else error
    except MemoryError:
        return too_large


def _limit_time(cpu_s: float) -> None:
    """Lets the kernel end this process after more seconds of CPU time, in steps of a second."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + cpu_s), hard))


def _keep_freed_memory() -> None:
    """Lets glibc keep freed memory instead of returning it to the kernel after each image."""
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREED_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_MAX)


def _limit_memory(more_bytes: int) -> None:
    """Limits the private memory of this process; only Linux has the figure. Memory that is shared does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        used = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData:"))
        soft, hard = 1024 * used + more_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _anonymous_file() -> BinaryIO:
    """Returns an empty file without a name; in memory on Linux."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("image"), "r+b")
    return tempfile.TemporaryFile()
