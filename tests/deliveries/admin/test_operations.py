"""The admin's page of operations: progress, a stop that asks first, and nothing else to do."""

import re

import pytest

from deliveries.models import Operation
from subscriptions.audit import AuditEntry
from tests.staff import messages_of, operator_client, staff_client

pytestmark = pytest.mark.django_db

URL = "/admin/deliveries/operation/"


@pytest.fixture
def make():
    def make(**fields) -> Operation:
        usual = {"kind": "replay", "selection": {"error": "dns"}, "status": "running", "total": 40, "done": 10}
        return Operation.objects.create(**usual | fields)

    return make


def cancel(client, *operations, **fields):
    ids = [str(operation.id) for operation in operations]
    return client.post(URL, {"action": "cancel", "_selected_action": ids} | fields, follow=True)


def test_it_shows_how_far_an_operation_has_come(make):
    operation = make(tenant="acme", requested_by="<b>support</b>")
    client = staff_client("view_operation")
    for url in (URL, f"{URL}{operation.id}/change/"):
        page = client.get(url).content.decode()
        assert "10 of 40" in page
        assert "acme" in page
        assert "&lt;b&gt;support&lt;/b&gt;" in page
        assert "<b>support</b>" not in page
    assert "error: dns" in page


def test_it_shows_what_an_operation_selects_in_words(make):
    operation = make(selection={"status": ["failed", "skipped"], "error": "dns"})
    page = staff_client("view_operation").get(f"{URL}{operation.id}/change/").content.decode()
    assert "error: dns, status: failed or skipped" in page


def test_it_finds_an_operation_by_its_id_or_tenant(make):
    wanted, _ = make(tenant="acme"), make()
    client = operator_client()
    for term in (str(wanted.id), "acme"):
        assert list(client.get(URL, {"q": term}).context["cl"].result_list) == [wanted]


def test_it_asks_before_it_stops_and_records_who_did(make):
    running, over = make(), make(status="done")
    client = operator_client()
    page = cancel(client, running, over)
    assert "What they have brought back is delivered all the same" in page.content.decode()
    running.refresh_from_db()
    assert running.status == "running"

    assert messages_of(cancel(client, running, over, confirmed="yes")) == ["Stopped 1 operation."]
    running.refresh_from_db()
    over.refresh_from_db()
    assert (running.status, over.status) == ("canceled", "done")
    entry = AuditEntry.objects.get(action="cancel")
    assert (entry.actor, entry.object_kind, entry.object_id) == ("operator", "operation", str(running.id))


def test_its_page_has_a_stop_button_of_its_own_that_asks_first(make):
    operation, client = make(), operator_client()
    page = f"{URL}{operation.id}/change/"
    content = client.get(page).content.decode()
    form = content[content.index(f'<form method="post" action="{URL}">') : content.index('value="Stop"')]
    posted = dict(re.findall(r'name="([^"]+)" value="([^"]+)"', form))
    assert posted.pop("csrfmiddlewaretoken")
    question = client.post(URL, posted)
    assert question.context["button"] == "Stop"
    operation.refresh_from_db()
    assert operation.is_active

    response = client.post(URL, posted | {"confirmed": "yes"}, follow=True)
    assert response.redirect_chain == [(page, 302)]
    assert messages_of(response) == ["Stopped 1 operation."]
    assert 'value="Stop"' not in response.content.decode()
    assert AuditEntry.objects.get(action="cancel").object_id == str(operation.id)


def test_its_page_has_no_stop_button_for_who_may_not_replay(make):
    page = staff_client("view_operation").get(f"{URL}{make().id}/change/").content.decode()
    assert 'value="Stop"' not in page


def test_it_says_when_there_is_nothing_to_stop(make):
    assert messages_of(cancel(operator_client(), make(status="done"))) == ["None of these is still running."]


def test_it_lets_nobody_stop_who_may_not_replay(make):
    operation = make()
    cancel(staff_client("view_operation"), operation, confirmed="yes")
    operation.refresh_from_db()
    assert operation.status == "running"


def test_it_adds_changes_and_deletes_nothing(make):
    operation, client = make(), operator_client()
    for url in (f"{URL}add/", f"{URL}{operation.id}/change/", f"{URL}{operation.id}/delete/"):
        assert client.post(url, {"post": "yes"}).status_code == 403
