"""The keys without which nothing starts outside development mode."""

from collections.abc import Sequence

from django.core.exceptions import ImproperlyConfigured

from subscriptions.secrets import parse_key

ADVICE = "README.md, section “Running it for real”, tells how to make one."


def require(*, secret_key: str, secret_keys: Sequence[str]) -> None:
    """Raise ImproperlyConfigured, with one sentence for people, unless both are there and can be used."""
    for name, value in (("SECRET_KEY", secret_key), ("SECRET_KEYS", secret_keys)):
        if not value:
            raise ImproperlyConfigured(f"{name} is not set. {ADVICE}")
    for number, text in enumerate(secret_keys, start=1):
        try:
            parse_key(text)
        except ValueError as error:
            raise ImproperlyConfigured(f"Key {number} of SECRET_KEYS is {error}. {ADVICE}") from None
