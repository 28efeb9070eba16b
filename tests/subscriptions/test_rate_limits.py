"""How often an API key may call, also while Redis is away."""

import socket
import time

import pytest
import redis
from django.test import Client

from config import embedded
from subscriptions import rate_limits
from tests.conftest import ingest_body, patient, signed_headers
from tests.expected import REQUEST_ID, problem
from tests.threads import at_once

TOO_MANY = problem(
    429, "rate_limited", "There may be no more calls with this API key than 3 per 1 hour. Try again later."
)


@pytest.fixture(autouse=True)
def limit(settings, patient_redis):
    settings.API_RATE_LIMIT = "3/hour"


def statuses(client, count):
    return [client.get("/subscriptions").status_code for _ in range(count)]


def test_it_refuses_what_a_key_calls_beyond_its_limit(make_client):
    client = make_client()
    assert statuses(client, 4) == [200, 200, 200, 429]
    answer = client.get("/subscriptions", headers={"Request-Id": REQUEST_ID})
    assert answer.json() == TOO_MANY
    assert answer["Content-Type"] == "application/problem+json"
    wait = answer["Retry-After"]
    assert 0 < int(wait) <= 3600
    assert answer["RateLimit-Policy"] == '"default";q=3;w=3600'
    assert answer["RateLimit"] == f'"default";r=0;t={wait}'


def test_it_counts_each_key_by_itself(make_client):
    assert statuses(make_client(), 4) == [200, 200, 200, 429]
    assert statuses(make_client(), 4) == [200, 200, 200, 429]


def test_it_counts_calls_to_everything_together(make_client, make_subscription):
    client = make_client()
    path = f"/subscriptions/{make_subscription().id}"
    answers = [
        client.get(path),
        client.post(f"{path}/pause"),
        client.patch(path, {}, format="json"),
        client.get(path),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_it_changes_nothing_for_a_call_that_it_refuses(make_client, make_subscription):
    client, subscription = make_client(), make_subscription()
    statuses(client, 3)
    assert client.post(f"/subscriptions/{subscription.id}/pause").status_code == 429
    subscription.refresh_from_db()
    assert subscription.status == "active"


@pytest.mark.django_db(transaction=True)
def test_it_is_exact_for_many_calls_at_once(make_client):
    client = make_client()
    found = at_once(8, lambda: statuses(client, 1)[0])
    assert sorted(found) == [200, 200, 200, 429, 429, 429, 429, 429]


def test_it_limits_neither_ingest_calls_nor_development(make_subscription, settings):
    settings.DEBUG = True
    body = ingest_body(make_subscription().id)
    client = Client()
    assert statuses(client, 5) == [200] * 5
    posted = [client.generic("POST", "/ingest", body, headers=signed_headers(body)).status_code for _ in range(5)]
    assert posted == [202] * 5


def test_it_has_no_limit_where_none_is_set(make_client, settings):
    settings.API_RATE_LIMIT = ""
    assert statuses(make_client(), 5) == [200] * 5


def test_it_refuses_nobody_while_redis_is_away(make_client, no_redis):
    assert statuses(make_client(), 5) == [200] * 5


@pytest.mark.parametrize("text", ["inf", "3.5", "9" * 400])
def test_it_refuses_nobody_by_what_is_no_count(make_client, settings, monkeypatch, text):
    monkeypatch.setattr(rate_limits, "REDIS_AWAY_SECONDS", 0.0)
    client = make_client()
    assert statuses(client, 1) == [200]
    with redis.Redis.from_url(settings.REDIS_URL) as connection:
        [key] = connection.keys("LIMITS:*")
        connection.set(key, text, ex=2 * 3600)
        assert statuses(client, 5) == [200] * 5
        connection.delete(key)
    assert statuses(client, 4) == [200, 200, 200, 429]


def test_it_waits_once_for_a_redis_that_hangs(make_client, settings, monkeypatch):
    monkeypatch.setattr(rate_limits, "REDIS_AWAY_SECONDS", 60.0)
    client = make_client()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert statuses(client, 1) == [200]
        away_until = rate_limits._away_until[settings.REDIS_URL]
        assert away_until > time.monotonic()
        assert statuses(client, 5) == [200] * 5
        # Nothing was tried again, so that nothing was waited for.
        assert rate_limits._away_until[settings.REDIS_URL] == away_until


def test_it_counts_again_when_redis_is_back(make_client, settings, monkeypatch, open_folder):
    monkeypatch.setattr(rate_limits, "REDIS_AWAY_SECONDS", 0.0)
    settings.REDIS_URL = patient(embedded.redis_url(open_folder))
    client = make_client()
    assert statuses(client, 5) == [200] * 5
    assert settings.REDIS_URL in rate_limits._away_until
    server = embedded.start_redis(open_folder)
    try:
        assert statuses(client, 4) == [200, 200, 200, 429]
    finally:
        server.stop()
    assert settings.REDIS_URL not in rate_limits._away_until


def test_it_counts_again_when_the_first_call_after_that_is_one_too_many(
    make_client, settings, monkeypatch, open_folder
):
    monkeypatch.setattr(rate_limits, "REDIS_AWAY_SECONDS", 0.0)
    settings.REDIS_URL = patient(embedded.redis_url(open_folder))
    client = make_client()
    server = embedded.start_redis(open_folder)
    assert statuses(client, 3) == [200, 200, 200]
    server.stop()
    assert statuses(client, 1) == [200]
    server = embedded.start_redis(open_folder)
    try:
        assert statuses(client, 1) == [429]
    finally:
        server.stop()
    assert settings.REDIS_URL not in rate_limits._away_until
