"""What POST /ingest refuses, at both doors: whole answers, and nothing stored."""

import uuid

import pytest

from deliveries.models import WebhookRequest
from tests.conftest import ingest_body, signed_headers
from tests.deliveries.ingesting import DISABLED, MISSING, MISSING_SIGNATURE, NOT_FOUND, assert_refused, envelope
from tests.expected import EVENT_TYPE_RULE, invalid, problem


def test_it_answers_404_for_an_unknown_subscription_whatever_the_signature(post_ingest):
    body = ingest_body(MISSING)
    assert_refused(post_ingest(body), NOT_FOUND)
    assert_refused(post_ingest(body, {}), NOT_FOUND)


def test_it_answers_409_for_a_disabled_subscription_to_those_who_can_sign(post_ingest, make_subscription):
    body = ingest_body(make_subscription(status="disabled").id)
    assert_refused(post_ingest(body), DISABLED)
    assert_refused(post_ingest(body, {}), MISSING_SIGNATURE)


@pytest.mark.parametrize(
    ("body", "pointer", "code", "detail"),
    [
        (b"[]", "", "invalid", "Expected `object`, got `array`"),
        (b"null", "", "invalid", "Expected `object`, got `null`"),
        (b"{}", "/subscription_id", "required", "This field is required."),
        (envelope(subscription_id=None), "/subscription_id", "required", "This field is required."),
        (envelope(event_type=None), "/event_type", "required", "This field is required."),
        (envelope(body=None), "/body", "required", "This field is required."),
        (envelope(colour='"red"'), "/colour", "unknown", "This field is not known."),
        (envelope(subscription_id="5"), "/subscription_id", "invalid", "Expected `uuid`, got `int`"),
        (envelope(subscription_id='"x"'), "/subscription_id", "invalid", "Invalid UUID"),
        (envelope(subscription_id="null"), "/subscription_id", "invalid", "Expected `uuid`, got `null`"),
        (envelope(event_type="5"), "/event_type", "invalid", "Expected `str`, got `int`"),
        (envelope(event_type="null"), "/event_type", "invalid", "Expected `str`, got `null`"),
        (envelope(event_type='["a"]'), "/event_type", "invalid", "Expected `str`, got `array`"),
        (envelope(event_type='""'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"*"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"invoice.*"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"a b"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"a\\u0000"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type=f'"{"x" * 129}"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
    ],
)
def test_it_answers_400_and_says_where_for_a_body_of_another_shape(post_ingest, body, pointer, code, detail):
    assert_refused(post_ingest(body), invalid((pointer, code, detail)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        envelope() + b"{}",
        b"\xef\xbb\xbf" + envelope(),
        envelope().decode().encode("utf-16"),
        envelope(event_type='"\\ud800"'),
        envelope(event_type="XX").replace(b"XX", b'"\xff"'),
        envelope(body="NaN"),
        envelope(body="Infinity"),
        envelope(body="01"),
        envelope(body="1."),
        envelope(body="+1"),
        envelope(body="'a'"),
        envelope(body="[1,]"),
        envelope(body='{"a":}'),
        envelope(body="{a:1}"),
        envelope(body='"\\x41"'),
        envelope(body='"\\ud800"'),
        envelope(body='"\n"'),
        envelope(body='"\0"'),
        envelope(body=""),
        envelope(body="1 2"),
        envelope(body="XX").replace(b"XX", b'"\xff"'),
        envelope(body="XX").replace(b"XX", b'"\xc3("'),
        envelope(body="XX").replace(b"XX", b'"\xed\xa0\x80"'),
        envelope(body="XX").replace(b"XX", b'{"\xc0\x80":1}'),
    ],
)
def test_it_answers_400_for_what_is_not_json(post_ingest, body):
    answer = post_ingest(body)
    detail = answer.json()["detail"]
    assert detail.startswith("The body is not valid JSON: ")
    assert_refused(answer, problem(400, "parse_error", detail))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (r'"\ud800"', r"\ud800 is half of a surrogate pair."),
        (r'"\uDBFFx \n and more"', r"\uDBFF is half of a surrogate pair."),
        (r'"\ud83d\ude00 \\ud801 \udc00\ud800"', r"\udc00 is half of a surrogate pair."),
        (r'{"\ud800": 1}', r"\ud800 is half of a surrogate pair."),
        (r'"\ud83d\ude00 \\ud801', "Input data was truncated."),
    ],
)
def test_it_names_half_of_a_surrogate_pair(post_ingest, text, told):
    answer = post_ingest(envelope(body=text))
    assert_refused(answer, problem(400, "parse_error", f"The body is not valid JSON: {told}"))


@pytest.mark.parametrize("payload", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_it_answers_400_for_nesting_without_end(post_ingest, payload):
    refusal = problem(400, "parse_error", "The body is nested too deeply.")
    assert_refused(post_ingest(envelope(body=payload)), refusal)


def test_it_answers_413_for_a_body_over_the_limit_and_not_for_one_at_it(post_ingest, make_subscription, settings):
    subscription = make_subscription()
    body = ingest_body(subscription.id)
    settings.MAX_BODY_BYTES = len(body)
    refusal = problem(413, "too_large", f"The request body may have at most {len(body)} bytes.")
    assert_refused(post_ingest(body + b" "), refusal)
    assert post_ingest(body).status == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=hex",
        "application/json; charset=utf-8; charset=latin-1",
        "application/json, application/json",
    ],
)
def test_it_answers_415_for_anything_but_json_in_utf_8(post_ingest, make_subscription, content_type):
    body = ingest_body(make_subscription().id)
    answer = post_ingest(body, signed_headers(body) | {"Content-Type": content_type})
    assert_refused(answer, problem(415, "unsupported_media_type", "Send application/json in UTF-8."))


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_it_answers_415_for_a_content_encoding(post_ingest, make_subscription, encoding):
    body = ingest_body(make_subscription().id)
    answer = post_ingest(body, signed_headers(body) | {"Content-Encoding": encoding})
    detail = "Send the body without a Content-Encoding."
    assert_refused(answer, problem(415, "unsupported_media_type", detail))


@pytest.mark.parametrize("content_type", ["application/json", 'Application/JSON ; charset="UTF-8"'])
def test_it_takes_json_in_utf_8_however_it_is_named(post_ingest, make_subscription, content_type):
    body = ingest_body(make_subscription().id)
    headers = signed_headers(body) | {"Content-Type": content_type, "Content-Encoding": "identity"}
    assert post_ingest(body, headers).status == 202


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>"])
def test_it_makes_a_request_id_instead_of_taking_a_harmful_one(post_ingest, given):
    answer = post_ingest(ingest_body(MISSING), {"Request-Id": given})
    made = answer.headers["Request-Id"]
    assert uuid.UUID(made).version == 4
    assert answer.json() == NOT_FOUND | {"request_id": made}


@pytest.mark.parametrize("member", ['"event_type": "a"', '"body": 2', '"body": "x"', '"event\\u005ftype": "a"'])
def test_it_refuses_a_member_that_is_given_twice(post_ingest, make_subscription, member):
    body = ingest_body(make_subscription().id, body='{"quoted": "\\"text\\""}')[:-1] + f", {member}}}".encode()
    answer = post_ingest(body)
    assert (answer.status, answer.json()["code"]) == (400, "duplicate_member")
    assert not WebhookRequest.objects.exists()
