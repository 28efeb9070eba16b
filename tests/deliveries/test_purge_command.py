"""manage.py purge: settled requests by age, pending ones never."""

import io
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from deliveries import operations
from deliveries.models import DeliveryAttempt, Event, Operation, OperationPart, WebhookRequest
from subscriptions.audit import AuditEntry
from subscriptions.ids import lowest_id_at

SETTLED = ("delivered", "failed", "canceled", "skipped")


def purge(*arguments: str) -> str:
    output = io.StringIO()
    call_command("purge", *arguments, stdout=output, stderr=io.StringIO())
    return output.getvalue()


@pytest.fixture
def settled_for(make_subscription, make_request, make_attempt, settle):
    """Make a request that was settled some days ago, with two attempts."""
    subscription = make_subscription()

    def make(days: float, status: str = "delivered") -> WebhookRequest:
        request = make_request(subscription, attempt_count=2)
        make_attempt(request, 1)
        make_attempt(request, 2)
        return settle(request, status, settled_at=datetime.now(UTC) - timedelta(days=days))

    return make


def left() -> set[WebhookRequest]:
    return set(WebhookRequest.objects.all())


def test_it_deletes_what_is_older_than_the_retention_with_its_attempts(settled_for, settings):
    settings.RETENTION_DAYS = 30
    old = [settled_for(days, status) for days, status in zip((30.01, 31, 100, 1000), SETTLED, strict=True)]
    young = settled_for(29.99)
    assert purge() == "Purged 4 requests.\n"
    assert left() == {young}
    assert set(DeliveryAttempt.objects.values_list("request_id", flat=True)) == {young.id}
    assert not WebhookRequest.objects.filter(id__in=[request.id for request in old]).exists()


def test_it_records_who_purged_what(settled_for):
    settled_for(31)
    purge("--dry-run")
    purge("--status", "delivered")
    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.action, entry.object_kind) == ("command", "purge", "webhook request")
    assert entry.after == {"older_than_days": 30.0, "statuses": ["delivered"]}


def test_it_takes_the_age_in_days_and_parts_of_days(settled_for):
    old, young = settled_for(0.6), settled_for(0.4)
    assert purge("--older-than", "0.5") == "Purged 1 request.\n"
    assert left() == {young}
    assert old not in left()


def test_it_deletes_everything_settled_at_age_zero_and_nothing_pending(
    settled_for, make_subscription, make_request, make_attempt
):
    settled_for(0)
    settled_for(5, "failed")
    pending = make_request(make_subscription(), attempt_count=1, received_at=datetime(2020, 1, 1, tzinfo=UTC))
    make_attempt(pending, success=False, status_code=500, error="http_5xx")
    assert purge("--older-than", "0") == "Purged 2 requests.\n"
    assert left() == {pending}
    assert DeliveryAttempt.objects.get().request == pending


def test_it_narrows_to_the_statuses_that_are_given(settled_for):
    requests = {status: settled_for(40, status) for status in SETTLED}
    assert purge("--status", "delivered", "--status", "canceled") == "Purged 2 requests.\n"
    assert left() == {requests["failed"], requests["skipped"]}


def test_it_only_counts_in_a_dry_run(settled_for):
    kept = {settled_for(40), settled_for(40, "failed"), settled_for(1)}
    assert purge("--dry-run") == "2 requests would be purged.\n"
    assert purge("--dry-run", "--older-than", "0") == "3 requests would be purged.\n"
    assert purge("--dry-run", "--status", "failed") == "1 request would be purged.\n"
    assert left() == kept
    assert DeliveryAttempt.objects.count() == 6


def test_it_has_nothing_to_do_the_second_time(settled_for):
    settled_for(40)
    assert purge() == "Purged 1 request.\n"
    assert purge() == "Purged 0 requests.\n"


def test_it_works_in_batches_and_tells_how_far_it_is(settled_for, monkeypatch):
    monkeypatch.setattr(operations, "PURGE_BATCH", 2)
    for _ in range(5):
        settled_for(40)
    progress = io.StringIO()
    call_command("purge", stdout=io.StringIO(), stderr=progress)
    assert progress.getvalue() == "2 purged so far\n4 purged so far\n5 purged so far\n"
    assert left() == set()


def test_it_deletes_an_event_with_the_last_of_its_requests(make_subscription, settle):
    long_ago = datetime.now(UTC) - timedelta(days=40)

    def publish(*statuses: str, published_at: datetime = long_ago) -> Event:
        row_id = UUID(int=lowest_id_at(published_at).int | uuid4().int >> 70)
        event = Event.objects.create(id=row_id, event_type="a", payload=b"{}", published_at=published_at)
        for status in statuses:
            request = WebhookRequest.objects.create(
                subscription=make_subscription(), event=event, event_type="a", received_at=published_at
            )
            if status != "pending":
                settle(request, status, settled_at=published_at)
        return event

    publish("delivered", "failed")
    publish()  # nobody took it
    kept = {publish("delivered", "pending"), publish(published_at=datetime.now(UTC))}
    assert purge() == "Purged 3 requests.\n"
    assert set(Event.objects.all()) == kept
    assert WebhookRequest.objects.get().status == "pending"


def test_it_shows_signs_of_life_while_it_deletes_events(db, monkeypatch):
    monkeypatch.setattr(operations, "PURGE_BATCH", 2)
    for _ in range(5):
        Event.objects.create(event_type="a", payload=b"{}")
    told = []
    assert operations.purge(older_than_days=0, progress=told.append) == 0
    assert told == [0, 0, 0]
    assert not Event.objects.exists()


def test_it_looks_at_no_event_younger_than_it_deletes(db):
    now = datetime.now(UTC)
    parameters = {"until": now, "last_id": lowest_id_at(now), "limit": 1_000}
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + operations.PURGE_EVENTS, parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert f"Index Cond: (id <= '{lowest_id_at(now)}'::uuid)" in plan


def test_it_deletes_finished_operations_by_age(db):
    kept = {Operation.objects.create(kind="replay"), Operation.objects.create(kind="replay", status="running")}
    for days in (29, 31):
        at = datetime.now(UTC) - timedelta(days=days)
        operation = Operation.objects.create(kind="replay", status="done", finished_at=at)
        OperationPart.objects.create(operation=operation, subscription_id=operation.id)
        kept |= {operation} if days == 29 else set()
    purge()
    assert set(Operation.objects.all()) == kept
    assert OperationPart.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--older-than", "soon"], "Error: argument --older-than: write a number of days"),
        (["--older-than", ""], "Error: argument --older-than: write a number of days"),
        (["--older-than", "-1"], "Error: argument --older-than: the age is from 0 to 36500 days"),
        (["--older-than", "nan"], "Error: argument --older-than: the age is from 0 to 36500 days"),
        (["--older-than", "inf"], "Error: argument --older-than: the age is from 0 to 36500 days"),
        (["--older-than", "36501"], "Error: argument --older-than: the age is from 0 to 36500 days"),
        (["--status", "pending"], "Error: argument --status: invalid choice: 'pending'"),
        (["extra"], "Error: unrecognized arguments: extra"),
    ],
)
def test_it_refuses_bad_input_and_deletes_nothing(settled_for, arguments, message):
    kept = settled_for(40)
    with pytest.raises(CommandError) as refused:
        purge(*arguments)
    assert str(refused.value).startswith(message)
    assert left() == {kept}
