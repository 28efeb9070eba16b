"""Which URLs and addresses may be called: every notation that is known to slip through elsewhere."""

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import RefusedURL, check_url, is_allowed_address, parse_networks

LOOPBACK = parse_networks(["127.0.0.0/8", "::1/128"])

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


@given(st.ip_addresses(v=4))
def test_it_allows_a_literal_in_a_url_exactly_when_its_address_is_allowed(address):
    if is_allowed_address(address):
        check_url(f"https://{address}/")
        return
    with pytest.raises(RefusedURL):
        check_url(f"https://{address}/")


def dotted(number: int) -> str:
    return str(IPv4Address(number))


# Ways to write an IPv4 address that some resolver understands and none should be given.
ODD_NOTATIONS = [
    lambda number: str(number),
    lambda number: f"0x{number:x}",
    lambda number: f"0X{number:08X}",
    lambda number: f"0{number:o}",
    lambda number: f"00000000{dotted(number)}",
    lambda number: f"{number >> 24}.{number & 0xFFFFFF}",
    lambda number: f"{number >> 24}.{number >> 16 & 0xFF}.{number & 0xFFFF}",
    lambda number: ".".join(f"0{int(part):03o}" for part in dotted(number).split(".")),
    lambda number: ".".join(f"0x{int(part):x}" for part in dotted(number).split(".")),
    lambda number: ".".join(f"{int(part):04d}" for part in dotted(number).split(".")),
    lambda number: dotted(number) + ".",
    lambda number: dotted(number) + ".0x1",
]


@given(st.ip_addresses(v=4), st.sampled_from(ODD_NOTATIONS))
def test_it_refuses_every_odd_notation_even_of_a_public_address(address, write):
    with pytest.raises(RefusedURL):
        check_url(f"http://{write(int(address))}/")


@given(st.text(max_size=60))
def test_it_answers_any_text_with_a_verdict(text):
    for url in (text, f"http://{text}", f"http://{text}/", f"https://example.com:{text}"):
        with contextlib.suppress(RefusedURL):
            check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com/",
        "HTTPS://EXAMPLE.COM/Hook",
        "https://example.com./",
        "https://example.com:443/hook?key=value&more=%20",
        "http://example.com:80/",
        "http://example.com:8080/",
        "https://example.com:65535/",
        "https://a-b.c_d.example.co.uk/",
        "https://xn--mnchen-3ya.example/",
        "https://1.example/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:8443/",
        "https://[::ffff:8.8.8.8]/",
        "https://" + "a" * 63 + ".example/",
        "https://example.com/" + "x" * 2028,
        "https://example.com/@user",
        "https://notlocalhost.example/",
        "https://mylocal.example/",
    ],
)
def test_it_takes_a_public_url(url):
    check_url(url)


NOT_A_URL = "This is not a URL."
BAD_CHARACTER = (
    "The URL has a space, a backslash, a control character or one outside ASCII. "
    "Write a non-ASCII host name in its xn-- form and percent-encode the rest."
)
BAD_SCHEME = "The URL must begin with http:// or https://."
NO_HOST = "The URL has no host."
USER_INFO = "The URL must not contain a user name or password."
FRAGMENT = "The URL must not have a fragment (#…)."
NOT_A_NAME = "The host is not a valid name."
ODD_NOTATION = "The host looks like an address in an odd notation: write it as four decimal numbers."
LOCAL_NAME = "The host is a local name: only hosts on the public internet may be called."
NOT_AN_ADDRESS = "The host is not a valid address."
REFUSED_ADDRESS = "The host is an address that may not be called: only public ones may."


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.com/" + "x" * 2029, "The URL is longer than 2048 characters."),
        # Schemes.
        ("", BAD_SCHEME),
        ("example.com/hook", BAD_SCHEME),
        ("//example.com/hook", BAD_SCHEME),
        ("ftp://example.com/", BAD_SCHEME),
        ("file:///etc/passwd", BAD_SCHEME),
        ("gopher://example.com/_x", BAD_SCHEME),
        ("unix:/run/docker.sock", BAD_SCHEME),
        ("http+unix://%2Frun%2Fdocker.sock/", BAD_SCHEME),
        ("javascript:alert(1)", BAD_SCHEME),
        ("httpss://example.com/", BAD_SCHEME),
        # No host, no name.
        ("http://", NO_HOST),
        ("https:///hook", NO_HOST),
        ("https:example.com", NO_HOST),
        ("http://:8080/", NO_HOST),
        ("https://?x", NO_HOST),
        ("https://.example.com/", NOT_A_NAME),
        ("https://example..com/", NOT_A_NAME),
        ("https://example.com../", NOT_A_NAME),
        ("https://-example.com/", NOT_A_NAME),
        ("https://example-.com/", NOT_A_NAME),
        ("https://" + "a" * 64 + ".example/", NOT_A_NAME),
        ("https://" + ".".join(["a" * 63] * 4) + "/", NOT_A_NAME),
        ("https://exa%6dple.com/", NOT_A_NAME),
        ("https://127.0.0.1%00.example.com/", NOT_A_NAME),
        ("https://exa*mple.com/", NOT_A_NAME),
        ("https://a.example;b.example/", NOT_A_NAME),
        # Characters that parsers disagree about.
        ("https://example.com/a b", BAD_CHARACTER),
        (" https://example.com/", BAD_CHARACTER),
        ("https://example.com/\n", BAD_CHARACTER),
        ("https://example.com/\r\nX-Header: 1", BAD_CHARACTER),
        ("https://exam\tple.com/", BAD_CHARACTER),
        ("https://127.0.0.1\0.example.com/", BAD_CHARACTER),
        ("https://example.com\\@127.0.0.1/", BAD_CHARACTER),
        ("http:\\\\example.com\\", BAD_CHARACTER),
        ("https://example.com/\x7f", BAD_CHARACTER),
        ("https://münchen.example/", BAD_CHARACTER),
        ("https://①②⑦.⓪.⓪.①/", BAD_CHARACTER),
        ("https://127。0。0。1/", BAD_CHARACTER),
        ("https://１２７.0.0.1/", BAD_CHARACTER),
        ("https://example.com/\u202e", BAD_CHARACTER),
        # Credentials and fragments.
        ("https://user@example.com/", USER_INFO),
        ("https://user:password@example.com/", USER_INFO),
        ("https://@example.com/", USER_INFO),
        ("https://example.com@127.0.0.1/", USER_INFO),
        ("https://example.com/#part", FRAGMENT),
        ("https://example.com/#", FRAGMENT),
        ("https://example.com#@127.0.0.1/", FRAGMENT),
        # Ports.
        ("https://example.com:x/", NOT_A_URL),
        ("https://example.com:65536/", NOT_A_URL),
        ("https://example.com:-1/", NOT_A_URL),
        ("https://[::1/", NOT_AN_ADDRESS),
        # Addresses in the usual notations.
        ("http://127.0.0.1/", REFUSED_ADDRESS),
        ("http://127.0.0.1:8000/", REFUSED_ADDRESS),
        ("http://0.0.0.0/", REFUSED_ADDRESS),
        ("http://10.0.0.1/", REFUSED_ADDRESS),
        ("http://169.254.169.254/latest/meta-data/", REFUSED_ADDRESS),
        ("http://168.63.129.16/", REFUSED_ADDRESS),
        ("http://[::]/", REFUSED_ADDRESS),
        ("http://[::1]/", REFUSED_ADDRESS),
        ("http://[0:0:0:0:0:0:0:1]/", REFUSED_ADDRESS),
        ("http://[::ffff:127.0.0.1]/", REFUSED_ADDRESS),
        ("http://[::ffff:7f00:1]/", REFUSED_ADDRESS),
        ("http://[::127.0.0.1]/", REFUSED_ADDRESS),
        ("http://[64:ff9b::7f00:1]/", REFUSED_ADDRESS),
        ("http://[2002:7f00:1::]/", REFUSED_ADDRESS),
        ("http://[fd00:ec2::254]/", REFUSED_ADDRESS),
        ("http://[fe80::1]/", REFUSED_ADDRESS),
        ("http://[fe80::1%25eth0]/", REFUSED_ADDRESS),
        ("http://[::1%25lo]/", REFUSED_ADDRESS),
        ("http://[2606:4700:4700::1111].example.com/", NOT_AN_ADDRESS),
        ("http://[2606:4700:4700::1111]example.com:80/", NOT_AN_ADDRESS),
        # Addresses in the notations that only resolvers understand.
        ("http://2130706433/", ODD_NOTATION),
        ("http://0/", ODD_NOTATION),
        ("http://0x7f000001/", ODD_NOTATION),
        ("http://0X7F000001/", ODD_NOTATION),
        ("http://0x/", ODD_NOTATION),
        ("http://0x7f.1/", ODD_NOTATION),
        ("http://0x7f.0.0.1/", ODD_NOTATION),
        ("http://017700000001/", ODD_NOTATION),
        ("http://127.1/", ODD_NOTATION),
        ("http://127.0.1/", ODD_NOTATION),
        ("http://127.0.0.1./", ODD_NOTATION),
        ("http://127.0.0.0x1/", ODD_NOTATION),
        ("http://00000000127.0.0.1/", ODD_NOTATION),
        ("http://1.2.3.4.5/", ODD_NOTATION),
        ("http://example.127/", ODD_NOTATION),
        ("http://0177.0.0.1/", ODD_NOTATION),
        ("http://010.0.0.1/", NOT_AN_ADDRESS),
        ("http://127.0.0.01/", NOT_AN_ADDRESS),
        ("http://256.0.0.1/", NOT_AN_ADDRESS),
        # Names that lead home.
        ("http://localhost/", LOCAL_NAME),
        ("http://LOCALHOST/", LOCAL_NAME),
        ("http://localhost./", LOCAL_NAME),
        ("http://localhost:8000/", LOCAL_NAME),
        ("http://a.localhost/", LOCAL_NAME),
        ("http://localhost.localdomain/", LOCAL_NAME),
        ("http://printer.local/", LOCAL_NAME),
        ("http://metadata.google.internal/", LOCAL_NAME),
        ("http://METADATA.google.INTERNAL./", LOCAL_NAME),
        ("http://api.default.svc/", LOCAL_NAME),
        ("http://api.default.svc.cluster.local/", LOCAL_NAME),
        ("http://router.home.arpa/", LOCAL_NAME),
        ("http://intranet/", LOCAL_NAME),
        ("http://postgres:8000/", LOCAL_NAME),
    ],
)
def test_it_says_why_a_url_may_not_be_stored(url, reason):
    with pytest.raises(RefusedURL) as refused:
        check_url(url)
    assert str(refused.value) == reason


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1.5]", "[127.0.0.1]", "[v1.x]", "[]"])
def test_it_refuses_brackets_around_anything_but_an_ipv6_address(host):
    with pytest.raises(RefusedURL):
        check_url(f"http://{host}/")


@pytest.mark.parametrize(
    "port", [0, 1, 22, 25, 79, 81, 442, 444, 1023, 1433, 2375, 3306, 5432, 6379, 9200, 11211, 27017]
)
def test_it_refuses_ports_where_no_web_server_is(port):
    with pytest.raises(RefusedURL) as refused:
        check_url(f"https://example.com:{port}/")
    assert str(refused.value) == f"Port {port} may not be called: use 80, 443 or a free port from 1024 on."


@pytest.mark.parametrize(
    "url", ["http://localhost:9000/", "http://127.0.0.1:9000/", "http://[::1]:9000/", "http://LOCALHOST./"]
)
def test_it_takes_loopback_where_the_operator_allows_it(url):
    check_url(url, LOOPBACK)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://a.localhost/", "http://intranet/", "http://2130706433/", "http://127.1/"]
)
def test_it_takes_no_other_local_host_where_loopback_is_allowed(url):
    with pytest.raises(RefusedURL):
        check_url(url, LOOPBACK)


@pytest.mark.parametrize("texts", [["nonsense"], ["10.0.0.1/8"], ["10.0.0.0/33"], [""]])
def test_it_refuses_networks_that_are_none(texts):
    with pytest.raises(ValueError):
        parse_networks(texts)
