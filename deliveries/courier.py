"""Send calls, and fetch the access tokens that some of them need first.

A token is fetched by a call like any other, under the same rules and beside the others;
calls that need the same one wait for the same fetch, each within its own limit. When the
receiver answers 401 to a token that had been kept, it is fetched anew and the call made
once more: the receiver has refused the first one.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256

import msgspec
from cachetools import TLRUCache
from django.conf import settings
from msgspec import structs

from deliveries import tokens
from deliveries.outcome import ErrorClass, Outcome
from deliveries.tls import Certificates, is_distrust
from deliveries.tokens import Token
from deliveries.transport import Call, Finished, Transport
from subscriptions import addresses
from subscriptions.auth import ClientCredentials

logger = logging.getLogger(__name__)

# Limit for one call to a token endpoint, in seconds.
FETCH_SECONDS = 10.0

# Tokens kept at once, of 8 KB at most; the least recently used go first.
KEPT_TOKENS = 5_000

UNAUTHORIZED = 401


@dataclass(frozen=True, kw_only=True, slots=True)
class _Key:
    """What a token depends on. Its fetch trusts the call's own authorities besides the usual ones: after them."""

    credentials: ClientCredentials
    certificates: Certificates | None

    @property
    def own_authorities(self) -> Certificates | None:
        authorities = None if self.certificates is None else self.certificates.authorities
        return None if authorities is None else Certificates(authorities=authorities)

    @property
    def digest(self) -> bytes:
        """A short name of it, to keep something under: the texts in it may have 100 KB."""
        return sha256(msgspec.json.encode((self.credentials, self.certificates))).digest()


@dataclass(kw_only=True, slots=True, eq=False)
class _Errand:
    """A call that needs a token, and since when it is here.

    `kept` is the token that was there already when the call was made, `is_again` tells
    that the receiver has refused that one.
    """

    call: Call
    key: _Key
    since: float
    kept: Token | None = None
    is_again: bool = False

    @property
    def waited_seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def left_seconds(self) -> float:
        return self.call.timeout_seconds - self.waited_seconds

    @property
    def waited_ms(self) -> int:
        return round(self.waited_seconds * 1000)


@dataclass(kw_only=True, slots=True, eq=False)
class _Fetch:
    """A token that is being fetched, for a customer, and the errands that wait for it."""

    key: _Key
    customer: str
    in_body: bool = False
    by_own_authorities: bool = False
    errands: list[_Errand] = field(default_factory=list)


class Courier:
    """Calls in flight, as a Transport has them, with access tokens where they are needed."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._tokens: TLRUCache[bytes, Token] = TLRUCache(
            KEPT_TOKENS, lambda key, token, now: now + token.lasts_seconds, timer=time.monotonic
        )
        self._fetches: dict[_Key, _Fetch] = {}
        # The servers that want the client's proof in the body.
        self._in_body: TLRUCache[bytes, bool] = TLRUCache(
            KEPT_TOKENS, lambda key, value, now: now + tokens.LONGEST_SECONDS, timer=time.monotonic
        )

    @property
    def in_flight(self) -> int:
        return self._transport.in_flight + sum(len(fetch.errands) for fetch in self._fetches.values())

    def send(self, call: Call) -> None:
        """Start a call; `wait` returns it when it is finished. Raises ValueError for one that cannot be made."""
        if call.credentials is None:
            self._transport.send(call)
            return
        call.check()
        key = _Key(credentials=call.credentials, certificates=call.certificates)
        self._go(_Errand(call=call, key=key, since=time.monotonic()))

    def wait(self, timeout_seconds: float) -> list[Finished]:
        """Move the calls on for at most `timeout_seconds`, less if some finish; return those that did."""
        finished: list[Finished] = []
        for each in self._transport.wait(timeout_seconds):
            match each.call.tag:
                case _Fetch() as fetch:
                    finished += self._end_fetch(fetch, each.outcome)
                case _Errand() as errand:
                    finished += self._end_errand(errand, each.outcome)
                case _:
                    finished.append(each)
        return finished + list(self._expired()) if self._fetches else finished

    def close(self) -> None:
        self._transport.close()

    def _go(self, errand: _Errand) -> None:
        """Make the call with the token that is there, or wait for one. Raises ValueError."""
        token = self._tokens.get(errand.key.digest)
        if token is not None and token is not errand.kept:
            errand.kept = token
            self._make(errand, token)
            return
        fetch = self._fetches.get(errand.key)
        if fetch is None:
            is_in_body = errand.key.digest in self._in_body
            fetch = _Fetch(key=errand.key, customer=errand.call.customer, in_body=is_in_body)
            self._start(fetch)
        fetch.errands.append(errand)

    def _make(self, errand: _Errand, token: Token) -> None:
        others = [header for header in errand.call.headers if not header.lower().startswith("authorization:")]
        headers = [*others, token.header]
        call = replace(errand.call, tag=errand, headers=headers, timeout_seconds=errand.left_seconds)
        self._transport.send(call)

    def _start(self, fetch: _Fetch) -> None:
        headers, body = tokens.form_of(fetch.key.credentials, in_body=fetch.in_body)
        call = Call(
            tag=fetch,
            url=fetch.key.credentials.token_url,
            headers=headers,
            body=body,
            timeout_seconds=FETCH_SECONDS,
            certificates=fetch.key.own_authorities if fetch.by_own_authorities else None,
            customer=fetch.customer,
        )
        self._transport.send(call)
        self._fetches[fetch.key] = fetch

    def _end_fetch(self, fetch: _Fetch, outcome: Outcome) -> Iterator[Finished]:
        del self._fetches[fetch.key]
        if _is_to_be_tried_otherwise(fetch, outcome):
            yield from self._attempt(fetch.errands, lambda: self._start(fetch))
            return
        token = tokens.read(outcome)
        if token is None:
            for errand in fetch.errands:
                yield Finished(call=errand.call, outcome=tokens.failure(outcome, errand.waited_ms))
            return
        self._tokens[fetch.key.digest] = token
        if fetch.in_body:
            self._in_body[fetch.key.digest] = True
        for errand in fetch.errands:
            if errand.left_seconds > 0:
                yield from self._attempt([errand], partial(self._make, errand, token))
            else:
                yield _out_of_time(errand)

    def _end_errand(self, errand: _Errand, outcome: Outcome) -> Iterator[Finished]:
        is_refused = outcome.is_answered and outcome.status_code == UNAUTHORIZED
        if is_refused and errand.kept is not None and not errand.is_again and errand.left_seconds > 0:
            errand.is_again = True
            if self._tokens.get(errand.key.digest) is errand.kept:
                del self._tokens[errand.key.digest]
            yield from self._attempt([errand], partial(self._go, errand))
            return
        yield Finished(call=errand.call, outcome=structs.replace(outcome, response_ms=errand.waited_ms))

    def _attempt(self, errands: Sequence[_Errand], action: Callable[[], None]) -> Iterator[Finished]:
        """Do what lets these errands go on; if it cannot be done, that stops no other call."""
        try:
            action()
        except (ValueError, OSError):
            logger.exception("a call cannot be made")
            for errand in errands:
                outcome = Outcome(error=ErrorClass.INTERNAL, response_ms=errand.waited_ms)
                yield Finished(call=errand.call, outcome=outcome)

    def _expired(self) -> Iterator[Finished]:
        """Yield the errands whose time is over while they wait for a token."""
        for fetch in self._fetches.values():
            over = [errand for errand in fetch.errands if errand.left_seconds <= 0]
            fetch.errands = [errand for errand in fetch.errands if errand not in over]
            yield from map(_out_of_time, over)


def _is_to_be_tried_otherwise(fetch: _Fetch, outcome: Outcome) -> bool:
    """Return whether there is another way to fetch this token, and note it: each is tried once."""
    # The call's own authorities not together with the usual ones, which libcurl keeps once for all calls: a copy
    # for each takes a megabyte.
    if not fetch.by_own_authorities and fetch.key.own_authorities is not None and is_distrust(outcome.hint):
        fetch.by_own_authorities = True
        return True
    if not fetch.in_body and tokens.wants_the_other_form(outcome):
        fetch.in_body = True
        return True
    return False


def _out_of_time(errand: _Errand) -> Finished:
    outcome = tokens.failure(Outcome(error=ErrorClass.TIMEOUT, response_ms=0), errand.waited_ms)
    return Finished(call=errand.call, outcome=outcome)


def open_courier() -> Courier:
    """Make a courier by the settings: the one way for this service to call anybody."""
    transport = Transport(
        user_agent=f"webhook-delivery-service/{settings.VERSION}",
        allowed_networks=addresses.parse_networks(settings.ALLOWED_NETWORKS),
        ca_bundle=settings.CA_BUNDLE,
    )
    return Courier(transport)


def send_one(call: Call) -> Outcome:
    """Make one call and wait for what comes of it. Raises ValueError for one that cannot be made."""
    with contextlib.closing(open_courier()) as courier:
        courier.send(call)
        finished: list[Finished] = []
        while not finished:
            finished = courier.wait(1.0)
        return finished[0].outcome
