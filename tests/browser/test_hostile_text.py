"""What strangers write is text and nothing else, on every page of the console."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect

from deliveries.models import DeliveryAttempt, Event, WebhookRequest
from subscriptions import audit
from subscriptions.models import ApiKey, Subscription

pytestmark = pytest.mark.browser

# Each in one text: markup, a script's URL, the syntax of templates, a formula, control
# characters, a text that runs backwards, and another host that would hear of it.
PARTS = (
    "<script>window.owned = 1</script>",
    "<img src=x onerror=window.owned=2>",
    "<svg/onload=window.owned=3>",
    "'\"><iframe src=https://evil.example.com/></iframe>",
    "<link rel=stylesheet href=//evil.example.com/x.css>",
    "</pre></script><a href=javascript:window.owned=4>x</a>",
    "{{ 7|add:7 }}{% debug %}${7*7}",
    "=HYPERLINK(1)",
    "\x07\x1b[31m\u202egnp.exe",
)
HOSTILE = "".join(PARTS)
SHORT = "<script>window.owned=5</script>{{1}}\u202e"
LONG = "<b>long" * 9_000


@pytest.fixture
def hostile(
    operator: Page, make_subscription: Callable[..., Subscription], make_request: Callable[..., WebhookRequest]
) -> dict[str, Any]:
    """Make a row of each kind with hostile text wherever one fits; return the ids by path."""
    subscription = make_subscription(headers={"X-Extra": HOSTILE}, metadata={"note": HOSTILE})
    # Validation keeps some of this out; rows from before a rule are shown all the same.
    texts = dict.fromkeys(("tenant", "description", "status_reason"), HOSTILE[:255])
    Subscription.objects.update(
        target_url=f"javascript:window.owned=6//{HOSTILE}", event_types=[SHORT], ca_certificates=HOSTILE, **texts
    )
    event = Event.objects.create(event_type=HOSTILE[:100], tenant=HOSTILE[:255], payload=HOSTILE.encode())
    failed = make_request(
        subscription, HOSTILE.encode(), event_type=HOSTILE[:100], status="failed", **_settled(HOSTILE[:255])
    )
    pending = make_request(subscription, f'{{"{LONG}": 1}}'.encode(), event_type=SHORT)
    attempt = DeliveryAttempt.objects.create(
        request=failed,
        subscription=subscription,
        attempt_number=1,
        trigger="initial",
        attempted_at=timezone.now(),
        success=False,
        status_code=500,
        error="http_5xx",
        specific_hint=SHORT,
        response_headers=f"HTTP/1.1 500 {HOSTILE}\r\nX-Evil: {HOSTILE}",
        response_body=(HOSTILE + LONG).encode() + b"\x00\xff",
    )
    key, _ = ApiKey.objects.create_key(HOSTILE[:255], ["read"], tenant=HOSTILE[:255], valid_for=None)
    actor = audit.Actor(kind="nobody", name=HOSTILE[:255])
    audit.record(
        actor,
        SHORT,
        kind=SHORT,
        object_id=HOSTILE[:255],
        before={HOSTILE: HOSTILE},
        after={"description": HOSTILE, "deep": [{SHORT: LONG}]},
    )
    person = User.objects.create_user("mallory", first_name=SHORT, last_name=SHORT, email=SHORT)
    return {
        "subscriptions/subscription": subscription.id,
        "subscriptions/apikey": key.id,
        "subscriptions/auditentry": audit.AuditEntry.objects.get(action=SHORT).id,
        "deliveries/event": event.id,
        "deliveries/webhookrequest": failed.id,
        "deliveries/webhookrequest/": pending.id,
        "deliveries/deliveryattempt": attempt.id,
        "auth/user": person.pk,
    }


def _settled(reason: str) -> dict[str, Any]:
    return {"settled_at": timezone.now(), "next_attempt_at": None, "status_reason": reason, "attempt_count": 1}


@pytest.fixture
def elsewhere(page: Page, live_server: object) -> list[str]:
    """The requests to other hosts that any page makes."""
    found: list[str] = []

    def note(url: str) -> None:
        if not url.startswith((str(live_server), "data:", "blob:")):
            found.append(url)

    page.on("request", lambda request: note(request.url))
    return found


def check(page: Page, live_server: object) -> None:
    """Nothing ran, nothing was made an element, and links lead to the console's own pages."""
    page.wait_for_load_state("load")
    assert page.evaluate("window.owned") is None
    assert page.locator("#container :is(iframe, svg[onload], img[src='x'], b, link)").count() == 0
    links = page.eval_on_selector_all("a[href]", "links => links.map(link => [link.href, link.target])")
    assert [link for link in links if not link[0].startswith(str(live_server)) or link[1]] == []
    text = page.locator("body").inner_text()
    assert [character for character in ("\u202e", "\x07", "\x1b") if character in text] == []
    assert "14${" not in text


def test_it_is_inert_on_every_page(
    operator: Page, live_server: object, hostile: dict[str, Any], elsewhere: list[str]
) -> None:
    for path, row_id in hostile.items():
        path = path.rstrip("/")
        for url in (f"/admin/{path}/", f"/admin/{path}/{row_id}/change/", f"/admin/{path}/{row_id}/history/"):
            response = operator.goto(f"{live_server}{url}")
            assert response is not None
            assert (url, response.status) == (url, 200)
            check(operator, live_server)
            if not url.endswith("/history/") and path != "auth/user":
                expect(operator.locator("#content")).to_contain_text("<script>window.owned")
    assert elsewhere == []


@pytest.mark.parametrize(
    ("path", "action", "confirm"),
    [
        ("deliveries/webhookrequest", "replay", "Replay"),
        ("deliveries/webhookrequest", "cancel", "Cancel"),
        ("subscriptions/apikey", "revoke", "Revoke"),
    ],
)
def test_it_is_inert_where_an_action_is_confirmed_and_reported(
    operator: Page,
    live_server: object,
    hostile: dict[str, Any],
    elsewhere: list[str],
    path: str,
    action: str,
    confirm: str,
) -> None:
    operator.goto(f"{live_server}/admin/{path}/")
    operator.locator("#action-toggle").check()
    operator.locator("select[name=action]").select_option(action)
    operator.get_by_role("button", name="Go").click()
    operator.get_by_role("heading", name="?").wait_for()
    check(operator, live_server)
    operator.get_by_role("button", name=confirm).click()
    operator.locator(".messagelist").wait_for()
    check(operator, live_server)
    assert elsewhere == []


def test_it_is_inert_where_it_is_sent_back(
    operator: Page, live_server: object, elsewhere: list[str], hostile: dict[str, Any]
) -> None:
    for path in hostile:
        operator.goto(f"{live_server}/admin/{path.rstrip('/')}/?q={quote(HOSTILE)}")
        check(operator, live_server)
    operator.goto(f"{live_server}/admin/subscriptions/subscription/add/")
    operator.get_by_label("Target URL").fill(f"javascript:window.owned=7//{HOSTILE}")
    operator.get_by_label("Event types").fill(SHORT)
    operator.get_by_label("Description").fill(SHORT)
    operator.get_by_role("button", name="Save", exact=True).click()
    expect(operator.get_by_text("The URL has a space, a backslash")).to_be_visible()
    check_without_inputs(operator)
    assert elsewhere == []


def check_without_inputs(page: Page) -> None:
    """Nothing ran; what somebody typed is in the fields as it was typed."""
    assert page.evaluate("window.owned") is None
    assert page.get_by_label("Event types").input_value() == SHORT


def test_it_is_inert_on_the_page_to_log_in(page: Page, live_server: object, elsewhere: list[str]) -> None:
    page.goto(f"{live_server}/admin/login/?next={quote(HOSTILE)}")
    page.get_by_label("Username").fill(SHORT)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("Please enter the correct username")).to_be_visible()
    assert page.evaluate("window.owned") is None
    assert page.locator("iframe, svg[onload], img[src='x']").count() == 0
    assert elsewhere == []
