"""What POST /events, /events/batch and /events/preview refuse: whole answers, and nothing stored."""

import pytest

from deliveries.models import Event
from tests.expected import EVENT_TYPE_RULE, invalid, problem

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


GOOD = b'{"event_type": "a", "body": 1}'
TWICE = b'{"event_type": "a", "body": 1, "body": 2}'
GIVE_ONCE = "Give each of event_type, body and tenant once."


def batch(*events):
    return b'{"events": [' + b", ".join(events) + b"]}"


def test_a_batch_is_refused_with_a_pointer_to_every_event_that_is_none(publish, make_client):
    sent = batch(
        GOOD,
        b'{"event_type": "a b", "body": 1}',
        b"5",
        TWICE,
        b'{"event_type": "a", "body": 1, "tenant": "other"}',
        b'{"event_type": "a", "body": 1, "type": 2}',
        GOOD,
    )
    answer = publish(sent, "/batch", client=make_client("publish", tenant="acme"))
    assert (answer.status_code, answer.json()) == (
        400,
        invalid(
            ("/events/1/event_type", "invalid_event_type", EVENT_TYPE_RULE),
            ("/events/2", "invalid", "Expected `object`, got `int`"),
            ("/events/3", "duplicate_member", GIVE_ONCE),
            ("/events/4/tenant", "wrong_tenant", "This API key is bound to another tenant."),
            ("/events/5/type", "unknown", "This field is not known."),
        ),
    )
    assert not Event.objects.exists()


def test_a_batch_in_which_all_mistakes_are_of_one_kind_has_its_code(publish):
    answer = publish(batch(GOOD, TWICE, TWICE), "/batch")
    errors = [{"pointer": f"/events/{index}", "code": "duplicate_member", "detail": GIVE_ONCE} for index in (1, 2)]
    assert (answer.status_code, answer.json()) == (400, problem(400, "duplicate_member", GIVE_ONCE, *errors))


def test_so_many_events_of_a_batch_that_are_none_are_told(publish):
    errors = publish(batch(GOOD, *[b"{}"] * 200), "/batch").json()["errors"]
    assert [error["pointer"] for error in errors] == [f"/events/{index}/event_type" for index in range(1, 101)]


def test_a_quote_in_a_tenants_name_is_no_duplicate(publish):
    event_id = publish({"event_type": "a", "body": '"', "tenant": 'an "other"'}).json()["event_id"]
    assert Event.objects.get(id=event_id).tenant == 'an "other"'


@pytest.mark.parametrize("path", ["", "/batch", "/preview"])
def test_it_refuses_bodies_that_are_too_large_or_not_json(publish, client_with_key, settings, path):
    settings.MAX_BODY_BYTES = 100
    assert publish({"event_type": "a", "body": "x" * 100}, path).status_code == 413
    assert client_with_key.post(f"/events{path}", "a=1", content_type="text/plain").status_code == 415
