"""Which URLs may be called: every notation that is known to slip through elsewhere."""

import contextlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import RefusedURL, check_url, is_allowed_address, parse_networks

LOOPBACK = parse_networks(["127.0.0.0/8", "::1/128"])


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
