"""The pages work under their own policy, and what is put into them does not."""

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from deliveries.models import Event, WebhookRequest
from subscriptions.models import ApiKey, Subscription

pytestmark = pytest.mark.browser


@pytest.fixture
def rows(
    make_subscription: Callable[..., Subscription], make_request: Callable[..., WebhookRequest], page: Page
) -> dict[str, object]:
    subscription = make_subscription()
    key, _ = ApiKey.objects.create_key("of the tests", ["read"], tenant=None, valid_for=None)
    return {
        "subscriptions/subscription": subscription.id,
        "subscriptions/apikey": key.id,
        "deliveries/webhookrequest": make_request(subscription).id,
        "deliveries/event": Event.objects.create(event_type="invoice.paid", payload=b"{}").id,
    }


def test_every_page_of_the_console_keeps_to_it(
    operator: Page, live_server: object, rows: dict[str, object]
) -> None:
    # The fixture fails the test for anything in the browser's console, violations included.
    urls = [reverse(f"admin:{name}") for name in ("index", "password_change", "one_time_code")]
    for path, row_id in rows.items():
        urls += [f"/admin/{path}/", f"/admin/{path}/{row_id}/change/", f"/admin/{path}/{row_id}/history/"]
    urls += ["/admin/subscriptions/subscription/add/", "/admin/auth/user/", "/admin/auth/user/add/"]
    for url in urls:
        response = operator.goto(f"{live_server}{url}", wait_until="networkidle")
        assert response is not None
        assert (url, response.status) == (url, 200)
        assert "script-src 'self'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_works_under_it(page: Page, live_server: object, path: str, trouble: list[str]) -> None:
    answered: list[str] = []
    page.on("response", lambda response: answered.append(response.url))
    page.goto(f"{live_server}{path}")
    expect(page.get_by_role("heading", name="Webhook delivery service").first).to_be_visible()
    expect(page.get_by_text("/ingest", exact=True).first).to_be_attached()
    page.wait_for_load_state("networkidle")
    assert [url for url in answered if not url.startswith((str(live_server), "data:", "blob:"))] == []
    # The one thing that the policy keeps out: a logo which Redoc would fetch from its makers.
    trouble[:] = [text for text in trouble if "cdn.redoc.ly/redoc/logo-mini.svg" not in text]


def test_an_injected_script_does_not_run(operator: Page, live_server: object, trouble: list[str]) -> None:
    # As if a page had forgotten to escape: the policy is the second line.
    injected = "<script>window.ran = true</script><img src=/nothing onerror='window.ran = true'>"
    operator.route(
        "**/admin/",
        lambda route: route.fulfill(
            response=(answer := route.fetch()), body=answer.text().replace("</body>", f"{injected}</body>")
        ),
    )
    operator.goto(f"{live_server}/admin/", wait_until="networkidle")
    assert operator.evaluate("window.ran") is None
    violations = [text for text in trouble if "Content Security Policy" in text]
    assert len(violations) == 2
    trouble.clear()
