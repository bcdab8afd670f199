"""Which addresses of the web may be asked on a caller's behalf. A caller may name any URL; ours is the network it is
asked from, where metadata, databases and consoles answer whoever reaches them.

`target` reads a URL once and strictly, into the very host, port and path that are then asked: no second reader can
understand it otherwise. `is_public` judges the addresses of its host. lambdas/adapters/fetch.py keeps the rest of the
promise: it asks the addresses that were judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal
from urllib.parse import quote, urlsplit

from maskdrop.errors import BlockedUrl, InvalidUrl
from maskdrop.settings import Settings

Address = IPv4Address | IPv6Address

URL_MAX = 2048
"""Characters. Browsers and servers agree on about this much."""

PORTS = {80, 443}
"""The ports of the web. On others answer mail, databases and other things that can be talked to by HTTP."""

AUTHORITY = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^][:@%]+))(?::(?P<port>[0-9]{1,5}))?")
"""host or host:port. User-info ("@") hides the true host from the eye, percent-encoding ("%") and IPv6 zones from
filters; none has a place in the address of an image."""

NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
"""RFC 1123, and the underscore, which some hosts of images have."""

NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label like this makes a host an IPv4 address (WHATWG URL, "ends in a number"): 2130706433, 0x7f.1, 127.1 and
017700000001 are 127.0.0.1 to inet_aton, which resolvers ask before DNS."""

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_BYTE = "(?:[1-9]?[0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"

URL = (
    rf"https://(?:(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?|{_BYTE}(?:\.{_BYTE}){{3}})"
    "(?::443)?(?:[/?#][!-~]*)?"
)
"""What an address looks like, as the API's description has it: of those that `target` reads, all but literals of IPv6,
names that are not in ASCII, and what a policy adds."""

AMBIGUOUS = set("ßẞς")
"""IDNA 2003, which Python has, and IDNA 2008, which browsers have, make different hosts of these."""

OWN_NAMES = (".localhost", ".local", ".internal", ".home.arpa")
"""Names of one's own machine and network: RFC 6761, RFC 6762, RFC 8375, and ICANN's .internal, which clouds use."""

CLOSED_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host, this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers (CGNAT); Alibaba's metadata, 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host, in a public range
            "169.254.0.0/16",  # link-local: metadata and credentials of EC2, ECS (169.254.170.2), most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata, 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT: relays of multicast
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
"""IANA's registry of special-purpose IPv4 addresses, multicast, and the clouds'. Python's `is_global` is not asked, as
its answers depend on the release (gh-113171): 3.11.7 calls global 64:ff9b:1::/48 and 2002::/16, which 3.13 no longer
does, and both call so all of multicast, 192.88.99.0/24, fec0::/10, 5f00::/16, 64:ff9b::/96 and ::ffff:8.8.8.8."""

UNICAST_6 = IPv6Network("2000::/3")
"""All that IANA has given out for global unicast. Outside: loopback, IPv4-mapped and -compatible, NAT64 (64:ff9b::/96,
64:ff9b:1::/48), discard, segment routing (5f00::/16), unique local (fc00::/7, with fd00:ec2::254), link-local,
site-local, multicast."""

CLOSED_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo (2001::/32), benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed beyond https to public hosts.

    http: plain http to them as well.
    trusted: names of one's own hosts, in small letters: at any address and port, by https or http.
    """

    http: bool = False
    trusted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        return cls(bool(settings.http_sources), frozenset(settings.trusted_hosts.split()))


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL asks for.

    host: in ASCII and small letters, without a trailing dot; an IPv6 address without brackets.
    literal: the host as an address, where the URL named one; None: it is a name, to be resolved.
    path: with the query, as it stands in a request.
    trusted: its addresses are not judged.
    """

    scheme: Literal["https", "http"]
    host: str
    port: int
    path: str
    literal: Address | None
    trusted: bool


def target(url: str, policy: Policy) -> Target:
    """Raises InvalidUrl for what is not written as one clear address, BlockedUrl for what `policy` does not allow."""
    # urlsplit drops tabs and line ends, and blanks around an address, without a word.
    if len(url) > URL_MAX or not url.isprintable() or url != url.strip():
        raise InvalidUrl(f"An address has at most {URL_MAX} characters, no control characters and no blanks around it.")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidUrl("The address cannot be read.") from error
    if parts.scheme not in ("https", "http"):
        raise InvalidUrl("An address begins with https://.")
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    authority = AUTHORITY.fullmatch(parts.netloc)
    if authority is None:
        raise InvalidUrl("After https:// come the name of a host and nothing else: no user, no password, no '%'.")
    host, literal = _host(authority)
    port = int(authority["port"] or (443 if scheme == "https" else 80))
    trusted = host in policy.trusted
    if not 1 <= port <= 65535:
        raise InvalidUrl(f"There is no port {port}.")
    if not trusted:
        _permit(scheme, host, port, literal, policy)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=?") if parts.query else ""
    return Target(scheme, host, port, path + query, literal, trusted)


def receiver(url: str, policy: Policy) -> Target:
    """The target of a webhook: by plain http to trusted hosts alone, as it tells what a job was about."""
    return target(url, replace(policy, http=False))


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, as far as addresses tell: a network's own prefix for NAT64, which
    hides IPv4 addresses in its public IPv6 ones, looks like any other. Lambda outside a VPC has none."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in CLOSED_4)
    isatap = int(address) >> 32 & 0xFDFFFFFF == 0x5EFE  # …:0:5efe:a.b.c.d or …:200:5efe:a.b.c.d, RFC 5214
    return address in UNICAST_6 and not isatap and not any(address in network for network in CLOSED_6)


def _host(authority: re.Match[str]) -> tuple[str, Address | None]:
    if literal := authority["literal"]:
        try:
            address = IPv6Address(literal)
        except ValueError as error:
            raise InvalidUrl(f"[{literal}] is not an IPv6 address.") from error
        return str(address), address
    text: str = authority["name"]
    if AMBIGUOUS & set(text):
        raise InvalidUrl("Write the host's name in its ASCII form, which begins with xn--.")
    try:
        # Full-width digits and dots become plain ones here, before anything is judged.
        name = text.lower() if text.isascii() else text.encode("idna").decode().lower()
    except UnicodeError as error:
        raise InvalidUrl("The host's name is not one that DNS can hold.") from error
    name = name.removesuffix(".")
    if not NAME.fullmatch(name):
        raise InvalidUrl("The host's name is not one that DNS can hold.")
    if not NUMBER.fullmatch(name.rpartition(".")[2]):
        return name, None
    try:
        return name, IPv4Address(name)
    except ValueError as error:
        raise InvalidUrl("An IPv4 address is written as four decimal numbers without leading zeros.") from error


def _permit(scheme: str, host: str, port: int, literal: Address | None, policy: Policy) -> None:
    if scheme == "http" and not policy.http:
        raise BlockedUrl("Only https:// addresses are asked.")
    if port not in PORTS:
        raise BlockedUrl(f"Port {port} is not asked; {' and '.join(map(str, sorted(PORTS)))} are.")
    named_own = literal is None and ("." not in host or host.endswith(OWN_NAMES))
    if named_own or (literal is not None and not is_public(literal)):
        raise BlockedUrl(f"{host} is not a host of the public internet.")
