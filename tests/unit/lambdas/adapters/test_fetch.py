# ruff: noqa: RUF001  the tests use characters that look like others
"""Tests the SSRF protection: a blocked URL causes no connection; the connection uses the checked IP address.

The tests replace name resolution, and direct every connection to a server on this machine. All rules stay active.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from urllib.parse import urljoin

import pytest

from lambdas.adapters.fetch import Limits, PublicWeb
from maskdrop.errors import (
    BlockedUrl,
    EmptyFile,
    FailedDownload,
    FileTooLarge,
    HostUnavailable,
    InvalidUrl,
    MaskdropError,
    TooManyRedirects,
    UnsupportedFormat,
)
from maskdrop.services import Web
from maskdrop.ssrf import Policy
from tests.web import ScriptedServer, make_certificate, served

PUBLIC, PUBLIC_6 = "93.184.216.34", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100

REDIRECTING_URL = "http://photos.example.com/moved"

NAMES: dict[str, list[str]] = {
    "photos.example.com": [PUBLIC, PUBLIC_6],
    "xn--bcher-kva.example": [PUBLIC],
    "rebound.example.com": ["127.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "lan.example.com": ["192.168.1.1"],
    "ula.example.com": ["fd12:3456::1"],
    "linklocal.example.com": ["fe80::1%eth0"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "nat64.example.com": ["64:ff9b::7f00:1"],
    "mixed.example.com": [PUBLIC, "10.0.0.1"],
    "localtest.me": ["127.0.0.1"],
    "169.254.169.254.nip.io": ["169.254.169.254"],
}

BLOCKED_URLS = [
    # this machine
    "http://127.0.0.1/", "http://127.0.0.1:80/", "https://127.0.0.1/", "http://127.1.2.3/", "http://127.255.255.254/",
    "http://0.0.0.0/", "http://0.1.2.3/", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/",
    # other notations of 127.0.0.1
    "http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0X7F.0x0.0x0.0x1/", "http://127.1/",
    "http://127.0.1/", "http://0177.0.0.1/", "http://0x7f.1/", "http://0/", "http://0x/", "http://127.0.0.1./",
    "http://127.0.0.01/", "http://00127.0.0.1/", "http://4294967297/", "http://340282366920938463463374607431768211457/",
    "http://127.0.0.1.0x1/", "http://127.0.0.0x1/", "http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/",
    "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://127。0。0。1/", "http://127｡0.0.1/", "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/", "http://[::1%25lo]/", "http://[::1%lo]/", "http://[v1.::1]/",
    # names of the machine and its network
    "http://localhost/", "http://LOCALHOST/", "http://localhost./", "http://a.localhost/", "http://intranet/",
    "http://printer.local/", "http://db.internal/", "http://router.home.arpa/", "http://metadata.google.internal/",
    "http://instance-data.ec2.internal/", "http://ⓛocalhost/",
    # metadata services of clouds
    "http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xA9FEA9FE/", "http://0251.0376.0251.0376/",
    "http://[fd00:ec2::254]/", "http://169.254.170.2/v2/credentials", "http://[fd00:ec2::23]/", "http://100.100.100.200/",
    "http://192.0.0.192/", "http://168.63.129.16/", "http://[fd20:ce::254]/", "http://[::ffff:a9fe:a9fe]/",
    # private, shared, link-local
    "http://10.0.0.1/", "http://10.255.255.255/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.0.1/",
    "http://100.64.0.1/", "http://100.127.255.255/", "http://169.254.0.1/", "http://[fc00::1]/", "http://[fdff::1]/",
    "http://[fe80::1]/", "http://[febf::1]/", "http://[fec0::1]/",
    # not routable: multicast, broadcast, reserved, documentation, benchmarks
    "http://192.31.196.1/", "http://192.52.193.1/", "http://192.175.48.1/", "http://[2620:4f:8000::1]/",
    "http://224.0.0.1/", "http://239.255.255.250/", "http://240.0.0.1/", "http://255.255.255.255/", "http://192.0.2.1/",
    "http://198.51.100.1/", "http://203.0.113.1/", "http://198.18.0.1/", "http://192.0.0.1/", "http://192.88.99.1/",
    "http://[ff02::1]/", "http://[ff0e::1]/", "http://[2001:db8::1]/", "http://[3fff::1]/", "http://[100::1]/",
    "http://[5f00::1]/", "http://[4000::1]/", "http://[2001:2::1]/", "http://[2001:20::1]/",
    # IPv4 inside IPv6
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::10.0.0.1]/", "http://[64:ff9b:1::a00:1]/", "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/", "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "http://[::10.0.0.1]/",
    "http://[2606:4700::5efe:127.0.0.1]/", "http://[2606:4700::200:5efe:10.0.0.1]/", "http://[::ffff:8.8.8.8]/",
    # names that resolve to blocked IP addresses
    *(f"http://{name}/" for name in NAMES if name not in ("photos.example.com", "xn--bcher-kva.example")),
    "https://rebound.example.com/", "http://rebound.example.com./", "http://REBOUND.example.com/",
    # user info, and URLs that parsers read differently
    "http://photos.example.com@127.0.0.1/", "http://127.0.0.1@photos.example.com/", "http://user:pass@photos.example.com/",
    "http://photos.example.com\\@127.0.0.1/", "http://127.0.0.1\\.photos.example.com/",
    "http://photos.example.com:80@127.0.0.1/", "http://127.0.0.1:80:80/", "http://127.0.0.1%00.photos.example.com/",
    "http://photos.exam\tple.com/a.png", "http://photos.example.com/a.png\r\nX-Header: 1",
    "http://photos.example.com/ ", "http://photos.example.com\\.example.net/", "http:\\\\photos.example.com/",
    "http://127.0.0.1\t/", "http://\n127.0.0.1/", " http://127.0.0.1/", "http:///127.0.0.1/", "http:127.0.0.1/",
    "http://127.0.0.1%09/", "http://[::1]photos.example.com/", "http://photos.example.com..//", "http://.127.0.0.1/",
    "http://photos.example.com%2f@127.0.0.1/", "http://straße.example/", "http:/\\127.0.0.1/", "//127.0.0.1/", "",
    # other ports and schemes
    "http://photos.example.com:22/", "https://photos.example.com:6379/", "http://photos.example.com:0/",
    "http://photos.example.com:99999/", "http://photos.example.com:/", "http://photos.example.com:８０/",
    "file:///etc/passwd", "ftp://photos.example.com/", "gopher://photos.example.com/", "data:image/png;base64,AA==",
    "jar:http://photos.example.com/", "dict://127.0.0.1:11211/", "s3://bucket/key",
]  # fmt: skip


@dataclass
class Network:
    """Fake DNS, and one server behind every IP address."""

    server: ScriptedServer
    names: dict[str, list[str]]
    resolved: list[str] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    unreachable: set[str] = field(default_factory=set)

    def resolve(self, host: str) -> Sequence[str]:
        self.resolved.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[host]

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.connections.append(address)
        if address[0] in self.unreachable:
            raise OSError("Network is unreachable")
        return socket.create_connection(("127.0.0.1", self.server.port), timeout)

    def web(self, policy: Policy = Policy(http=True), tls: ssl.SSLContext | None = None, **limits: float) -> PublicWeb:  # noqa: B008  frozen
        return PublicWeb(
            policy,
            limits=Limits(**limits),  # type: ignore[arg-type]
            resolve=self.resolve,
            connect=self.connect,
            tls=lambda: tls or ssl.create_default_context(),
        )


def ok(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body


def moved(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n\r\n".encode()


@pytest.fixture
def network() -> Iterator[Network]:
    length = f"Content-Length: {len(IMAGE)}"
    with served({"/a.png": ok(IMAGE, length), "/": ok(IMAGE, length)}) as server:
        yield Network(server, dict(NAMES))


@pytest.mark.parametrize("url", BLOCKED_URLS)
def test_a_url_that_is_not_public_is_rejected_before_a_connection(network: Network, url: str) -> None:
    with pytest.raises((InvalidUrl, BlockedUrl)):
        network.web().fetch(url)
    with pytest.raises((InvalidUrl, BlockedUrl)):
        network.web().post(url, {}, b"{}")
    assert (network.connections, network.server.connections) == ([], 0)


def can_be_redirect_location(url: str) -> bool:
    """Returns whether a redirect can lead to the URL. A URL that `urljoin` rejects counts too."""
    try:
        return url.isascii() and url.isprintable() and urljoin(REDIRECTING_URL, url) == url
    except ValueError:
        return True


@pytest.mark.parametrize("url", [url for url in BLOCKED_URLS if can_be_redirect_location(url)])
def test_a_redirect_from_a_public_host_to_a_blocked_url_is_rejected(network: Network, url: str) -> None:
    network.server.script["/moved"] = moved(url)
    with pytest.raises((InvalidUrl, BlockedUrl)):
        network.web().fetch(REDIRECTING_URL)
    assert (len(network.connections), network.server.connections) == (1, 1)


def test_the_list_of_blocked_urls_has_at_least_120_distinct_entries() -> None:
    assert len(set(BLOCKED_URLS)) == len(BLOCKED_URLS) >= 120


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://photos.example.com/a.png", (PUBLIC, 80)),
        ("http://PHOTOS.example.com./a.png", (PUBLIC, 80)),
        ("http://bücher.example/a.png", (PUBLIC, 80)),
        ("http://8.8.8.8/a.png", ("8.8.8.8", 80)),
        ("http://photos.example.com:443/a.png", (PUBLIC, 443)),
        ("http://photos.example.com#@127.0.0.1:99/", (PUBLIC, 80)),
        ("http://photos.example.com/a.png#@127.0.0.1/", (PUBLIC, 80)),
        ("http://[2606:4700::1111]/a.png", ("2606:4700::1111", 80)),
    ],
)
def test_the_connection_uses_the_ip_address_that_was_checked(
    network: Network, url: str, expected: tuple[str, int]
) -> None:
    download = network.web().fetch(url)
    assert (download.body, download.content_type) == (IMAGE, "image/png")
    assert network.connections == [expected]


def test_a_host_name_is_resolved_once_per_request(network: Network) -> None:
    responses = iter([[PUBLIC], ["127.0.0.1"]])
    network.names = {"photos.example.com": []}
    web = PublicWeb(Policy(http=True), resolve=lambda _: next(responses), connect=network.connect)
    assert web.fetch("http://photos.example.com/a.png").body == IMAGE
    assert network.connections == [(PUBLIC, 80)]
    with pytest.raises(BlockedUrl):
        web.fetch("http://photos.example.com/a.png")
    assert network.connections == [(PUBLIC, 80)]


def test_the_next_ip_address_is_tried_if_the_first_is_unreachable(network: Network) -> None:
    network.unreachable = {PUBLIC}
    assert network.web().fetch("http://photos.example.com/a.png").body == IMAGE
    assert network.connections == [(PUBLIC, 80), (PUBLIC_6, 80)]
    assert network.resolved == ["photos.example.com"]


def test_a_request_has_only_the_required_headers(network: Network) -> None:
    network.web().fetch("http://photos.example.com/a.png#top")
    head, _ = network.server.requests[-1]
    lines = head.split("\r\n")
    assert lines[0] == "GET /a.png HTTP/1.1"
    assert {line.split(":")[0] for line in lines[1:]} == {
        "Host",
        "Accept",
        "Accept-Encoding",
        "Connection",
        "User-Agent",
    }
    assert "Host: photos.example.com" in lines
    assert "Accept-Encoding: identity" in lines


def test_up_to_five_redirects_are_followed_and_each_is_resolved_and_checked(network: Network) -> None:
    for number in range(6):
        network.server.script[f"/{number}"] = moved(f"http://photos.example.com/{number - 1}", 301 + number % 3)
    network.server.script["/0"] = moved("/a.png", 308)
    assert network.web().fetch("http://photos.example.com/4").body == IMAGE
    assert network.resolved == ["photos.example.com"] * 6
    with pytest.raises(TooManyRedirects):
        network.web().fetch("http://photos.example.com/5")


def test_the_certificate_must_match_the_host_name_of_the_url(network: Network, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "photos.pem", "photos.example.com")
    authority = ssl.create_default_context(cafile=str(tmp_path / "photos.crt"))
    network.names["other.example.com"] = [PUBLIC]
    with served({"/a.png": ok(IMAGE)}, certificate) as server:
        network.server = server
        web = network.web(Policy(), authority)
        assert web.fetch("https://photos.example.com/a.png").body == IMAGE
        assert network.connections == [(PUBLIC, 443)]
        assert server.names == ["photos.example.com"]
        assert "\r\nHost: photos.example.com\r\n" in server.requests[0][0]
        with pytest.raises(FailedDownload, match="certificate"):
            web.fetch("https://other.example.com/a.png")
        with pytest.raises(FailedDownload, match="certificate"):
            network.web(Policy()).fetch("https://photos.example.com/a.png")


@pytest.mark.parametrize(
    "policy",
    [Policy(http=True), Policy(trusted=frozenset({"photos.example.com"}))],
    ids=["http is allowed", "the host is trusted"],
)
def test_a_redirect_from_https_to_http_is_rejected(network: Network, tmp_path: Path, policy: Policy) -> None:
    certificate = make_certificate(tmp_path / "photos.pem", "photos.example.com")
    authority = ssl.create_default_context(cafile=str(tmp_path / "photos.crt"))
    with served({"/a.png": moved("http://photos.example.com/b.png")}, certificate) as server:
        network.server = server
        with pytest.raises(BlockedUrl, match="https"):
            network.web(policy, authority).fetch("https://photos.example.com/a.png")
        assert server.connections == 1


def test_a_redirect_from_a_public_host_to_a_trusted_host_is_rejected(network: Network) -> None:
    network.names |= {"images.corp.internal": ["10.1.2.3"]}
    network.server.script |= {"/own": moved("/a.png"), "/in": moved("http://images.corp.internal:8080/a.png")}
    web = network.web(Policy(http=True, trusted=frozenset({"images.corp.internal"})))
    assert web.fetch("http://images.corp.internal:8080/own").body == IMAGE
    assert network.connections == [("10.1.2.3", 8080)] * 2
    with pytest.raises(BlockedUrl):
        web.fetch("http://photos.example.com/in")
    assert len(network.connections) == 3


def endless() -> Iterable[bytes]:
    yield ok(IMAGE)
    for _ in range(2000):  # 131 MB, if the client reads them all
        yield bytes(65536)


def chunked(*chunks: tuple[str, bytes]) -> bytes:
    body = b"".join(size.encode() + b"\r\n" + chunk + b"\r\n" for size, chunk in chunks)
    return ok(body, "Transfer-Encoding: chunked")


def minus_one() -> Iterable[bytes]:
    yield chunked((f"{len(IMAGE):x}", IMAGE)) + b"-1\r\n"
    for _ in range(2000):
        yield bytes(65536)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (ok(IMAGE, "Content-Length: 999999999999"), FileTooLarge),
        (endless, FileTooLarge),
        (minus_one, HostUnavailable),
        (chunked(("4", IMAGE[:4]), ("-5", IMAGE)), HostUnavailable),
        (chunked((f"{len(IMAGE):x}", IMAGE)), HostUnavailable),  # without the last chunk
        (ok(IMAGE, f"Content-Length: {len(IMAGE) + 1}"), HostUnavailable),
        (ok(IMAGE, "Content-Encoding: gzip"), FailedDownload),
        (ok(b"\x1f\x8b\x08\0" + bytes(100), "Content-Type: image/png"), UnsupportedFormat),
        (ok(b"<html>Hello</html>", "Content-Type: image/jpeg"), UnsupportedFormat),
        (ok(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Content-Type: image/svg+xml"), UnsupportedFormat),
        (ok(b""), EmptyFile),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", FailedDownload),
        (b"HTTP/1.1 206 Partial Content\r\n\r\n" + IMAGE, FailedDownload),
        (b"HTTP/1.1 302 Found\r\n\r\n", FailedDownload),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", HostUnavailable),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", HostUnavailable),
        (b"SSH-2.0-OpenSSH_9.6\r\n", HostUnavailable),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n", HostUnavailable),
        (b"", HostUnavailable),
    ],
)
def test_an_invalid_response_raises_its_error(network: Network, response: bytes, error: type[MaskdropError]) -> None:
    network.server.script["/odd"] = response
    with pytest.raises(error):
        network.web(bytes_max=100_000).fetch("http://photos.example.com/odd")
    assert network.server.sent < 20_000_000  # of 131 MB; includes what the kernel buffers


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"II+\0\x08\0\0\0" + bytes(100), "image/tiff"),
        (b"MM\0+\0\x08\0\0" + bytes(100), "image/tiff"),
        (b"\xff\x0a" + bytes(100), "image/jxl"),
        (b"\0\0\0\x14ftypmiaf\0\0\0\0avif" + bytes(100), "image/avif"),
    ],
)
def test_the_content_type_comes_from_the_body(network: Network, body: bytes, content_type: str) -> None:
    network.server.script["/a.png"] = ok(body, "Content-Type: text/plain")
    assert network.web().fetch("http://photos.example.com/a.png").content_type == content_type


def test_the_message_names_the_kind_of_a_file_that_is_not_an_image(network: Network) -> None:
    network.server.script["/a.png"] = ok(b"%PDF-1.7" + bytes(100), "Content-Type: image/png")
    with pytest.raises(UnsupportedFormat, match="a PDF document"):
        network.web().fetch("http://photos.example.com/a.png")


def test_a_chunked_body_is_decoded(network: Network) -> None:
    network.server.script["/chunked"] = chunked(("10", IMAGE[:16]), (f"{len(IMAGE) - 16:x}", IMAGE[16:]), ("0", b""))
    assert network.web().fetch("http://photos.example.com/chunked").body == IMAGE


def single_bytes(head: bytes) -> Iterable[bytes]:
    """Sends one byte every 50 ms; the response is complete after 10 s."""
    yield head
    for _ in range(200):
        Event().wait(0.05)
        yield b"a"
    yield b"\r\n\r\n"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", ok(IMAGE)], ids=["headers", "body"])
def test_a_host_that_sends_single_bytes_exceeds_the_deadline(network: Network, head: bytes) -> None:
    network.server.script["/drip"] = lambda: single_bytes(head)
    with pytest.raises(HostUnavailable, match="in time"):
        network.web(total_s=0.5).fetch("http://photos.example.com/drip")


def test_a_silent_host_exceeds_the_deadline(network: Network) -> None:
    def silent() -> Iterable[bytes]:
        Event().wait(2)
        yield ok(IMAGE[:64], "Content-Length: 64")  # one read returns all of it

    network.server.script["/late"] = silent
    with pytest.raises(HostUnavailable, match="in time"):
        network.web(total_s=0.2).fetch("http://photos.example.com/late")


def test_a_silent_host_exceeds_the_timeout_of_a_read(network: Network) -> None:
    network.server.script["/silent"] = lambda: single_bytes(b"")
    with pytest.raises(HostUnavailable, match="in time"):
        network.web(wait_s=0.02).fetch("http://photos.example.com/silent")


def test_a_post_may_take_longer_than_the_timeout_of_a_read(network: Network) -> None:
    def slow() -> Iterable[bytes]:
        Event().wait(0.3)
        yield b"HTTP/1.1 204 Taken\r\n\r\n"

    network.names["localhost"] = ["127.0.0.1"]
    network.server.script["/hook"] = slow
    web = network.web(Policy(trusted=frozenset({"localhost"})), wait_s=0.02)
    assert web.post("http://localhost:8000/hook", {}, b"{}") == 204
    with pytest.raises(HostUnavailable, match="in time"):
        web.fetch("http://localhost:8000/hook")


def test_an_unknown_host_name_is_not_retryable_and_a_busy_resolver_is(network: Network) -> None:
    with pytest.raises(FailedDownload, match="does not exist"):
        network.web().fetch("http://nobody.example.com/")

    def temporary_failure(_: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with pytest.raises(HostUnavailable):
        PublicWeb(Policy(http=True), resolve=temporary_failure, connect=network.connect).fetch(
            "http://photos.example.com/"
        )


def test_a_post_is_sent_once_by_https_and_follows_no_redirect(network: Network, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "photos.pem", "photos.example.com")
    authority = ssl.create_default_context(cafile=str(tmp_path / "photos.crt"))
    with served({"/hook": moved("https://photos.example.com/other", 307)}, certificate) as server:
        network.server = server
        web: Web = network.web(Policy(http=True), authority)
        assert web.post("https://photos.example.com/hook", {"webhook-id": "1"}, b'{"a":1}') == 307
        ((head, body),) = server.requests
        assert body == b'{"a":1}'
        assert head.startswith("POST /hook HTTP/1.1\r\n")
        assert "\r\nwebhook-id: 1\r\n" in head
        with pytest.raises(BlockedUrl, match="https"):
            web.post("http://photos.example.com/hook", {}, b"")
        assert server.connections == 1
