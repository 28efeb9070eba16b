"""People are told of a subscription that only fails, before it is disabled and when it is."""

import logging
import socket
from datetime import timedelta

import pytest
from django.core import mail
from django.db.models.functions import Now

from deliveries import claims, settlements, tasks
from deliveries import mail as our_mail
from deliveries.retry import Decision
from subscriptions.models import Subscription, SubscriptionQuerySet
from tests.deliveries.claiming import FAILURE, SUCCESS, settlement
from tests.receiver import Answer
from tests.threads import at_once
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _people(settings, monkeypatch):
    settings.ADMINS = [("Ada", "ada@example.com")]
    monkeypatch.setattr(our_mail, "WAIT_SECONDS", 60)


@pytest.fixture
def make_failing(make_subscription):
    """Make a subscription with nothing but failures for so long."""

    def make(**age):
        made = make_subscription("https://hooks.example.com/T0KEN?key=hidden", tenant="acme")
        let_fail(made, **age)
        return made

    return make


@pytest.fixture
def call(make_request):
    """Make a call to a subscription that comes to this."""

    def make(subscription, outcome):
        make_request(subscription)
        settlements.settle([settlement(request, outcome, 120.0) for request in claims.claim(1).requests])

    return make


def let_fail(subscription, **age):
    Subscription.objects.filter(id=subscription.id).update(failing_since=Now() - timedelta(**age))


def let_a_day_pass():
    for subscription in Subscription.objects.all():
        for name in ("failing_since", "warned_at", "given_up_at"):
            at = getattr(subscription, name)
            Subscription.objects.filter(id=subscription.id).update(
                **{name: None if at is None else at - timedelta(days=1)}
            )


def told(caplog):
    """Return what the log tells people, and forget it."""
    records = [record for record in caplog.records if record.name == "deliveries.troubles"]
    caplog.clear()
    assert {record.levelname for record in records} <= {"WARNING"}
    return [(record.message, record.subscription_id) for record in records]


def shown(at):
    return f"{at:%Y-%m-%d %H:%M} UTC"


FAILS = "a subscription only fails and will be disabled"
WAS_DISABLED = "a subscription was disabled"


def test_it_warns_before_a_subscription_is_disabled(make_failing, caplog):
    """After 5 days of nothing but failures the subscription is disabled, with warnings before."""
    subscription = make_failing(days=1, minutes=1)
    subscription.refresh_from_db()
    assert tasks.warn() == 1
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", FAILS)
    assert (record.subscription_id, record.tenant) == (str(subscription.id), "acme")
    assert record.failing_since == shown(subscription.failing_since)
    assert record.disable_at == shown(subscription.failing_since + timedelta(days=5))
    assert record.advice.startswith("One successful delivery prevents it")
    (message,) = mail.outbox
    assert (message.to, message.subject) == (
        ["ada@example.com"],
        "[Webhooks] Subscriptions: 0 disabled, 1 failing",
    )
    assert message.body == (
        "Nothing but failures, and about to be disabled:\n\n"
        f"- {subscription.id}\n"
        '  tenant "acme", receiver "hooks.example.com"\n'
        f"  Nothing but failures since {record.failing_since}; "
        f"the first failure after {record.disable_at} disables it.\n"
        f"  /admin/subscriptions/subscription/{subscription.id}/change/\n\n"
        f"{record.advice}"
    )


@pytest.mark.parametrize(
    ("disable_after", "age", "is_told"),
    [
        (timedelta(days=5), timedelta(hours=23), False),
        (timedelta(days=5), timedelta(hours=25), True),
        (timedelta(days=30), timedelta(hours=25), True),
        (timedelta(hours=5), timedelta(minutes=59), False),
        (timedelta(hours=5), timedelta(minutes=61), True),
    ],
)
def test_the_first_warning_comes_after_a_day_or_a_fifth_of_the_time(
    settings, make_failing, disable_after, age, is_told
):
    settings.DISABLE_AFTER_SECONDS = int(disable_after.total_seconds())
    make_failing(seconds=age.total_seconds())
    assert tasks.warn() == int(is_told)


def test_it_reminds_daily_until_the_time_is_over(make_failing, caplog):
    subscription = make_failing(days=1)
    warned = []
    for _ in range(8):
        for _ in range(3):
            tasks.warn()
        warned.append(told(caplog))
        let_a_day_pass()
    assert warned == [[(FAILS, str(subscription.id))]] * 4 + [[]] * 4
    assert len(mail.outbox) == 4


def test_what_was_told_before_a_success_does_not_count(make_failing, call, caplog):
    subscription = make_failing(days=1)
    tasks.warn()
    call(subscription, SUCCESS)
    assert tasks.warn() == 0
    call(subscription, FAILURE)
    assert tasks.warn() == 0
    let_fail(subscription, days=1)
    Subscription.objects.update(warned_at=Now() - timedelta(days=1, minutes=1))
    tasks.warn()
    assert told(caplog) == [(FAILS, str(subscription.id))] * 2


def test_a_new_time_of_failures_is_told_of_although_a_warning_is_less_than_a_day_old(
    settings, make_failing, call, caplog
):
    settings.DISABLE_AFTER_SECONDS = 3600
    subscription = make_failing(minutes=13)
    tasks.warn()
    Subscription.objects.update(warned_at=Now() - timedelta(minutes=20))
    call(subscription, SUCCESS)
    let_fail(subscription, minutes=13)
    tasks.warn()
    assert told(caplog) == [(FAILS, str(subscription.id))] * 2


def test_it_tells_of_the_one_that_was_disabled_for_its_failures_once(make_failing, call, caplog):
    subscription = make_failing(days=5, minutes=1)
    call(subscription, FAILURE)
    subscription.refresh_from_db()
    assert [tasks.warn(), tasks.warn()] == [1, 0]
    (record,) = [record for record in caplog.records if record.name == "deliveries.troubles"]
    assert (record.levelname, record.message) == ("WARNING", WAS_DISABLED)
    assert record.reason == f"Nothing but failures since {shown(subscription.failing_since)}."
    assert "POST /subscriptions/{id}/enable" in record.advice
    (message,) = mail.outbox
    assert message.subject == "[Webhooks] Subscriptions: 1 disabled, 0 failing"
    assert message.body == (
        "Disabled:\n\n"
        f"- {subscription.id}\n"
        '  tenant "acme", receiver "hooks.example.com"\n'
        f"  {record.reason}\n"
        f"  /admin/subscriptions/subscription/{subscription.id}/change/\n\n"
        f"{record.advice}"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=410), "The receiver answered 410 Gone."),
        (Answer(headers={"webhook-delivery": "disable"}), "The receiver answered webhook-delivery: disable."),
    ],
)
def test_it_tells_of_the_one_whose_receiver_wanted_no_more(
    make_subscription, make_request, receiver, deliver, caplog, answer, reason
):
    receiver.otherwise = answer
    make_request(make_subscription(receiver.url))
    deliver()
    caplog.clear()
    assert tasks.warn() == 1
    assert caplog.records[0].reason == reason


def test_it_tells_nothing_of_what_people_disabled_paused_or_deleted(make_failing, caplog):
    for verb in (SubscriptionQuerySet.disable, SubscriptionQuerySet.pause):
        verb(Subscription.objects.filter(id=make_failing(days=2).id))
    make_failing(days=2).remove()
    assert tasks.warn() == 0


def test_a_late_word_of_a_receiver_is_no_news_of_the_one_that_people_disabled(make_subscription, make_request):
    make_request(make_subscription())
    (request,) = claims.claim(1).requests
    Subscription.objects.disable("by hand")
    decision = Decision(disable_reason="The receiver answered 410 Gone.")
    late = settlements.Settlement(
        request=request, attempted_at=request.claimed_at, outcome=FAILURE, decision=decision
    )
    settlements.settle([late])
    assert tasks.warn() == 0


def test_enabling_it_begins_anew(make_failing, call, caplog):
    subscription = make_failing(days=5)
    call(subscription, FAILURE)
    Subscription.objects.enable()
    assert tasks.warn() == 0
    Subscription.objects.disable()
    assert tasks.warn() == 0
    assert Subscription.objects.filter(failing_since=None, given_up_at=None, warned_at=None).count() == 1


@pytest.mark.django_db(transaction=True)
def test_several_processes_at_once_tell_once(make_failing):
    for _ in range(5):
        make_failing(days=1)
    assert sum(at_once(4, tasks.warn)) == 5


def test_what_one_look_leaves_is_told_by_the_next(make_failing, monkeypatch):
    monkeypatch.setattr("deliveries.troubles.MOST_TOLD", 2)
    for _ in range(3):
        make_failing(days=1)
    assert [tasks.warn(), tasks.warn(), tasks.warn()] == [2, 1, 0]


def test_a_mail_names_only_so_many(make_failing, monkeypatch, caplog):
    monkeypatch.setattr("deliveries.troubles.MOST_IN_A_MAIL", 2)
    for _ in range(5):
        make_failing(days=1)
    assert tasks.warn() == 5
    assert mail.outbox[0].body.count("- ") == 2
    assert "And 3 more, which the log names." in mail.outbox[0].body
    assert len(told(caplog)) == 5


def test_text_of_tenants_is_inert_and_secrets_are_not_told(make_subscription, caplog):
    subscription = make_subscription(
        "https://hooks.example.com/T0KEN?key=hidden",
        tenant="acme\nBcc: all@example.com\r\n\x1b[31m\u202e",
        description="hidden\nSubject: hidden",
    )
    let_fail(subscription, days=1)
    tasks.warn()
    text = mail.outbox[0].message().as_string()
    assert 'tenant "acme\\nBcc: all@example.com\\r\\n\\u001b[31m\\u202e"' in mail.outbox[0].body
    assert not any(line.startswith("Bcc") for line in text.splitlines())
    assert "\x1b" not in caplog.records[0].tenant
    assert "hidden" not in text + str(vars(caplog.records[0]))
    assert "T0KEN" not in text + str(vars(caplog.records[0]))


def test_without_anybody_to_mail_to_the_log_tells(settings, make_failing, caplog):
    settings.ADMINS = []
    subscription = make_failing(days=1)
    tasks.warn()
    assert told(caplog) == [(FAILS, str(subscription.id))]
    assert mail.outbox == []


@pytest.fixture
def mail_server(settings):
    """The socket of a mail server that takes connections and says nothing."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.EMAIL_HOST, settings.EMAIL_PORT = server.getsockname()
        yield server


def unsent(caplog):
    return [record for record in caplog.records if record.name == "deliveries.mail"]


def test_a_mail_server_that_is_away_costs_the_mail_and_not_the_line_in_the_log(mail_server, make_failing, caplog):
    subscription = make_failing(days=1)
    mail_server.close()
    assert tasks.warn() == 1
    wait_until(lambda: unsent(caplog), bool, lambda: caplog.text)
    (record,) = unsent(caplog)
    assert (record.levelname, record.message) == ("WARNING", "a mail could not be sent")
    assert record.reason.startswith("ConnectionRefusedError")
    assert told(caplog) == [(FAILS, str(subscription.id))]


def test_a_mail_server_that_hangs_holds_up_nothing(mail_server, settings, make_failing, caplog, monkeypatch):
    monkeypatch.setattr(our_mail, "WAIT_SECONDS", 0.01)
    settings.EMAIL_TIMEOUT = None  # it would hang for ever
    subscription = make_failing(days=1)
    assert tasks.warn() == 1
    accepted, _ = mail_server.accept()
    assert [(record.message, record.subscription_id) for record in caplog.records] == [
        (FAILS, str(subscription.id))
    ]
    accepted.close()
    wait_until(lambda: unsent(caplog), bool, lambda: caplog.text)


def test_a_mail_that_our_own_mistake_keeps_back_is_an_error_in_the_log(settings, make_failing, caplog):
    settings.EMAIL_BACKEND = "deliveries.nowhere.Backend"
    make_failing(days=1)
    assert tasks.warn() == 1
    wait_until(lambda: unsent(caplog), bool, lambda: caplog.text)
    (record,) = unsent(caplog)
    assert (record.levelname, record.message) == ("ERROR", "a mail could not be sent")
    assert record.exc_info[0] is ModuleNotFoundError


def test_an_error_of_the_service_itself_is_mailed_to_nobody(settings):
    """Django would mail it, with what was sent, in the middle of the call."""
    settings.DEBUG = False
    logging.getLogger("django.request").error("an error", extra={"status_code": 500})
    assert mail.outbox == []
