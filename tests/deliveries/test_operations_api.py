"""POST /subscriptions/{id}/recover and /operations: whole bodies, counts, refusals, tenants, scopes."""

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from deliveries import operation_views, queue, readiness
from deliveries.models import Operation, WebhookRequest
from deliveries.operation_views import MOST_AT_ONCE
from subscriptions import cache
from subscriptions.ids import lowest_id_at
from subscriptions.models import Subscription
from tests.deliveries.locks import lock_of, release_once_waited_for
from tests.expected import REQUEST_ID, invalid, no_scope, problem, rfc3339
from tests.threads import at_once

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SINCE = "2026-11-24T12:00:00Z"
NOT_FOUND = problem(404, "not_found", "There is no such thing here.")
NO_SUBSCRIPTION = problem(404, "not_found", "There is no such subscription.")


@pytest.fixture
def post(client_with_key):
    def post(path, data=None, client=client_with_key):
        return client.post(path, data, format="json", headers={"Request-Id": REQUEST_ID})

    return post


@pytest.fixture
def recover(post):
    def recover(subscription, client=None, **data):
        more = {} if client is None else {"client": client}
        return post(f"/subscriptions/{subscription.id}/recover", {"since": SINCE} | data, **more)

    return recover


@pytest.fixture
def make_settled(make_request, settle):
    """Store a request that was received some minutes after noon, and settled."""

    def make(subscription, status="failed", minutes=0, **fields) -> WebhookRequest:
        at = NOON + timedelta(minutes=minutes)
        row_id = uuid.UUID(int=lowest_id_at(at).int | uuid.uuid4().int >> 70)
        return settle(make_request(subscription, id=row_id, received_at=at), status, **fields)

    return make


def document(operation, **fields):
    return {
        "id": str(operation.id),
        "kind": "recover",
        "tenant": "",
        "selection": {},
        "status": "pending",
        "status_reason": "",
        "total": None,
        "done": 0,
        "requested_by": operation.requested_by,
        "created_at": rfc3339(operation.created_at),
        "started_at": None,
        "finished_at": None,
    } | fields


def test_it_stores_a_recover_and_has_it_begun(
    recover, make_subscription, client_with_key, django_capture_on_commit_callbacks
):
    subscription = make_subscription(tenant="acme")
    with django_capture_on_commit_callbacks() as callbacks:
        answer = recover(subscription, until="2026-11-24T14:00:00+01:00", status="failed")
    operation = Operation.objects.get()
    assert answer.json() == document(
        operation,
        tenant="acme",
        selection={
            "subscription": str(subscription.id),
            "status": ["failed"],
            "received_after": "2026-11-24T12:00:00+00:00",
            "received_before": "2026-11-24T13:00:00+00:00",
        },
    )
    assert answer.status_code == 202
    assert operation.requested_by.startswith("of the tests (whk_")
    assert queue.wake_maintenance in callbacks
    assert client_with_key.get(f"/operations/{operation.id}").json() == answer.json()
    listed = {"next": None, "previous": None, "results": [answer.json()]}
    assert client_with_key.get("/operations").json() == listed


def test_it_answers_as_the_examples_of_the_documentation_say(post, make_subscription):
    subscription = make_subscription(tenant="acme")
    answer = post(f"/subscriptions/{subscription.id}/recover", operation_views.RECOVER)
    example, operation = operation_views.RECOVERING, Operation.objects.get()
    assert answer.json() == example | {
        "id": str(operation.id),
        "selection": example["selection"] | {"subscription": str(subscription.id)},
        "requested_by": operation.requested_by,
        "created_at": rfc3339(operation.created_at),
    }
    replay = post("/operations", operation_views.REPLAY)
    operation = Operation.objects.get(kind="replay")
    assert (replay.status_code, replay.json()) == (
        202,
        operation_views.REPLAYING
        | {
            "id": str(operation.id),
            "requested_by": operation.requested_by,
            "created_at": rfc3339(operation.created_at),
        },
    )


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ({}, 3),
        ({"status": "failed"}, 2),
        ({"status": ["failed", "skipped", "canceled"]}, 4),
        ({"until": "2026-11-24T12:01:00Z"}, 2),
        ({"since": "2026-11-24T12:00:00.5Z"}, 1),
        ({"since": "2026-11-25T00:00:00Z"}, 0),
    ],
)
def test_it_counts_what_it_would_recover(
    recover, make_subscription, make_settled, make_request, data, count, django_capture_on_commit_callbacks
):
    subscription = make_subscription()
    make_settled(subscription, "failed")
    make_settled(subscription, "failed", minutes=1)
    make_settled(subscription, "failed", minutes=-1)
    make_settled(make_subscription(), "failed")
    for status in ("skipped", "canceled", "delivered"):
        make_settled(subscription, status)
    make_request(subscription)
    with django_capture_on_commit_callbacks() as callbacks:
        answer = recover(subscription, dry_run=True, **data)
    assert answer.json() == {"count": count}
    assert answer.status_code == 200
    assert not Operation.objects.exists()
    assert queue.wake_maintenance not in callbacks


@pytest.mark.parametrize("is_dry", [False, True])
def test_it_recovers_nothing_of_a_disabled_subscription(recover, make_subscription, is_dry):
    answer = recover(make_subscription(status="disabled"), dry_run=is_dry)
    detail = "This subscription is disabled. Enable it first."
    assert answer.json() == problem(409, "subscription_disabled", detail)
    assert not Operation.objects.exists()


def test_it_recovers_at_once_when_another_process_has_enabled_the_subscription(recover, make_subscription):
    subscription = make_subscription(status="disabled")
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(status="active")
    assert recover(subscription).status_code == 202


def test_it_recovers_and_replays_nothing_of_what_another_process_has_disabled_or_deleted(
    recover, post, make_subscription
):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(status="disabled")
    assert recover(subscription).status_code == 409
    Subscription.objects.filter(id=subscription.id).update(deleted_at=Now())
    cache.put(subscription.id, subscription, generation=cache.generation())
    assert recover(subscription).json() == NO_SUBSCRIPTION
    cache.put(subscription.id, subscription, generation=cache.generation())
    assert post("/operations", {"kind": "replay", "subscription": str(subscription.id)}).json() == NO_SUBSCRIPTION
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"since": "noon"}, None),
        ({"since": None}, ("/since", "null", "This field may not be null.")),
        ({"until": SINCE}, ("/until", "backwards", "The end is not after the beginning.")),
        ({"status": "delivered"}, ("/status", "invalid_choice", '"delivered" is not a valid choice.')),
        ({"status": ["delivered"]}, ("/status/0", "invalid_choice", '"delivered" is not a valid choice.')),
        ({"status": ["failed", "pending"]}, ("/status/1", "invalid_choice", '"pending" is not a valid choice.')),
        ({"status": []}, ("/status", "empty", "This list may not be empty.")),
        ({"dry_run": "yes"}, None),
        ({"dryrun": True}, ("/dryrun", "unknown", "This field is not known.")),
    ],
)
def test_it_refuses_bad_input(recover, make_subscription, data, error):
    answer = recover(make_subscription(), **data)
    assert answer.status_code == 400
    assert error is None or answer.json() == invalid(error)
    assert not Operation.objects.exists()


def test_it_replays_by_the_filters_of_the_list(post, make_subscription, make_settled):
    subscription = make_subscription(tenant="acme")
    make_settled(subscription, "failed", error="dns")
    make_settled(subscription, "failed", error="tls")
    make_settled(subscription, "delivered")
    make_settled(make_subscription(), "failed", error="dns")
    make_settled(make_subscription(status="disabled"), "failed", error="dns")
    for filters, count in (
        ({"error": "dns"}, 2),
        ({"error": "dns", "tenant": "acme"}, 1),
        ({"tenant": ""}, 1),
        ({"subscription": str(subscription.id)}, 2),
        ({"event_type": "invoice.paid"}, 3),
        ({"event_type": "invoice"}, 0),
        ({"received_after": SINCE}, 3),
        ({"received_before": SINCE}, 0),
        ({"tenant": "acme", "status": ["delivered", "failed"]}, 3),
    ):
        answer = post("/operations", {"kind": "replay", "dry_run": True} | filters)
        assert (filters, answer.status_code, answer.json()) == (filters, 200, {"count": count})
    answer = post("/operations", {"kind": "replay", "error": "dns", "tenant": "acme"})
    selection = {"error": "dns", "tenant": "acme", "status": ["failed", "skipped"]}
    expected = document(Operation.objects.get(), kind="replay", tenant="acme", selection=selection)
    assert answer.json() == expected
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, ("/kind", "required", "This field is required.")),
        ({"kind": "recover"}, ("/kind", "invalid_choice", '"recover" is not a valid choice.')),
        ({"kind": "replay"}, ("", "no_filter", "Say which requests: give at least one filter besides `status`.")),
        (
            {"kind": "replay", "status": "failed"},
            ("", "no_filter", "Say which requests: give at least one filter besides `status`."),
        ),
        (
            {"kind": "replay", "event_type": "a", "status": "pending"},
            ("/status", "invalid_choice", '"pending" is not a valid choice.'),
        ),
        ({"kind": "replay", "event_typ": "a"}, ("/event_typ", "unknown", "This field is not known.")),
    ],
)
def test_it_refuses_to_replay_everything_by_mistake(post, db, data, error):
    answer = post("/operations", data)
    assert answer.json() == invalid(error)
    assert not Operation.objects.exists()


def test_it_cancels_an_operation_once(post, recover, make_subscription):
    recover(make_subscription())
    operation = Operation.objects.get()
    answer = post(f"/operations/{operation.id}/cancel")
    operation.refresh_from_db()
    assert answer.status_code == 200
    assert answer.json() == document(
        operation,
        selection=operation.selection,
        status="canceled",
        finished_at=rfc3339(operation.finished_at),
    )
    again = post(f"/operations/{operation.id}/cancel")
    assert again.json() == problem(409, "finished", "It is over: there is nothing left to stop.")
    assert again.status_code == 409


@pytest.mark.django_db(transaction=True)
def test_it_cancels_an_operation_once_its_requests_are_counted(post, recover, make_subscription):
    """Counting holds its row, and may take longer than anybody waits for what he looks at."""
    recover(make_subscription())
    operation = Operation.objects.get()
    longer = readiness.ANSWER_SECONDS + 0.5
    releasing = threading.Thread(target=release_once_waited_for, args=(lock_of(operation), longer))
    releasing.start()
    answer = post(f"/operations/{operation.id}/cancel")
    releasing.join()
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")


def test_it_filters_operations_by_kind_and_status(client_with_key, recover, post, make_subscription):
    recover(make_subscription())
    post("/operations", {"kind": "replay", "tenant": "acme"})
    Operation.objects.filter(kind="recover").cancel()

    def kinds(**filters):
        return [row["kind"] for row in client_with_key.get("/operations", filters).json()["results"]]

    assert kinds() == ["replay", "recover"]
    assert kinds(kind="recover") == ["recover"]
    assert kinds(status="pending") == ["replay"]
    assert kinds(status="failed") == []
    refused = client_with_key.get("/operations", {"state": "done"}, headers={"Request-Id": REQUEST_ID})
    assert refused.json() == invalid(("/state", "unknown", "This parameter is not known."))


def test_it_keeps_tenants_apart(post, recover, make_client, make_subscription, make_settled):
    acme = make_client(tenant="acme")
    own, foreign = make_subscription(tenant="acme"), make_subscription(tenant="globex")
    make_settled(own)
    make_settled(foreign)
    assert recover(foreign, acme).json() == NO_SUBSCRIPTION
    by_id = {"kind": "replay", "subscription": str(foreign.id)}
    assert post("/operations", by_id, acme).json() == NO_SUBSCRIPTION
    by_tenant = {"kind": "replay", "tenant": "globex"}
    assert post("/operations", by_tenant, acme).json() == invalid(
        ("/tenant", "wrong_tenant", "This API key is bound to another tenant.")
    )
    everything = {"kind": "replay", "event_type": "invoice.paid", "dry_run": True}
    assert post("/operations", everything, acme).json() == {"count": 1}

    recover(foreign)
    post("/operations", {"kind": "replay", "event_type": "a"})  # of every tenant
    for operation in Operation.objects.all():
        assert post(f"/operations/{operation.id}/cancel", None, acme).json() == NOT_FOUND
        assert acme.get(f"/operations/{operation.id}").status_code == 404
    assert acme.get("/operations").json()["results"] == []
    assert recover(own, acme).status_code == 202
    assert len(acme.get("/operations").json()["results"]) == 1


def test_no_tenant_reads_the_name_of_another_in_what_an_operator_asks_for(post, make_client, make_subscription):
    own = make_subscription(tenant="acme")
    by_both = {"kind": "replay", "subscription": str(own.id), "tenant": "globex"}
    assert post("/operations", by_both).json() == problem(
        404, "not_found", "This tenant has no such subscription."
    )
    assert make_client(tenant="acme").get("/operations").json()["results"] == []
    assert post("/operations", by_both | {"tenant": "acme"}).status_code == 202


def test_no_tenant_has_very_many_operations_under_way(post, recover, make_subscription):
    one, another = make_subscription(tenant="acme"), make_subscription(tenant="globex")
    answers = [recover(one) for _ in range(MOST_AT_ONCE + 1)]
    assert [answer.status_code for answer in answers] == [202] * MOST_AT_ONCE + [429]
    detail = "There are 20 operations under way already. Wait for one to end, or cancel it."
    assert answers[-1].json() == problem(429, "too_many_operations", detail)
    assert answers[-1]["Retry-After"] == "60"
    assert recover(one, dry_run=True).status_code == 200
    assert recover(another).status_code == 202
    assert post("/operations", {"kind": "replay", "event_type": "a"}).status_code == 202

    post(f"/operations/{answers[0].json()['id']}/cancel", {})
    assert recover(one).status_code == 202


@pytest.mark.django_db(transaction=True)
def test_no_tenant_gets_more_of_them_by_asking_at_once(recover, make_subscription):
    subscription = make_subscription(tenant="acme")
    answers = at_once(MOST_AT_ONCE + 10, lambda: recover(subscription).status_code)
    assert sorted(answers) == [202] * MOST_AT_ONCE + [429] * 10


def test_it_tells_a_tenant_only_the_names_of_its_own_keys(post, recover, make_client, make_subscription):
    acme = make_client(tenant="acme")
    subscription = make_subscription(tenant="acme")
    own = recover(subscription, acme).json()
    foreign = recover(subscription).json()
    assert own["requested_by"].startswith("of the tests (whk_")
    assert foreign["requested_by"].startswith("of the tests (whk_")
    by_id = {row["id"]: row["requested_by"] for row in acme.get("/operations").json()["results"]}
    assert by_id == {own["id"]: own["requested_by"], foreign["id"]: ""}
    assert acme.get(f"/operations/{foreign['id']}").json() == foreign | {"requested_by": ""}
    assert post(f"/operations/{foreign['id']}/cancel", None, acme).json()["requested_by"] == ""


def test_it_answers_404_for_an_unknown_operation(client_with_key, post, db):
    path = f"/operations/{uuid.uuid4()}"
    assert client_with_key.get(path, headers={"Request-Id": REQUEST_ID}).json() == NOT_FOUND
    assert post(f"{path}/cancel").json() == NOT_FOUND


def test_it_wants_a_key_that_may_manage_and_one_that_may_read(post, recover, make_client, make_subscription):
    reader, manager = make_client("read", "publish"), make_client("manage")
    subscription = make_subscription()
    assert recover(subscription, reader).json() == no_scope("manage")
    assert post("/operations", {"kind": "replay", "tenant": ""}, reader).json() == no_scope("manage")
    recover(subscription)
    operation = Operation.objects.get()
    assert post(f"/operations/{operation.id}/cancel", None, reader).json() == no_scope("manage")
    assert reader.get(f"/operations/{operation.id}").status_code == 200
    assert manager.get("/operations").status_code == 403


@pytest.mark.parametrize("count", [1, 20])
def test_it_lists_operations_in_as_many_queries_however_many_there_are(
    client_with_key, make_client, recover, make_subscription, django_assert_num_queries, count
):
    subscription = make_subscription()
    for _ in range(count):
        recover(subscription)
    # The key, its last use; the operations within their time limit, which is a savepoint here.
    with django_assert_num_queries(6):
        assert len(client_with_key.get("/operations").json()["results"]) == count
    of_the_tenant = make_client(tenant="")
    # And the names of the tenant's keys.
    with django_assert_num_queries(7):
        assert len(of_the_tenant.get("/operations").json()["results"]) == count


@pytest.mark.parametrize("is_dry", [True, False])
def test_it_starts_an_operation_in_as_many_queries_however_much_is_selected(
    post, make_subscription, make_settled, is_dry
):
    counts = []
    for _ in range(2):
        for _ in range(1 + 5 * len(counts)):
            make_settled(make_subscription(), "failed")
        with CaptureQueriesContext(connection) as queries:
            answer = post("/operations", {"kind": "replay", "event_type": "invoice.paid", "dry_run": is_dry})
        assert answer.status_code == (200 if is_dry else 202)
        counts.append(len(queries))
    assert counts[0] == counts[1]
