import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from subscriptions import secrets
from subscriptions.audit import AuditEntry
from subscriptions.models import ApiKey, Subscription
from tests.staff import messages_of, operator_client, seen, staff_client

pytestmark = pytest.mark.django_db

LIST = "/admin/subscriptions/subscription/"
ADD = f"{LIST}add/"
KEYS = "/admin/subscriptions/apikey/"

HOSTILE = "<script>alert(1)</script>\u202e"
INERT = r"&lt;script&gt;alert(1)&lt;/script&gt;\u202e"

FIELDS = {
    "target_url": "https://receiver.example.com/hook",
    "description": "invoices",
    "tenant": "acme",
    "event_types": "invoice.paid,refund.*",
    "secret": "",
    "retry_schedule": "10,20",
    "timeout_seconds": "5",
    "max_in_flight": "2",
    "metadata": "{}",
}


@pytest.fixture
def operator(db: None) -> Client:
    return operator_client()


def page_of(row: Subscription | ApiKey) -> str:
    return reverse(f"admin:subscriptions_{row._meta.model_name}_change", args=(row.id,))


def act(client: Client, url: str, action: str, *rows: Subscription | ApiKey, **fields: str):
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
    with django_assert_num_queries(5):  # session, user, one-time code, count, page
        operator.get(LIST)


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


def test_it_adds_a_subscription_and_tells_the_secret_it_made_once(operator):
    response = operator.post(ADD, FIELDS, follow=True)
    subscription = Subscription.objects.get()
    secret = secrets.decrypt(bytes(subscription.secret), row_id=subscription.id)
    assert secret.startswith("whsec_")
    assert messages_of(response)[0] == (
        f"Its secret is <code>{secret}</code>. Copy it now: it is never shown again."
    )
    assert [
        subscription.target_url,
        subscription.event_types,
        subscription.retry_schedule,
        subscription.timeout_seconds,
        subscription.max_in_flight,
        subscription.status,
    ] == ["https://receiver.example.com/hook", ["invoice.paid", "refund.*"], [10, 20], 5, 2, "active"]
    entry = AuditEntry.objects.get(action="add")
    assert (entry.object_kind, entry.object_id) == ("subscription", str(subscription.id))
    history = f"/admin/subscriptions/subscription/{subscription.id}/history/"
    for url in (LIST, page_of(subscription), history, f"/admin/subscriptions/auditentry/{entry.id}/change/"):
        page = operator.get(url, follow=True)
        assert page.status_code == 200
        assert secret not in page.content.decode()


def test_it_takes_a_secret_as_it_is_written(operator):
    response = operator.post(ADD, FIELDS | {"secret": " <my> secret "}, follow=True)
    subscription = Subscription.objects.get()
    assert secrets.decrypt(bytes(subscription.secret), row_id=subscription.id) == " <my> secret "
    assert "<code> &lt;my&gt; secret </code>" in messages_of(response)[0]


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("target_url", "javascript:alert(1)", "The URL must begin with http:// or https://."),
        ("target_url", "http://10.0.0.1/", "The host is an address that may not be called"),
        ("event_types", "invoice.paid,no good", "“no good” is not an event type"),
        ("retry_schedule", "10,soon", "Enter a whole number."),
        ("retry_schedule", "0", "greater than or equal to 1"),
        ("timeout_seconds", "61", "less than or equal to 60"),
        ("secret", "whsec_not base64", "whsec_"),
        ("metadata", "[1]", "The metadata is a JSON object."),
        ("filter", '{"colour": "red"}', "colour: A filter begins with"),
        ("headers", '{"Host": "x"}', "Host: The header Host is set by the service."),
        ("secret_headers", "nonsense", "Enter a valid JSON."),
        ("auth", '{"type": "bearer"}', "Object missing required field `token`."),
        ("ca_certificates", "nonsense", "This is not one certificate or more in PEM."),
    ],
)
def test_it_refuses_what_the_model_refuses(operator, field, value, complaint):
    response = operator.post(ADD, FIELDS | {field: value})
    assert response.status_code == 200
    assert complaint in str(response.context["errors"])
    assert Subscription.objects.count() == 0


def test_it_changes_a_subscription_but_not_its_status_or_secret(operator, make_subscription):
    subscription = make_subscription("https://old.example.com/", status="paused")
    stored = bytes(subscription.secret)
    fields = FIELDS | {"event_types": "", "retry_schedule": "", "secret": "another", "status": "active"}
    response = operator.post(page_of(subscription), fields | seen(subscription))
    assert response.status_code == 302
    subscription.refresh_from_db()
    assert [
        subscription.target_url,
        subscription.event_types,
        subscription.retry_schedule,
        subscription.status,
        bytes(subscription.secret),
    ] == ["https://receiver.example.com/hook", [], [], "paused", stored]


def test_a_subscription_stays_with_its_tenant(operator, make_subscription):
    subscription = make_subscription(tenant="globex")
    assert operator.post(page_of(subscription), FIELDS | seen(subscription)).status_code == 302
    subscription.refresh_from_db()
    assert (subscription.tenant, subscription.description) == ("globex", "invoices")
    content = operator.get(page_of(subscription)).content.decode()
    assert '<div class="readonly">globex</div>' in content
    assert 'name="tenant"' not in content


def test_an_empty_field_is_what_keeps_or_means_nothing(operator, make_subscription):
    subscription = make_subscription()
    form = operator.get(page_of(subscription)).context["adminform"].form
    assert [form[name].value() for name in ("filter", "secret_headers", "auth")] == ["", "", ""]


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


def test_it_shows_of_the_secret_only_its_hint(operator, make_subscription):
    subscription = make_subscription(secret="a long enough secret")
    content = operator.get(page_of(subscription)).content.decode()
    assert "…cret" in content
    assert "a long enough secret" not in content
    assert 'name="secret"' not in content


def test_it_takes_headers_and_auth_and_shows_no_secret_of_them(operator):
    more = {
        "metadata": '{"team": "billing"}',
        "filter": '{"tenant": "acme"}',
        "headers": '{"X-Route": "a"}',
        "secret_headers": '{"X-Token": "the-value-itself"}',
        "auth": '{"type": "bearer", "token": "the-token-itself"}',
    }
    operator.post(ADD, FIELDS | more)
    subscription = Subscription.objects.get()
    assert [subscription.metadata, subscription.filter, subscription.headers] == [
        {"team": "billing"},
        {"tenant": "acme"},
        {"X-Route": "a"},
    ]
    assert (subscription.secret_header_names, subscription.auth_type) == (["X-Token"], "bearer")
    content = operator.get(page_of(subscription)).content.decode()
    assert "X-Token" in content
    assert "bearer" in content
    assert "itself" not in content


def test_it_keeps_what_is_never_shown_unless_told_otherwise(operator, make_subscription):
    subscription = make_subscription()
    subscription.set_secret_headers({"X-Token": "t"})
    subscription.set_auth({"type": "bearer", "token": "t"})
    subscription.save()

    def saved(**fields):
        assert operator.post(page_of(subscription), FIELDS | seen(subscription) | fields).status_code == 302
        subscription.refresh_from_db()
        return subscription.secret_header_names, subscription.auth_type

    assert saved(secret_headers="", auth="") == (["X-Token"], "bearer")
    assert saved(secret_headers='{"X-Other": "o"}', auth="") == (["X-Other"], "bearer")
    assert saved(secret_headers="", auth="{}") == (["X-Other"], None)
    assert saved(secret_headers="{}", auth="") == ([], None)


def seen_on_the_page(client: Client, subscription: Subscription) -> dict[str, str]:
    page = client.get(page_of(subscription)).content.decode()
    return dict(re.findall(r'<input type="hidden" name="(seen)" value="([^"]+)"', page))


def test_it_saves_nothing_over_a_change_that_was_not_seen(operator, make_subscription, client_with_key):
    subscription = make_subscription("https://old.example.com/", description="old")
    opened = FIELDS | {"target_url": "https://old.example.com/"} | seen_on_the_page(operator, subscription)
    change = {"target_url": "https://new.example.com/"}
    assert client_with_key.patch(f"/subscriptions/{subscription.id}", change, format="json").status_code == 200
    for _ in range(2):  # sending it again is no way round
        response = operator.post(page_of(subscription), opened)
        assert "this was changed since the page was opened" in response.content.decode()
    subscription.refresh_from_db()
    assert (subscription.target_url, subscription.description) == ("https://new.example.com/", "old")
    assert not AuditEntry.objects.filter(actor="operator", action="change").exists()
    again = opened | seen_on_the_page(operator, subscription)
    assert operator.post(page_of(subscription), again).status_code == 302
    subscription.refresh_from_db()
    assert (subscription.target_url, subscription.description) == ("https://old.example.com/", "invoices")


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_a_change_that_is_going_on_and_then_saves_nothing_over_it(operator, make_subscription):
    subscription = make_subscription(description="old")
    opened = FIELDS | seen_on_the_page(operator, subscription)

    def save() -> str:
        try:
            return operator.post(page_of(subscription), opened).content.decode()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(), connection.cursor() as cursor:
            Subscription.objects.filter(id=subscription.id).update(description="new", updated_at=Now())
            saving = pool.submit(save)
            while not saving.done():
                cursor.execute(
                    "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
                )
                if cursor.fetchone() is not None:
                    break
        assert "this was changed since the page was opened" in saving.result()
    subscription.refresh_from_db()
    assert subscription.description == "new"


@pytest.mark.parametrize("seen_at", ["", "nonsense", "2026-11-24T00:00:00+00:00"])
def test_it_saves_nothing_that_does_not_say_what_was_seen(operator, make_subscription, seen_at):
    subscription = make_subscription(description="old")
    assert operator.post(page_of(subscription), FIELDS | {"seen": seen_at}).status_code == 200
    subscription.refresh_from_db()
    assert subscription.description == "old"


def test_a_delivery_that_notes_something_does_not_disturb_who_edits(operator, make_subscription):
    subscription = make_subscription()
    opened = FIELDS | seen_on_the_page(operator, subscription)
    Subscription.objects.filter(id=subscription.id).update(failing_since=Now(), window_calls=3)
    assert operator.post(page_of(subscription), opened).status_code == 302


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
