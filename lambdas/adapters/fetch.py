"""Sends HTTP requests to URLs of callers, with SSRF protection by the rules of `maskdrop.ssrf`.

- Each host name is resolved once. All its IP addresses are checked, and the connection uses one of them, with the name
  in SNI and `Host`. A later DNS response has no effect (DNS rebinding).
- Each redirect is checked like a new URL.
- The environment has no effect: no proxy, no credentials, no cookies.
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
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.services import Download
from maskdrop.sniff import HEAD, image_type, unsupported_kind
from maskdrop.ssrf import Policy, Target, is_public, receiver, target

REDIRECT_STATUSES = {301, 302, 303, 307, 308}
RETRYABLE_STATUSES = {408, 425, 429}
"""Retryable status codes in addition to 5xx."""

CHUNK = 64 * 1024
"""Bytes per read of a body."""

FRAMING = 1024 * 1024
"""Maximum size of the headers and chunk sizes of a response, in bytes."""

Resolve = Callable[[str], Sequence[str]]
"""Returns the IP addresses of a host name. Raises OSError."""

Connect = Callable[[tuple[str, int], float], socket.socket]
"""Opens a TCP connection to (IP address, port) with a timeout in seconds. Raises OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one request.

    bytes_max: maximum size of a file in bytes.
    wait_s: timeout of the connection, of the TLS handshake and of each read, in seconds.
    total_s: timeout of the request including redirects, in seconds. The rest of API Gateway's 29 seconds is for
        processing the image. Only name resolution by the system can take longer.
    redirects: maximum number of redirects.
    """

    bytes_max: int = IMAGE_BYTES_MAX
    wait_s: float = 5.0
    total_s: float = 15.0
    redirects: int = 5


def resolve(host: str) -> Sequence[str]:
    """Returns the IP addresses of a host name. Raises OSError."""
    # The final dot makes the name absolute: the resolver does not append a search domain.
    found = socket.getaddrinfo(f"{host}." if "." in host else host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Returns a context that verifies certificates and host names with the certificate authorities of the system."""
    return ssl.create_default_context()


class PublicWeb:
    """Fetches images from, and posts webhooks to, the hosts that the policy allows.

    resolve, connect, tls: replaceable in tests.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        limits: Limits = Limits(),
        resolve: Resolve = resolve,
        connect: Connect = socket.create_connection,
        tls: Callable[[], ssl.SSLContext] = tls,
    ) -> None:
        self._policy, self._limits = policy, limits
        self._resolve, self._connect, self._tls = resolve, connect, tls

    def fetch(self, url: str) -> Download:
        deadline, policy, encrypted = _Deadline(self._limits), self._policy, False
        for _ in range(self._limits.redirects + 1):
            destination = target(url, policy)
            if encrypted and destination.scheme == "http":
                raise BlockedUrl("The URL redirects from https:// to http://, which is not allowed.")
            encrypted = destination.scheme == "https"
            with self._response("GET", destination, {"Accept": "image/*"}, None, deadline) as response:
                location = response.headers["Location"]
                if response.status not in REDIRECT_STATUSES or location is None:
                    return self._download(destination, response)
            url = _redirect_url(url, location)
            # Only the caller may name a trusted host: a redirect from a public host must not lead to one.
            policy = policy if destination.trusted else replace(policy, trusted=frozenset())
        raise TooManyRedirects(f"The URL has more than {self._limits.redirects} redirects. Use the final URL.")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        destination = receiver(url, self._policy)
        # A receiver may process the event before it responds: Standard Webhooks recommends at least 15 seconds.
        limits = replace(self._limits, wait_s=self._limits.total_s)
        with self._response("POST", destination, headers, body, _Deadline(limits)) as response:
            return response.status

    def exchange(self, url: str, headers: Mapping[str, str], body: bytes | bytearray) -> tuple[int, bytes]:
        """Posts a body and returns the status and the body of the response, at most `bytes_max` bytes. Follows no
        redirect; plain http to trusted hosts only. Raises as `post` does."""
        destination = receiver(url, self._policy)
        limits = replace(self._limits, wait_s=self._limits.total_s)
        with self._response("POST", destination, headers, body, _Deadline(limits)) as response:
            return response.status, response.read()

    def _download(self, destination: Target, response: HTTPResponse) -> Download:
        """Reads the image of a response, and checks its status, size and format."""
        if response.status >= 500 or response.status in RETRYABLE_STATUSES:
            raise HostUnavailable(f"{destination.host} responded with status {response.status}. Retry later.")
        if response.status != 200:
            raise FailedDownload(f"{destination.host} must respond with status 200; got {response.status}.")
        # A compressed body can expand to 1000 times its size; the request accepts only `identity`.
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise FailedDownload(f"{destination.host} must not encode the file; got Content-Encoding {encoding!r:.80}.")
        if (response.length or 0) > self._limits.bytes_max:
            raise self._too_large()
        body = bytearray(response.read(CHUNK))
        if not body:
            raise EmptyFile("The file at the URL is empty: it has 0 bytes.")
        content_type = image_type(bytes(body[:HEAD]))
        if content_type is None:
            name = unsupported_kind(bytes(body[:HEAD])) or "not an image in a supported format"
            raise UnsupportedFormat(f"The file at the URL is {name}.")
        while chunk := response.read(CHUNK):
            body += chunk
            if len(body) > self._limits.bytes_max:
                raise self._too_large()
        if response.length:
            raise HostUnavailable(f"{destination.host} closed the connection: {response.length} bytes are missing.")
        return Download(bytes(body), content_type)

    def _too_large(self) -> FileTooLarge:
        return FileTooLarge(f"The file at the URL must have at most {self._limits.bytes_max / 2**20:.0f} MiB.")

    @contextmanager
    def _response(
        self,
        method: str,
        destination: Target,
        headers: Mapping[str, str],
        body: bytes | bytearray | None,
        deadline: _Deadline,
    ) -> Iterator[HTTPResponse]:
        """Sends a request and yields the response; its body is not read yet."""
        with _translated_errors(destination.host), closing(self._socket(destination, deadline)) as sock:
            connection = HTTPConnection(destination.host, destination.port)
            connection.default_port = 443 if destination.scheme == "https" else 80  # `Host` omits the default port
            connection.sock = _LimitedSocket(sock, deadline, self._limits.bytes_max + FRAMING)
            connection.request(
                method,
                destination.path,
                body,
                {
                    **headers,
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                    "User-Agent": f"Maskdrop/{__version__}",
                },
            )
            yield connection.getresponse()

    def _socket(self, destination: Target, deadline: _Deadline) -> socket.socket:
        """Opens a connection, with TLS for https. Raises BlockedUrl if any IP address of the host is not public."""
        addresses = [str(destination.literal)] if destination.literal else self._resolve(destination.host)
        if not destination.trusted and not all(is_public(ip_address(address)) for address in addresses):
            raise BlockedUrl(f"{destination.host} must be a host on the public internet.")
        sock = self._connect_to_any(addresses, destination.port, deadline)
        if destination.scheme == "http":
            return sock
        try:
            sock.settimeout(deadline.wait())
            return self._tls().wrap_socket(sock, server_hostname=destination.host)
        except BaseException:
            sock.close()
            raise

    def _connect_to_any(self, addresses: Sequence[str], port: int, deadline: _Deadline) -> socket.socket:
        """Connects to the first IP address that accepts the connection."""
        failure: OSError = OSError("The host name has no IP address.")
        for address in addresses:
            try:
                return self._connect((address, port), deadline.wait())
            except OSError as error:
                failure = error
        raise failure


class _Deadline:
    """End of a request: `total_s` from now."""

    def __init__(self, limits: Limits) -> None:
        self._wait_s, self._end = limits.wait_s, time.monotonic() + limits.total_s

    def wait(self) -> float:
        """Returns the timeout of the next step in seconds. Raises TimeoutError after the deadline."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, self._wait_s)


class _LimitedSocket(io.RawIOBase):
    """A socket for http.client that limits the time and size of all reads together, headers included.

    The deadline covers hosts that send single bytes within the timeout of each read. The size covers chunks of size
    -1, which http.client reads to the end. `close` does nothing: the function that opened the socket closes it.
    """

    def __init__(self, sock: socket.socket, deadline: _Deadline, bytes_max: int) -> None:
        self._sock, self._deadline, self._left = sock, deadline, bytes_max

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.wait())
        received = self._sock.recv_into(buffer)
        self._left -= received
        if self._left < 0:
            raise OSError("The response is larger than the limit.")
        return received

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.wait())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        pass


@contextmanager
def _translated_errors(host: str) -> Iterator[None]:
    """Translates the errors of sockets, TLS and HTTP to FailedDownload and HostUnavailable."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise FailedDownload(f"The certificate of {host} is not valid: {error.verify_message}.") from error
    except TimeoutError as error:
        raise HostUnavailable(f"{host} did not respond in time. Retry later.") from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise HostUnavailable(f"The host name {host} could not be resolved at present. Retry later.") from error
        raise FailedDownload(f"The host {host} does not exist.") from error
    except (OSError, HTTPException, ValueError) as error:  # http.client raises ValueError for an invalid number
        raise HostUnavailable(f"The connection to {host} failed: {type(error).__name__}.") from error


def _redirect_url(url: str, location: str) -> str:
    """Returns the absolute URL of a redirect. Raises InvalidUrl.

    urljoin raises ValueError for brackets without an IP address only in some releases of Python.
    """
    try:
        return urljoin(url, location.encode("latin-1").decode(errors="replace"))
    except ValueError as error:
        raise InvalidUrl("The URL redirects to an invalid URL.") from error
