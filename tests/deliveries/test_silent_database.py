"""No call waits long for a PostgreSQL that takes what it is sent and says nothing."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client, RequestFactory

from deliveries import readiness, sql
from tests.expected import problem
from tests.faults.loop import LoopThread
from tests.faults.proxy import Mode, Proxy
from tests.staff import operator_client

pytestmark = pytest.mark.django_db(transaction=True)

UNAVAILABLE = problem(503, "unavailable", "The service cannot store anything right now. Try again.")

# Two seconds, and what a busy machine adds. Two waits one after the other take four.
REFUSAL_SECONDS = 3.5


@pytest.fixture
def proxy(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that this thread's connection to the database goes through."""
    thread = LoopThread()
    made = Proxy(thread, _database_address())
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        patch.setitem(connection.settings_dict, "PORT", made.port)
        yield made
        made.heal()
        connection.close()
    made.close()
    thread.stop()


def _database_address() -> Path | tuple[str, int]:
    host, port = connection.settings_dict["HOST"], int(connection.settings_dict["PORT"] or 5432)
    return Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host or "127.0.0.1", port)


@pytest.fixture
def call(client_with_key: Any, make_subscription: Callable[..., Any]) -> Callable[[str], Any]:
    """Make a call of this kind, as a thread of `web` that has made others before."""
    subscription, staff = make_subscription(), operator_client()
    client_with_key.get("/requests")
    event = {"event_type": "invoice.paid", "body": {}}
    calls: dict[str, Callable[[], Any]] = {
        "list": lambda: client_with_key.get("/requests"),
        "batch": lambda: client_with_key.post("/events/batch", {"events": [event]}, "json"),
        "change": lambda: client_with_key.patch(
            f"/subscriptions/{subscription.id}", {"description": "new"}, "json"
        ),
        "ready": lambda: client_with_key.get("/ready"),
        "console": lambda: staff.get("/admin/"),
        "action": lambda: staff.post("/admin/deliveries/webhookrequest/", {"action": "replay"}),
        "login": lambda: Client().post("/admin/login/", {"username": "ada", "password": "a guess"}),
    }

    def make(kind: str) -> Any:
        connection.close_if_unusable_or_obsolete()  # as Django does before each request, but for its test clients
        return calls[kind]()

    return make


def assert_refused(make_call: Callable[[], Any]) -> None:
    started_at = time.monotonic()
    answer = make_call()
    seconds = time.monotonic() - started_at
    assert answer.status_code == 503
    if "database" not in answer.json():  # /ready tells in words of its own
        assert answer.json() | {"request_id": UNAVAILABLE["request_id"]} == UNAVAILABLE
        assert answer.headers["Retry-After"] == "2"
    assert seconds < REFUSAL_SECONDS


@pytest.mark.parametrize("kind", ["list", "batch", "ready", "console"])
def test_a_call_is_refused_when_the_connection_has_gone_silent(
    proxy: Proxy, call: Callable[[str], Any], kind: str
):
    proxy.set(Mode.BLACKHOLE)
    assert_refused(lambda: call(kind))
    proxy.heal()
    assert call("list").status_code == 200


def test_a_call_goes_on_with_a_new_connection_when_its_own_was_cut(proxy: Proxy, call: Callable[[str], Any]):
    proxy.set(Mode.RESET)
    proxy.heal()
    assert call("list").status_code == 200


@pytest.mark.parametrize("kind", ["list", "batch", "console"])
def test_a_call_is_refused_when_a_new_connection_gets_no_answer(
    proxy: Proxy, call: Callable[[str], Any], kind: str
):
    connection.close()
    proxy.set(Mode.BLACKHOLE)
    assert_refused(lambda: call(kind))


def test_a_call_is_refused_when_nobody_takes_its_connection(call: Callable[[str], Any], monkeypatch):
    with (
        socket.socket() as full,
        socket.socket() as first,
        socket.socket() as second,
        monkeypatch.context() as patch,
    ):
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        connection.close()
        patch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        patch.setitem(connection.settings_dict, "PORT", full.getsockname()[1])
        assert_refused(lambda: call("list"))


@pytest.mark.parametrize(
    ("kind", "beginning"),
    [
        ("list", "SELECT set_config"),
        ("console", "SELECT"),
        ("action", "SELECT"),
        ("login", "SELECT"),
        ("change", 'UPDATE "subscriptions"'),
        ("change", "COMMIT"),
    ],
)
def test_a_call_is_refused_when_the_database_falls_silent_in_the_middle(
    proxy: Proxy, call: Callable[[str], Any], kind: str, beginning: str
):
    def fall_silent(execute: Callable[..., Any], statement: str, *rest: Any) -> Any:
        if statement.startswith(beginning):
            proxy.set(Mode.BLACKHOLE)
        return execute(statement, *rest)

    with connection.execute_wrapper(fall_silent):
        assert_refused(lambda: call(kind))
    assert proxy.mode == Mode.BLACKHOLE


def _sleep(request: Any) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.5)")
    return HttpResponse()


def _sleep_within_a_longer_deadline(request: Any) -> HttpResponse:
    with sql.deadline(20):
        return _sleep(request)


@pytest.mark.parametrize(
    ("method", "path", "work"),
    [
        ("POST", "/admin/deliveries/webhookrequest/", _sleep),
        ("POST", "/events/batch", _sleep_within_a_longer_deadline),
    ],
)
def test_what_may_take_long_is_left_its_time(
    monkeypatch, method: str, path: str, work: Callable[..., HttpResponse]
):
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.1)
    request = RequestFactory().generic(method, path)
    request._cached_user = User()  # as Django does with whoever is logged in
    assert readiness.DatabaseDeadlineMiddleware(work)(request).status_code == 200


@pytest.mark.parametrize("path", ["/requests", "/admin/deliveries/webhookrequest/"])
def test_what_is_looked_at_is_not(monkeypatch, path: str):
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.1)
    with pytest.raises(OperationalError):
        readiness.DatabaseDeadlineMiddleware(_sleep)(RequestFactory().get(path))
    connection.close()
