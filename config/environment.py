"""Settings as they come from the environment; what cannot be read is told in a sentence, for people."""

import logging
from email.utils import getaddresses
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from redis import Redis

ON = environ.Env.BOOLEAN_TRUE_STRINGS
OFF = ("off", "false", "no", "n", "0", "")
POSTGRESQL_SCHEMES = ("postgres", "postgresql", "pgsql", "psql")


class Env(environ.Env):  # type: ignore[misc]
    """django-environ's, whose own exceptions name neither the setting nor what it should be.

    What is wrong with a URL is told without the URL, which may have a password in it.
    """

    def get_value(self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, **kwargs: Any) -> Any:
        if cast is bool and var in self.ENVIRON:
            return self._is_on(var)
        try:
            return super().get_value(var, cast, default, **kwargs)
        except ValueError:
            needed = "numbers, separated by commas, are" if isinstance(cast, list) else "a number is"
            raise ImproperlyConfigured(f"{var} is {self.ENVIRON[var]!r}: {needed} needed.") from None

    def _is_on(self, var: str) -> bool:
        """Return whether a switch is on; a misspelt one is not off, as it might have been meant to protect."""
        text = self.str(var).strip().lower()
        if text not in ON + OFF:
            raise ImproperlyConfigured(f"{var} is {self.ENVIRON[var]!r}: on or off is needed.")
        return text in ON

    def postgresql(self, var: str, default: str) -> dict[str, Any]:
        """Return what Django needs to reach the database with this URL."""
        parts = self._parts(self.str(var, default))
        if not parts.get("NAME"):
            raise ImproperlyConfigured(
                f"{var} is not the URL of a PostgreSQL database, such as postgres://user:password@host:5432/name. "
                "Of a password, all but letters and digits has to be percent-encoded."
            )
        return parts

    def _parts(self, url: str) -> dict[str, Any]:
        """Take a URL of PostgreSQL apart; of what is none there are no parts."""
        # Asked first: django-environ tells of other URLs, with the password.
        if url.partition("://")[0] not in POSTGRESQL_SCHEMES:
            return {}
        try:
            return dict(self.db_url_config(url))
        except ValueError:
            return {}

    def log_level(self, var: str, default: str) -> str:
        """Return the name of a level of the log, in whatever case it is written."""
        level: str = (self.str(var, "") or default).strip().upper()
        if level not in logging.getLevelNamesMapping():
            raise ImproperlyConfigured(
                f"{var} is {self.ENVIRON[var]!r}: one of DEBUG, INFO, WARNING, ERROR, CRITICAL is needed."
            )
        return level

    def people(self, var: str) -> list[tuple[str, str]]:
        """Return the names and mail addresses of people, as Django's ADMINS has them."""
        text = self.str(var, "").strip()
        # Of an empty text some releases of Python make somebody without a name and address.
        people = getaddresses([text]) if text else []
        if not all(address.strip("@").count("@") == 1 for _, address in people):
            raise ImproperlyConfigured(
                f"{var} is no list of mail addresses, such as ada@example.com, Ops <ops@example.com>."
            )
        return people

    def mail_server(self, var: str, default: str) -> dict[str, Any]:
        """Return Django's settings EMAIL_… for the mail server with this URL."""
        url = self.str(var, default)
        try:
            if url.partition("://")[0] in self.EMAIL_SCHEMES:
                found = self.email_url_config(url)
                return {name: value for name, value in found.items() if name.startswith("EMAIL_")}
        except ValueError:
            pass
        raise ImproperlyConfigured(
            f"{var} is not the URL of a mail server, such as smtp+tls://user:password@host:587. "
            "Of a password, all but letters and digits has to be percent-encoded."
        )

    def redis(self, var: str, default: str) -> str:
        """Return this URL of a Redis."""
        url: str = self.str(var, default)
        try:
            Redis.from_url(url)  # connects later
        except ValueError:
            raise ImproperlyConfigured(
                f"{var} is not the URL of a Redis, such as redis://host:6379/0, rediss://… or unix://…."
            ) from None
        return url
