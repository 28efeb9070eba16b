"""What POST /events, /events/batch and /events/preview refuse: whole answers, and nothing stored."""

import pytest

from deliveries.models import Event
from tests.expected import EVENT_TYPE_RULE, invalid

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"event_type": "a"}', ("/body", "required", "This field is required.")),
        (b'{"body": 1}', ("/event_type", "required", "This field is required.")),
        (b'{"event_type": "a b", "body": 1}', ("/event_type", "invalid_event_type", EVENT_TYPE_RULE)),
        (b'{"event_type": 1, "body": 1}', ("/event_type", "invalid", "Expected `str`, got `int`")),
        (b'{"event_type": "a", "body": 1, "tenant": null}', ("/tenant", "invalid", "Expected `str`, got `null`")),
        (b'{"event_type": "a", "body": 1, "type": 2}', ("/type", "unknown", "This field is not known.")),
        (
            b'{"event_type": "a", "body": 1, "tenant": "\\u0000"}',
            ("/tenant", "invalid_tenant", "A tenant has at most 255 characters, and no NUL."),
        ),
        (
            b'{"event_type": "a", "body": 1, "tenant": "' + b"x" * 256 + b'"}',
            ("/tenant", "invalid_tenant", "A tenant has at most 255 characters, and no NUL."),
        ),
        (b"[]", ("", "invalid", "Expected `object`, got `array`")),
    ],
)
def test_it_refuses_what_is_no_event(publish, body, error):
    answer = publish(body)
    assert (answer.status_code, answer.json()) == (400, invalid(error))
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "parse_error"),
        (b'{"event_type": "a", "body": \xff}', "parse_error"),
        (b'{"event_type": "a", "body": ' + b"[" * 100_000, "parse_error"),
        (b'{"event_type": "a", "body": 1, "body": 2}', "duplicate_member"),
        (b'{"event_type": "a", "body": "1", "body": "2"}', "duplicate_member"),
        (b'{"event_type": "a", "body": 1, "tenant": "x", "tenant": "y"}', "duplicate_member"),
    ],
)
def test_it_refuses_what_is_ambiguous_or_no_json(publish, body, code):
    for path, sent in (("", body), ("/batch", b'{"events": [' + body + b"]}"), ("/preview", body)):
        answer = publish(sent, path)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not Event.objects.exists()


def test_a_quote_in_a_tenants_name_is_no_duplicate(publish):
    event_id = publish({"event_type": "a", "body": '"', "tenant": 'an "other"'}).json()["event_id"]
    assert Event.objects.get(id=event_id).tenant == 'an "other"'


@pytest.mark.parametrize("path", ["", "/batch", "/preview"])
def test_it_refuses_bodies_that_are_too_large_or_not_json(publish, client_with_key, settings, path):
    settings.MAX_BODY_BYTES = 100
    assert publish({"event_type": "a", "body": "x" * 100}, path).status_code == 413
    assert client_with_key.post(f"/events{path}", "a=1", content_type="text/plain").status_code == 415
