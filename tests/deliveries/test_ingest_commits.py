"""Calls of POST /ingest that share a commit, and a database that goes away."""

import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from django.db import DataError, OperationalError, connection, connections

from deliveries import ingestion, sql
from deliveries.models import WebhookRequest
from subscriptions.models import Subscription, new_id
from tests.conftest import ingest_body
from tests.deliveries.ingesting import UNAVAILABLE, assert_refused


@pytest.mark.django_db(transaction=True)
def test_it_stores_each_of_many_calls_at_once_exactly_once(post_ingest, make_subscription):
    subscription = make_subscription()
    threads = 32
    together = threading.Barrier(threads)

    def call(number: int) -> dict[str, str]:
        try:
            together.wait()
            answers = [post_ingest(ingest_body(subscription.id, body=f"[{number},{n}]")) for n in range(4)]
            return {answer.json()["request_id"]: f"[{number},{n}]" for n, answer in enumerate(answers)}
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        answered = dict(chain.from_iterable(answers.items() for answers in pool.map(call, range(threads))))
    stored = {str(request.id): bytes(request.payload).decode() for request in WebhookRequest.objects.all()}
    assert stored == answered
    assert Counter(stored.values()) == Counter(f"[{number},{n}]" for number in range(threads) for n in range(4))


@pytest.mark.django_db(transaction=True)
def test_it_stores_on_a_new_connection_when_the_old_one_was_cut(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [own_process] = cursor.fetchone()
    other = connections.create_connection("default")
    with contextlib.closing(other), other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [own_process])

    assert post_ingest(ingest_body(subscription.id)).status == 202
    assert WebhookRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_cached", [True, False])
def test_it_answers_503_while_the_database_is_away_and_then_202(
    post_ingest, make_subscription, monkeypatch, is_cached
):
    subscription = make_subscription()
    if is_cached:
        Subscription.objects.cached(subscription.id)
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        answer = post_ingest(ingest_body(subscription.id))
    assert_refused(answer, UNAVAILABLE)
    assert answer.headers["Retry-After"] == "2"

    assert post_ingest(ingest_body(subscription.id)).status == 202
    assert WebhookRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_those_that_wait_for_a_commit_are_told_with_it(make_subscription, monkeypatch):
    subscription = make_subscription()
    large = b'"' + b"x" * sql.STATEMENT_BYTES + b'"'  # so that the second is not of the first one's group
    first, second = (ingestion._Row(new_id(), subscription.id, "invoice.paid", large, None) for _ in range(2))
    group_commit = ingestion._GroupCommit()
    group_commit._waiting = [first]
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "HOST", "/nowhere")
        with pytest.raises(OperationalError):
            group_commit.store(second)
    assert isinstance(first.error, OperationalError)
    assert first.done.is_set()
    assert not WebhookRequest.objects.exists()
    group_commit.store(ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", None))
    assert WebhookRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_the_database_does_not_take_of_one_call_is_no_matter_of_those_that_share_its_commit(
    make_subscription,
):
    subscription = make_subscription()
    group_commit = ingestion._GroupCommit()
    refused = ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", '"no \\u0000 in jsonb"')
    taken = ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", None)
    group_commit._waiting = [refused]
    group_commit.store(taken)
    assert taken.is_stored
    assert isinstance(refused.error, DataError)
    assert refused.done.is_set()
    assert [row.id for row in WebhookRequest.objects.all()] == [taken.id]
