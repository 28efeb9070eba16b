"""Logging in with a one-time code: needed by whoever has set one up, good once, throttled."""

import base64
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions import code_keys
from subscriptions.audit import AuditEntry
from subscriptions.one_time_code import SETUP_TIME
from tests.staff import PASSWORD, add_one_time_code, code_of, messages_of
from tests.subscriptions.test_secrets import ring_key

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_hashes")]

LOGIN, PAGE, INDEX = "/admin/login/", "/admin/one-time-code/", "/admin/"


@pytest.fixture
def device(user: User) -> TOTPDevice:
    return add_one_time_code(user)


def log_in(code: str = "", *, client: Client | None = None, password: str = PASSWORD):
    fields = {"username": "ada", "password": password, "one_time_code": code, "next": INDEX}
    return (client or Client()).post(LOGIN, fields)


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def complaints(response) -> list[str]:
    return list(response.context["form"].non_field_errors())


def test_it_needs_no_code_of_who_has_set_none_up(user):
    assert log_in().status_code == 302


def test_it_lets_the_right_code_in(device):
    client = Client()
    assert log_in(code_of(device), client=client).status_code == 302
    assert client.get(INDEX).status_code == 200


@pytest.mark.parametrize("code", ["", "abcdef", "12345", "٠١٢٣٤٥", "'; --", "999999999999999"])
def test_it_refuses_a_wrong_code_as_it_refuses_a_wrong_password(device, code):
    refused = log_in(code)
    assert refused.status_code == 200
    assert complaints(refused) == complaints(log_in(code_of(device), password="wrong"))
    assert AuditEntry.objects.filter(action="fail to log in", actor="ada").count() == 2
    assert "_auth_user_id" not in refused.client.session


def test_it_refuses_a_code_that_was_used(device):
    code = code_of(device)
    assert log_in(code).status_code == 302
    assert log_in(code).status_code == 200


def test_it_refuses_the_code_of_somebody_else(user, device):
    other = User.objects.create_superuser("grace", password=PASSWORD)
    another = add_one_time_code(other)
    assert log_in(code_of(another)).status_code == 200


def test_it_locks_out_who_guesses_codes(device):
    statuses = [log_in("000000").status_code for _ in range(6)]
    assert statuses[-2:] == [429, 429]
    assert log_in(code_of(device)).status_code == 429


def test_it_takes_each_backup_code_once(user, device):
    code = code_keys.add_backup_codes(user)[0]
    client = Client()
    assert log_in(f" {code.upper()} ", client=client).status_code == 302
    assert client.get(INDEX).status_code == 200
    assert log_in(code).status_code == 200


def test_it_refuses_the_backup_code_of_somebody_else(device):
    other = User.objects.create_superuser("grace", password=PASSWORD)
    code = code_keys.add_backup_codes(other)[0]
    code_keys.add_backup_codes(device.user)
    assert log_in(code).status_code == 200


def test_the_database_holds_neither_keys_nor_backup_codes(user, device):
    codes = code_keys.add_backup_codes(user)
    key = code_keys.opened(TOTPDevice.objects.get(pk=device.pk)).key
    stored = TOTPDevice.objects.values_list("key", flat=True).get()
    assert (len(key), len(stored)) == (40, 80)
    assert key not in stored
    assert bytes.fromhex(key) not in base64.b64decode(stored)
    digests = list(StaticToken.objects.values_list("token", flat=True))
    assert len(digests) == len(codes) == 10
    assert not set(codes) & set(digests)
    assert log_in(digests[0]).status_code == 200


def test_a_login_leaves_the_key_as_it_is_stored(device):
    stored = TOTPDevice.objects.values_list("key", flat=True).get()
    assert log_in("000000").status_code == 200
    TOTPDevice.objects.update(throttling_failure_count=0)
    assert log_in(code_of(device)).status_code == 302
    assert TOTPDevice.objects.values_list("key", flat=True).get() == stored


def test_the_key_of_somebody_else_is_of_no_use(user, device):
    other = User.objects.create_superuser("grace", password=PASSWORD)
    known = add_one_time_code(other)
    TOTPDevice.objects.filter(pk=device.pk).update(key=known.key)
    assert log_in(code_of(known)).status_code == 200


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_key_that_cannot_be_read_lets_nobody_in_and_is_logged(user, device, settings, caplog, is_plain):
    code = code_of(device)
    if is_plain:
        TOTPDevice.objects.update(key="0123456789abcdef0123456789abcdef01234567")
    else:
        settings.SECRET_KEYS = [ring_key("another")]
    assert log_in(code).status_code == 200
    assert [record.message for record in caplog.records if record.name == "subscriptions.one_time_code"] == [
        "the key of a one-time code cannot be read"
    ]
    assert log_in(code_keys.add_backup_codes(user)[0]).status_code == 302


def test_a_setup_whose_key_cannot_be_read_is_begun_again(user, settings):
    client = logged_in(user)
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    settings.SECRET_KEYS = [ring_key("another")]
    assert client.get(PAGE).status_code == 200
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    assert "data:image/svg+xml" in client.get(PAGE).content.decode()


def test_a_session_from_before_is_of_no_use_once_a_code_is_set_up(user):
    client = logged_in(user)
    assert client.get(INDEX).status_code == 200
    add_one_time_code(user)
    for url in (INDEX, PAGE, "/admin/subscriptions/subscription/"):
        assert client.get(url)["Location"] == f"/admin/login/?next={url}"
    assert client.post(PAGE, {"step": "remove", "password": PASSWORD}).status_code == 302
    assert TOTPDevice.objects.count() == 1


def test_a_user_sets_one_up_and_gets_backup_codes_once(user):
    client = logged_in(user)
    assert client.post(PAGE, {"step": "begin", "password": PASSWORD}).status_code == 302
    device = TOTPDevice.objects.get()
    assert not device.confirmed
    page = client.get(PAGE).content.decode()
    assert "data:image/svg+xml" in page
    assert log_in().status_code == 302

    response = client.post(PAGE, {"step": "confirm", "code": code_of(device)})
    codes = re.findall(r"^[a-z2-7]{8}$", response.content.decode().replace('<pre id="backup-codes">', ""), re.M)
    assert len(codes) == 10
    assert client.get(INDEX).status_code == 200
    page = client.get(PAGE).content.decode()
    assert not [code for code in codes if code in page]
    assert log_in().status_code == 200
    assert log_in(codes[0]).status_code == 302
    entry = AuditEntry.objects.get(action="set up one-time code")
    assert (entry.actor, entry.object_id, entry.after) == ("ada", str(user.pk), {})


def test_it_does_not_count_before_a_code_of_it_was_given(user):
    client = logged_in(user)
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    response = client.post(PAGE, {"step": "confirm", "code": "000000"})
    assert "This code is wrong" in response.content.decode()
    assert not TOTPDevice.objects.get().confirmed
    assert log_in().status_code == 302


def test_a_setup_that_was_left_unfinished_is_over_after_a_while(user):
    client = logged_in(user)
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    device = TOTPDevice.objects.get()
    TOTPDevice.objects.update(created_at=device.created_at - SETUP_TIME + timedelta(minutes=5))
    assert "data:image/svg+xml" in client.get(PAGE).content.decode()
    TOTPDevice.objects.update(created_at=device.created_at - SETUP_TIME)
    assert client.post(PAGE, {"step": "confirm", "code": code_of(device)}).status_code == 302
    assert "data:image/svg+xml" not in client.get(PAGE).content.decode()
    assert [device.pk for device in TOTPDevice.objects.all()] == [device.pk]  # a GET takes nothing away
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    assert device.pk not in [device.pk for device in TOTPDevice.objects.all()]
    assert log_in().status_code == 302


def test_a_setup_that_was_begun_anew_meanwhile_takes_no_code_away(user, device):
    client = Client()
    log_in(code_of(device), client=client)
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    fresh = TOTPDevice.objects.get(confirmed=False)

    def delete_once_looked_at(execute, sql, *arguments):
        answer = execute(sql, *arguments)
        if sql.startswith('UPDATE "otp_totp_totpdevice"'):
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM otp_totp_totpdevice WHERE id = %s", [fresh.pk])
        return answer

    with connection.execute_wrapper(delete_once_looked_at):
        response = client.post(PAGE, {"step": "confirm", "code": code_of(fresh)}, follow=True)
    assert messages_of(response) == ["Nothing is set up: meanwhile this was begun anew, or removed."]
    assert [device.pk for device in TOTPDevice.objects.all()] == [device.pk]
    assert client.get(INDEX).status_code == 200


def test_another_one_takes_the_place_of_the_first(user, device):
    client = Client()
    log_in(code_of(device), client=client)
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    fresh = TOTPDevice.objects.get(confirmed=False)
    client.post(PAGE, {"step": "confirm", "code": code_of(fresh)})
    assert [device.pk for device in TOTPDevice.objects.all()] == [fresh.pk]
    assert client.get(INDEX).status_code == 200


@pytest.mark.parametrize("step", ["begin", "remove"])
def test_it_asks_for_the_password_before_it_changes_anything(user, device, step):
    client = Client()
    log_in(code_of(device), client=client)
    for password in ("", "wrong"):
        assert client.post(PAGE, {"step": step, "password": password}).status_code == 200
    assert [device.pk for device in TOTPDevice.objects.all()] == [device.pk]


def test_a_user_removes_it(user, device):
    client = Client()
    log_in(code_of(device), client=client)
    client.post(PAGE, {"step": "remove", "password": PASSWORD})
    assert TOTPDevice.objects.count() == 0
    assert client.get(INDEX).status_code == 200
    assert AuditEntry.objects.filter(action="remove one-time code", actor="ada").count() == 1


def test_a_get_changes_nothing(user):
    client = logged_in(user)
    client.get(PAGE, {"step": "begin", "password": PASSWORD})
    assert TOTPDevice.objects.count() == 0
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    assert strict.post(PAGE, {"step": "begin", "password": PASSWORD}).status_code == 403


def test_everybody_has_to_set_one_up_if_the_operator_says_so(user, settings):
    settings.REQUIRE_OTP = True
    client = logged_in(user)
    for url in (INDEX, "/admin/subscriptions/subscription/", "/admin/password_change/"):
        assert client.get(url)["Location"] == PAGE
    client.post(PAGE, {"step": "begin", "password": PASSWORD})
    client.post(PAGE, {"step": "confirm", "code": code_of(TOTPDevice.objects.get())})
    assert client.get(INDEX).status_code == 200


def test_who_has_to_set_one_up_may_log_out_instead(user, settings):
    settings.REQUIRE_OTP = True
    client = logged_in(user)
    assert 'action="/admin/logout/"' in client.get(PAGE).content.decode()
    client.post("/admin/logout/")
    assert client.get(PAGE)["Location"] == f"/admin/login/?next={PAGE}"


@pytest.mark.parametrize("is_staff", [True, False])
def test_the_page_is_for_staff_who_are_logged_in(is_staff):
    user = User.objects.create_user("somebody", is_staff=is_staff)
    assert logged_in(user).get(PAGE).status_code == (200 if is_staff else 302)
    assert Client().get(PAGE)["Location"] == f"/admin/login/?next={PAGE}"


def test_no_page_shows_keys_of_other_users(user, device):
    client = Client()
    log_in(code_of(device), client=client)
    for app in ("otp_totp/totpdevice", "otp_static/staticdevice", "auth/group", "axes/accessattempt"):
        assert client.get(f"/admin/{app}/").status_code == 404
    assert client.get(f"/admin/otp_totp/totpdevice/{device.pk}/config/").status_code == 404


def test_what_hides_or_reorders_text_is_visible_on_the_page(user):
    User.objects.update(first_name="\u202eada")
    page = logged_in(user).get(PAGE).content.decode()
    assert r"\u202eada" in page
    assert "\u202e" not in page
