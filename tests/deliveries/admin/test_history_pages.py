"""The admin's pages of one request, attempt or event: payloads byte for byte, and text as text."""

import json
import re

import pytest
from django.urls import reverse

from deliveries import history_admin
from deliveries.attempts import ANSWERS_TOLD
from deliveries.models import Event
from subscriptions import read_only_admin
from subscriptions.models import new_id
from tests.deliveries.admin.pages import LISTS, REQUESTS, page_of
from tests.staff import operator_client

pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert(1)</script><a href="javascript:alert(2)">\u202e'
INERT = r"&lt;script&gt;alert(1)&lt;/script&gt;&lt;a href=&quot;javascript:alert(2)&quot;&gt;\u202e"


def test_it_shows_a_request_with_its_attempts_in_order(operator, make_subscription, make_settled, make_attempt):
    request = make_settled(make_subscription("https://a.example.com/"), error="http_5xx", attempt_count=3)
    third, first, second = (make_attempt(request, number) for number in (3, 1, 2))
    response = operator.get(page_of(request))
    content = response.content.decode()
    assert re.findall(r"/admin/deliveries/deliveryattempt/([0-9a-f-]+)/change/", content) == [
        str(third.id),  # which is shown before the payload
        str(first.id),
        str(second.id),
        str(third.id),
    ]
    assert content.count("The receiver failed. Its answer may say why.") == 4
    assert re.findall(r'class="field-response_ms">\s*<p>(\d+)</p>', content) == ["12", "12", "12"]
    for text in ("https://a.example.com/", str(request.id), "http_5xx", "invoice.paid"):
        assert text in content
    assert f"{request.settled_at:%Y-%m-%d %H:%M:%S}" in content


def test_it_begins_with_what_came_of_the_last_attempt(operator, make_subscription, make_settled, make_attempt):
    request = make_settled(make_subscription(), error="connect", attempt_count=2)

    def shown() -> str:
        found = re.search(r'field-last_attempt">.*?<div class="readonly">(.*?)</div>', page(), re.DOTALL)[1]
        return re.sub("<.*?>", "", found)

    def page() -> str:
        return operator.get(page_of(request)).content.decode()

    assert shown() == "-"
    first = make_attempt(request, 1)
    moment = f"{first.attempted_at:%Y-%m-%d %H:%M:%S}"
    assert shown() == f"{moment}: 500, http_5xx. The receiver failed. Its answer may say why."
    second = make_attempt(request, 2, status_code=None, error="connect", specific_hint="<b>\u202e")
    assert shown().endswith(r": connect. &lt;b&gt;\u202e")
    assert page().index(str(second.id)) < page().index("Payload")


def test_it_shows_the_last_attempts_of_very_many(operator, make_subscription, make_settled, make_attempt):
    request = make_settled(make_subscription(), attempt_count=ANSWERS_TOLD + 2)
    made = [make_attempt(request, number + 1) for number in range(ANSWERS_TOLD + 2)]
    content = operator.get(page_of(request)).content.decode()
    shown = re.findall(r"/admin/deliveries/deliveryattempt/([0-9a-f-]+)/change/", content)
    assert shown == [str(attempt.id) for attempt in (made[-1], *made[2:])]
    [link] = re.findall(r'href="([^"]*)">Attempts<', content)
    assert operator.get(link).context["cl"].result_count == len(made)


def test_it_says_why_a_request_is_held_and_when_it_is_due(operator, make_subscription, make_request):
    request = make_request(make_subscription(status="paused"))
    content = operator.get(page_of(request)).content.decode()
    assert "pending, held: paused" in content
    assert f"{request.next_attempt_at:%Y-%m-%d %H:%M:%S}" in content


@pytest.mark.parametrize(
    ("payload", "formatted"),
    [
        (b'{"b":1.50,"a":[1e2],"a":"\\u00e9"}', '{\n  "b": 1.50,\n  "a": [\n    1e2\n  ],\n  "a": "\\u00e9"\n}'),
        ('{"name":"Zoë \u202e"}'.encode(), '{\n  "name": "Zoë \\u202e"\n}'),
        (b"not JSON \xff\x00", "not JSON \ufffd\\u0000"),
        (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
        (b"", ""),
    ],
)
def test_it_formats_json_and_shows_anything_else_as_text(payload, formatted):
    assert read_only_admin.preformatted(history_admin.readable(payload)) == (
        f"<pre>{formatted}</pre>".replace('"', "&quot;")
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 400 + b",".join([b"1"] * 20_000) + b"]" * 400,
        b"[" * 400 + b",".join([b'"]]]\\""'] * 20_000) + b"]" * 400,
        b'{"a":' * 400 + b"[{}" + b",{}" * 20_000 + b"]" + b"}" * 400,
    ],
)
def test_it_does_not_blow_up_a_payload_that_would_be_huge_when_it_is_indented(payload):
    assert history_admin.readable(payload) == payload.decode()


@pytest.mark.parametrize("is_shared", [False, True])
def test_it_offers_the_payload_byte_for_byte(operator, make_subscription, make_request, make_event, is_shared):
    payload = b'{"n":1.0, "text":"\\u00e9\xc3\xa9"} \xff'
    event = make_event(payload)
    own = {"payload": None, "event": event} if is_shared else {"payload": payload}
    request = make_request(make_subscription(), **own)
    for row in (request, event):
        content = operator.get(page_of(row)).content.decode()
        assert r"{&quot;n&quot;:1.0, &quot;text&quot;:&quot;\u00e9é&quot;} \xff" in content
        url = page_of(row).replace("change/", "payload")
        assert f'{len(payload)} bytes, <a href="{url}">download</a>' in content
        response = operator.get(url)
        assert response.content == payload
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Disposition"] == f'attachment; filename="{row.id}.json"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert operator.get(f"{REQUESTS}{new_id()}/payload").status_code == 404


def test_it_shows_hostile_text_as_text(operator, make_subscription, make_settled, make_attempt, make_event):
    subscription = make_subscription(description=HOSTILE)
    payload = json.dumps({"text": HOSTILE}, ensure_ascii=False).encode()
    request = make_settled(subscription, payload=payload)
    event = make_event(HOSTILE.encode(), tenant=HOSTILE)
    attempt = make_attempt(request, response_headers=f"X-Evil: {HOSTILE}", response_body=HOSTILE.encode())
    for url in (*LISTS, page_of(request), page_of(event), page_of(attempt)):
        content = operator.get(url).content.decode()
        assert "<script>alert" not in content
        assert 'href="javascript:' not in content
        assert "\u202e" not in content
        assert INERT.removesuffix("\\u202e") in content or "&lt;script&gt;" in content


def test_it_shows_what_a_receiver_answered(operator, make_subscription, make_settled, make_attempt):
    attempt = make_attempt(
        make_settled(make_subscription()),
        response_headers="HTTP/1.1 500 Oops\r\nX-Trace: 7",
        response_body=b"out of order \xff",
        dns_ms=1,
        connect_ms=23,
        tls_ms=45,
        first_byte_ms=67,
    )
    content = operator.get(page_of(attempt)).content.decode()
    for text in (
        "<pre>HTTP/1.1 500 Oops\r\nX-Trace: 7</pre>",
        "<pre>out of order \ufffd</pre>",
        "The receiver failed. Its answer may say why.",
        page_of(attempt.request),
        *("23", "45", "67"),
    ):
        assert text in content


def test_it_shows_what_the_schema_finds_wrong_as_text(make_subscription, make_request):
    finding = {"pointer": "/total", "code": "type", "detail": '"<b>" is not of type "integer"'}
    shown = "/total type: &quot;&lt;b&gt;&quot; is not of type &quot;integer&quot;"
    event = Event.objects.create(event_type="a", payload=b"{}", findings=[finding])
    own = make_request(make_subscription(), findings=[finding])
    shared = make_request(make_subscription(), payload=None, event=event)
    clean = make_request(make_subscription())
    client = operator_client()
    for kind, row, is_shown in (
        ("event", event, True),
        ("webhookrequest", own, True),
        ("webhookrequest", shared, True),
        ("webhookrequest", clean, False),
    ):
        page = client.get(reverse(f"admin:deliveries_{kind}_change", args=[row.id])).content.decode()
        assert (shown in page) is is_shown
