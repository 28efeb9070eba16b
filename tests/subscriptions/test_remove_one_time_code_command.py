import io

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions.audit import AuditEntry

pytestmark = pytest.mark.django_db


def test_it_removes_the_code_of_one_user_and_records_it():
    users = [User.objects.create_user(name) for name in ("lost", "other")]
    for user in users:
        TOTPDevice.objects.create(user=user, name="app")
        StaticDevice.objects.create(user=user, name="backup codes")
    output = io.StringIO()
    call_command("remove_one_time_code", "lost", stdout=output)
    assert output.getvalue() == "lost logs in with the password alone from now on.\n"
    assert [device.user.username for device in TOTPDevice.objects.all()] == ["other"]
    assert [device.user.username for device in StaticDevice.objects.all()] == ["other"]
    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.action, entry.object_kind, entry.object_id) == (
        "command",
        "remove one-time code",
        "user",
        str(users[0].pk),
    )


def test_it_says_when_there_is_nothing_to_remove():
    User.objects.create_user("without")
    for name, complaint in (("without", "has set up no one-time code"), ("nobody", "There is no user")):
        with pytest.raises(CommandError, match=complaint):
            call_command("remove_one_time_code", name)
    assert AuditEntry.objects.count() == 0
