"""manage.py replay: settled requests again, pending ones never, twice is once."""

import io
import uuid
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from deliveries import operations
from deliveries.models import WebhookRequest
from subscriptions.audit import AuditEntry
from subscriptions.ids import lowest_id_at

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SAY_WHICH = "Say which: give request ids, or --subscription, --status, --since, --until, --event-type."


def replay(*arguments: object) -> str:
    output = io.StringIO()
    call_command("replay", *map(str, arguments), stdout=output, stderr=io.StringIO())
    return output.getvalue()


def replayed() -> set[WebhookRequest]:
    return set(WebhookRequest.objects.filter(status="pending", trigger="replay"))


@pytest.fixture
def subscription(make_subscription):
    return make_subscription()


@pytest.fixture
def settled(subscription, make_request, settle):
    """Make a request that has ended; fields are those of its row."""

    def make(status: str = "failed", **fields) -> WebhookRequest:
        if "received_at" in fields:  # ids are made at that moment
            fields["id"] = uuid.UUID(int=lowest_id_at(fields["received_at"]).int | uuid.uuid4().int >> 70)
        return settle(make_request(fields.pop("subscription", subscription), **fields), status)

    return make


def test_it_records_each_request_that_was_named_and_how_many_of_the_others(settled, subscription):
    first, second = settled(), settled()
    replay(first.id, "--dry-run")
    replay(first.id)
    settled(subscription=subscription)
    replay("--subscription", subscription.id, "--status", "failed")
    named, others = AuditEntry.objects.order_by("id")
    assert (named.actor_kind, named.action, named.object_id) == ("command", "replay", str(first.id))
    assert others.object_kind == "webhook request"
    assert others.after | {"last": ""} == {
        "subscription_id": str(subscription.id),
        "statuses": ["failed"],
        "requests": 2,
        "first": str(second.id),
        "last": "",
    }


def test_it_refuses_an_id_that_no_request_has_and_replays_nothing(settled):
    request, unknown = settled(), uuid.uuid4()
    with pytest.raises(CommandError) as refusal:
        replay(request.id, unknown)
    assert str(refusal.value) == f"No webhook request has the id {unknown}. Nothing is replayed."
    assert replayed() == set()


@pytest.mark.parametrize("until", ["2026-11-24", "2026-11-01"])
def test_it_refuses_a_time_span_that_ends_before_it_begins(until):
    with pytest.raises(CommandError, match="--since has to be before --until"):
        replay("--since", "2026-11-24", "--until", until, "--dry-run")


@pytest.mark.django_db
def test_it_refuses_a_subscription_that_there_is_not():
    unknown = uuid.uuid4()
    with pytest.raises(CommandError, match=f"No subscription has the id {unknown}"):
        replay("--subscription", unknown)


def test_it_starts_a_new_run_that_is_due_now_and_keeps_what_was_tried(settled, make_attempt, settle):
    request = settled(attempt_count=6, failure_count=6, lost_count=2)
    settle(request, "failed", error="http_5xx")
    attempts = [make_attempt(request, number) for number in range(1, 7)]
    before = WebhookRequest.objects.values().get()

    assert replay(request.id) == "Replayed 1 request.\n"
    row = WebhookRequest.objects.values().get()
    assert row == before | {
        "status": "pending",
        "trigger": "replay",
        "next_attempt_at": row["next_attempt_at"],
        "settled_at": None,
        "lease_token": None,
        "failure_count": 0,
        "lost_count": 0,
        "error": "",
    }
    assert row["next_attempt_at"] > before["received_at"]
    assert list(request.attempts.order_by("attempt_number")) == attempts


def test_it_delivers_what_it_replays(make_subscription, make_request, make_attempt, settle, receiver, deliver):
    request = settle(make_request(make_subscription(receiver.url), b'{"n":1.0}', attempt_count=6), "failed")
    make_attempt(request, 6)
    replay(request.id)
    assert deliver() == 1
    [arrival] = receiver.arrivals
    assert (arrival.body, arrival.headers["X-Webhook-Attempt"]) == (b'{"n":1.0}', "7")
    request.refresh_from_db()
    assert request.status == "delivered"
    attempts = request.attempts.order_by("attempt_number")
    assert [(one.attempt_number, one.trigger) for one in attempts] == [(6, "retry"), (7, "replay")]


def test_it_is_one_replay_when_it_is_asked_twice(settled):
    request = settled()
    assert replay(request.id) == "Replayed 1 request.\n"
    request.refresh_from_db()
    due = request.next_attempt_at
    assert replay(request.id) == "Replayed 0 requests.\n"
    assert replay(request.id, request.id) == "Replayed 0 requests.\n"
    request.refresh_from_db()
    assert request.next_attempt_at == due


def test_it_never_touches_what_is_pending(subscription, make_request):
    request = make_request(subscription, attempt_count=2, failure_count=2, lease_token=uuid.uuid4())
    before = WebhookRequest.objects.values().get()
    assert replay(request.id) == "Replayed 0 requests.\n"
    assert replay("--subscription", subscription.id) == "Replayed 0 requests.\n"
    assert WebhookRequest.objects.values().get() == before


def test_it_selects_by_ids(settled):
    one, other, _ = settled("failed"), settled("delivered"), settled()
    assert replay(one.id, other.id) == "Replayed 2 requests.\n"
    assert replayed() == {one, other}


@pytest.mark.parametrize("status", ["delivered", "failed", "canceled", "skipped"])
def test_it_selects_by_status(settled, status):
    requests = {name: settled(name) for name in ("delivered", "failed", "canceled", "skipped")}
    assert replay("--status", status) == "Replayed 1 request.\n"
    assert replayed() == {requests[status]}


def test_it_selects_by_several_statuses(settled):
    failed, canceled, _ = settled("failed"), settled("canceled"), settled("delivered")
    assert replay("--status", "failed", "--status", "canceled") == "Replayed 2 requests.\n"
    assert replayed() == {failed, canceled}


def test_it_selects_by_subscription(settled, make_subscription):
    other = make_subscription()
    wanted, _ = settled(subscription=other), settled()
    assert replay("--subscription", other.id) == "Replayed 1 request.\n"
    assert replayed() == {wanted}


def test_it_selects_by_event_type_exactly(settled):
    wanted, _, _ = settled(event_type="invoice.paid"), settled(event_type="invoice.sent"), settled(event_type="a")
    assert replay("--event-type", "invoice.paid") == "Replayed 1 request.\n"
    assert replayed() == {wanted}
    assert replay("--event-type", "") == "Replayed 0 requests.\n"


@pytest.mark.parametrize(
    ("arguments", "hours"),
    [
        (["--since", "2026-11-24T12:00:00Z"], {12, 13}),
        (["--since", "2026-11-24T12:00:00"], {12, 13}),
        (["--since", "2026-11-24T13:00:00+01:00"], {12, 13}),
        (["--since", "2026-11-25T11:59:00+23:59"], {12, 13}),
        (["--since", "2026-11-24T12:00:00.000001Z"], {13}),
        (["--until", "2026-11-24T12:00:00Z"], {11}),
        (["--since", "2026-11-24T11:30Z", "--until", "2026-11-24T12:30Z"], {12}),
        (["--since", "2026-11-24"], {11, 12, 13}),
        (["--since", "2026-11-25"], set()),
        (["--until", "2026-11-25"], {11, 12, 13}),
    ],
)
def test_it_selects_by_when_they_were_received_from_the_first_time_to_before_the_second(settled, arguments, hours):
    requests = {hour: settled(received_at=NOON.replace(hour=hour)) for hour in (11, 12, 13)}
    replay(*arguments)
    assert replayed() == {requests[hour] for hour in hours}


def test_it_selects_what_fits_everything_that_is_given(settled, make_subscription, subscription):
    wanted = settled("failed", event_type="a", received_at=NOON)
    settled("delivered", event_type="a", received_at=NOON)
    settled("failed", event_type="b", received_at=NOON)
    settled("failed", event_type="a", received_at=NOON.replace(hour=11))
    settled("failed", event_type="a", received_at=NOON, subscription=make_subscription())
    arguments = [
        "--subscription",
        subscription.id,
        "--status",
        "failed",
        "--event-type",
        "a",
        "--since",
        "2026-11-24T12Z",
    ]
    assert replay(*arguments) == "Replayed 1 request.\n"
    assert replayed() == {wanted}


def test_it_only_counts_in_a_dry_run(settled):
    request = settled()
    settled("delivered")
    assert replay("--status", "failed", "--dry-run") == "1 request would be replayed.\n"
    assert replay(request.id, "--dry-run") == "1 request would be replayed.\n"
    assert replayed() == set()


def test_it_leaves_out_what_is_of_a_deleted_subscription_and_says_so(settled, make_subscription):
    deleted = make_subscription()
    gone, wanted = settled(subscription=deleted), settled()
    deleted.remove()
    left_out = " Left out: 1 of deleted subscriptions.\n"
    assert replay("--status", "failed", "--dry-run") == f"1 request would be replayed.{left_out}"
    assert replay(gone.id) == f"Replayed 0 requests.{left_out}"
    assert replay("--status", "failed") == f"Replayed 1 request.{left_out}"
    assert replayed() == {wanted}
    gone.refresh_from_db()
    assert gone.status == "failed"


def test_it_works_in_batches_and_tells_how_far_it_is(settled, monkeypatch):
    monkeypatch.setattr(operations, "REPLAY_BATCH", 2)
    requests = {settled() for _ in range(5)}
    progress = io.StringIO()
    call_command("replay", "--status", "failed", stdout=io.StringIO(), stderr=progress)
    assert progress.getvalue() == "2 of 5\n4 of 5\n5 of 5\n"
    assert replayed() == requests


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_it_refuses_to_replay_everything_by_mistake(settled, arguments):
    settled()
    with pytest.raises(CommandError) as refused:
        replay(*arguments)
    assert str(refused.value) == SAY_WHICH
    assert replayed() == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["5"], "Error: argument request_id: invalid UUID value: '5'"),
        (["--subscription", "x"], "Error: argument --subscription: invalid UUID value: 'x'"),
        (["--status", "pending"], "Error: argument --status: invalid choice: 'pending'"),
        (["--status", "lost"], "Error: argument --status: invalid choice: 'lost'"),
        (["--since", "noon"], "Error: argument --since: write a time such as 2026-11-24T12:00:00Z, or a date"),
        (
            ["--until", "0001-01-01T00:00+01:00"],
            "Error: argument --until: write a time such as 2026-11-24T12:00:00Z",
        ),
        (["--until", "25:00"], "Error: argument --until: write a time such as 2026-11-24T12:00:00Z, or a date"),
    ],
)
def test_it_refuses_bad_input(settled, arguments, message):
    settled()
    with pytest.raises(CommandError) as refused:
        replay(*arguments)
    assert str(refused.value).startswith(message)
    assert replayed() == set()
