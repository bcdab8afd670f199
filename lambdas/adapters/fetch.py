"""HTTP on a caller's behalf, under the rules of `maskdrop.guard`.

A name is resolved once; every address that comes of it is judged, and one of those very addresses is dialled, with the
name in SNI and in Host: what DNS says a moment later changes nothing. Redirects go the same way from the start. Nothing
is taken from the environment: no proxy, no credentials, no cookies.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any
from urllib.parse import urljoin

from maskdrop import __version__
from maskdrop.errors import (
    BlockedUrl,
    EmptyFile,
    FailedDownload,
    FileTooLarge,
    HostUnavailable,
    InvalidUrl,
    TooManyRedirects,
    UnsupportedFormat,
)
from maskdrop.guard import Policy, Target, is_public, receiver, target
from maskdrop.services import Download
from maskdrop.sniff import HEAD, picture_type

REDIRECTS = {301, 302, 303, 307, 308}
BUSY = {408, 425, 429}
"""Answers, beside 5xx, after which another try may help."""

CHUNK = 64 * 1024

FRAMING = 1024 * 1024
"""Bytes of headers and of the sizes between chunks that a file may bring along."""

Resolve = Callable[[str], Sequence[str]]
"""The addresses of a host's name. Raises OSError."""

Dial = Callable[[tuple[str, int], float], socket.socket]
"""A TCP connection to an address and port, within so many seconds. Raises OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """bytes_max: of one file: what the container takes (MODEL_MAX_BYTES).
    wait_s: for a connection, for TLS, and for each read.
    total_s: for all of it, redirects included; it leaves the rest of the gateway's 29 seconds to the image. Only the
        system's resolver can overrun it, by its own waiting for one name.
    redirects: how often an address may point at another.
    """

    bytes_max: int = 32 * 1024 * 1024
    wait_s: float = 5.0
    total_s: float = 15.0
    redirects: int = 5


def resolve(host: str) -> Sequence[str]:
    # With a dot at its end a name is whole: no search domain of this network is put behind it.
    found = socket.getaddrinfo(f"{host}." if "." in host else host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Certificates and names are verified, by the system's authorities."""
    return ssl.create_default_context()


class GuardedWeb:
    def __init__(
        self,
        policy: Policy,
        *,
        limits: Limits = Limits(),
        resolve: Resolve = resolve,
        dial: Dial = socket.create_connection,
        tls: Callable[[], ssl.SSLContext] = tls,
    ) -> None:
        self._policy, self._limits = policy, limits
        self._resolve, self._dial, self._tls = resolve, dial, tls

    def fetch(self, url: str) -> Download:
        deadline, policy = _Deadline(self._limits), self._policy
        for _ in range(self._limits.redirects + 1):
            here = target(url, policy)
            with self._asked("GET", here, {"Accept": "image/*"}, None, deadline) as response:
                location = response.headers["Location"]
                if response.status not in REDIRECTS or location is None:
                    return self._picture(here, response)
            url = _joined(url, location)
            # Only who named the address may mean a trusted host; a public host may send nobody there.
            policy = replace(policy, http=policy.http and here.scheme == "http")
            policy = policy if here.trusted else replace(policy, trusted=frozenset())
        raise TooManyRedirects(f"The address was redirected more than {self._limits.redirects} times.")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        here = receiver(url, self._policy)
        # A receiver may think before it answers; Standard Webhooks asks for 15 seconds at least.
        patient = replace(self._limits, wait_s=self._limits.total_s)
        with self._asked("POST", here, headers, body, _Deadline(patient)) as response:
            return response.status

    def _picture(self, here: Target, response: HTTPResponse) -> Download:
        if response.status >= 500 or response.status in BUSY:
            raise HostUnavailable(f"{here.host} answered {response.status}.")
        if response.status != 200:
            raise FailedDownload(f"{here.host} answered {response.status} instead of 200.")
        # A packed body may be a thousand times larger than what was sent; it was not asked for.
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FailedDownload(f"{here.host} packs what it sends, though asked not to.")
        if (response.length or 0) > self._limits.bytes_max:
            raise self._too_large()
        body = bytearray(response.read(CHUNK))
        if not body:
            raise EmptyFile("The file at the address is empty: it has 0 bytes.")
        content_type = picture_type(bytes(body[:HEAD]))
        if content_type is None:
            raise UnsupportedFormat("There is no image at the address, or in a format that is not read.")
        while chunk := response.read(CHUNK):
            body += chunk
            if len(body) > self._limits.bytes_max:
                raise self._too_large()
        if response.length:
            raise HostUnavailable(f"{here.host} broke off: {response.length} bytes are missing.")
        return Download(bytes(body), content_type)

    def _too_large(self) -> FileTooLarge:
        return FileTooLarge(
            f"The file at the address has more than the {self._limits.bytes_max / 2**20:.0f} MiB that are taken."
        )

    @contextmanager
    def _asked(
        self, method: str, here: Target, headers: Mapping[str, str], body: bytes | None, deadline: _Deadline
    ) -> Iterator[HTTPResponse]:
        """The answer to one request, its body unread."""
        with _as_ours(here.host), closing(self._connected(here, deadline)) as sock:
            connection = HTTPConnection(here.host, here.port)
            connection.default_port = 443 if here.scheme == "https" else 80  # left out of Host
            connection.sock = _Bounded(sock, deadline, self._limits.bytes_max + FRAMING)
            connection.request(
                method,
                here.path,
                body,
                {
                    **headers,
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                    "User-Agent": f"Maskdrop/{__version__}",
                },
            )
            yield connection.getresponse()

    def _connected(self, here: Target, deadline: _Deadline) -> socket.socket:
        addresses = [str(here.literal)] if here.literal else self._resolve(here.host)
        # One public address among private ones is no mistake to be generous with.
        if not here.trusted and not all(is_public(ip_address(address)) for address in addresses):
            raise BlockedUrl(f"{here.host} is not a host of the public internet.")
        sock = self._dialled(addresses, here.port, deadline)
        if here.scheme == "http":
            return sock
        try:
            sock.settimeout(deadline.wait())
            return self._tls().wrap_socket(sock, server_hostname=here.host)
        except BaseException:
            sock.close()
            raise

    def _dialled(self, addresses: Sequence[str], port: int, deadline: _Deadline) -> socket.socket:
        failure: OSError = OSError("The name has no address.")
        for address in addresses:
            try:
                return self._dial((address, port), deadline.wait())
            except OSError as error:
                failure = error
        raise failure


class _Deadline:
    def __init__(self, limits: Limits) -> None:
        self._wait_s, self._end = limits.wait_s, time.monotonic() + limits.total_s

    def wait(self) -> float:
        """How long the next step may wait, in seconds. Raises TimeoutError when all time is used up."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, self._wait_s)


class _Bounded(io.RawIOBase):
    """A socket in the form that http.client uses, all of whose reads together, headers included, are bounded: by the
    deadline, since a host that sends a byte now and then keeps within any timeout of a single read; and in bytes, since
    http.client takes a chunk of -1 bytes for all that comes. Whoever opened the socket closes it."""

    def __init__(self, sock: socket.socket, deadline: _Deadline, bytes_max: int) -> None:
        self._sock, self._deadline, self._left = sock, deadline, bytes_max

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.wait())
        got = self._sock.recv_into(buffer)
        self._left -= got
        if self._left < 0:
            raise OSError("It sends without end.")
        return got

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.wait())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        pass


@contextmanager
def _as_ours(host: str) -> Iterator[None]:
    """Where the errors of sockets, TLS and HTTP become ours."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise FailedDownload(f"The certificate of {host} is not valid: {error.verify_message}.") from error
    except TimeoutError as error:
        raise HostUnavailable(f"{host} did not answer in time.") from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise HostUnavailable(f"The address of {host} could not be found just now.") from error
        raise FailedDownload(f"There is no host {host}.") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: of http.client, at numbers that are none
        raise HostUnavailable(f"The connection to {host} failed: {type(error).__name__}.") from error


def _joined(url: str, location: str) -> str:
    """Where a redirect leads. Raises InvalidUrl: some releases of Python look for brackets that enclose no address here
    already, others only where an address is read."""
    try:
        return urljoin(url, location.encode("latin-1").decode(errors="replace"))
    except ValueError as error:
        raise InvalidUrl("The address redirects to one that cannot be read.") from error
