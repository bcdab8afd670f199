"""SSRF protection: the URLs that the service may request for a caller. Requests run inside the operator's account,
where a URL could reach instance metadata, databases and consoles.

`target` parses a URL once and strictly into the host, port and path of the request, so that no second parser can
interpret it differently. `is_public` checks the IP addresses of the host. lambdas/adapters/fetch.py connects only to
the IP addresses that were checked.
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
"""Maximum characters of a URL, about the limit of common browsers and servers."""

PORTS = {80, 443}
"""Allowed ports. Mail servers, databases and other services that accept HTTP requests listen on others."""

AUTHORITY = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^][:@%]+))(?::(?P<port>[0-9]{1,5}))?")
"""host or host:port. Rejects user-info ("@"), percent-encoding ("%") and IPv6 zones, which can hide the host from
filters."""

NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
"""A host name by RFC 1123, plus the underscore, which some image hosts use."""

NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that makes a host an IPv4 address (WHATWG URL, "ends in a number"): inet_aton, which resolvers call
before DNS, reads 2130706433, 0x7f.1, 127.1 and 017700000001 as 127.0.0.1."""

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_BYTE = "(?:[1-9]?[0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"

URL = (
    rf"https://(?:(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?|{_BYTE}(?:\.{_BYTE}){{3}})"
    "(?::443)?(?:[/?#][!-~]*)?"
)
"""Pattern of a URL in the OpenAPI document. `target` also accepts IPv6 literals, names that are not ASCII, and the URLs
that a policy adds."""

INVALID_HOST = (
    "The host name is not valid in DNS: each part must be 1 to 63 letters, digits, '-' or '_', without '-' at its ends."
)

AMBIGUOUS = set("ßẞς")
"""Characters that IDNA 2003 (Python) and IDNA 2008 (browsers) map to different hosts."""

OWN_NAMES = (".localhost", ".local", ".internal", ".home.arpa")
"""Names of the local machine and network: RFC 6761, RFC 6762, RFC 8375, and ICANN's .internal, which clouds use."""

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
"""IANA's registry of special-purpose IPv4 addresses, multicast, and cloud metadata. Python's `is_global` is not used,
since it depends on the release (gh-113171): 64:ff9b:1::/48 and 2002::/16 are global in 3.11.7 but not in 3.13. Both
releases treat multicast, 192.88.99.0/24, fec0::/10, 5f00::/16, 64:ff9b::/96 and ::ffff:8.8.8.8 as global."""

UNICAST_6 = IPv6Network("2000::/3")
"""The range that IANA allocates for global unicast. Outside: loopback, IPv4-mapped and -compatible, NAT64
(64:ff9b::/96, 64:ff9b:1::/48), discard, segment routing (5f00::/16), unique local (fc00::/7, with fd00:ec2::254),
link-local, site-local, multicast."""

CLOSED_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo (2001::/32), benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: contains an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Exceptions to "https to public hosts only".

    http: also allows plain http to public hosts.
    trusted: names of the operator's own hosts in lower case: allowed at any IP address and port, by https or http.
    untrusted_ports: ports of these hosts to which this does not apply: those of the emulators of the local stack.
    """

    http: bool = False
    trusted: frozenset[str] = frozenset()
    untrusted_ports: frozenset[int] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        ports = frozenset(map(int, settings.untrusted_ports.split()))
        return cls(bool(settings.http_sources), frozenset(settings.trusted_hosts.split()), ports)


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL.

    host: in ASCII and lower case, without a trailing dot; an IPv6 address without brackets.
    literal: the IP address that the URL contains; None for a host name, which is to be resolved.
    path: path and query, encoded for the request.
    trusted: whether its IP addresses are exempt from the check.
    """

    scheme: Literal["https", "http"]
    host: str
    port: int
    path: str
    literal: Address | None
    trusted: bool


def target(url: str, policy: Policy) -> Target:
    """Parses and checks a URL. Raises InvalidUrl for a malformed or ambiguous URL, BlockedUrl for a forbidden one."""
    # urlsplit silently removes tabs, line ends and surrounding spaces.
    if len(url) > URL_MAX or not url.isprintable() or url != url.strip():
        raise InvalidUrl(
            f"A URL must have at most {URL_MAX} characters, without control characters or surrounding spaces."
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidUrl("The URL cannot be parsed; it must have the form https://host/path.") from error
    if parts.scheme not in ("https", "http"):
        raise InvalidUrl(f"A URL must begin with https://; got the scheme {parts.scheme!r:.20}.")
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    authority = AUTHORITY.fullmatch(parts.netloc)
    if authority is None:
        raise InvalidUrl("A URL must name only a host after https://, without a user, a password or '%'.")
    host, literal = _host(authority)
    port = int(authority["port"] or (443 if scheme == "https" else 80))
    trusted = host in policy.trusted and port not in policy.untrusted_ports
    if not 1 <= port <= 65535:
        raise InvalidUrl(f"The port of a URL must be 1 to 65535; got {port}.")
    if not trusted:
        _permit(scheme, host, port, literal, policy)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=?") if parts.query else ""
    return Target(scheme, host, port, path + query, literal, trusted)


def receiver(url: str, policy: Policy) -> Target:
    """The target of a webhook. Plain http is allowed to trusted hosts only, since the body describes a job."""
    return target(url, replace(policy, http=False))


def is_public(address: Address) -> bool:
    """Whether an IP address is public. A network-specific NAT64 prefix, which embeds an IPv4 address in a public
    IPv6 address, cannot be recognised; Lambda outside a VPC has none."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in CLOSED_4)
    isatap = int(address) >> 32 & 0xFDFFFFFF == 0x5EFE  # …:0:5efe:a.b.c.d or …:200:5efe:a.b.c.d, RFC 5214
    return address in UNICAST_6 and not isatap and not any(address in network for network in CLOSED_6)


def _host(authority: re.Match[str]) -> tuple[str, Address | None]:
    if literal := authority["literal"]:
        try:
            address = IPv6Address(literal)
        except ValueError as error:
            raise InvalidUrl(f"The host in brackets must be an IPv6 address; got [{literal}].") from error
        return str(address), address
    text: str = authority["name"]
    if AMBIGUOUS & set(text):
        raise InvalidUrl("The host name is ambiguous: use its ASCII form, which begins with xn--.")
    try:
        # Full-width digits and dots become ASCII here, before the checks.
        name = text.lower() if text.isascii() else text.encode("idna").decode().lower()
    except UnicodeError as error:
        raise InvalidUrl(INVALID_HOST) from error
    name = name.removesuffix(".")
    if not NAME.fullmatch(name):
        raise InvalidUrl(INVALID_HOST)
    if not NUMBER.fullmatch(name.rpartition(".")[2]):
        return name, None
    try:
        return name, IPv4Address(name)
    except ValueError as error:
        raise InvalidUrl("An IPv4 address must be four decimal numbers without leading zeros.") from error


def _permit(scheme: str, host: str, port: int, literal: Address | None, policy: Policy) -> None:
    if scheme == "http" and not policy.http:
        raise BlockedUrl("The URL must begin with https://; http:// is not allowed here.")
    if port not in PORTS:
        raise BlockedUrl(f"Port {port} is not allowed; use {' or '.join(map(str, sorted(PORTS)))}.")
    is_local = literal is None and ("." not in host or host.endswith(OWN_NAMES))
    if is_local or (literal is not None and not is_public(literal)):
        raise BlockedUrl(f"{host} is not a public host; use one whose IP addresses are all public.")
