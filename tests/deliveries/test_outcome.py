import pytest

from deliveries.outcome import HINTS, ErrorClass, Outcome, error_of_status


@pytest.mark.parametrize(
    ("first", "last", "error"),
    [
        (100, 199, ErrorClass.PROTOCOL),
        (200, 299, None),
        (300, 399, ErrorClass.REDIRECT),
        (400, 499, ErrorClass.HTTP_4XX),
        (500, 599, ErrorClass.HTTP_5XX),
        (600, 999, ErrorClass.PROTOCOL),
    ],
)
def test_it_knows_what_each_status_means(first, last, error):
    assert {error_of_status(status) for status in range(first, last + 1)} == {error}


def test_it_has_a_hint_for_every_error():
    assert set(HINTS) == set(ErrorClass)
    assert all(hint.endswith(".") for hint in HINTS.values())


def test_it_has_the_documented_words_for_what_can_go_wrong():
    assert {str(error) for error in ErrorClass} == {
        "dns",
        "connect",
        "tls",
        "timeout",
        "reset",
        "protocol",
        "http_4xx",
        "http_5xx",
        "redirect",
        "blocked_address",
        "worker_lost",
        "internal",
    }


def test_it_is_a_success_exactly_without_an_error():
    assert Outcome(error=None, status_code=204, response_ms=3).is_success
    assert not any(Outcome(error=error, response_ms=3).is_success for error in ErrorClass)
