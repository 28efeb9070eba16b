"""Extra headers: RFC 9110 tokens and visible ASCII, and not the ones the service sets."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.headers import (
    FRAMING_NAMES,
    MAX_BYTES,
    MAX_HEADERS,
    SERVICE_NAMES,
    RefusedHeader,
    check_header,
    check_headers,
    is_reserved,
    merged,
)

TOKEN_CHARACTERS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"

NOT_A_NAME = "A header name has letters, digits and !#$%&'*+-.^_`|~ only."
NOT_A_VALUE = "The value of X-A is visible ASCII text, with spaces and tabs inside at most, and not empty."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Team", "billing"),
        ("Authorization", "Bearer abc"),
        ("Cookie", "session=1"),
        ("Accept", "application/json"),
        ("x_under.score~", "a\tb c"),
        ("X-A", '"quoted"; v=1, *'),
        ("X-A", "x" * 6000),
        ("x" * 100, "1"),
    ],
)
def test_it_takes_a_header(name, value):
    check_header(name, value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("", "1", NOT_A_NAME),
        ("X A", "1", NOT_A_NAME),
        ("X-A:", "1", NOT_A_NAME),
        ("X-A\r\nX-B", "1", NOT_A_NAME),
        ("X-A\n", "1", NOT_A_NAME),
        ("X-Ä", "1", NOT_A_NAME),
        ("X-A\0", "1", NOT_A_NAME),
        ("(X)", "1", NOT_A_NAME),
        ("x" * 101, "1", "A header name has at most 100 characters."),
        ("X-A", "", NOT_A_VALUE),
        ("X-A", " ", NOT_A_VALUE),
        ("X-A", " a", NOT_A_VALUE),
        ("X-A", "a\t", NOT_A_VALUE),
        ("X-A", "a\r\nX-B: 1", NOT_A_VALUE),
        ("X-A", "a\n", NOT_A_VALUE),
        ("X-A", "a\r b", NOT_A_VALUE),
        ("X-A", "a\0b", NOT_A_VALUE),
        ("X-A", "a\x7fb", NOT_A_VALUE),
        ("X-A", "é", NOT_A_VALUE),
        ("X-A", "☃", NOT_A_VALUE),
        ("X-A", 1, NOT_A_VALUE),
        ("X-A", None, NOT_A_VALUE),
        ("X-A", ["a"], NOT_A_VALUE),
        ("Content-Type", "text/plain", "The header Content-Type is set by the service."),
        ("HOST", "internal", "The header HOST is set by the service."),
        ("Proxy-Authorization", "Basic x", "The header Proxy-Authorization is set by the service."),
        ("transfer-encoding", "chunked", "The header transfer-encoding is set by the service."),
    ],
)
def test_it_says_why_a_header_may_not_be_sent(name, value, reason):
    with pytest.raises(RefusedHeader) as refused:
        check_header(name, value)
    assert (str(refused.value), refused.value.name) == (reason, name)


@pytest.mark.parametrize("name", sorted(SERVICE_NAMES | FRAMING_NAMES | {"proxy-anything"}))
def test_it_refuses_what_the_service_sets_in_any_case(name):
    for written in (name, name.upper(), name.title()):
        assert is_reserved(written)
        with pytest.raises(RefusedHeader):
            check_header(written, "1")


@given(st.text(max_size=20), st.text(max_size=20))
def test_it_takes_exactly_tokens_and_visible_text(name, value):
    is_name = name != "" and set(name) <= set(TOKEN_CHARACTERS) and not is_reserved(name)
    is_value = (
        value != "" and value == value.strip(" \t") and all(" " <= each <= "~" or each == "\t" for each in value)
    )
    try:
        check_header(name, value)
    except RefusedHeader:
        assert not (is_name and is_value)
    else:
        assert is_name
        assert is_value


@pytest.mark.parametrize(
    ("headers", "reason", "name"),
    [
        (
            {"X-A": "1", "x-a": "2"},
            "The header x-a is there twice: upper and lower case are the same.",
            "x-a",
        ),
        ({f"X-{number}": "1" for number in range(MAX_HEADERS + 1)}, "There are at most 50 headers.", ""),
        ({"X-A": "1" * MAX_BYTES}, "The headers have at most 6144 characters together.", ""),
        ({"X-A": "1", "Host": "x"}, "The header Host is set by the service.", "Host"),
    ],
)
def test_it_says_why_headers_may_not_be_sent_together(headers, reason, name):
    with pytest.raises(RefusedHeader) as refused:
        check_headers(headers)
    assert (str(refused.value), refused.value.name) == (reason, name)


def test_a_refusal_does_not_repeat_the_value():
    with pytest.raises(RefusedHeader) as refused:
        check_headers({"Authorization": "Bearer top secret\r\n"})
    assert "secret" not in str(refused.value)


def test_the_last_group_wins_whatever_the_case():
    groups = [{"X-A": "1", "X-B": "2"}, {"x-a": "3"}, {"X-C": "4", "X-a": "5"}]
    assert merged(*groups) == {"X-a": "5", "X-B": "2", "X-C": "4"}
