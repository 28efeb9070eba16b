"""Access tokens by client credentials (RFC 6749, 4.4): how they are asked for, and what comes back. Pure."""

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

import msgspec

from deliveries.outcome import HINTS, ErrorClass, Outcome
from subscriptions.auth import ClientCredentials

# A token is not used any more so long before it expires; of one that lasts less than a
# minute, for half of its time.
MARGIN_SECONDS = 30.0
# What a token lasts if the server does not say, and the longest that it is believed to.
USUAL_SECONDS = 300.0
LONGEST_SECONDS = 24 * 3600.0

_TOKEN = re.compile(r"[!-~]{1,8192}")
_ERROR_CODE = re.compile(r"[a-z0-9_]{1,50}")
_UNAUTHORIZED = (400, 401)

# An answer that is not the JSON that was asked for: other JSON, none, in another charset, or
# nested without end.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class _Grant(msgspec.Struct):
    """A token endpoint's answer (RFC 6749, 5.1); some servers write the number as text."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a kind of token, and none
    expires_in: float | str | None = None


class _Refusal(msgspec.Struct):
    """A token endpoint's refusal (RFC 6749, 5.2)."""

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """An access token and how long it is used, in seconds from when it came."""

    text: str = field(repr=False)
    lasts_seconds: float

    @property
    def header(self) -> str:
        return f"Authorization: Bearer {self.text}"


def form_of(credentials: ClientCredentials, *, in_body: bool) -> tuple[list[str], bytes]:
    """Return the headers and the body of a token request.

    The client proves itself by HTTP Basic, which every server has to know, or in the
    body, which is all that some of them do know (RFC 6749, 2.3.1).
    """
    fields = {"grant_type": "client_credentials"}
    if credentials.scope is not None:
        fields["scope"] = credentials.scope
    headers = ["Content-Type: application/x-www-form-urlencoded", "Accept: application/json"]
    if in_body:
        fields |= {"client_id": credentials.client_id, "client_secret": credentials.client_secret}
    else:
        pair = f"{quote_plus(credentials.client_id)}:{quote_plus(credentials.client_secret)}"
        headers.append("Authorization: Basic " + base64.b64encode(pair.encode()).decode())
    return headers, urlencode(fields).encode()


def read(outcome: Outcome) -> Token | None:
    """Return the token that the token endpoint answered with, None if there is none that can be used."""
    if not outcome.is_success:
        return None
    try:
        grant = msgspec.json.decode(outcome.response_body, type=_Grant)
        lasts = USUAL_SECONDS if grant.expires_in is None else float(grant.expires_in)
    except UNREADABLE:
        return None
    if grant.token_type.lower() != "bearer" or not _TOKEN.fullmatch(grant.access_token):
        return None
    used_seconds = max(lasts - MARGIN_SECONDS, lasts / 2)
    # A number that is none (NaN) lasts no time.
    return Token(
        text=grant.access_token, lasts_seconds=min(used_seconds, LONGEST_SECONDS) if used_seconds > 0 else 0.0
    )


def wants_the_other_form(outcome: Outcome) -> bool:
    """Return whether the server may only not have found the client's proof where it looked for it."""
    return outcome.status_code in _UNAUTHORIZED and _error_code(outcome) in (
        None,
        "invalid_client",
        "invalid_request",
    )


def failure(outcome: Outcome, waited_ms: int) -> Outcome:
    """Return what a call comes to whose token could not be had: the token endpoint's failure.

    Nothing of its answer is taken for the receiver's: neither a 410 nor a Retry-After.
    """
    return Outcome(
        error=outcome.error or ErrorClass.PROTOCOL,
        hint=f"No access token could be fetched from the token URL. {_reason(outcome)}",
        response_ms=waited_ms,
    )


def _reason(outcome: Outcome) -> str:
    if outcome.error is None:
        return "Its answer holds no Bearer token."
    if outcome.status_code is None or not outcome.is_answered:
        return outcome.hint or HINTS[outcome.error]
    code = _error_code(outcome)
    said = f"It answered {outcome.status_code}" + ("." if code is None else f" with the error {code}.")
    return f"{said} Check token_url, client_id, client_secret and scope."


def _error_code(outcome: Outcome) -> str | None:
    try:
        code = msgspec.json.decode(outcome.response_body, type=_Refusal).error
    except UNREADABLE:
        return None
    return code if _ERROR_CODE.fullmatch(code) else None
