"""The keys without which nothing starts outside development mode."""

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from subscriptions.secrets import parse_key

ADVICE = "README.md, section “Running it for real”, tells how to make one."


def require() -> None:
    """Raise ImproperlyConfigured, with one sentence for people, unless the keys are there and can be used."""
    if settings.DEBUG:
        return
    try:
        settings.SECRET_KEY  # noqa: B018 - Django raises for an empty one
    except ImproperlyConfigured:
        raise ImproperlyConfigured(f"SECRET_KEY is not set. {ADVICE}") from None
    if not settings.SECRET_KEYS:
        raise ImproperlyConfigured(f"SECRET_KEYS is not set. {ADVICE}")
    for number, text in enumerate(settings.SECRET_KEYS, start=1):
        try:
            parse_key(text)
        except ValueError as error:
            raise ImproperlyConfigured(f"Key {number} of SECRET_KEYS is {error}. {ADVICE}") from None
