"""Where a call comes from: the address that throttling and the audit log go by."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from django.conf import settings
from django.http import HttpRequest

# One IPv6 host commonly has a whole network of this size to call from.
IPV6_PREFIX = 64


def address_of(request: HttpRequest) -> str | None:
    """Return the caller's address, or None for a unix socket.

    It is the connection's own, unless PROXY_COUNT says how many proxies stand in front:
    each appends to X-Forwarded-For where it was called from, so that only that many
    entries, from the right, are not the caller's invention.
    """
    address = _parsed(request)
    return None if address is None else str(address)


def network_of(request: HttpRequest) -> str | None:
    """Return what counts as one caller: an IPv4 address, or the first address of an IPv6 /64."""
    address = _parsed(request)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, IPV6_PREFIX), strict=False).network_address)
    return None if address is None else str(address)


def _parsed(request: HttpRequest) -> IPv4Address | IPv6Address | None:
    connected = request.META.get("REMOTE_ADDR", "")
    forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]
    claimed = forwarded[-settings.PROXY_COUNT] if 0 < settings.PROXY_COUNT <= len(forwarded) else connected
    for text in (claimed, connected):
        try:
            # A zone says by which interface the host is reached; PostgreSQL takes no address with one.
            address = ip_address(text.partition("%")[0])
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return mapped or address
    return None
