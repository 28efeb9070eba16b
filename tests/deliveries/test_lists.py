"""What every list has in common: a limit of time, and what it says of parameters that make no sense."""

import psycopg
import pytest
from django.db import connection

from subscriptions import lists
from tests.expected import REQUEST_ID, invalid, problem

pytestmark = pytest.mark.django_db

# Each list, and the table that it reads its page from.
LISTS = {
    "/subscriptions": "subscriptions",
    "/events": "events",
    "/requests": "webhook_requests",
    "/operations": "operations",
    "/event-types": "event_types",
}
TOO_SLOW = problem(
    422,
    "too_slow",
    "This took too long and was given up. Ask for less: one subscription, or a shorter time.",
)


@pytest.fixture
def get(client_with_key):
    return lambda path, **query: client_with_key.get(path, query, headers={"Request-Id": REQUEST_ID})


def test_it_knows_every_list(get):
    paths = get("/openapi.json").json()["paths"]
    paged = {
        path
        for path, found in paths.items()
        if "cursor" in {each["name"] for each in found.get("get", {}).get("parameters", [])}
    }
    assert paged == set(LISTS)


@pytest.mark.parametrize("path", LISTS)
def test_it_lists_nothing_where_there_is_nothing(get, path):
    answer = get(path)
    assert (answer.status_code, answer.json()) == (200, {"next": None, "previous": None, "results": []})


@pytest.mark.parametrize("path", LISTS)
def test_it_gives_up_on_a_list_that_takes_too_long(get, monkeypatch, path):
    with (
        monkeypatch.context() as patch,
        psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other,
    ):
        patch.setattr(lists, "TIMEOUT_MS", 50)
        other.execute(f"LOCK TABLE {LISTS[path]} IN ACCESS EXCLUSIVE MODE")
        answer = get(path)
        other.rollback()
    assert (answer.status_code, answer.json()) == (422, TOO_SLOW)
    assert get(path).status_code == 200


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"limit": "0"}, ("/limit", "min_value", "Ensure this value is greater than or equal to 1.")),
        ({"limit": "251"}, ("/limit", "max_value", "Ensure this value is less than or equal to 250.")),
        ({"limit": "many"}, ("/limit", "invalid", "A valid integer is required.")),
        ({"limit": ["1", "2"]}, ("/limit", "repeated", "Give this parameter once.")),
        ({"cursor": "x"}, ("/cursor", "invalid_cursor", "This cursor is not one of ours.")),
        ({"cursor": ""}, ("/cursor", "blank", "This field may not be blank.")),
        ({"colour": "red"}, ("/colour", "unknown", "This parameter is not known.")),
    ],
)
def test_it_refuses_parameters_that_make_no_sense(get, path, query, error):
    answer = get(path, **query)
    assert (answer.status_code, answer.json()) == (400, invalid(error))
