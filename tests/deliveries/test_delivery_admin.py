import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deliveries import bulk_runs, history_admin, operations, queue, replay_admin
from deliveries.models import DeliveryAttempt, Event, Operation, WebhookRequest
from subscriptions import read_only_admin
from subscriptions.audit import AuditEntry
from subscriptions.ids import lowest_id_at
from subscriptions.models import new_id
from tests.receiver import Answer
from tests.staff import messages_of, operator_client, staff_client

pytestmark = pytest.mark.django_db

REQUESTS = "/admin/deliveries/webhookrequest/"
ATTEMPTS = "/admin/deliveries/deliveryattempt/"
EVENTS = "/admin/deliveries/event/"
LISTS = (REQUESTS, ATTEMPTS, EVENTS)

HOSTILE = '<script>alert(1)</script><a href="javascript:alert(2)">\u202e'
INERT = r"&lt;script&gt;alert(1)&lt;/script&gt;&lt;a href=&quot;javascript:alert(2)&quot;&gt;\u202e"


@pytest.fixture
def operator(db: None) -> Client:
    return operator_client()


@pytest.fixture
def make_settled(make_request) -> Callable[..., WebhookRequest]:
    """Store a request that is settled: failed, unless another status is given."""

    def make(subscription, status: str = "failed", **fields) -> WebhookRequest:
        fields = {"settled_at": timezone.now(), "next_attempt_at": None, "attempt_count": 1} | fields
        return make_request(subscription, status=status, **fields)

    return make


@pytest.fixture
def make_attempt(db: None) -> Callable[..., DeliveryAttempt]:
    def make(request: WebhookRequest, attempt_number: int = 1, **fields) -> DeliveryAttempt:
        fields = {
            "trigger": "initial",
            "attempted_at": timezone.now(),
            "success": False,
            "status_code": 500,
            "error": "http_5xx",
            "response_ms": 12,
        } | fields
        return DeliveryAttempt.objects.create(
            request=request, subscription_id=request.subscription_id, attempt_number=attempt_number, **fields
        )

    return make


@pytest.fixture
def make_event(db: None) -> Callable[..., Event]:
    def make(payload: bytes = b'{"n": 1}', **fields) -> Event:
        return Event.objects.create(event_type="invoice.paid", payload=payload, **fields)

    return make


def page_of(row: WebhookRequest | DeliveryAttempt | Event) -> str:
    return reverse(f"admin:deliveries_{row._meta.model_name}_change", args=(row.id,))


def shown(client: Client, url: str, **parameters: str) -> list:
    response = client.get(url, parameters)
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def replay(client: Client, *rows: WebhookRequest, url: str = REQUESTS, **fields: str):
    data = {"action": "replay", "_selected_action": [str(row.id) for row in rows]} | fields
    return client.post(url, data, follow=True)


# Who may see and do what


@pytest.mark.parametrize("url", LISTS)
def test_it_asks_an_anonymous_visitor_to_log_in(client, url):
    response = client.get(url)
    assert (response.status_code, response.url) == (302, f"/admin/login/?next={url}")


@pytest.mark.parametrize("url", LISTS)
def test_it_refuses_staff_without_a_permission(url):
    assert staff_client("view_subscription").get(url).status_code == 403


def test_it_adds_changes_and_deletes_nothing(operator, make_subscription, make_settled, make_attempt, make_event):
    request = make_settled(make_subscription())
    for url, row in ((REQUESTS, request), (ATTEMPTS, make_attempt(request)), (EVENTS, make_event())):
        for forbidden in (f"{url}add/", page_of(row), f"{url}{row.id}/delete/"):
            assert operator.post(forbidden, {"post": "yes"}).status_code == 403
        assert "delete_selected" not in operator.get(url).content.decode()


def test_it_hides_attempts_and_replay_from_who_may_only_see_requests(
    make_subscription, make_settled, make_attempt
):
    request = make_settled(make_subscription())
    make_attempt(request)
    client = staff_client("view_webhookrequest")
    content = client.get(page_of(request)).content.decode()
    assert "Its answer may say why" not in content
    assert 'value="Replay"' not in content
    assert "Replay selected" not in client.get(REQUESTS).content.decode()
    replay(client, request, confirmed="yes")
    request.refresh_from_db()
    assert request.status == "failed"


def test_it_needs_to_see_requests_to_replay_them(make_subscription, make_settled):
    request = make_settled(make_subscription())
    client = staff_client("replay_webhookrequest", "view_event")
    assert replay(client, request, confirmed="yes").status_code == 403
    assert client.get(f"{REQUESTS}{request.id}/payload").status_code == 403
    request.refresh_from_db()
    assert request.status == "failed"


# The list of requests


def test_it_lists_requests_newest_first(operator, make_subscription, make_request, make_settled):
    active, paused = make_subscription(description="the active one"), make_subscription(status="paused")
    token = new_id()
    rows = [
        make_request(active),
        make_request(active, attempt_count=1),
        make_request(active, trigger="replay", attempt_count=2),
        make_request(active, lease_token=token, attempt_count=1),
        make_request(paused),
        make_settled(active, "delivered"),
        make_settled(active, error="timeout", attempt_count=6),
    ]
    response = operator.get(REQUESTS)
    assert list(response.context["cl"].result_list) == rows[::-1]
    content = response.content.decode()
    assert re.findall(r'class="field-standing">([^<]*)<', content) == [
        "failed",
        "delivered",
        "pending, held: paused",
        "pending, in flight",
        "pending, replaying",
        "pending, retrying",
        "pending",
    ]
    assert content.count("the active one") == 6
    assert f"{rows[0].next_attempt_at:%Y-%m-%d %H:%M:%S}" in content


def test_it_says_in_words_what_an_open_circuit_holds(operator, make_subscription, make_request):
    make_request(make_subscription(circuit_opened_at=timezone.now()))
    assert "pending, held: circuit open" in operator.get(REQUESTS).content.decode()


def test_it_asks_no_more_for_many_ordered_requests_than_for_two(operator, make_subscription, make_request):
    def count_queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert "pending, held: ordered" in operator.get(REQUESTS).content.decode()
        return len(captured)

    subscription = make_subscription(ordered=True)
    for _ in range(2):
        make_request(subscription)
    few = count_queries()
    for _ in range(20):
        make_request(subscription)
    assert count_queries() == few


def test_it_finds_requests_by_exact_ids_event_type_or_target_url(
    operator, make_subscription, make_request, make_event
):
    one, two = make_subscription("https://one.example.com/hook"), make_subscription("https://two.example.com/")
    first, second = make_request(one), make_request(two, event_type="refund.made")
    event = make_event()
    third = make_request(two, payload=None, event=event, event_type="order.made")
    assert shown(operator, REQUESTS, q=str(first.id)) == [first]
    assert shown(operator, REQUESTS, q=f" {str(second.id).upper()} ") == [second]
    assert shown(operator, REQUESTS, q=str(two.id)) == [third, second]
    assert shown(operator, REQUESTS, q="refund.made") == [second]
    assert shown(operator, REQUESTS, q="refund") == []
    assert shown(operator, REQUESTS, q="https://one.example") == [first]
    assert shown(operator, REQUESTS, q=str(new_id())) == []
    assert shown(operator, REQUESTS, event__id__exact=str(event.id)) == [third]
    assert shown(operator, REQUESTS, subscription__id__exact=str(one.id)) == [first]


def test_it_filters_requests_by_status_error_and_time(operator, make_subscription, make_settled, make_request):
    subscription = make_subscription()
    timed_out = make_settled(subscription, error="timeout")
    retrying = make_request(subscription, error="dns", attempt_count=1)
    delivered = make_settled(subscription, "delivered")
    two_hours_ago = timezone.now() - timedelta(hours=2)
    old = make_settled(
        subscription,
        "delivered",
        id=UUID(int=lowest_id_at(two_hours_ago).int + 1),
        received_at=two_hours_ago,
    )
    assert shown(operator, REQUESTS, status__exact="delivered") == [delivered, old]
    assert shown(operator, REQUESTS, error="any") == [retrying, timed_out]
    assert shown(operator, REQUESTS, error="timeout") == [timed_out]
    assert shown(operator, REQUESTS, within="hour") == [delivered, retrying, timed_out]
    assert shown(operator, REQUESTS, within="day") == [delivered, retrying, timed_out, old]
    assert shown(operator, REQUESTS, within="day", status__exact="delivered", error="any") == []


def test_it_knows_the_lowest_id_of_a_moment():
    before = datetime.now(UTC)
    made = new_id()
    after = datetime.now(UTC) + timedelta(milliseconds=1)
    assert lowest_id_at(before) <= made < lowest_id_at(after)


@pytest.mark.parametrize(("url", "queries"), [(REQUESTS, 6), (ATTEMPTS, 6), (EVENTS, 6)])
def test_it_lists_any_number_of_rows_in_as_many_queries_without_counting_the_table(
    operator, make_subscription, make_settled, make_attempt, make_event, url, queries
):
    for _ in range(3):
        make_event()
        make_attempt(make_settled(make_subscription()))
    with CaptureQueriesContext(
        connection,
    ) as captured:
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


def test_it_lists_only_the_newest_of_a_huge_table(operator, make_event, monkeypatch):
    monkeypatch.setattr(read_only_admin, "COUNT_LIMIT", 2)
    events = [make_event() for _ in range(3)]
    response = operator.get(EVENTS)
    assert "The newest 2 are listed." in response.content.decode()
    assert response.context["cl"].result_count == 2
    assert events[2] in response.context["cl"].result_list


def test_it_gives_up_on_a_search_that_takes_too_long(operator, monkeypatch):
    monkeypatch.setattr(read_only_admin, "LIST_TIMEOUT_MS", 50)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("LOCK TABLE webhook_requests IN ACCESS EXCLUSIVE MODE")
        response = operator.get(REQUESTS, {"error": "dns"})
        other.rollback()
    assert (response.status_code, response.url) == (302, REQUESTS)
    assert messages_of(operator.get(REQUESTS)) == [
        "That search took too long and was given up. Narrow it, to the past hour for instance."
    ]


# The page of a request


def test_it_shows_a_request_with_its_attempts_in_order(operator, make_subscription, make_settled, make_attempt):
    request = make_settled(make_subscription("https://a.example.com/"), error="http_5xx", attempt_count=3)
    third, first, second = (make_attempt(request, number) for number in (3, 1, 2))
    response = operator.get(page_of(request))
    content = response.content.decode()
    assert re.findall(r"/admin/deliveries/deliveryattempt/([0-9a-f-]+)/change/", content) == [
        str(first.id),
        str(second.id),
        str(third.id),
    ]
    assert content.count("The receiver failed. Its answer may say why.") == 3
    assert re.findall(r'class="field-response_ms">\s*<p>(\d+)</p>', content) == ["12", "12", "12"]
    for text in ("https://a.example.com/", str(request.id), "http_5xx", "invoice.paid"):
        assert text in content
    assert f"{request.settled_at:%Y-%m-%d %H:%M:%S}" in content


def test_it_says_why_a_request_is_held_and_when_it_is_due(operator, make_subscription, make_request):
    request = make_request(make_subscription(status="paused"))
    content = operator.get(page_of(request)).content.decode()
    assert "pending, held: paused" in content
    assert f"{request.next_attempt_at:%Y-%m-%d %H:%M:%S}" in content


@pytest.mark.parametrize(
    ("payload", "formatted"),
    [
        (b'{"b":1.50,"a":[1e2],"a":"\\u00e9"}', '{\n  "b": 1.50,\n  "a": [\n    1e2\n  ],\n  "a": "\\u00e9"\n}'),
        ('{"name":"Zoë \u202e"}'.encode(), '{\n  "name": "Zoë \\u202e"\n}'),
        (b"not JSON \xff\x00", "not JSON \ufffd\\u0000"),
        (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
        (b"", ""),
    ],
)
def test_it_formats_json_and_shows_anything_else_as_text(payload, formatted):
    assert read_only_admin.preformatted(history_admin.readable(payload)) == (
        f"<pre>{formatted}</pre>".replace('"', "&quot;")
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 400 + b",".join([b"1"] * 20_000) + b"]" * 400,
        b"[" * 400 + b",".join([b'"]]]\\""'] * 20_000) + b"]" * 400,
        b'{"a":' * 400 + b"[{}" + b",{}" * 20_000 + b"]" + b"}" * 400,
    ],
)
def test_it_does_not_blow_up_a_payload_that_would_be_huge_when_it_is_indented(payload):
    assert history_admin.readable(payload) == payload.decode()


@pytest.mark.parametrize("is_shared", [False, True])
def test_it_offers_the_payload_byte_for_byte(operator, make_subscription, make_request, make_event, is_shared):
    payload = b'{"n":1.0, "text":"\\u00e9\xc3\xa9"} \xff'
    event = make_event(payload)
    own = {"payload": None, "event": event} if is_shared else {"payload": payload}
    request = make_request(make_subscription(), **own)
    for row in (request, event):
        content = operator.get(page_of(row)).content.decode()
        assert r"{&quot;n&quot;:1.0, &quot;text&quot;:&quot;\u00e9é&quot;} \xff" in content
        url = page_of(row).replace("change/", "payload")
        assert f'{len(payload)} bytes, <a href="{url}">download</a>' in content
        response = operator.get(url)
        assert response.content == payload
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Disposition"] == f'attachment; filename="{row.id}.json"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert operator.get(f"{REQUESTS}{new_id()}/payload").status_code == 404


def test_it_shows_hostile_text_as_text(operator, make_subscription, make_settled, make_attempt, make_event):
    subscription = make_subscription(description=HOSTILE)
    payload = json.dumps({"text": HOSTILE}, ensure_ascii=False).encode()
    request = make_settled(subscription, payload=payload)
    event = make_event(HOSTILE.encode(), tenant=HOSTILE)
    attempt = make_attempt(request, response_headers=f"X-Evil: {HOSTILE}", response_body=HOSTILE.encode())
    for url in (*LISTS, page_of(request), page_of(event), page_of(attempt)):
        content = operator.get(url).content.decode()
        assert "<script>alert" not in content
        assert 'href="javascript:' not in content
        assert "\u202e" not in content
        assert INERT.removesuffix("\\u202e") in content or "&lt;script&gt;" in content


# Replay


def test_it_replays_a_request_once_that_is_confirmed(operator, make_subscription, make_request, receiver, deliver):
    receiver.otherwise = Answer(status=500)
    request = make_request(make_subscription(receiver.url, retry_schedule=[]))
    deliver()
    assert 'value="Replay"' in operator.get(page_of(request)).content.decode()

    question = replay(operator, request).content.decode()
    assert "1 request will be delivered again, to the target URL that the subscription has now." in question
    assert "csrfmiddlewaretoken" in question
    request.refresh_from_db()
    assert request.status == "failed"

    receiver.otherwise = Answer()
    response = replay(operator, request, confirmed="yes")
    assert response.redirect_chain == [(page_of(request), 302)]
    assert messages_of(response) == ["1 request will be delivered again."]
    deliver()
    assert list(request.attempts.order_by("attempt_number").values_list("trigger", "success")) == [
        ("initial", False),
        ("replay", True),
    ]
    entry = AuditEntry.objects.get(action="replay")
    assert (entry.actor, entry.object_kind, entry.object_id) == ("operator", "webhook request", str(request.id))
    assert (entry.before["status"], entry.after["status"]) == ("failed", "pending")


def test_it_says_how_many_of_the_selected_will_be_replayed(
    operator, make_subscription, make_settled, make_request
):
    subscription = make_subscription()
    settled = [make_settled(subscription), make_settled(subscription, "delivered")]
    pending, untouched = make_request(subscription), make_settled(subscription)
    filtered = f"{REQUESTS}?within=hour"

    question = replay(operator, *settled, pending, url=filtered)
    assert question.context["sentences"] == [
        "2 requests will be delivered again, to the target URL that the subscription has now.",
        "1 request will be left alone, because pending means still to be delivered.",
    ]
    ids = [UUID(row_id) for row_id in re.findall(r'_selected_action" value="([^"]+)"', question.content.decode())]
    assert ids == sorted(row.id for row in (*settled, pending))

    response = replay(operator, *settled, pending, url=filtered, confirmed="yes")
    assert response.redirect_chain == [(filtered, 302)]
    assert messages_of(response) == ["2 requests will be delivered again."]
    assert set(WebhookRequest.objects.filter(trigger="replay", status="pending")) == set(settled)
    untouched.refresh_from_db()
    assert untouched.status == "failed"


@pytest.mark.parametrize("confirmed", [{}, {"confirmed": "yes"}])
def test_it_refuses_to_replay_a_pending_request(operator, make_subscription, make_request, confirmed):
    request = make_request(make_subscription())
    response = replay(operator, request, **confirmed)
    assert messages_of(response) == [
        "Nothing was replayed: a pending request is still to be delivered and needs no replay."
    ]
    request.refresh_from_db()
    assert request.trigger == "initial"
    assert AuditEntry.objects.filter(action="replay").count() == 0


def test_it_replays_nothing_when_the_selected_requests_are_gone(operator, make_subscription, make_settled):
    other = make_settled(make_subscription())
    gone = WebhookRequest(id=new_id())
    assert messages_of(replay(operator, gone, confirmed="yes"))[0].startswith("Nothing was replayed")
    other.refresh_from_db()
    assert other.status == "failed"


def test_it_leaves_out_requests_of_deleted_subscriptions(operator, make_subscription, make_settled):
    deleted = make_subscription()
    gone, wanted = make_settled(deleted), make_settled(make_subscription())
    deleted.remove()
    assert replay(operator, gone, wanted).context["sentences"] == [
        "1 request will be delivered again, to the target URL that the subscription has now.",
        "1 request will be left alone, because the subscription was deleted.",
    ]
    assert messages_of(replay(operator, gone, wanted, confirmed="yes")) == ["1 request will be delivered again."]
    assert messages_of(replay(operator, gone, confirmed="yes")) == [
        "Nothing was replayed: what is pending needs no replay, and to a deleted subscription nothing is sent."
    ]
    assert WebhookRequest.objects.get(status="pending") == wanted


@pytest.fixture
def two_at_most(monkeypatch):
    """More than two requests are many."""
    monkeypatch.setattr(replay_admin, "REPLAY_LIMIT", 2)


def replay_all(client: Client, query: str, row: WebhookRequest, **fields: str):
    return replay(client, row, url=f"{REQUESTS}?{query}", select_across="1", **fields)


def test_it_starts_an_operation_over_all_that_a_list_shows_once_that_is_confirmed(
    operator, make_subscription, make_settled, make_request, two_at_most, django_capture_on_commit_callbacks
):
    subscription = make_subscription(tenant="acme")
    rows = [make_settled(subscription, error="timeout") for _ in range(3)]
    make_settled(subscription, error="dns")
    make_request(subscription, error="timeout")
    query = f"error=timeout&subscription__id__exact={subscription.id}"
    question = replay_all(operator, query, rows[0])
    every_status = "delivered or failed or canceled or skipped"
    assert question.context["sentences"] == (
        "3 requests will be delivered again in the background, to the target URLs that subscriptions have now.",
        f"They are selected by status: {every_status}, error: timeout, subscription: {subscription.id}.",
        "What is pending is left alone, and what is of a disabled or deleted subscription.",
    )
    assert not Operation.objects.exists()
    posted = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', question.content.decode()))
    assert posted.pop("csrfmiddlewaretoken")

    with django_capture_on_commit_callbacks() as callbacks:
        response = operator.post(f"{REQUESTS}?{query}", posted, follow=True)
    operation = Operation.objects.get()
    page = reverse("admin:deliveries_operation_change", args=[operation.id])
    assert response.redirect_chain == [(f"{REQUESTS}?{query}", 302)]
    assert messages_of(response) == [f'They are delivered again by <a href="{page}">replay {operation.id}</a>.']
    assert operator.get(page).status_code == 200
    assert (operation.kind, operation.tenant, operation.requested_by) == ("replay", "acme", "operator")
    assert set(bulk_runs.selected(operation.selection)) == set(rows)
    assert queue.wake_maintenance in callbacks
    assert not WebhookRequest.objects.filter(trigger="replay").exists()
    entry = AuditEntry.objects.get(action="replay")
    assert (entry.actor, entry.object_kind, entry.object_id) == ("operator", "operation", str(operation.id))
    assert entry.after["selection"] == operation.selection


@pytest.mark.parametrize(
    "query",
    [
        "",
        "p=1",
        "within=hour",
        "status__exact=failed",
        "error=timeout",
        "q=invoice.paid",
        "q={subscription}",
        "q=https%3A%2F%2Fledger.example%2F",
        "q=invoice.paid&status__exact=failed&within=day&error=timeout&subscription__id__exact={subscription}",
    ],
)
def test_its_operation_selects_what_the_list_shows(operator, make_subscription, make_settled, two_at_most, query):
    subscription, other = make_subscription("https://ledger.example/hooks"), make_subscription()
    long_ago = timezone.now() - timedelta(days=2)
    for owner in (subscription, other):
        for fields in (
            *({"error": "timeout"} for _ in range(3)),
            {"error": "dns"},
            {"status": "delivered"},
            {"event_type": "invoice.sent"},
            {"id": UUID(int=lowest_id_at(long_ago).int + owner.id.int % 2**60), "received_at": long_ago},
        ):
            make_settled(owner, **fields)
    query = query.format(subscription=subscription.id)
    listed = shown(operator, f"{REQUESTS}?{query}")
    replay_all(operator, query, listed[0], confirmed="yes")
    assert set(bulk_runs.selected(Operation.objects.get().selection)) == set(listed)


@pytest.mark.parametrize(
    "query",
    [
        "error=any",
        "q=http%3A%2F%2F",
        "event__id__exact={event}",
        "q={subscription}&subscription__id__exact={subscription}",
    ],
)
def test_it_says_when_what_is_selected_cannot_be_written_as_filters(
    operator, make_subscription, make_settled, make_event, two_at_most, query
):
    subscription, event = make_subscription("http://127.0.0.1:9/"), make_event()
    make_subscription("http://127.0.0.1:10/")
    rows = [make_settled(subscription, error="dns", payload=None, event=event) for _ in range(3)]
    query = query.format(event=event.id, subscription=subscription.id)
    for response in (
        replay_all(operator, query, rows[0], confirmed="yes"),
        replay(operator, *rows, confirmed="yes"),
    ):
        assert messages_of(response) == [f"More than 2 requests are selected. {replay_admin.NO_FILTERS}"]
    assert not Operation.objects.exists()


def test_it_starts_no_operation_over_what_would_not_be_sent(
    operator, make_subscription, make_settled, make_request, two_at_most
):
    disabled = make_subscription(status="disabled")
    rows = [make_settled(disabled) for _ in range(3)] + [make_request(make_subscription())]
    assert messages_of(replay_all(operator, "", rows[0], confirmed="yes")) == [replay_admin.NOTHING_SENT]
    assert not Operation.objects.exists()


def test_it_says_no_exact_number_of_very_many(operator, make_subscription, make_settled, two_at_most, monkeypatch):
    monkeypatch.setattr(replay_admin, "COUNT_LIMIT", 2)
    subscription = make_subscription()
    rows = [make_settled(subscription) for _ in range(3)]
    [first, *_] = replay_all(operator, "", rows[0]).context["sentences"]
    assert first.startswith("More than 2 requests will be delivered again in the background")


def test_it_starts_no_operation_for_who_may_not_replay(make_subscription, make_settled, two_at_most):
    subscription = make_subscription()
    rows = [make_settled(subscription) for _ in range(3)]
    replay_all(staff_client("view_webhookrequest"), "", rows[0], confirmed="yes")
    assert not Operation.objects.exists()


def test_it_asks_for_no_more_fields_than_django_takes(settings):
    assert operations.REPLAY_BATCH + 10 < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS


def test_it_replays_for_staff_with_the_permission(make_subscription, make_settled):
    request = make_settled(make_subscription())
    client = staff_client("view_webhookrequest", "replay_webhookrequest")
    assert 'value="Replay"' in client.get(page_of(request)).content.decode()
    assert messages_of(replay(client, request, confirmed="yes")) == ["1 request will be delivered again."]


def test_it_replays_nothing_on_a_get_or_without_a_csrf_token(operator, make_subscription, make_settled):
    request = make_settled(make_subscription())
    data = {"action": "replay", "_selected_action": str(request.id), "confirmed": "yes"}
    operator.get(REQUESTS, data)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(REQUESTS, data).status_code == 403
    request.refresh_from_db()
    assert request.status == "failed"


# Cancel


def cancel(client: Client, *rows: WebhookRequest, **fields: str):
    data = {"action": "cancel", "_selected_action": [str(row.id) for row in rows]} | fields
    return client.post(REQUESTS, data, follow=True)


def test_it_cancels_pending_requests_once_that_is_confirmed(
    operator, make_subscription, make_request, make_settled
):
    subscription = make_subscription()
    pending, settled = make_request(subscription), make_settled(subscription)
    question = cancel(operator, pending, settled)
    assert question.context["sentences"] == ["1 request will be canceled: not tried again, unless it is replayed."]
    pending.refresh_from_db()
    assert pending.status == "pending"

    response = cancel(operator, pending, settled, confirmed="yes")
    assert messages_of(response) == ["Canceled 1 request."]
    for row in (pending, settled):
        row.refresh_from_db()
    assert (pending.status, pending.status_reason) == ("canceled", "canceled by an operator")
    assert settled.status == "failed"
    assert AuditEntry.objects.get(action="cancel").object_id == str(pending.id)
    assert messages_of(cancel(operator, pending, confirmed="yes")) == ["None of these is pending."]


def test_it_cancels_no_more_than_500_at_once_and_says_what_to_do_instead(operator, make_subscription):
    subscription = make_subscription()
    rows = WebhookRequest.objects.bulk_create(
        WebhookRequest(subscription=subscription, event_type="invoice.paid", payload=b"1") for _ in range(501)
    )
    response = cancel(operator, rows[0], select_across="1", confirmed="yes")
    [message] = messages_of(response)
    assert message == (
        "Nothing was canceled: more than 500 of these are pending. Narrow the list by its filters, or select page "
        "by page. To have a subscription's requests wait, pause or disable it; deleting it, over the API, cancels "
        "all of them."
    )
    assert WebhookRequest.objects.filter(status="pending").count() == 501


# Attempts and events


def test_it_lists_attempts_as_they_were_made_with_lost_ones_among_them(
    operator, make_subscription, make_request, make_due, receiver, deliver
):
    request = make_request(make_subscription(receiver.url), lease_token=new_id(), attempt_count=1)
    make_due(request)
    deliver()
    deliver_again = make_request(make_subscription(receiver.url))
    deliver()
    attempts = shown(operator, ATTEMPTS)
    assert [(attempt.request_id, attempt.attempt_number, attempt.error) for attempt in attempts] == [
        (deliver_again.id, 1, ""),
        (request.id, 2, ""),
        (request.id, 1, "worker_lost"),
    ]
    assert [attempt.id.version for attempt in attempts] == [7, 7, 7]


def test_it_finds_and_filters_attempts(operator, make_subscription, make_settled, make_attempt):
    first, second = make_settled(make_subscription()), make_settled(make_subscription())
    failed = make_attempt(first, error="timeout", status_code=None)
    delivered = make_attempt(second, success=True, error="", status_code=200)
    long_ago = timezone.now() - timedelta(days=2)
    old = make_attempt(second, 2, id=lowest_id_at(long_ago), attempted_at=long_ago)
    assert shown(operator, ATTEMPTS, q=str(first.id)) == [failed]
    assert shown(operator, ATTEMPTS, q="timeout") == []
    assert shown(operator, ATTEMPTS, success__exact="1") == [delivered]
    assert shown(operator, ATTEMPTS, error__exact="timeout") == [failed]
    assert shown(operator, ATTEMPTS, within="day") == [delivered, failed]
    assert shown(operator, ATTEMPTS, within="week") == [delivered, failed, old]
    assert shown(operator, ATTEMPTS, subscription__id__exact=str(first.subscription_id)) == [failed]


def test_it_shows_what_a_receiver_answered(operator, make_subscription, make_settled, make_attempt):
    attempt = make_attempt(
        make_settled(make_subscription()),
        response_headers="HTTP/1.1 500 Oops\r\nX-Trace: 7",
        response_body=b"out of order \xff",
        dns_ms=1,
        connect_ms=23,
        tls_ms=45,
        first_byte_ms=67,
    )
    content = operator.get(page_of(attempt)).content.decode()
    for text in (
        "<pre>HTTP/1.1 500 Oops\r\nX-Trace: 7</pre>",
        "<pre>out of order \ufffd</pre>",
        "The receiver failed. Its answer may say why.",
        page_of(attempt.request),
        *("23", "45", "67"),
    ):
        assert text in content


def test_it_shows_events_and_leads_to_their_requests(operator, make_event):
    event = make_event(tenant="acme")
    other = make_event()
    assert shown(operator, EVENTS) == [other, event]
    assert shown(operator, EVENTS, q=str(event.id)) == [event]
    assert shown(operator, EVENTS, q="invoice.paid", within="hour") == [other, event]
    assert shown(operator, EVENTS, q="invoice") == []
    content = operator.get(page_of(event)).content.decode()
    assert f"/admin/deliveries/webhookrequest/?event__id__exact={event.id}" in content
    assert "acme" in content


def test_it_shows_what_the_schema_finds_wrong_as_text(make_subscription, make_request):
    finding = {"pointer": "/total", "code": "type", "detail": '"<b>" is not of type "integer"'}
    shown = "/total type: &quot;&lt;b&gt;&quot; is not of type &quot;integer&quot;"
    event = Event.objects.create(event_type="a", payload=b"{}", findings=[finding])
    own = make_request(make_subscription(), findings=[finding])
    shared = make_request(make_subscription(), payload=None, event=event)
    clean = make_request(make_subscription())
    client = operator_client()
    for kind, row, is_shown in (
        ("event", event, True),
        ("webhookrequest", own, True),
        ("webhookrequest", shared, True),
        ("webhookrequest", clean, False),
    ):
        page = client.get(reverse(f"admin:deliveries_{kind}_change", args=[row.id])).content.decode()
        assert (shown in page) is is_shown
