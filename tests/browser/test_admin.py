from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from deliveries.models import DeliveryAttempt, Event, WebhookRequest
from subscriptions.models import Subscription
from tests.receiver import Answer, Receiver

pytestmark = pytest.mark.browser

HOSTILE = (
    '<script>document.title = "owned"</script><img src="nothing" onerror="alert(1)">'
    '<a href="javascript:alert(2)">here</a>" onmouseover="alert(3)\u202e'
)
INERT = HOSTILE.replace("\u202e", r"\u202e")


@pytest.fixture
def fail(
    make_subscription: Callable[..., Subscription],
    make_request: Callable[..., WebhookRequest],
    make_due: Callable[[WebhookRequest], None],
    deliver: Callable[[], int],
    receiver: Receiver,
) -> Callable[..., WebhookRequest]:
    """Make a request that has failed after two attempts."""

    def fail(payload: bytes = b'{"n": 1}') -> WebhookRequest:
        receiver.script = [Answer(status=500, body=b"out of order"), Answer(status=503, body=b"closed")]
        request = make_request(make_subscription(receiver.url, retry_schedule=[600]), payload)
        deliver()
        make_due(request)
        deliver()
        request.refresh_from_db()
        assert request.status == "failed"
        return request

    return fail


def attempts_on(page: Page) -> Locator:
    return page.get_by_role("group", name="Attempts").locator("tr.form-row")


def test_an_operator_replays_a_failed_request(
    operator: Page, fail: Callable[..., WebhookRequest], deliver: Callable[[], int], receiver: Receiver
) -> None:
    payload = b'{"invoice":"in_42","amount":1.50}'
    request = fail(payload)
    operator.get_by_role("link", name="Webhook requests").click()
    operator.get_by_role("link", name="Failed").click()
    operator.get_by_role("link", name=str(request.id)).click()
    expect(operator.locator(".field-last_attempt")).to_contain_text("503, http_5xx. The receiver failed.")
    expect(operator.locator("pre").first).to_have_text('{\n  "invoice": "in_42",\n  "amount": 1.50\n}')
    operator.get_by_text("Payload as sent").click()
    expect(operator.get_by_text(payload.decode(), exact=True)).to_be_visible()
    expect(attempts_on(operator)).to_contain_text(["Initial", "Retry"])
    expect(attempts_on(operator)).to_contain_text(["500", "503"])

    operator.get_by_role("button", name="Replay").click()
    expect(operator.get_by_text("1 request will be delivered again, to the target URL")).to_be_visible()
    assert len(receiver.arrivals) == 2
    operator.get_by_role("button", name="Replay").click()
    expect(operator.get_by_text("1 request will be delivered again.", exact=True)).to_be_visible()

    deliver()
    operator.reload()
    expect(attempts_on(operator)).to_contain_text(["Initial", "Retry", "Replay"])
    expect(attempts_on(operator)).to_contain_text(["500", "503", "200"])
    assert [arrival.body for arrival in receiver.arrivals] == [payload] * 3

    attempts_on(operator).nth(1).get_by_role("link", name="View").click()
    expect(operator.locator("pre").nth(1)).to_have_text("closed")


def test_an_operator_replays_many_requests(
    operator: Page,
    fail: Callable[..., WebhookRequest],
    make_request: Callable[..., WebhookRequest],
    deliver: Callable[[], int],
) -> None:
    failed = [fail(), fail()]
    pending = make_request(failed[0].subscription)
    operator.get_by_role("link", name="Webhook requests").click()
    operator.wait_for_url("**/webhookrequest/")  # with the scripts that select all
    operator.get_by_role("checkbox", name="Select all objects on this page for an action").check()
    operator.get_by_label("Action:").select_option("Replay selected webhook requests")
    operator.get_by_role("button", name="Go").click()
    expect(operator.get_by_text("2 requests will be delivered again")).to_be_visible()
    expect(operator.get_by_text("1 request will be left alone")).to_be_visible()
    operator.get_by_role("button", name="Replay").click()
    expect(operator.get_by_text("2 requests will be delivered again.", exact=True)).to_be_visible()

    deliver()
    operator.reload()
    expect(operator.locator("#result_list .field-standing")).to_have_text(["delivered"] * 3)
    replayed = DeliveryAttempt.objects.filter(trigger="replay", success=True)
    assert {attempt.request_id for attempt in replayed} == {request.id for request in failed}
    assert [attempt.trigger for attempt in pending.attempts.all()] == ["initial"]


def test_hostile_text_stays_text(
    operator: Page,
    live_server: Any,
    make_subscription: Callable[..., Subscription],
    make_request: Callable[..., WebhookRequest],
    deliver: Callable[[], int],
    receiver: Receiver,
) -> None:
    receiver.otherwise = Answer(status=500, body=HOSTILE.encode(), headers={"X-Evil": HOSTILE[:-1]})
    subscription = make_subscription(receiver.url, description=HOSTILE, tenant=HOSTILE)
    request = make_request(subscription, HOSTILE.encode())
    deliver()
    event = Event.objects.create(event_type="invoice.paid", tenant=HOSTILE, payload=HOSTILE.encode())
    # Validation keeps such a URL out; a row from before the rule would still be shown.
    Subscription.objects.filter(id=subscription.id).update(target_url="javascript:alert(4)//" + HOSTILE)

    pages = {
        "subscriptions/subscription": subscription.id,
        "deliveries/webhookrequest": request.id,
        "deliveries/deliveryattempt": request.attempts.get().id,
        "deliveries/event": event.id,
    }
    for path, row_id in pages.items():
        for url in (f"{live_server}/admin/{path}/", f"{live_server}/admin/{path}/{row_id}/change/"):
            operator.goto(url)
            expect(operator.locator("#content")).to_contain_text(INERT)
            expect(operator).not_to_have_title("owned")
            assert operator.locator('#container :is(a[href^="javascript:"], img[src="nothing"])').count() == 0
            assert "\u202e" not in operator.locator("#container").inner_text()
