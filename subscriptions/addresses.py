"""Which URLs and which addresses may be called: pure rules, checked twice.

The URL's text is judged when it is written, for a clear answer; the address is judged
when a socket to it is about to open, because only that cannot be got around by a name
that changes its answer, by a redirect or by an odd notation.

`ipaddress.is_global` is not used: it calls several special ranges global. The lists
follow the IANA special-purpose address registries (RFC 6890 and its successors).
"""

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 253

# Well-known ports of services that are not web servers; a webhook there is an attack.
REFUSED_PORTS = frozenset(
    {22, 23, 25, 53, 110, 111, 135, 139, 143, 389, 445, 465, 587, 636, 993, 995, 1433, 1521}
    | {2049, 2375, 2376, 3306, 3389, 5432, 5900, 6379, 9200, 9300, 11211, 27017}
)
WEB_PORTS = (80, 443)
LOWEST_FREE_PORT = 1024

REFUSED_NAMES = ("localhost", "local", "internal", "svc", "cluster.local", "localdomain", "home.arpa")

_IPV4_REFUSED = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent, public only by its number
        "169.254.0.0/16",  # link-local, and the clouds' metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_IPV6_PUBLIC = ip_network("2000::/3")
_IPV6_REFUSED = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]
# IPv4 inside IPv6 that a network may translate: judged by the IPv4 address in it.
_IPV6_MAPPED = [ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96")]

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
# What urlsplit reads in brackets is not all that may stand there: `[::1].example.com`.
_BRACKETED = re.compile(r"\[[^\[\]]*\](:\d*)?")
_DOTTED_QUAD = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_NUMERIC_LABEL = re.compile(r"\d+|0[xX][0-9a-fA-F]*")


class RefusedURL(ValueError):
    """A target URL that may not be called; the text says why, for the one who wrote it."""


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of ALLOWED_NETWORKS; raise ValueError for one that is none."""
    return tuple(ip_network(text) for text in texts)


def is_public(network: Network) -> bool:
    """Return whether any address of `network` is a public one, which may be called anyway."""
    if isinstance(network, IPv4Network):
        return not any(network.subnet_of(refused) for refused in _IPV4_REFUSED)
    if not network.overlaps(_IPV6_PUBLIC):
        return False
    return not any(network.subnet_of(refused) for refused in _IPV6_REFUSED)


def is_allowed_address(address: Address, allowed_networks: Iterable[Network] = ()) -> bool:
    """Return whether a socket to `address` may open.

    Public unicast addresses may, and those in `allowed_networks`. An IPv6 address with
    an IPv4 address inside, in a form that networks translate, is judged by the latter.
    """
    if isinstance(address, IPv6Address):
        if any(address in network for network in _IPV6_MAPPED):
            return is_allowed_address(IPv4Address(int(address) & 0xFFFF_FFFF), allowed_networks)
        if address.scope_id is not None:
            return False
    if any(address.version == network.version and address in network for network in allowed_networks):
        return True
    if isinstance(address, IPv6Address):
        return address in _IPV6_PUBLIC and not any(address in network for network in _IPV6_REFUSED)
    return not any(address in network for network in _IPV4_REFUSED)


def is_allowed_port(port: int) -> bool:
    """Return whether a web server may be at `port`."""
    return port in WEB_PORTS or (port >= LOWEST_FREE_PORT and port not in REFUSED_PORTS)


def check_url(url: str, allowed_networks: Iterable[Network] = ()) -> None:
    """Raise RefusedURL unless `url` is an http(s) URL that may be stored as a target URL."""
    if len(url) > MAX_URL_LENGTH:
        raise RefusedURL(f"The URL is longer than {MAX_URL_LENGTH} characters.")
    if not url.isascii() or any(character <= " " or character in "\x7f\\" for character in url):
        raise RefusedURL(
            "The URL has a space, a backslash, a control character or one outside ASCII. "
            "Write a non-ASCII host name in its xn-- form and percent-encode the rest."
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Which hosts in brackets urlsplit refuses itself is another matter in each release of Python.
        raise RefusedURL("The host is not a valid address." if "[" in url else "This is not a URL.") from None
    if parts.scheme not in ("http", "https"):
        raise RefusedURL("The URL must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise RefusedURL("The URL must not contain a user name or password.")
    if "#" in url:
        raise RefusedURL("The URL must not have a fragment (#…).")
    if not host:
        raise RefusedURL("The URL has no host.")
    if "[" in parts.netloc and not _BRACKETED.fullmatch(parts.netloc):
        raise RefusedURL("The host is not a valid address.")
    _check_port(port)
    _check_host(host, is_literal=parts.netloc.startswith("["), allowed_networks=tuple(allowed_networks))


def _check_port(port: int | None) -> None:
    if port is not None and not is_allowed_port(port):
        raise RefusedURL(f"Port {port} may not be called: use 80, 443 or a free port from 1024 on.")


def _check_host(host: str, *, is_literal: bool, allowed_networks: tuple[Network, ...]) -> None:
    if is_literal or _DOTTED_QUAD.fullmatch(host):
        _check_literal(host, allowed_networks)
        return
    if len(host) > MAX_HOST_LENGTH or not _HOST_NAME.fullmatch(host):
        raise RefusedURL("The host is not a valid name.")
    name = host.rstrip(".").lower()
    if _NUMERIC_LABEL.fullmatch(name.rsplit(".", 1)[-1]):
        raise RefusedURL("The host looks like an address in an odd notation: write it as four decimal numbers.")
    if name == "localhost" and is_allowed_address(ip_address("127.0.0.1"), allowed_networks):
        return
    if "." not in name or any(name == refused or name.endswith("." + refused) for refused in REFUSED_NAMES):
        raise RefusedURL("The host is a local name: only hosts on the public internet may be called.")


def _check_literal(host: str, allowed_networks: tuple[Network, ...]) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        raise RefusedURL("The host is not a valid address.") from None
    if not is_allowed_address(address, allowed_networks):
        raise RefusedURL("The host is an address that may not be called: only public ones may.")
