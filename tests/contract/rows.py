"""What the generated calls find: the same rows and the same API key for each of them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from django.db import transaction
from redis import Redis
from schemathesis.specs.openapi.checks import ignored_auth

from subscriptions import cache
from subscriptions.models import ApiKey
from tests.contract.values import with_values
from tests.wsgi import kept_connections


def new_api_key() -> str:
    """Make a key with every scope, for all tenants."""
    _, text = ApiKey.objects.create_key("contract", ("publish", "read", "manage"), tenant=None, valid_for=None)
    return text


@dataclass(frozen=True, kw_only=True)
class Rows:
    """An API key, and what is there by the names of parameters and fields.

    These names carry what a schema cannot say: that an id exists, that a cursor was given
    out, that a URL is one that may be called.
    """

    api_key: str
    # By the names of path parameters, of certain paths and of all, and by all other names.
    paths: dict[str, dict[str, str]]
    path: dict[str, str]
    # What a body needs of certain paths.
    bodies: dict[str, dict[str, Any]]
    values: dict[str, Any]
    redis: Redis
    # How often each status was answered.
    statuses: Counter[int] = field(default_factory=Counter)

    def call(self, case: schemathesis.Case, **options: Any) -> None:
        """Make a call, check what is answered, and undo what it did, so that the next finds the same."""
        self._aim(case)
        # Whether a key is needed is looked at once: with two more calls.
        excluded = [ignored_auth] if self.was_accepted else []
        with self._kept():
            answer = case.call_and_validate(excluded_checks=excluded, **options)
            self.statuses[answer.status_code] += 1

    @property
    def was_accepted(self) -> bool:
        return any(200 <= status < 300 for status in self.statuses)

    def _aim(self, case: schemathesis.Case) -> None:
        """Have a call mean what is there, wherever it gives a value of the same type for it."""
        for place in ("path_parameters", "query", "headers", "body"):
            given = getattr(case, place)
            values = self.path | self.paths.get(case.path, {}) if place == "path_parameters" else self.values
            meant = with_values(given, values)
            if place == "body" and isinstance(meant, dict):
                meant = self.bodies.get(case.path, {}) | meant
            if meant != given:
                # Assigned, not changed in place: schemathesis then looks anew whether the call is valid.
                setattr(case, place, meant)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        cache.clear()
        self.redis.flushdb()  # where calls are counted, for limits
        with kept_connections(), transaction.atomic():
            yield
            transaction.set_rollback(True)
