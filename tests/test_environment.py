"""Settings from the environment: what cannot be read is told in a sentence, and no password with it."""

import contextlib
from collections.abc import Iterator

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.environment import Env

NO_POSTGRESQL = (
    "DATABASE_URL is not the URL of a PostgreSQL database, such as postgres://user:password@host:5432/name. "
    "Of a password, all but letters and digits has to be percent-encoded."
)
NO_REDIS = "REDIS_URL is not the URL of a Redis, such as redis://host:6379/0, rediss://… or unix://…."


@contextlib.contextmanager
def refused(told: str) -> Iterator[None]:
    with pytest.raises(ImproperlyConfigured) as refusal:
        yield
    assert str(refusal.value) == told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "webhooks",
        "mysql://me:hidden@localhost/webhooks",
        "postgres://me:hidden@localhost:5432",
        "postgres://me:hid/den@localhost/webhooks",
        "postgres://me:hidden@localhost:port/webhooks",
    ],
)
def test_what_is_no_url_of_a_database_is_told(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    with refused(NO_POSTGRESQL):
        Env().postgresql("DATABASE_URL", "postgres://webhooks@/%2Frun/webhooks")


def test_urls_of_databases_are_read(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:p%40ss@db.internal:5433/webhooks?sslmode=require")
    parts = Env().postgresql("DATABASE_URL", "")
    assert (parts["USER"], parts["PASSWORD"], parts["HOST"], parts["PORT"], parts["NAME"], parts["OPTIONS"]) == (
        ("me", "p@ss", "db.internal", 5433, "webhooks", {"sslmode": "require"})
    )
    monkeypatch.delenv("DATABASE_URL")
    parts = Env().postgresql("DATABASE_URL", "postgres://webhooks@/%2Frun/postgresql/webhooks")
    assert (parts["USER"], parts["HOST"], parts["NAME"]) == ("webhooks", "/run/postgresql", "webhooks")


@pytest.mark.parametrize("text", ["enabled", "ture", "2"])
def test_a_switch_that_is_neither_on_nor_off_is_told(monkeypatch, text):
    monkeypatch.setenv("REQUIRE_OTP", text)
    with refused(f"REQUIRE_OTP is {text!r}: on or off is needed."):
        Env().bool("REQUIRE_OTP", False)


@pytest.mark.parametrize("text", ["on", "True", " yes", "1"])
def test_switches_that_are_on_are_read(monkeypatch, text):
    monkeypatch.setenv("REQUIRE_OTP", text)
    assert Env().bool("REQUIRE_OTP", False)


@pytest.mark.parametrize("text", ["off", "FALSE", "no", "0", ""])
def test_switches_that_are_off_are_read(monkeypatch, text):
    monkeypatch.setenv("REQUIRE_OTP", text)
    assert not Env().bool("REQUIRE_OTP", True)


def test_what_is_no_level_of_the_log_is_told(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with refused("LOG_LEVEL is 'loud': one of DEBUG, INFO, WARNING, ERROR, CRITICAL is needed."):
        Env().log_level("LOG_LEVEL", "INFO")


@pytest.mark.parametrize(("text", "level"), [("ERROR", "ERROR"), ("warning ", "WARNING"), ("", "INFO")])
def test_levels_of_the_log_are_read(monkeypatch, text, level):
    monkeypatch.setenv("LOG_LEVEL", text)
    assert Env().log_level("LOG_LEVEL", "INFO") == level
    monkeypatch.delenv("LOG_LEVEL")
    assert Env().log_level("LOG_LEVEL", "INFO") == "INFO"


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://:hidden@localhost:port/0"])
def test_what_is_no_url_of_a_redis_is_told(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    with refused(NO_REDIS):
        Env().redis("REDIS_URL", "redis://localhost:6379/0")


def test_urls_of_a_redis_are_read(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "rediss://:secret@redis.internal:6380/2")
    assert Env().redis("REDIS_URL", "") == "rediss://:secret@redis.internal:6380/2"


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("int", "1 MB", "SIZE is '1 MB': a number is needed."),
        ("int", "", "SIZE is '': a number is needed."),
        ("float", "soon", "SIZE is 'soon': a number is needed."),
    ],
)
def test_what_is_no_number_is_told(monkeypatch, kind, value, told):
    monkeypatch.setenv("SIZE", value)
    with refused(told):
        getattr(Env(), kind)("SIZE", 5)


def test_what_is_no_list_of_numbers_is_told(monkeypatch):
    monkeypatch.setenv("DELAYS", "2m,4m")
    with refused("DELAYS is '2m,4m': numbers, separated by commas, are needed."):
        Env().list("DELAYS", cast=int, default=[1])


def test_people_are_read(monkeypatch):
    monkeypatch.setenv("ADMINS", "ada@example.com, Ops <ops@example.com>")
    assert Env().people("ADMINS") == [("", "ada@example.com"), ("Ops", "ops@example.com")]
    monkeypatch.setenv("ADMINS", " ")
    assert Env().people("ADMINS") == []
    monkeypatch.delenv("ADMINS")
    assert Env().people("ADMINS") == []


@pytest.mark.parametrize("value", ["ada", "ada@", "@example.com", "ada@example.com bob@example.com", "Ada <"])
def test_what_are_no_mail_addresses_is_told(monkeypatch, value):
    monkeypatch.setenv("ADMINS", value)
    with refused("ADMINS is no list of mail addresses, such as ada@example.com, Ops <ops@example.com>."):
        Env().people("ADMINS")


def test_urls_of_mail_servers_are_read(monkeypatch):
    monkeypatch.setenv("EMAIL_URL", "smtp+tls://me:p%40ss@mail.internal:587?timeout=1")
    assert Env().mail_server("EMAIL_URL", "") == {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_FILE_PATH": "",
        "EMAIL_HOST": "mail.internal",
        "EMAIL_HOST_PASSWORD": "p@ss",
        "EMAIL_HOST_USER": "me",
        "EMAIL_PORT": 587,
        "EMAIL_USE_TLS": True,
    }


@pytest.mark.parametrize("url", ["", "mail.internal:25", "https://me:hidden@mail", "smtp://me:hidden@mail:port"])
def test_what_is_no_url_of_a_mail_server_is_told(monkeypatch, url):
    monkeypatch.setenv("EMAIL_URL", url)
    with refused(
        "EMAIL_URL is not the URL of a mail server, such as smtp+tls://user:password@host:587. "
        "Of a password, all but letters and digits has to be percent-encoded."
    ):
        Env().mail_server("EMAIL_URL", "smtp://localhost:25")
