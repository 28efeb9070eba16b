"""The form of a subscription: what it takes, what it never shows, and a change that was not seen."""

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client

from subscriptions import certificates, secrets
from subscriptions.audit import AuditEntry
from subscriptions.models import Subscription
from tests.certificates import make_pair
from tests.staff import messages_of, seen, staff_client
from tests.subscriptions.subscription_pages import ADD, FIELDS, LIST, page_of

pytestmark = pytest.mark.django_db


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


def test_it_tells_the_secret_whatever_the_subscription_is_called(operator):
    long_url = f"https://receiver.example.com/{random.randbytes(1_000).hex()}"[:2_048]
    response = operator.post(ADD, FIELDS | {"target_url": long_url, "description": ""}, follow=True)
    assert messages_of(response)[0].startswith("Its secret is <code>whsec_")
    assert str(Subscription.objects.get()) == f"{long_url[:255]}…"


def test_it_takes_a_secret_as_it_is_written(operator):
    response = operator.post(ADD, FIELDS | {"secret": " <my> secret "}, follow=True)
    subscription = Subscription.objects.get()
    assert secrets.decrypt(bytes(subscription.secret), row_id=subscription.id) == " <my> secret "
    assert "<code> &lt;my&gt; secret </code>" in messages_of(response)[0]


def test_it_takes_a_tenant_as_it_is_written(operator):
    operator.post(ADD, FIELDS | {"tenant": " acme "})
    assert Subscription.objects.get().tenant == " acme "


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("target_url", "javascript:alert(1)", "The URL must begin with http:// or https://."),
        ("target_url", "http://10.0.0.1/", "The host is an address that may not be called"),
        ("event_types", "invoice.paid,no good", "“no good” is not an event type"),
        ("event_types", "invoice.%(x)s,{}", r"“invoice.\u0025(x)s” is not an event type"),
        ("event_types", "100%", r"“100\u0025” is not an event type"),
        ("retry_schedule", "10,soon", "Enter a whole number."),
        ("retry_schedule", "0", "greater than or equal to 1"),
        ("timeout_seconds", "61", "less than or equal to 60"),
        ("secret", "whsec_not base64", "whsec_"),
        ("metadata", "[1]", "The metadata is a JSON object."),
        ("metadata", "[]", "The metadata is a JSON object."),
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_types", "," * 500),
        ("retry_schedule", "x," * 500),
        ("headers", json.dumps({str(number): [] for number in range(501)})),
        ("secret_headers", json.dumps({str(number): [] for number in range(501)})),
    ],
)
def test_it_does_not_look_at_each_of_very_many_items(operator, field, value):
    response = operator.post(ADD, FIELDS | {field: value})
    assert response.context["errors"] == [["There are more than 500 items."]]


def test_it_saves_every_change_that_it_records(operator, make_subscription):
    subscription = make_subscription(timeout_seconds=7)
    claimed = {"initial-timeout_seconds": "5"}  # what the form says was there before
    fields = FIELDS | seen(subscription) | {"timeout_seconds": "5"} | claimed
    assert operator.post(page_of(subscription), fields).status_code == 302
    subscription.refresh_from_db()
    entry = AuditEntry.objects.get(action="change")
    assert (subscription.timeout_seconds, entry.after["timeout_seconds"]) == (5, 5)
    assert 'name="initial-' not in operator.get(page_of(subscription)).content.decode()


@pytest.mark.parametrize("text", ["", "null"])
def test_metadata_that_is_left_empty_is_none(operator, make_subscription, text):
    subscription = make_subscription(metadata={"team": "billing"})
    fields = FIELDS | seen(subscription) | {"metadata": text}
    assert operator.post(page_of(subscription), fields).status_code == 302
    subscription.refresh_from_db()
    assert subscription.metadata == {}


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


def test_lines_that_a_browser_sends_back_are_no_change(operator, make_subscription):
    pem = make_pair(None).certificate
    subscription = make_subscription("https://receiver.example.com/hook", ca_certificates=pem)
    fields = FIELDS | seen(subscription) | {"ca_certificates": pem.replace("\n", "\r\n"), "description": "new"}
    assert operator.post(page_of(subscription), fields).status_code == 302
    subscription.refresh_from_db()
    assert (subscription.ca_certificates, subscription.description) == (pem, "new")
    assert "ca_certificates" not in AuditEntry.objects.get(action="change").after


@pytest.mark.parametrize("left", ["", " ", "\r\n"])
def test_what_is_left_of_certificates_that_were_taken_away_is_none(operator, make_subscription, left):
    pem = make_pair(None).certificate
    subscription = make_subscription("https://receiver.example.com/hook", ca_certificates=pem)
    fields = FIELDS | seen(subscription) | {"ca_certificates": left}
    assert operator.post(page_of(subscription), fields).status_code == 302
    subscription.refresh_from_db()
    assert subscription.ca_certificates == ""


def test_certificates_from_when_there_was_more_room_are_in_the_way_of_nothing(operator, make_subscription):
    pem = make_pair(None).certificate.ljust(certificates.MAX_LENGTH + 1, "\n")
    subscription = make_subscription("https://receiver.example.com/hook", ca_certificates=pem)
    fields = FIELDS | seen(subscription) | {"ca_certificates": pem, "description": "new"}
    assert operator.post(page_of(subscription), fields).status_code == 302
    subscription.refresh_from_db()
    assert (subscription.ca_certificates, subscription.description) == (pem, "new")


def test_a_subscription_whose_description_is_blank_is_named_by_its_url(make_subscription):
    assert str(make_subscription("https://receiver.example.com/hook", description=" \n")).startswith("https://")


def test_a_description_keeps_its_spaces_and_lines(operator, make_subscription):
    subscription = make_subscription(description=" first\nsecond ")
    page = operator.get(page_of(subscription)).content.decode()
    assert re.search(r'<textarea name="description"[^>]*>\n first\nsecond </textarea>', page)
    fields = FIELDS | seen(subscription) | {"description": " first\r\nsecond "}
    assert operator.post(page_of(subscription), fields).status_code == 302
    subscription.refresh_from_db()
    assert subscription.description == " first\nsecond "
    assert "description" not in AuditEntry.objects.get(action="change").after


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


def test_who_may_only_look_is_shown_nothing_of_what_is_encrypted(make_subscription):
    subscription = make_subscription()
    subscription.set_secret_headers({"X-Token": "t"})
    subscription.set_auth({"type": "bearer", "token": "t"})
    subscription.save()
    content = staff_client("view_subscription").get(page_of(subscription)).content.decode()
    assert "X-Token" in content
    assert "b&#x27;" not in content  # as bytes would be shown


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
