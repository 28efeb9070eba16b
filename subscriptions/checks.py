"""What `manage.py check` says about the settings of subscriptions."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import limits
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from subscriptions import addresses, secrets

KEY_HINT = "Make one: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"

# As Django's security.W009, which is a warning of `check --deploy` alone.
LEAST_KEY_LENGTH = 50
LEAST_KEY_CHARACTERS = 5
INSECURE_PREFIX = "django-insecure-"

# Where clouds tell whoever asks from inside what the host may do.
METADATA_ADDRESSES = tuple(
    ip_address(text) for text in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254")
)
# Of failed logins, and of minutes that somebody is locked out: a year.
MOST_FAILURES = 1_000
MOST_MINUTES = 525_600

LOOPBACK_HOSTS = ("", "localhost", "::1", "[::1]")


@register()
def check_secret_key(**kwargs: Any) -> list[CheckMessage]:
    """Outside development mode SECRET_KEY is long and random."""
    if settings.DEBUG:
        return []
    key = settings.SECRET_KEY
    is_strong = (
        len(key) >= LEAST_KEY_LENGTH
        and len(set(key)) >= LEAST_KEY_CHARACTERS
        and not key.startswith(INSECURE_PREFIX)
    )
    if is_strong:
        return []
    hint = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
    return [Error("SECRET_KEY is short or can be guessed.", hint=hint, id="subscriptions.E004")]


@register()
def check_secret_keys(**kwargs: Any) -> list[CheckMessage]:
    """SECRET_KEYS has keys, each is base64 of 32 bytes, and outside development mode the first is random."""
    if not settings.SECRET_KEYS:
        message = "SECRET_KEYS is empty: signing secrets cannot be encrypted."
        return [Error(message, hint=KEY_HINT, id="subscriptions.E001")]
    return list(_wrong_keys())


def _wrong_keys() -> Iterator[CheckMessage]:
    for number, text in enumerate(settings.SECRET_KEYS, start=1):
        try:
            key = secrets.parse_key(text)
        except ValueError as error:
            yield Error(f"Key {number} of SECRET_KEYS is {error}.", hint=KEY_HINT, id="subscriptions.E002")
            continue
        # Of 32 random bytes, hardly any are alike, and they are hardly ever all of them text. One
        # that only decrypts has to stay until nothing is under it.
        if number == 1 and not settings.DEBUG and (len(set(key)) < len(key) / 2 or key.isascii()):
            message = f"Key {number} of SECRET_KEYS is not random: it can be guessed."
            yield Error(message, hint=KEY_HINT, id="subscriptions.E005")


@register()
def check_allowed_networks(**kwargs: Any) -> list[CheckMessage]:
    """Each entry of ALLOWED_NETWORKS is a network, of addresses that are not public."""
    try:
        networks = addresses.parse_networks(settings.ALLOWED_NETWORKS)
    except ValueError as error:
        hint = "Write networks such as 10.1.2.0/24, separated by commas."
        return [Error(f"ALLOWED_NETWORKS: {error}.", hint=hint, id="subscriptions.E003")]
    findings: list[CheckMessage] = []
    for network in networks:
        if addresses.is_public(network):
            message = f"ALLOWED_NETWORKS: {network} has public addresses in it, which are allowed anyway."
            hint = "Name the private networks that receivers are on, and no more: 10.1.2.0/24."
            findings.append(Error(message, hint=hint, id="subscriptions.E006"))
        elif any(address in network for address in METADATA_ADDRESSES):
            message = f"ALLOWED_NETWORKS: {network} opens the metadata service of the cloud."
            hint = "Whoever may create subscriptions could read this host's credentials there."
            findings.append(CheckWarning(message, hint=hint, id="subscriptions.W001"))
    return findings


@register()
def check_api_rate_limit(**kwargs: Any) -> list[CheckMessage]:
    """API_RATE_LIMIT, unless it is empty, is a number of calls in a time."""
    try:
        if settings.API_RATE_LIMIT:
            limits.parse(settings.API_RATE_LIMIT)
    except ValueError:
        hint = "Write a limit such as 500/second or 1000/minute; empty means none."
        return [Error("API_RATE_LIMIT is not a rate.", hint=hint, id="subscriptions.E007")]
    return []


@register()
def check_development_mode(**kwargs: Any) -> list[CheckMessage]:
    """In development mode, where API keys are optional, nobody else reaches the service."""
    if not settings.DEBUG or settings.HOST in LOOPBACK_HOSTS or settings.HOST.startswith("127."):
        return []
    message = f"DEBUG is on and web listens on {settings.HOST}: whoever reaches it needs no API key."
    hint = "Turn DEBUG off, or set HOST=127.0.0.1."
    return [CheckWarning(message, hint=hint, id="subscriptions.W002")]


@register()
def check_proxy_count(**kwargs: Any) -> list[CheckMessage]:
    """PROXY_COUNT counts proxies."""
    if settings.PROXY_COUNT >= 0:
        return []
    hint = "Set it to the number of proxies in front that append to X-Forwarded-For; 0 if there is none."
    return [Error("PROXY_COUNT is negative.", hint=hint, id="subscriptions.E008")]


@register()
def check_lockout(**kwargs: Any) -> list[CheckMessage]:
    """Whoever fails to log in is locked out some time, and is not before."""
    hint = "With 0 failures nobody gets in, and with 0 minutes passwords can be guessed."
    findings: list[CheckMessage] = []
    for name, most in (("LOGIN_FAILURE_LIMIT", MOST_FAILURES), ("LOGIN_LOCKOUT_MINUTES", MOST_MINUTES)):
        # Another project that installs the apps has a console of its own, without these.
        if not 1 <= getattr(settings, name, 1) <= most:
            findings.append(Error(f"{name} is not from 1 to {most:,}.", hint=hint, id="subscriptions.E009"))
    return findings


@register(deploy=True)
def check_proxy(**kwargs: Any) -> list[CheckMessage]:
    """Behind a proxy, callers are told apart."""
    if not settings.SECURE_PROXY_SSL_HEADER or settings.PROXY_COUNT:
        return []
    message = (
        "TRUST_FORWARDED_PROTO is on and PROXY_COUNT is 0: all callers have the proxy's address, "
        "and anybody can lock everybody out of the admin."
    )
    hint = "Set PROXY_COUNT to the number of proxies in front that append to X-Forwarded-For."
    return [CheckWarning(message, hint=hint, id="subscriptions.W004")]


@register(deploy=True)
def check_allowed_hosts(**kwargs: Any) -> list[CheckMessage]:
    """ALLOWED_HOSTS names hosts."""
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    message = "ALLOWED_HOSTS is *: a caller chooses the host of the links in the answers."
    return [CheckWarning(message, hint="Name the hosts that the proxy is called by.", id="subscriptions.W003")]
