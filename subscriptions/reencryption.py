"""Encrypt stored secrets anew under the first key of SECRET_KEYS, so that the others can go."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from subscriptions import secrets
from subscriptions.models import Subscription
from subscriptions.secrets import Purpose, UnreadableSecret

# Every column that holds what secrets.encrypt made.
ENCRYPTED_COLUMNS = {
    "secret": Purpose.SIGNING,
    "previous_secret": Purpose.SIGNING,
    "secret_headers": Purpose.HEADERS,
    "auth": Purpose.AUTH,
}

BATCH = 500

Progress = Callable[[int], None]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What a run came to: secrets encrypted anew, those that were so already, and those nobody can read."""

    reencrypted: int = 0
    current: int = 0
    unreadable: list[str] = field(default_factory=list)


def reencrypt(*, dry_run: bool = False, progress: Progress) -> Tally:
    """Bring every secret under the first key of the ring, beside running web and workers.

    A secret that somebody changes at the same moment stays as they left it, and is looked at
    again. Each one is a transaction of its own and those that are done are passed over, so
    that a run that was interrupted is started again. One that cannot be read is left alone.
    """
    tally = Tally()
    looked_at = 0
    for rows in _batches():
        for row in rows:
            for column in ENCRYPTED_COLUMNS:
                _reencrypt(row["id"], column, row[column], tally, dry_run=dry_run)
        looked_at += len(rows)
        progress(looked_at)
    return tally


def _batches() -> Iterator[list[dict[str, Any]]]:
    """Walk all subscriptions by id; the deleted ones have no secrets left."""
    after = UUID(int=0)
    while rows := list(
        Subscription.objects.filter(id__gt=after).order_by("id").values("id", *ENCRYPTED_COLUMNS)[:BATCH]
    ):
        yield rows
        after = rows[-1]["id"]


def _reencrypt(row_id: UUID, column: str, stored: bytes | None, tally: Tally, *, dry_run: bool) -> None:
    while stored:
        if secrets.is_current(bytes(stored)):
            tally.current += 1
            return
        try:
            anew = _anew(bytes(stored), row_id, ENCRYPTED_COLUMNS[column])
        except UnreadableSecret:
            tally.unreadable.append(f"{column} of subscription {row_id}")
            return
        unchanged = Subscription.objects.filter(id=row_id, **{column: stored})
        if dry_run or unchanged.update(**{column: anew}):
            tally.reencrypted += 1
            return
        stored = Subscription.objects.filter(id=row_id).values_list(column, flat=True).first()


def _anew(stored: bytes, row_id: UUID, purpose: Purpose) -> bytes:
    return secrets.encrypt(secrets.decrypt(stored, row_id=row_id, purpose=purpose), row_id=row_id, purpose=purpose)
