"""Which addresses may be called: the edges of each range, and IPv4 in all its forms inside IPv6."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import is_allowed_address, parse_networks

REFUSED_ADDRESSES = [
    # IPv4: the first and the last of each range that is not public.
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",  # a cloud's metadata service inside the carriers' range
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
    # IPv6: all that is not 2000::/3, and the special parts of it.
    "::",
    "::1",
    "::2",
    "::127.0.0.1",  # IPv4-compatible
    "::8.8.8.8",
    "::ffff:0:7f00:1",  # SIIT
    "::ffff:0:808:808",
    "64:ff9b:1::1",  # NAT64 of one's own network
    "64:ff9b:1::808:808",
    "100::1",
    "1fff:ffff::1",
    "2001::1",
    "2001:0:53aa:64c::1",  # Teredo
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:808:808::1",
    "2620:4f:8000::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    # IPv4 inside IPv6 that networks translate.
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::10.0.0.1",
    # A zone makes an address local, whatever it is.
    "2606:4700:4700::1111%eth0",
]

ALLOWED_ADDRESSES = [
    "1.0.0.0",
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2620:4f:8001::1",
    "3ffe:ffff::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("text", REFUSED_ADDRESSES)
def test_it_refuses_an_address_that_is_not_public(text):
    assert not is_allowed_address(ip_address(text))


@pytest.mark.parametrize("text", ALLOWED_ADDRESSES)
def test_it_allows_a_public_address(text):
    assert is_allowed_address(ip_address(text))


@pytest.mark.parametrize(
    ("networks", "text", "expected"),
    [
        (["127.0.0.0/8"], "127.0.0.1", True),
        (["127.0.0.0/8"], "::ffff:127.0.0.1", True),
        (["127.0.0.0/8"], "64:ff9b::127.0.0.1", True),
        (["127.0.0.0/8"], "::127.0.0.1", False),
        (["127.0.0.0/8"], "::1", False),
        (["127.0.0.0/8"], "10.0.0.1", False),
        (["::1/128"], "::1", True),
        (["::1/128"], "127.0.0.1", False),
        (["::/0"], "127.0.0.1", False),
        (["::/0"], "::ffff:127.0.0.1", False),
        (["::/0"], "fe80::1%lo", False),
        (["10.1.2.0/24"], "10.1.2.255", True),
        (["10.1.2.0/24"], "10.1.3.0", False),
        (["10.1.2.0/24"], "8.8.8.8", True),
        (["fd00::/8", "10.0.0.0/8"], "fd12::1", True),
    ],
)
def test_it_opens_exactly_the_networks_that_the_operator_names(networks, text, expected):
    assert is_allowed_address(ip_address(text), parse_networks(networks)) is expected


@given(st.ip_addresses(v=4))
def test_it_judges_ipv4_inside_ipv6_as_it_judges_the_ipv4_address(address):
    verdict = is_allowed_address(address)
    for prefix in ("::ffff:", "64:ff9b::"):
        assert is_allowed_address(IPv6Address(f"{prefix}{address}")) is verdict


@given(st.ip_addresses())
def test_it_never_allows_what_python_knows_to_be_local(address):
    if isinstance(address, IPv6Address) and str(address).startswith(("::ffff:", "64:ff9b::")):
        address = IPv4Address(int(address) & 0xFFFF_FFFF)
    kinds = ("loopback", "private", "link_local", "multicast", "reserved", "unspecified")
    if is_allowed_address(address):
        assert {kind for kind in kinds if getattr(address, f"is_{kind}")} == set()


@pytest.mark.parametrize("texts", [["nonsense"], ["10.0.0.1/8"], ["10.0.0.0/33"], [""]])
def test_it_refuses_networks_that_are_none(texts):
    with pytest.raises(ValueError):
        parse_networks(texts)
