"""Logging in to the console: throttled by user and address, whatever else the caller makes up."""

from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db.models import F
from django.test import Client, RequestFactory

from subscriptions import logins, origin
from subscriptions.audit import AuditEntry
from tests.staff import PASSWORD
from tests.threads import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_hashes")]

LOGIN = "/admin/login/"


def log_in(username: str = "ada", password: str = "wrong", *, address: str = "192.0.2.1", **headers: str):
    client = Client(REMOTE_ADDR=address)
    return client.post(LOGIN, {"username": username, "password": password, "next": "/admin/"}, headers=headers)


def is_in(response) -> bool:
    return (response.status_code, response.headers.get("Location")) == (302, "/admin/")


def entries() -> list[tuple[str, str, str, str | None]]:
    """Return what was recorded, oldest first."""
    rows = AuditEntry.objects.order_by("id")
    return list(rows.values_list("actor_kind", "actor", "action", "address"))


def test_it_lets_the_right_password_in(user):
    assert is_in(log_in(password=PASSWORD))
    assert entries() == [("user", "ada", "log in", "192.0.2.1")]


def test_it_locks_a_user_out_at_an_address_after_five_failures_even_with_the_right_password(user):
    answers = [log_in() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
    locked = log_in(password=PASSWORD)
    assert locked.status_code == 429
    assert locked["Retry-After"] == "900"
    assert "Too many failed logins" in locked.content.decode()
    assert Session.objects.count() == 0


def test_it_counts_and_records_the_logins_of_who_is_not_on_the_staff(user):
    User.objects.update(is_staff=False)
    answers = [log_in(password=PASSWORD) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
    assert entries()[0] == ("nobody", "ada", "fail to log in", "192.0.2.1")
    assert Session.objects.count() == 0


def test_it_counts_guesses_of_the_old_password_of_who_would_change_it(user):
    client = Client(REMOTE_ADDR="192.0.2.1")
    client.force_login(user)
    words = {"new_password1": "quite a new word", "new_password2": "quite a new word"}

    def change(old: str) -> int:
        return client.post("/admin/password_change/", {"old_password": old} | words).status_code

    assert [change("wrong") for _ in range(5)] == [200, 200, 200, 200, 429]
    assert change(PASSWORD) == 429
    failures = AuditEntry.objects.filter(action="fail to log in", actor="ada", address="192.0.2.1")
    assert failures.count() >= 5
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


def test_it_lets_the_same_user_in_from_elsewhere_and_others_from_there(user):
    User.objects.create_superuser("grace", password=PASSWORD)
    for _ in range(6):
        log_in()
    assert is_in(log_in(password=PASSWORD, address="192.0.2.2"))
    assert is_in(log_in("grace", PASSWORD))


def test_it_lets_the_user_in_again_when_the_time_is_over(user):
    for _ in range(5):
        log_in()
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(minutes=15, seconds=1))
    assert is_in(log_in(password=PASSWORD))


def test_it_does_not_make_the_lockout_longer_while_somebody_goes_on_trying(user):
    for _ in range(5):
        log_in()
    before = list(AccessAttempt.objects.values())
    recorded = AuditEntry.objects.count()
    for _ in range(3):
        assert log_in().status_code == 429
    assert list(AccessAttempt.objects.values()) == before
    assert AuditEntry.objects.count() == recorded


def test_it_forgets_the_failures_of_who_logs_in(user):
    for _ in range(4):
        log_in()
    assert is_in(log_in(password=PASSWORD))
    assert [log_in().status_code for _ in range(4)] == [200] * 4


def test_an_operator_lifts_the_lockout(user, capsys):
    for _ in range(5):
        log_in()
    call_command("axes_reset_username", "ada")
    assert is_in(log_in(password=PASSWORD))


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "User-Agent", "Accept"])
def test_it_is_not_got_round_with_a_header(user, header):
    for number in range(5):
        log_in(**{header: f"192.0.2.{number + 50}"})
    assert log_in(password=PASSWORD, **{header: "192.0.2.99"}).status_code == 429


def test_it_is_not_got_round_within_an_ipv6_network(user):
    for number in range(5):
        log_in(address=f"2001:db8::{number}")
    assert log_in(password=PASSWORD, address="2001:db8::ffff:1").status_code == 429
    assert is_in(log_in(password=PASSWORD, address="2001:db8:0:1::1"))


def test_it_locks_an_address_out_that_tries_many_users(user):
    statuses = [log_in(f"user-{number}").status_code for number in range(50)]
    assert statuses == [200] * 49 + [429]
    assert log_in(password=PASSWORD).status_code == 429
    assert is_in(log_in(password=PASSWORD, address="192.0.2.2"))


def test_failures_take_up_one_small_row_for_each_user_and_address(user):
    for number in range(4):
        log_in(**{"User-Agent": f"{number}" * 200, "Accept": "x" * 1000})
    (row,) = AccessAttempt.objects.all()
    assert (row.username, row.ip_address, row.failures_since_start) == ("ada", "192.0.2.1", 4)
    assert (row.user_agent, row.http_accept, row.get_data, row.post_data) == ("", "", "", "")


def test_a_flood_of_failures_takes_up_no_more_rows_than_that(user, monkeypatch):
    monkeypatch.setattr(logins, "MOST_ROWS", 3)
    for number in range(6):
        log_in(f"user-{number}", address=f"192.0.2.{number}")
    left = sorted(row.ip_address for row in AccessAttempt.objects.all())
    assert left == ["192.0.2.3", "192.0.2.4", "192.0.2.5"]
    assert AuditEntry.objects.count() == 3


def test_it_records_failures_and_lockouts_but_no_name_that_nobody_has(user):
    log_in("the right passwort")
    for _ in range(5):
        log_in()
    assert entries() == [
        ("nobody", "", "fail to log in", "192.0.2.1"),
        *[("nobody", "ada", "fail to log in", "192.0.2.1")] * 5,
        ("nobody", "ada", "be locked out", "192.0.2.1"),
    ]


def test_it_records_who_logs_out(user):
    client = Client()
    client.force_login(user)
    client.post("/admin/logout/")
    assert [(actor, action) for _, actor, action, _ in entries()] == [("ada", "log in"), ("ada", "log out")]


@pytest.mark.parametrize("username", ["ada\0", "a" * 300, "ada\ud800"])
def test_it_answers_odd_names_with_the_form(user, username):
    response = Client().post(
        LOGIN,
        f"username={username}&password=x".encode("utf-8", "surrogatepass"),
        "application/x-www-form-urlencoded",
    )
    assert response.status_code == 200


@pytest.mark.parametrize("given", [{}, {"next": ""}, {"next": "https://evil.example.com/"}])
def test_it_leads_to_the_admin_after_a_login_that_names_no_place_of_this_site(user, given):
    assert is_in(Client().post(LOGIN, {"username": "ada", "password": PASSWORD} | given))


def test_it_takes_no_login_without_a_csrf_token(user):
    client = Client(enforce_csrf_checks=True)
    assert client.post(LOGIN, {"username": "ada", "password": PASSWORD}).status_code == 403


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "203.0.113.7", "192.0.2.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "10.0.0.1, 203.0.113.7", "203.0.113.7"),
        (2, "10.0.0.1, 203.0.113.7, 198.51.100.2", "203.0.113.7"),
        (2, "203.0.113.7", "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "nonsense", "192.0.2.1"),
        (1, "2001:db8::7", "2001:db8::7"),
        (1, "::ffff:203.0.113.7", "203.0.113.7"),
        (1, "fe80::7%eth0", "fe80::7"),
    ],
)
def test_it_takes_the_address_from_as_many_proxies_as_there_are(settings, proxies, forwarded, address):
    settings.PROXY_COUNT = proxies
    request = RequestFactory(REMOTE_ADDR="192.0.2.1").get("/", headers={"X-Forwarded-For": forwarded})
    assert origin.address_of(request) == address


def test_a_unix_socket_has_no_address():
    assert origin.address_of(RequestFactory(REMOTE_ADDR="").get("/")) is None
    assert origin.network_of(RequestFactory(REMOTE_ADDR="").get("/")) is None


# With a hash as slow as it is in production: while one is made, others could come in.
SLOW = "django.contrib.auth.hashers.PBKDF2PasswordHasher"


@pytest.mark.django_db(transaction=True)
def test_guesses_at_the_same_moment_are_counted_one_by_one(settings):
    settings.PASSWORD_HASHERS, settings.WEB_THREADS = [SLOW], 24
    User.objects.create_superuser("ada", password=PASSWORD)
    statuses = at_once(12, lambda: log_in().status_code)
    assert sorted(statuses) == [200] * 4 + [429] * 8
    assert AuditEntry.objects.filter(action="fail to log in").count() == 5


def test_the_database_has_no_name_that_nobody_has_which_may_be_a_password(user):
    answers = [log_in("my secret password") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
    log_in("ada")
    names = set(AccessAttempt.objects.values_list("username", flat=True))
    assert len(names) == 2
    assert "ada" in names
    assert "my secret password" not in names


def test_guesses_take_at_most_half_of_the_threads_wherever_they_come_from(user, settings):
    settings.WEB_THREADS = 2
    with logins.turn_of(RequestFactory(REMOTE_ADDR="192.0.2.1").post(LOGIN)):
        answer = log_in(password=PASSWORD, address="192.0.2.2")
    assert (answer.status_code, answer["Retry-After"]) == (429, "2")
    assert answer.json()["detail"] == "Too many people are logging in at this moment. Try again."
    assert is_in(log_in(password=PASSWORD, address="192.0.2.2"))


def test_nobody_waits_for_a_turn_without_end(user, monkeypatch):
    monkeypatch.setattr(logins, "TURN_SECONDS", 0.1)
    with logins.turn_of(RequestFactory(REMOTE_ADDR="192.0.2.1").post(LOGIN)):
        answer = log_in(password=PASSWORD)
    assert (answer.status_code, answer["Retry-After"]) == (429, "2")
    assert is_in(log_in(password=PASSWORD))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/admin/password_change/", {"old_password": "wrong"}),
        ("/admin/one-time-code/", {"step": "remove", "password": "wrong"}),
    ],
)
def test_so_are_those_of_whoever_found_a_session(settings, path, fields):
    settings.PASSWORD_HASHERS, settings.WEB_THREADS = [SLOW], 24
    user = User.objects.create_superuser("ada", password=PASSWORD)
    client = Client(REMOTE_ADDR="192.0.2.1")
    client.force_login(user)
    cookie = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}"}

    def guess() -> int:
        return Client(REMOTE_ADDR="192.0.2.1").post(path, fields, headers=cookie).status_code

    assert sorted(at_once(12, guess)) == [200] * 4 + [429] * 8
    assert AuditEntry.objects.filter(action="fail to log in").count() == 5
