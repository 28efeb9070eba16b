"""The admin's lists stay fast, however much history there is."""

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import WebhookRequest
from subscriptions.models import Subscription
from tests import history
from tests.deliveries.admin.pages import ATTEMPTS, EVENTS, LISTS, REQUESTS, replay, shown
from tests.staff import messages_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("url", "queries"), [(REQUESTS, 6), (ATTEMPTS, 6), (EVENTS, 6)])
def test_it_lists_any_number_of_rows_in_as_many_queries_without_counting_the_table(
    operator, make_subscription, make_settled, make_attempt, make_event, url, queries
):
    for _ in range(3):
        make_event()
        make_attempt(make_settled(make_subscription()))
    with CaptureQueriesContext(connection) as captured:
        content = operator.get(url).content.decode()
    # Session, user, one-time code, time limit, bounded count, page.
    assert len([query for query in captured if "SAVEPOINT" not in query["sql"]]) == queries
    counts = [query["sql"] for query in captured if "COUNT(" in query["sql"]]
    assert len(counts) == 1
    assert counts[0].endswith("LIMIT 10001) subquery")
    assert "3 in all." in content
    pages = [query["sql"] for query in captured if "ORDER BY" in query["sql"]]
    assert len(pages) == 1
    for large in ('"payload"', '"response_body"', '"response_headers"'):
        assert large not in pages[0]


@pytest.mark.parametrize("url", LISTS)
def test_it_counts_no_facets(operator, url):
    with CaptureQueriesContext(connection) as captured:
        operator.get(url, {"_facets": "True"})
    assert len([query for query in captured if "COUNT(" in query["sql"]]) == 1


def test_it_lists_only_the_newest_of_a_huge_table(operator):
    history.fill(10_001, size=10)
    response = operator.get(REQUESTS)
    assert "The newest 10000 are listed." in response.content.decode()
    assert response.context["cl"].result_count == 10_000
    assert response.context["cl"].result_list[0] == WebhookRequest.objects.latest("id")


@pytest.mark.parametrize("url", LISTS)
def test_it_sorts_by_no_column_that_has_no_index(operator, url):
    plain, sorted_by = (operator.get(url, asked).context["cl"].queryset.query for asked in ({}, {"o": "3"}))
    assert sorted_by.order_by == plain.order_by


@pytest.mark.parametrize(
    "fields", [None, {}, {"action": "replay", "_selected_action": "x"}], ids=["GET", "POST", "an action"]
)
def test_it_gives_up_on_a_search_that_takes_too_long(operator, fields):
    url = f"{REQUESTS}?error=dns"
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("LOCK TABLE webhook_requests IN ACCESS EXCLUSIVE MODE")
        response = operator.get(url) if fields is None else operator.post(url, fields)
        other.rollback()
    assert (response.status_code, response.url) == (302, REQUESTS)
    assert messages_of(operator.get(REQUESTS)) == [
        "That search took too long and was given up. Narrow it, to the past hour for instance."
    ]


def test_it_names_no_great_number_of_subscriptions_in_a_search(operator, make_subscription, make_settled):
    row = make_settled(make_subscription("https://receiver.example.com/hook"))
    make_settled(make_subscription("http://receiver.example.com/hook"))
    Subscription.objects.bulk_create(
        Subscription(target_url=f"https://{number}.example.com/", secret=b"", secret_hint="")
        for number in range(1_000)
    )
    with CaptureQueriesContext(connection) as captured:
        assert shown(operator, REQUESTS, q="https://") == [row]
    assert max(len(query["sql"]) for query in captured) < 10_000
    assert shown(operator, REQUESTS, q="https://receiver") == [row]


def test_an_action_may_take_longer_than_a_list(operator, make_subscription, make_settled):
    row = make_settled(make_subscription())
    limits = []

    def note(execute, sql, *arguments):
        if "FOR NO KEY UPDATE" in sql:
            with connection.connection.cursor() as cursor:
                limits.append(cursor.execute("SHOW statement_timeout").fetchone()[0])
        return execute(sql, *arguments)

    with connection.execute_wrapper(note):
        replay(operator, row, confirmed="yes")
    assert limits == ["0"]
