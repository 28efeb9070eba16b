"""The rules of subscriptions/addresses.py against a model of its own: bytes and bits, no table of networks.

Sources: the IANA special-purpose address registries for IPv4 and IPv6, RFC 6890, 6052
(NAT64), 4291 (mapped), and the clouds' documentation of their metadata services.
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import RefusedURL, check_url, is_allowed_address, is_allowed_port

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def is_public_ipv4(a: int, b: int, c: int, d: int) -> bool:
    if a in (0, 10, 127) or a >= 224:
        return False
    if a == 100:
        return not 64 <= b <= 127
    if a == 168 and b == 63:
        return (c, d) != (129, 16)
    if a == 169:
        return b != 254
    if a == 172:
        return not 16 <= b <= 31
    if a == 192:
        return b != 168 and (b, c) not in ((0, 0), (0, 2), (31, 196), (52, 193), (88, 99), (175, 48))
    if a == 198:
        return b not in (18, 19) and (b, c) != (51, 100)
    return (a, b, c) != (203, 0, 113)


def is_public_ipv6(text: str) -> bool:
    """`text` is all 32 digits of the address."""
    if text[0] not in "23":
        return False
    if text.startswith("2001"):
        return text[4:6] not in ("00", "01") and text[4:8] != "0db8"
    if text.startswith("3fff"):
        return text[4] != "0"
    return not text.startswith("2002") and not text.startswith("2620004f8000")


def inner(address: Address) -> Address:
    """The IPv4 address that a network may make of an IPv6 one: mapped, or NAT64."""
    packed = address.packed
    if len(packed) == 16 and packed[:12] in (bytes(10) + b"\xff\xff", bytes.fromhex("0064ff9b") + bytes(8)):
        return IPv4Address(packed[12:])
    return address


def model(address: Address, networks: list[Network]) -> bool:
    address = inner(address)
    number = int.from_bytes(address.packed)
    for network in networks:
        bits = len(network.network_address.packed) * 8
        shift = bits - network.prefixlen
        is_inside = number >> shift == int.from_bytes(network.network_address.packed) >> shift
        if network.version == address.version and is_inside:
            return True
    if isinstance(address, IPv4Address):
        return is_public_ipv4(*address.packed)
    return is_public_ipv6(address.packed.hex())


EDGES_V4_TEXT = """
0.0.0.0 1.0.0.0 10.0.0.0 11.0.0.0 100.64.0.0 100.128.0.0 127.0.0.0 128.0.0.0 168.63.129.16 168.63.129.17
169.254.0.0 169.255.0.0 172.16.0.0 172.32.0.0 192.0.0.0 192.0.1.0 192.0.2.0 192.0.3.0 192.31.196.0
192.31.197.0 192.52.193.0 192.52.194.0 192.88.99.0 192.88.100.0 192.168.0.0 192.169.0.0 192.175.48.0
192.175.49.0 198.18.0.0 198.20.0.0 198.51.100.0 198.51.101.0 203.0.113.0 203.0.114.0 224.0.0.0 240.0.0.0
"""
EDGES_V4 = [int(IPv4Address(text)) for text in EDGES_V4_TEXT.split()]
EDGES_V6_TEXT = """
:: ::1 ::2 ::1:0:0 ::fffe:0:0 ::ffff:0:0 ::1:0:0:0 64:ff9b:: 64:ff9b::1:0:0 64:ff9b:1:: 64:ff9b:2:: 100::
2000:: 2001:: 2001:1:: 2001:200:: 2001:db8:: 2001:db9:: 2002:: 2003:: 2620:4f:8000:: 2620:4f:8001:: 3fff::
3fff:1000:: 4000:: 5f00:: fc00:: fe00:: fe80:: fec0:: ff00::
"""
EDGES_V6 = [int(IPv6Address(text)) for text in EDGES_V6_TEXT.split()]


def near(edges: list[int], bits: int) -> st.SearchStrategy[int]:
    """Numbers around the edges, and any others."""
    close = st.builds(lambda edge, step: (edge + step) % 2**bits, st.sampled_from(edges), st.integers(-3, 3))
    return st.one_of(close, st.integers(0, 2**bits - 1))


ipv4 = near(EDGES_V4, 32).map(IPv4Address)
mapped = st.builds(
    lambda prefix, address: IPv6Address(int(IPv6Address(prefix)) + int(address)),
    st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"]),
    ipv4,
)
ipv6 = st.one_of(near(EDGES_V6, 128).map(IPv6Address), mapped)
addresses = st.one_of(ipv4, ipv6)


def network_around(address: Address, length: float) -> Network:
    bits = len(address.packed) * 8
    kind = IPv4Network if isinstance(address, IPv4Address) else IPv6Network
    return kind((int(address), round(length * bits)), strict=False)


networks = st.builds(network_around, addresses, st.floats(0, 1))


@given(addresses)
def test_exactly_the_public_addresses_may_be_called(address):
    assert is_allowed_address(address) == model(address, [])


@given(addresses, st.lists(networks, max_size=3))
def test_allowed_networks_open_exactly_what_they_say(address, opened):
    assert is_allowed_address(address, opened) == model(address, opened)


@given(st.data())
def test_an_address_in_an_allowed_network_may_be_called_and_its_neighbours_only_if_public(data):
    network = data.draw(networks)
    first, last = int(network[0]), int(network[-1])
    kind = type(network[0])
    for number in (first - 1, first, last, last + 1):
        if 0 <= number < 2 ** (len(network[0].packed) * 8):
            address = kind(number)
            assert is_allowed_address(address, [network]) == model(address, [network])


@given(addresses)
def test_no_network_of_one_version_opens_the_other(address):
    everything = IPv6Network("::/0") if isinstance(inner(address), IPv4Address) else IPv4Network("0.0.0.0/0")
    assert is_allowed_address(address, [everything]) == model(address, [])


@given(st.integers(0, 255), st.sampled_from("0123456789"))
def test_a_zone_makes_every_ipv6_address_an_inner_one(number, zone):
    address = IPv6Address(f"2606:4700::{number:x}%{zone}")
    assert not is_allowed_address(address)
    assert not is_allowed_address(address, [IPv6Network("::/0")])


NUMERIC = st.text("0123456789abcdefxX.", min_size=1, max_size=24)


@given(st.one_of(NUMERIC, ipv4.map(str), st.builds("{}.{}".format, NUMERIC, st.integers(0, 2**32 - 1))))
def test_whatever_the_c_library_reads_as_an_address_is_taken_only_as_a_public_dotted_quad(host):
    try:
        read = socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return
    try:
        check_url(f"http://{host}/")
    except RefusedURL:
        assert host != read or not model(ip_address(read), [])
    else:
        assert host == read
        assert model(ip_address(read), [])


@given(addresses, st.lists(networks, max_size=2))
def test_a_literal_is_stored_exactly_when_it_may_be_called(address, opened):
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    try:
        check_url(f"https://{host}/", opened)
    except RefusedURL:
        assert not model(address, opened)
    else:
        assert model(address, opened)


@given(st.integers(-1, 70_000))
def test_a_port_is_stored_exactly_when_it_may_be_called(port):
    try:
        check_url(f"https://example.com:{port}/")
    except RefusedURL:
        assert not 0 <= port <= 65_535 or not is_allowed_port(port)
    else:
        assert is_allowed_port(port)


@pytest.mark.parametrize(
    "address", [IPv4Address(number) for number in EDGES_V4] + [IPv6Address(n) for n in EDGES_V6]
)
def test_the_edges_of_each_range_are_judged_as_the_model_judges_them(address):
    for step in (-1, 0, 1):
        number = (int(address) + step) % 2 ** (len(address.packed) * 8)
        assert is_allowed_address(type(address)(number)) == model(type(address)(number), [])
