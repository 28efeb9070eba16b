"""Who logs in to the console: throttled by user and address, and by address alone; recorded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.crypto import salted_hmac

from subscriptions import audit
from subscriptions.audit import Actor, AuditEntry, user_actor
from subscriptions.origin import address_of, network_of
from subscriptions.problems import Problem

# One address may fail for so many users before it is locked out for all of them.
USERS_PER_ADDRESS = 10

# Guesses from one address wait for each other in each process; two addresses may have the same lock.
_TURNS = [threading.Lock() for _ in range(64)]

# Rows that failed logins may take up, whoever sends them from wherever; the oldest go first.
MOST_ROWS = 10_000


# Five guesses take less; longer nobody waits for a turn, such as behind one whose database says nothing.
TURN_SECONDS = 10.0


# Who has a turn or waits for one, in this process.
_inside: set[object] = set()
_lock = threading.Lock()


@contextmanager
def turn_of(request: HttpRequest) -> Iterator[None]:
    """Hold this while a password or code is looked at, until its failure is stored. Raises Problem (429).

    Otherwise as many guesses as there are threads would be looked at before the first of them counts.
    """
    if request.method != "POST":
        yield
        return
    turn = _TURNS[hash(network_of(request)) % len(_TURNS)]
    with _part_of_threads():
        if not turn.acquire(timeout=TURN_SECONDS):
            raise _too_many()
        try:
            yield
        finally:
            turn.release()


@contextmanager
def _part_of_threads() -> Iterator[None]:
    """Take one of half of the threads: a hash takes long, and the others are for whoever is no guesser."""
    one = object()
    with _lock:
        if len(_inside) >= max(settings.WEB_THREADS // 2, 1):
            raise _too_many()
        _inside.add(one)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(one)


def _too_many() -> Problem:
    detail = "Too many people are logging in at this moment. Try again."
    return Problem(status=429, code="rate_limited", detail=detail, headers={"Retry-After": "2"})


def counted_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """Return the name that failures are counted by: of one that nobody has, which may be a password, a hash."""
    given = (credentials or request.POST).get("username", "")
    known = vars(request).setdefault("_counted_names", {})
    if given not in known:
        hashed = salted_hmac("a name that nobody has", given, algorithm="sha256").hexdigest()
        known[given] = given if User.objects.filter(username=given).exists() else hashed
    return str(known[given])


class LoginHandler(AxesDatabaseHandler):  # type: ignore[misc]  # axes has no types
    """Counts failed logins, one small row for each user and address, and records what happens."""

    def get_failures(self, request: Any, credentials: dict[str, Any] | None = None) -> int:
        """Return the failures of this user from this address, or of the address spread over users."""
        cool_off = lockout()
        since = timezone.now() - cool_off
        from_address = AccessAttempt.objects.filter(
            ip_address=request.axes_ip_address, attempt_time__gte=since
        ).aggregate(sum=Sum("failures_since_start"))["sum"]
        of_user = int(super().get_failures(request, credentials))
        return max(of_user, (from_address or 0) // USERS_PER_ADDRESS)

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: Any = None, **kwargs: Any
    ) -> None:
        if request is None or request.axes_locked_out:
            return
        # What a caller says of itself would make rows without end, and rows that grow.
        request.axes_user_agent = request.axes_http_accept = ""
        with transaction.atomic():
            super().user_login_failed(sender, credentials, request, **kwargs)
            failed = AccessAttempt.objects.filter(ip_address=request.axes_ip_address)
            failed.update(get_data="", post_data="")
            if not self._drop_oldest():
                self._record_failure(request, credentials.get("username"))

    def user_logged_in(self, sender: Any, request: Any, user: User, **kwargs: Any) -> None:
        super().user_logged_in(sender, request, user, **kwargs)
        audit.record(user_actor(request, user), "log in", kind="user", object_id=user.pk)

    def user_logged_out(self, sender: Any, request: Any, user: User | None, **kwargs: Any) -> None:
        super().user_logged_out(sender, request, user, **kwargs)
        if user is not None:
            audit.record(user_actor(request, user), "log out", kind="user", object_id=user.pk)

    def _record_failure(self, request: Any, username: str | None) -> None:
        user = User.objects.filter(username=username).first()
        # A name that nobody has may be a password in the wrong field.
        name = "" if user is None else user.username
        actor = Actor(kind=AuditEntry.ActorKind.NOBODY, name=name, address=address_of(request))
        actions = ["fail to log in", *(["be locked out"] if request.axes_locked_out else [])]
        for action in actions:
            audit.record(actor, action, kind="user", object_id="" if user is None else user.pk)

    def _drop_oldest(self) -> bool:
        """Keep the table small; return whether there was something to drop."""
        newest: QuerySet[AccessAttempt] = AccessAttempt.objects.order_by("-id")
        too_old = newest.values_list("id", flat=True)[MOST_ROWS : MOST_ROWS + 1].first()
        if too_old is None:
            return False
        AccessAttempt.objects.filter(id__lte=too_old).delete()
        return True


def lockout(request: HttpRequest | None = None) -> timedelta:
    """Return how long whoever failed too often is locked out."""
    return timedelta(minutes=settings.LOGIN_LOCKOUT_MINUTES)


def locked_out(request: HttpRequest, response: HttpResponse, credentials: dict[str, Any] | None) -> HttpResponse:
    """Answer whoever failed too often, with a plain page."""
    minutes = settings.LOGIN_LOCKOUT_MINUTES
    page = render(request, "admin/locked_out.html", {"minutes": minutes}, status=429)
    page["Retry-After"] = str(minutes * 60)
    return page
