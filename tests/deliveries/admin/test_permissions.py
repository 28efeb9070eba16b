"""Who may see what was delivered, and do what."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.deliveries.admin.pages import ATTEMPTS, EVENTS, LISTS, REQUESTS, page_of, replay
from tests.staff import messages_of, staff_client

pytestmark = pytest.mark.django_db


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
