"""manage.py rotate_encryption: every secret under the first key of the ring, beside everything else."""

import io
import threading

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, models
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions import code_keys, reencryption, secrets
from subscriptions.models import Subscription
from subscriptions.secrets import Purpose
from tests.conftest import SECRET
from tests.subscriptions.test_secrets import ring_key

pytestmark = pytest.mark.django_db

OLD, NEW = ring_key("old"), ring_key("new")

# Binary columns that hold no secret: hashes, payloads, answers.
PLAIN = {
    "subscriptions.ApiKey.digest",
    "deliveries.Event.payload",
    "deliveries.WebhookRequest.payload",
    "deliveries.DeliveryAttempt.response_body",
    "deliveries.IdempotencyKey.body_digest",
    "deliveries.IdempotencyKey.answer",  # of a publish call: ids
}


def rotate_encryption(*arguments: str) -> tuple[str, str, str]:
    """Return what was printed, what was told on the way, and the error it ended with."""
    output, told, error = io.StringIO(), io.StringIO(), ""
    try:
        call_command("rotate_encryption", *arguments, stdout=output, stderr=told)
    except CommandError as raised:
        error = str(raised)
    return output.getvalue(), told.getvalue(), error


@pytest.fixture
def subscription(make_subscription, settings):
    """A subscription with every kind of secret, encrypted under the old key."""
    settings.SECRET_KEYS = [OLD]
    made = make_subscription()
    made.previous_secret = secrets.encrypt("the one before", row_id=made.id)
    made.secret_headers = secrets.encrypt('{"X-Key": "k"}', row_id=made.id, purpose=Purpose.HEADERS)
    made.auth = secrets.encrypt('{"type": "bearer"}', row_id=made.id, purpose=Purpose.AUTH)
    made.save()
    return made


def secrets_of(subscription: Subscription) -> dict[str, str]:
    row = Subscription.objects.filter(id=subscription.id).values(*reencryption.ENCRYPTED_COLUMNS).get()
    return {
        column: secrets.decrypt(bytes(row[column]), row_id=subscription.id, purpose=purpose)
        for column, purpose in reencryption.ENCRYPTED_COLUMNS.items()
    }


ALL = {
    "secret": SECRET,
    "previous_secret": "the one before",
    "secret_headers": '{"X-Key": "k"}',
    "auth": '{"type": "bearer"}',
}


def test_it_brings_every_secret_under_the_first_key_so_that_the_old_one_can_go(subscription, settings):
    settings.SECRET_KEYS = [NEW, OLD]
    assert rotate_encryption() == (
        "4 secrets encrypted anew, 0 were under the first key.\n",
        "1 subscriptions looked at\n",
        "",
    )
    settings.SECRET_KEYS = [NEW]
    assert secrets_of(subscription) == ALL


def test_it_leaves_those_alone_that_are_under_the_first_key(subscription, make_subscription, settings):
    settings.SECRET_KEYS = [NEW, OLD]
    newer = make_subscription()
    before = bytes(newer.secret)
    assert rotate_encryption()[0] == "4 secrets encrypted anew, 1 were under the first key.\n"
    newer.refresh_from_db()
    assert bytes(newer.secret) == before
    assert rotate_encryption()[0] == "0 secrets encrypted anew, 5 were under the first key.\n"


def test_it_changes_nothing_when_it_is_a_dry_run(subscription, settings):
    settings.SECRET_KEYS = [NEW, OLD]
    output, _, error = rotate_encryption("--dry-run")
    assert (output, error) == ("4 secrets would be encrypted anew, 0 were under the first key.\n", "")
    settings.SECRET_KEYS = [OLD]
    assert secrets_of(subscription) == ALL


def test_it_names_those_that_cannot_be_read_does_the_others_and_ends_with_an_error(
    subscription, make_subscription, settings
):
    settings.SECRET_KEYS = [ring_key("lost")]
    lost = make_subscription()
    Subscription.objects.filter(id=subscription.id).update(auth=b"not what encrypt() made")
    settings.SECRET_KEYS = [NEW, OLD]
    output, told, error = rotate_encryption()
    assert output == "3 secrets encrypted anew, 0 were under the first key.\n"
    assert told.splitlines() == [
        "2 subscriptions looked at",
        f"cannot be read: auth of subscription {subscription.id}",
        f"cannot be read: secret of subscription {lost.id}",
    ]
    assert error == "2 secrets cannot be read with any key of SECRET_KEYS."


def test_it_walks_in_batches_and_takes_the_deleted_ones_too(make_subscription, settings, monkeypatch):
    settings.SECRET_KEYS = [OLD]
    made = [make_subscription() for _ in range(5)]
    Subscription.objects.filter(id=made[0].id).update(deleted_at="2026-11-24T00:00:00Z")
    settings.SECRET_KEYS = [NEW, OLD]
    monkeypatch.setattr(reencryption, "BATCH", 2)
    output, told, _ = rotate_encryption()
    assert output == "5 secrets encrypted anew, 0 were under the first key.\n"
    assert told.splitlines() == [f"{done} subscriptions looked at" for done in (2, 4, 5)]


def test_it_goes_on_where_a_run_before_was_interrupted(make_subscription, settings, monkeypatch):
    settings.SECRET_KEYS = [OLD]
    for _ in range(4):
        make_subscription()
    settings.SECRET_KEYS = [NEW, OLD]
    monkeypatch.setattr(reencryption, "BATCH", 2)

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reencryption.reencrypt(progress=interrupt)
    assert rotate_encryption()[0] == "2 secrets encrypted anew, 2 were under the first key.\n"


@pytest.mark.django_db(transaction=True)
def test_it_keeps_what_somebody_else_writes_meanwhile(subscription, settings):
    texts = [f"secret number {number}" for number in range(300)]
    under_old = [secrets.encrypt(text, row_id=subscription.id) for text in texts]
    settings.SECRET_KEYS = [NEW, OLD]

    def write() -> None:
        try:
            for stored in under_old:
                Subscription.objects.filter(id=subscription.id).update(secret=stored)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        reencryption.reencrypt(progress=lambda done: None)
    writer.join()
    reencryption.reencrypt(progress=lambda done: None)
    settings.SECRET_KEYS = [NEW]
    assert secrets_of(subscription) == ALL | {"secret": texts[-1]}


def test_it_brings_the_keys_of_one_time_codes_under_the_first_key_too(settings):
    settings.SECRET_KEYS = [OLD]
    user = User.objects.create_user("ada")
    device = code_keys.add_device(user)
    key = code_keys.opened(TOTPDevice.objects.get(pk=device.pk)).key
    settings.SECRET_KEYS = [NEW, OLD]
    assert rotate_encryption("--dry-run")[0] == "1 secrets would be encrypted anew, 0 were under the first key.\n"
    assert TOTPDevice.objects.get().key == device.key
    assert rotate_encryption()[0] == "1 secrets encrypted anew, 0 were under the first key.\n"
    assert rotate_encryption()[0] == "0 secrets encrypted anew, 1 were under the first key.\n"
    settings.SECRET_KEYS = [NEW]
    assert code_keys.opened(TOTPDevice.objects.get()).key == key
    settings.SECRET_KEYS = [ring_key("another")]
    assert rotate_encryption()[1:] == (
        f"cannot be read: one-time code of user {user.pk}\n",
        "1 secrets cannot be read with any key of SECRET_KEYS.",
    )


def test_it_knows_every_column_that_may_hold_a_secret():
    binary = {
        f"{model._meta.label}.{field.name}"
        for app in ("subscriptions", "deliveries")
        for model in apps.get_app_config(app).get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.BinaryField)
    }
    encrypted = {f"subscriptions.Subscription.{column}" for column in reencryption.ENCRYPTED_COLUMNS}
    assert binary - PLAIN == encrypted
