"""POST /subscriptions/{id}/pause, resume, enable, disable and rotate-secret."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from subscriptions import secrets
from subscriptions.models import Subscription
from tests.conftest import SECRET
from tests.expected import REQUEST_ID, invalid, problem, rfc3339, subscription_body

URL = "https://example.com/hook"
REFUSED = problem(409, "subscription_disabled", "It is disabled: enable it instead.")


@pytest.fixture
def post(client_with_key):
    """Do something to a subscription; returns the answer."""

    def post(subscription, verb, data=None):
        return client_with_key.post(
            f"/subscriptions/{subscription.id}/{verb}", data, format="json", headers={"Request-Id": REQUEST_ID}
        )

    return post


@pytest.mark.parametrize(
    ("status", "verb", "becomes"),
    [
        ("active", "pause", "paused"),
        ("paused", "resume", "active"),
        ("disabled", "enable", "active"),
        ("active", "disable", "disabled"),
        ("paused", "disable", "disabled"),
    ],
)
def test_it_moves_a_subscription_and_keeps_the_reason(post, make_subscription, status, verb, becomes):
    subscription = make_subscription(URL, status=status, status_reason="from before")
    before = subscription.updated_at
    answer = post(subscription, verb, {"reason": "as asked"})
    subscription.refresh_from_db()
    assert answer.json() == subscription_body(subscription, status=becomes, status_reason="as asked")
    assert answer.status_code == 200
    assert subscription.updated_at > before
    assert Subscription.objects.cached(subscription.id).status == becomes


@pytest.mark.parametrize(
    ("status", "verb"),
    [
        ("paused", "pause"),
        ("active", "resume"),
        ("active", "enable"),
        ("paused", "enable"),
        ("disabled", "disable"),
    ],
)
def test_it_leaves_alone_what_is_there_already(post, make_subscription, status, verb):
    subscription = make_subscription(URL, status=status, status_reason="from before")
    answer = post(subscription, verb, {"reason": "again"})
    assert answer.json() == subscription_body(subscription, status=status, status_reason="from before")
    assert answer.status_code == 200


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_it_does_not_enable_by_the_way(post, make_subscription, verb):
    subscription = make_subscription(URL, status="disabled")
    answer = post(subscription, verb)
    assert answer.json() == REFUSED
    assert answer.status_code == 409
    subscription.refresh_from_db()
    assert subscription.status == "disabled"


def test_it_needs_no_reason(post, make_subscription):
    answer = post(make_subscription(URL), "disable")
    assert (answer.json()["status"], answer.json()["status_reason"]) == ("disabled", "")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"colour": "red"}, ("/colour", "unknown", "This field is not known.")),
        ({"reason": "x" * 256}, ("/reason", "max_length", "Ensure this field has no more than 255 characters.")),
        ({"reason": "a\0b"}, ("/reason", "null_characters_not_allowed", "Null characters are not allowed.")),
        (["as asked"], ("", "invalid", "Give a JSON object.")),
    ],
)
@pytest.mark.parametrize("verb", ["pause", "resume", "enable", "disable"])
def test_it_refuses_any_other_body(post, make_subscription, verb, data, error):
    subscription = make_subscription(URL)
    assert post(subscription, verb, data).json() == invalid(error)


@pytest.mark.parametrize("verb", ["pause", "resume", "enable", "disable", "rotate-secret"])
def test_it_wants_a_key_that_may_manage(make_client, make_subscription, verb):
    subscription = make_subscription(URL)
    for scope in ("read", "publish"):
        assert make_client(scope).post(f"/subscriptions/{subscription.id}/{verb}").status_code == 403


def test_it_makes_a_new_secret_that_is_told_once(post, make_subscription, client_with_key):
    subscription = make_subscription(URL)
    answer = post(subscription, "rotate-secret")
    subscription.refresh_from_db()
    secret = answer.json()["secret"]
    assert answer.json() == subscription_body(
        subscription,
        secret=secret,
        secret_hint=f"…{secret[-4:]}",
        previous_secret_until=rfc3339(subscription.previous_secret_until),
    )
    assert answer.status_code == 200
    assert Subscription.objects.get().signing_keys == [
        base64.b64decode(secret.removeprefix("whsec_")),
        SECRET.encode(),
    ]
    about_a_day = subscription.previous_secret_until - datetime.now(UTC) - timedelta(days=1)
    assert abs(about_a_day) < timedelta(minutes=1)
    shown = client_with_key.get(f"/subscriptions/{subscription.id}").json()
    assert shown == {name: value for name, value in answer.json().items() if name != "secret"}


def test_it_takes_the_secret_and_the_overlap_that_are_given(post, make_subscription):
    subscription = make_subscription(URL)
    answer = post(subscription, "rotate-secret", {"secret": "my own", "overlap_seconds": 60})
    assert answer.json()["secret"] == "my own"
    subscription = Subscription.objects.get()
    assert subscription.signing_keys == [b"my own", SECRET.encode()]
    assert subscription.previous_secret_until - datetime.now(UTC) < timedelta(seconds=61)


def test_it_ends_the_present_secret_at_once_without_an_overlap(post, make_subscription):
    post(make_subscription(URL), "rotate-secret", {"secret": "my own", "overlap_seconds": 0})
    subscription = Subscription.objects.get()
    assert subscription.signing_keys == [b"my own"]
    assert (subscription.previous_secret, subscription.previous_secret_until) == (None, None)


def test_it_ends_the_secret_before_when_rotated_again(post, make_subscription):
    subscription = make_subscription(URL)
    for secret in ("second", "third"):
        post(subscription, "rotate-secret", {"secret": secret})
    assert Subscription.objects.get().signing_keys == [b"third", b"second"]


def test_it_shows_no_previous_secret_once_its_time_is_over(client_with_key, make_subscription):
    subscription = make_subscription(
        URL,
        previous_secret=b"whatever",
        previous_secret_until=datetime.now(UTC) - timedelta(seconds=1),
    )
    assert client_with_key.get(f"/subscriptions/{subscription.id}").json() == subscription_body(subscription)


def test_it_keeps_no_secret_whose_time_is_over(make_subscription):
    now = datetime.now(UTC)
    over = make_subscription(previous_secret=b"x", previous_secret_until=now - timedelta(seconds=1))
    rotating = make_subscription(previous_secret=b"y", previous_secret_until=now + timedelta(hours=1))
    make_subscription()
    assert Subscription.objects.forget_previous_secrets() == 1
    over.refresh_from_db()
    rotating.refresh_from_db()
    assert (over.previous_secret, over.previous_secret_until) == (None, None)
    assert bytes(rotating.previous_secret) == b"y"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"overlap": 5}, ("/overlap", "unknown", "This field is not known.")),
        (
            {"overlap_seconds": -1},
            ("/overlap_seconds", "min_value", "Ensure this value is greater than or equal to 0."),
        ),
        (
            {"overlap_seconds": 604801},
            ("/overlap_seconds", "max_value", "Ensure this value is less than or equal to 604800."),
        ),
        ({"secret": ""}, ("/secret", "blank", "This field may not be blank.")),
        ({"secret": "whsec_!"}, ("/secret", "invalid_secret", "The part after whsec_ is not base64.")),
    ],
)
def test_it_refuses_a_rotation_that_makes_no_sense(post, make_subscription, data, error):
    subscription = make_subscription(URL)
    assert post(subscription, "rotate-secret", data).json() == invalid(error)
    assert secrets.decrypt(bytes(Subscription.objects.get().secret), row_id=subscription.id) == SECRET
