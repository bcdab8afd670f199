# ruff: noqa: RUF001  full-width letters on purpose
import random
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from maskdrop.errors import BlockedUrl, InvalidUrl
from maskdrop.ssrf import Policy, is_public, target

OWN = Policy(trusted=frozenset({"images.corp.internal", "localhost", "10.1.2.3"}))


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://photos.example.com/a.jpg", "photos.example.com", 443, "/a.jpg"),
        ("HTTPS://Photos.Example.COM", "photos.example.com", 443, "/"),
        ("https://photos.example.com./a.jpg", "photos.example.com", 443, "/a.jpg"),
        ("https://photos.example.com:443/a?b=c&d#e", "photos.example.com", 443, "/a?b=c&d"),
        ("https://photos.example.com:80/", "photos.example.com", 80, "/"),
        ("https://8.8.8.8/a.jpg", "8.8.8.8", 443, "/a.jpg"),
        ("https://[2606:4700:0:0::1111]/a.jpg", "2606:4700::1111", 443, "/a.jpg"),
        ("https://bücher.example/a.jpg", "xn--bcher-kva.example", 443, "/a.jpg"),
        ("https://ｅｘａｍｐｌｅ。com/a.jpg", "example.com", 443, "/a.jpg"),
        ("https://my_cdn.example.com/a.jpg", "my_cdn.example.com", 443, "/a.jpg"),
        ("https://4.example/ü b.jpg?c=ü%20", "4.example", 443, "/%C3%BC%20b.jpg?c=%C3%BC%20"),
        ("https://1.2.3.4.example/", "1.2.3.4.example", 443, "/"),
    ],
)
def test_a_url_is_parsed_into_the_target_of_the_request(url: str, host: str, port: int, path: str) -> None:
    read = target(url, Policy())
    assert (read.host, read.port, read.path) == (host, port, path)


def test_plain_http_needs_a_setting() -> None:
    with pytest.raises(BlockedUrl, match="https"):
        target("http://photos.example.com/", Policy())
    assert target("http://photos.example.com/", Policy(http=True)).port == 80


def test_a_trusted_host_is_allowed_with_any_scheme_and_port() -> None:
    for url in ("http://images.corp.internal:8080/a", "https://LOCALHOST./a", "http://10.1.2.3:9000/a"):
        assert target(url, OWN).trusted
    for url in ("https://corp.internal/", "https://a.images.corp.internal/", "https://127.0.0.1/", "https://10.1.2.4/"):
        with pytest.raises(BlockedUrl):
            target(url, OWN)


@pytest.mark.parametrize("url", ["https://photos.example.com/" + "a" * 2022, "https://photos.example.com:65536/"])
def test_a_url_has_a_maximum_length(url: str) -> None:
    with pytest.raises(InvalidUrl):
        target(url, Policy())


def test_ip_addresses_that_python_calls_not_global_are_not_public() -> None:
    chance = random.Random(0)  # noqa: S311  the same addresses every time
    drawn = [IPv4Address(chance.getrandbits(32)) for _ in range(20_000)]
    for prefix in ("::", "::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "100::", "2001::", "2001:db8::", "2002::", "3fff::"):
        drawn += [IPv6Address(int(IPv6Address(prefix)) | chance.getrandbits(32)) for _ in range(100)]  # type: ignore[misc]
    closed = [address for address in drawn if not address.is_global]
    assert len(closed) > 1_000
    assert [address for address in closed if is_public(address)] == []


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1",
        "192.167.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "168.63.129.17",
        "2606:4700::1111", "2a00:1450:4001:830::200e", "2600:1f18::1", "2001:4860:4860::8888", "2400:cb00::5eff:1:1",
    ],
)  # fmt: skip
def test_public_ip_addresses_are_public(text: str) -> None:
    assert is_public(ip_address(text))


def test_a_trusted_host_is_not_trusted_at_the_ports_of_the_emulators() -> None:
    policy = Policy(trusted=frozenset({"localhost"}), untrusted_ports=frozenset({4566}))
    assert target("http://localhost:8000/a.jpg", policy).trusted
    for url in ("http://localhost:4566/inbox/a.jpg", "https://localhost:4566/inbox/a.jpg"):
        with pytest.raises(BlockedUrl):
            target(url, policy)
