"""The pages of subscriptions: who sees them, what they list, and what moves one. The form has its own file."""

from datetime import UTC, datetime

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client

from subscriptions.audit import AuditEntry
from subscriptions.models import Subscription
from tests.staff import messages_of, staff_client
from tests.subscriptions.subscription_pages import ADD, FIELDS, LIST, page_of

pytestmark = pytest.mark.django_db

KEYS = "/admin/subscriptions/apikey/"

HOSTILE = "<script>alert(1)</script>\u202e"
INERT = r"&lt;script&gt;alert(1)&lt;/script&gt;\u202e"


def act(client: Client, url: str, action: str, *rows: Subscription, **fields: str):
    data = {"action": action, "_selected_action": [str(row.id) for row in rows]} | fields
    return client.post(url, data, follow=True)


@pytest.mark.parametrize("url", ["/admin/", LIST, ADD, KEYS])
def test_it_asks_an_anonymous_visitor_to_log_in(client, url):
    response = client.get(url)
    assert (response.status_code, response.url) == (302, f"/admin/login/?next={url}")


@pytest.mark.parametrize("url", [LIST, ADD, KEYS])
def test_it_refuses_staff_without_a_permission(url):
    assert staff_client().get(url).status_code == 403


def test_it_names_the_service_and_leaves_rq_out(operator):
    content = operator.get("/admin/").content.decode()
    assert "<title>Administration | Webhook delivery service</title>" in content
    assert "django_rq" not in content.lower().replace("-", "_")
    assert "View site" not in content


def test_it_lists_subscriptions(operator, make_subscription):
    make_subscription("https://a.example.com/", tenant="acme", event_types=["invoice.*", "refund.made"])
    make_subscription("https://b.example.com/", status="paused")
    content = operator.get(LIST).content.decode()
    for shown in ("https://a.example.com/", "acme", "invoice.*, refund.made", "every event", "Paused"):
        assert shown in content


def test_it_lists_any_number_of_subscriptions_in_as_many_queries(
    operator, make_subscription, django_assert_num_queries
):
    for _ in range(3):
        make_subscription()
    with django_assert_num_queries(8):  # session, user, one-time code, time limit in a transaction, count, page
        operator.get(LIST)


def test_it_lists_no_more_than_ten_event_types_of_each(operator, make_subscription):
    make_subscription(event_types=[f"a.b{number}" for number in range(12)])
    content = operator.get(LIST).content.decode()
    assert "a.b8, a.b9 and 2 more</td>" in content


@pytest.mark.parametrize("term", ["first.example", "FIRST-description", "first-tenant", "id"])
def test_it_finds_a_subscription(operator, make_subscription, term):
    first = make_subscription("https://first.example.com/", description="first-description", tenant="first-tenant")
    make_subscription("https://second.example.com/")
    response = operator.get(LIST, {"q": str(first.id) if term == "id" else term})
    assert list(response.context["cl"].result_list) == [first]


def test_it_filters_by_status(operator, make_subscription):
    make_subscription()
    paused = make_subscription(status="paused")
    response = operator.get(LIST, {"status__exact": "paused"})
    assert list(response.context["cl"].result_list) == [paused]


def test_it_filters_by_trouble(operator, make_subscription):
    well, failing, open_ = (make_subscription() for _ in range(3))
    Subscription.objects.filter(id=failing.id).update(failing_since=Now())
    Subscription.objects.filter(id=open_.id).open_circuit()

    def found(**parameters: str) -> list[Subscription]:
        return list(operator.get(LIST, parameters).context["cl"].result_list)

    assert found(trouble="failing") == [failing]
    assert found(trouble="circuit") == [open_]
    assert found(trouble="") == found() == [open_, failing, well]


@pytest.mark.parametrize(
    ("status", "button", "moved"),
    [("active", "pause", "paused"), ("paused", "resume", "active"), ("disabled", "enable", "active")],
)
def test_a_subscription_is_moved_on_its_page_by_who_may(operator, make_subscription, status, button, moved):
    subscription = make_subscription(status=status)
    form = f'<input type="hidden" name="action" value="{button}">'
    assert form in operator.get(page_of(subscription)).content.decode()
    assert form not in staff_client("view_subscription").get(page_of(subscription)).content.decode()
    response = act(operator, LIST, button, subscription)
    assert response.redirect_chain == [(page_of(subscription), 302)]
    subscription.refresh_from_db()
    assert subscription.status == moved


def test_it_tells_subscriptions_of_one_url_by_their_descriptions(operator, make_subscription):
    for description in ("For the ledger", "For <b>shipping</b>"):
        make_subscription("https://receiver.example.com/", description=description)
    content = operator.get(LIST).content.decode()
    assert ">For the ledger<" in content
    assert ">For &lt;b&gt;shipping&lt;/b&gt;<" in content


def test_it_shows_when_a_subscription_will_be_disabled_as_any_other_time(operator, make_subscription):
    subscription = make_subscription()
    since = datetime(2026, 11, 24, 12, 30, 15, 123456, tzinfo=UTC)
    Subscription.objects.filter(id=subscription.id).update(failing_since=since)
    content = operator.get(page_of(subscription)).content.decode()
    assert "2026-11-29 12:30:15</div>" in content
    assert "12:30:15.123456" not in content


def test_it_leaves_out_what_is_deleted(operator, make_subscription):
    subscription = make_subscription("https://deleted.example.com/")
    subscription.remove()
    assert "deleted.example.com" not in operator.get(LIST).content.decode()


def test_it_deletes_no_subscription(operator, make_subscription):
    subscription = make_subscription()
    url = f"{LIST}{subscription.id}/delete/"
    assert [operator.get(url).status_code, operator.post(url, {"post": "yes"}).status_code] == [403, 403]
    assert "delete_selected" not in operator.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("action", "report", "statuses"),
    [
        ("pause", "Paused 1 of 3 selected subscriptions.", ["paused", "paused", "disabled"]),
        ("resume", "Resumed 1 of 3 selected subscriptions.", ["active", "active", "disabled"]),
        ("disable", "Disabled 2 of 3 selected subscriptions.", ["disabled", "disabled", "disabled"]),
        ("enable", "Enabled 1 of 3 selected subscriptions.", ["active", "paused", "active"]),
    ],
)
def test_it_moves_subscriptions_and_says_how_many(operator, make_subscription, action, report, statuses):
    rows = [make_subscription(status=status) for status in ("active", "paused", "disabled")]
    untouched = make_subscription(status="paused")
    response = act(operator, LIST, action, *rows)
    assert messages_of(response) == [report]
    for row in (*rows, untouched):
        row.refresh_from_db()
    assert [row.status for row in rows] == statuses
    assert untouched.status == "paused"
    assert AuditEntry.objects.filter(actor="operator", action=action).count() == int(report.split()[1])


def test_it_forgets_the_cached_copy_of_what_it_moves(operator, make_subscription):
    subscription = make_subscription()
    assert Subscription.objects.cached(subscription.id).status == "active"
    act(operator, LIST, "disable", subscription)
    cached = Subscription.objects.cached(subscription.id)
    assert (cached.status, cached.status_reason) == ("disabled", "disabled by an operator")


def test_it_moves_nothing_for_who_may_only_look(make_subscription):
    subscription = make_subscription()
    client = staff_client("view_subscription")
    assert "Disable selected" not in client.get(LIST).content.decode()
    act(client, LIST, "disable", subscription)
    subscription.refresh_from_db()
    assert subscription.status == "active"
    assert client.post(page_of(subscription), FIELDS).status_code == 403
    assert client.get(ADD).status_code == 403


def test_it_shows_hostile_text_as_text(operator, make_subscription):
    subscription = make_subscription(description=HOSTILE, tenant=HOSTILE)
    Subscription.objects.update(target_url="javascript:alert(1)")
    for url in (LIST, page_of(subscription)):
        content = operator.get(url).content.decode()
        assert "<script>alert" not in content
        assert 'href="javascript:' not in content
        assert INERT in content


def test_it_changes_nothing_on_a_get(operator, make_subscription):
    subscription = make_subscription()
    operator.get(LIST, {"action": "disable", "_selected_action": str(subscription.id)})
    subscription.refresh_from_db()
    assert subscription.status == "active"


def test_it_changes_no_more_than_1000_at_once(operator, make_subscription):
    subscription = make_subscription()
    Subscription.objects.bulk_create(
        Subscription(target_url=f"https://receiver.example.com/{number}", secret=b"", secret_hint="")
        for number in range(1_000)
    )
    fields = {"action": "pause", "_selected_action": str(subscription.id), "select_across": "1"}
    assert messages_of(operator.post(LIST, fields, follow=True)) == [
        "Nothing was changed: more than 1,000 are selected. Narrow the list, or select page by page."
    ]
    assert not Subscription.objects.filter(status="paused").exists()
    assert messages_of(operator.post(f"{LIST}?q=127.0.0.1", fields, follow=True)) == [
        "Paused 1 of 1 selected subscriptions."
    ]


def test_it_enables_none_that_is_deleted_meanwhile(operator, make_subscription):
    subscription = make_subscription(status="disabled")

    def delete_before_the_lock(execute, sql, *arguments):
        if "FOR NO KEY UPDATE" in sql:
            Subscription.objects.get().remove()
        return execute(sql, *arguments)

    with connection.execute_wrapper(delete_before_the_lock):
        response = operator.post(LIST, {"action": "enable", "_selected_action": str(subscription.id)})
    assert response.status_code == 302
    subscription.refresh_from_db()
    assert (subscription.status, subscription.status_reason) == ("disabled", "deleted")
    assert not AuditEntry.objects.filter(action="enable").exists()
