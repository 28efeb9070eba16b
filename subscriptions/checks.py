"""What `manage.py check` says about the settings of subscriptions."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from subscriptions import addresses, secrets


@register()
def check_secret_keys(**kwargs: Any) -> list[CheckMessage]:
    """SECRET_KEYS has at least one key, and each is base64 of 32 bytes."""
    hint = "Make one: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"
    if not settings.SECRET_KEYS:
        return [
            Error(
                "SECRET_KEYS is empty: signing secrets cannot be encrypted.",
                hint=hint,
                id="subscriptions.E001",
            )
        ]
    findings: list[CheckMessage] = []
    for number, text in enumerate(settings.SECRET_KEYS, start=1):
        try:
            secrets.parse_key(text)
        except ValueError as error:
            findings.append(Error(f"Key {number} of SECRET_KEYS is {error}.", hint=hint, id="subscriptions.E002"))
    return findings


@register()
def check_allowed_networks(**kwargs: Any) -> list[CheckMessage]:
    """Each entry of ALLOWED_NETWORKS is a network."""
    try:
        addresses.parse_networks(settings.ALLOWED_NETWORKS)
    except ValueError as error:
        hint = "Write networks such as 10.1.2.0/24, separated by commas."
        return [Error(f"ALLOWED_NETWORKS: {error}.", hint=hint, id="subscriptions.E003")]
    return []
