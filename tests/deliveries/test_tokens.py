"""Access tokens as they are read from a token endpoint's answer. Pure."""

import pytest

from deliveries import tokens
from deliveries.outcome import Outcome
from tests.deliveries.issuing import granted


@pytest.mark.parametrize(
    ("expires_in", "lasts"),
    [
        (3600, 3570.0),
        ("3600", 3570.0),
        (61, 31.0),
        (60, 30.0),
        (10, 5.0),
        (0, 0.0),
        (-5, 0.0),
        (1e9, 86400.0),
        (None, 270.0),
    ],
)
def test_a_token_is_used_until_shortly_before_it_expires(expires_in: object, lasts: float) -> None:
    body = granted(expires_in=expires_in).partition(b"\r\n\r\n")[2]
    token = tokens.read(Outcome(error=None, status_code=200, response_ms=1, response_body=body))
    assert token is not None
    assert (token.text, token.lasts_seconds) == ("token-1", lasts)


def test_no_token_is_in_what_is_printed_of_it() -> None:
    token = tokens.read(
        Outcome(error=None, status_code=200, response_ms=1, response_body=granted().partition(b"\r\n\r\n")[2])
    )
    assert "token-1" not in repr(token)
