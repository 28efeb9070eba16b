"""POST /requests/{id}/replay and /cancel: whole bodies, refusals, tenants, scopes, and that they are done."""

import uuid
from datetime import UTC, datetime

import pytest

from deliveries import queue
from deliveries.models import WebhookRequest
from tests.expected import REQUEST_ID, invalid, no_scope, problem, request_body, rfc3339

NOT_FOUND = problem(404, "not_found", "There is no such thing here.")
VERBS = ("replay", "cancel")


@pytest.fixture
def post(client_with_key):
    def post(request_id, verb, data=None, client=client_with_key):
        headers = {"Request-Id": REQUEST_ID}
        return client.post(f"/requests/{request_id}/{verb}", data, format="json", headers=headers)

    return post


@pytest.mark.parametrize("status", ["delivered", "failed", "canceled", "skipped"])
def test_it_replays_a_settled_request(post, make_subscription, make_request, settle, status):
    request = settle(make_request(make_subscription()), status, error="dns", status_reason="Why.")
    answer = post(request.id, "replay")
    request.refresh_from_db()
    due = rfc3339(request.next_attempt_at)
    assert answer.json() == request_body(request, trigger="replay", next_attempt_at=due)
    assert answer.status_code == 202


def test_it_delivers_what_it_replays_and_wakes_a_worker(
    post, make_subscription, make_request, settle, receiver, deliver, django_capture_on_commit_callbacks
):
    request = settle(make_request(make_subscription(receiver.url), b'{"n":1.0}', attempt_count=6), "failed")
    with django_capture_on_commit_callbacks() as callbacks:
        post(request.id, "replay")
    assert queue.wake_up in callbacks
    assert deliver() == 1
    [arrival] = receiver.arrivals
    assert (arrival.body, arrival.headers["webhook-id"]) == (b'{"n":1.0}', str(request.id))


def test_it_is_one_replay_when_it_is_asked_twice(post, make_subscription, make_request, settle):
    request = settle(make_request(make_subscription()), "failed")
    first, second = post(request.id, "replay"), post(request.id, "replay")
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()


def test_it_replays_nothing_that_is_pending_anyway(post, make_subscription, make_request):
    request = make_request(make_subscription(), trigger="retry", attempt_count=1)
    before = WebhookRequest.objects.values().get()
    answer = post(request.id, "replay")
    detail = "It is pending: it will be delivered without a replay. See its next_attempt_at and hold_reason."
    assert answer.json() == problem(409, "pending", detail)
    assert answer.status_code == 409
    assert WebhookRequest.objects.values().get() == before


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({"status": "disabled"}, "subscription_disabled", "Its subscription is disabled. Enable it first."),
        (
            {"status": "disabled", "deleted_at": datetime(2026, 11, 24, tzinfo=UTC)},
            "subscription_deleted",
            "Its subscription was deleted.",
        ),
    ],
)
def test_it_replays_nothing_that_would_not_be_sent(
    post, make_subscription, make_request, settle, fields, code, detail
):
    request = settle(make_request(make_subscription(**fields)), "failed")
    answer = post(request.id, "replay")
    assert answer.json() == problem(409, code, detail)
    assert answer.status_code == 409
    request.refresh_from_db()
    assert request.status == "failed"


def test_it_replays_for_a_paused_subscription_which_holds_it(post, make_subscription, make_request, settle):
    request = settle(make_request(make_subscription(status="paused")), "failed")
    body = post(request.id, "replay").json()
    assert (body["status"], body["hold_reason"]) == ("pending", "paused")


def test_it_cancels_a_pending_request(post, make_subscription, make_request, receiver, deliver):
    request = make_request(make_subscription(receiver.url), attempt_count=1, error="dns", trigger="retry")
    answer = post(request.id, "cancel")
    request.refresh_from_db()
    assert answer.json() == request_body(
        request,
        status="canceled",
        status_reason="Canceled over the API.",
        error="dns",
        trigger="retry",
        attempt_count=1,
        settled_at=rfc3339(request.settled_at),
        next_attempt_at=None,
    )
    assert answer.status_code == 200
    assert deliver() == 0
    assert receiver.arrivals == []


@pytest.mark.parametrize("status", ["delivered", "failed", "canceled", "skipped"])
def test_it_cancels_nothing_that_is_settled(post, make_subscription, make_request, settle, status):
    request = settle(make_request(make_subscription()), status)
    before = WebhookRequest.objects.values().get()
    answer = post(request.id, "cancel")
    assert answer.json() == problem(409, "settled", "It is settled: there is nothing left to cancel.")
    assert answer.status_code == 409
    assert WebhookRequest.objects.values().get() == before


def test_it_replays_what_was_canceled(post, make_subscription, make_request):
    request = make_request(make_subscription())
    assert post(request.id, "cancel").status_code == 200
    assert post(request.id, "replay").status_code == 202


@pytest.mark.parametrize("verb", VERBS)
def test_it_refuses_a_field_that_it_does_not_take(post, make_subscription, make_request, settle, verb):
    request = make_request(make_subscription())
    if verb == "replay":
        settle(request, "failed")
    before = WebhookRequest.objects.values().get()
    answer = post(request.id, verb, {"dry_run": True})
    assert answer.json() == invalid(("/dry_run", "unknown", "This field is not known."))
    assert WebhookRequest.objects.values().get() == before


@pytest.mark.parametrize("verb", VERBS)
def test_it_answers_404_for_an_unknown_request(post, db, verb):
    answer = post(uuid.uuid4(), verb)
    assert answer.json() == NOT_FOUND
    assert answer.status_code == 404


@pytest.mark.parametrize("verb", VERBS)
def test_it_touches_no_request_of_another_tenant(post, make_client, make_subscription, make_request, settle, verb):
    request = make_request(make_subscription(tenant="globex"))
    if verb == "replay":
        settle(request, "failed")
    before = WebhookRequest.objects.values().get()
    answer = post(request.id, verb, client=make_client(tenant="acme"))
    assert answer.json() == NOT_FOUND
    assert WebhookRequest.objects.values().get() == before


@pytest.mark.parametrize("verb", VERBS)
def test_it_wants_a_key_that_may_manage(post, make_client, make_subscription, make_request, verb):
    request = make_request(make_subscription())
    answer = post(request.id, verb, client=make_client("read", "publish"))
    assert answer.json() == no_scope("manage")
    assert answer.status_code == 403


@pytest.mark.parametrize("verb", VERBS)
def test_it_does_nothing_by_get(client_with_key, make_subscription, make_request, verb):
    request = make_request(make_subscription())
    assert client_with_key.get(f"/requests/{request.id}/{verb}").status_code == 405
