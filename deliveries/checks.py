"""What `manage.py check` says about the settings of deliveries."""

import re
import ssl
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, register
from django.core.checks import Warning as CheckWarning

from deliveries import queue
from deliveries.queue import JOB_TIMEOUT_SECONDS
from subscriptions.models import LONGEST_CALL_TIMEOUT_SECONDS

LEAST_VALUES = {
    "MAX_IN_FLIGHT": 1,
    "WORKER_CONCURRENCY": 1,
    "RETENTION_DAYS": 0,
    "OPERATION_RATE": 1,
    "MAX_BODY_BYTES": 1024,
    "DISABLE_AFTER_SECONDS": 1,
    "ORDERED_SKIP_AFTER": 1,
}

MOST_RETENTION_DAYS = 36500


@register()
def check_times(**kwargs: Any) -> list[CheckMessage]:
    """Call limit < lease < RQ job timeout, which the recovery from lost workers rests on."""
    findings: list[CheckMessage] = []
    if not 1 <= settings.CALL_TIMEOUT_SECONDS <= LONGEST_CALL_TIMEOUT_SECONDS:
        message = f"CALL_TIMEOUT_SECONDS is not from 1 to {LONGEST_CALL_TIMEOUT_SECONDS}."
        findings.append(Error(message, id="deliveries.E001"))
    if not settings.LEASE_MARGIN_SECONDS > 0:  # nor is a NaN
        hint = "A lease must outlast its call: 30 is a good margin."
        findings.append(Error("LEASE_MARGIN_SECONDS is not positive.", hint=hint, id="deliveries.E002"))
    if LONGEST_CALL_TIMEOUT_SECONDS + settings.LEASE_MARGIN_SECONDS >= JOB_TIMEOUT_SECONDS:
        hint = f"Call limit plus LEASE_MARGIN_SECONDS must stay under {JOB_TIMEOUT_SECONDS} seconds."
        findings.append(Error("A lease would outlast the time limit of its job.", hint=hint, id="deliveries.E003"))
    if settings.TICK_SECONDS < 1:
        findings.append(Error("TICK_SECONDS is less than 1.", id="deliveries.E004"))
    for name, least in LEAST_VALUES.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            hint = f"Give a number from {least} on."
            findings.append(Error(f"{name} is less than {least}.", hint=hint, id="deliveries.E006"))
    if settings.RETENTION_DAYS > MOST_RETENTION_DAYS:
        hint = f"Give a number up to {MOST_RETENTION_DAYS}."
        message = f"RETENTION_DAYS is more than {MOST_RETENTION_DAYS}."
        findings.append(Error(message, hint=hint, id="deliveries.E006"))
    if any(delay < 1 for delay in settings.RETRY_SCHEDULE):
        hint = "Write seconds, such as 120,240,480,960,1920."
        findings.append(
            Error("RETRY_SCHEDULE has a delay of less than a second.", hint=hint, id="deliveries.E005")
        )
    return findings


# Visible ASCII without spaces, as a header has it.
STRONG_TOKEN = re.compile(r"[!-~]{32,}")
LEAST_TOKEN_CHARACTERS = 5


@register()
def check_metrics_token(**kwargs: Any) -> list[CheckMessage]:
    """Outside development mode METRICS_TOKEN, if it is set, is long, random, and fits into a header."""
    token = settings.METRICS_TOKEN
    if settings.DEBUG or token is None:
        return []
    if STRONG_TOKEN.fullmatch(token) and len(set(token)) >= LEAST_TOKEN_CHARACTERS:
        return []
    hint = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    message = "METRICS_TOKEN is short, can be guessed, or has other characters than visible ASCII."
    return [Error(message, hint=hint, id="deliveries.E008")]


@register()
def check_ca_bundle(**kwargs: Any) -> list[CheckMessage]:
    """CA_BUNDLE, if it is set, is a file with certificates."""
    if settings.CA_BUNDLE is None:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.CA_BUNDLE)
    except OSError as error:
        hint = "Name a file with certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt."
        return [Error(f"CA_BUNDLE cannot be read: {error}.", hint=hint, id="deliveries.E007")]
    return []


@register(deploy=True)
def check_redis_evicts_nothing(**kwargs: Any) -> list[CheckMessage]:
    """A full Redis refuses what is new, in place of dropping wake-ups and the clock's jobs."""
    policy = queue.eviction_policy()
    if policy is None:
        hint = "Run this check again where Redis answers."
        return [Info("Redis did not tell its maxmemory-policy.", hint=hint, id="deliveries.I001")]
    if policy == "noeviction":
        return []
    message = f"Redis has the maxmemory-policy {policy}: it may drop the jobs of the clock."
    return [CheckWarning(message, hint="Set maxmemory-policy noeviction.", id="deliveries.W001")]
