"""Signs of life of the processes, in PostgreSQL."""

from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models.functions import Now


class HeartbeatQuerySet(models.QuerySet["Heartbeat"]):
    def beat(self, kind: str, name: str, counts: dict[str, Any] | None = None) -> None:
        """Note that the process `name` is alive now, by the database's clock, and what it has counted."""
        self.bulk_create(
            [self.model(name=name, kind=kind, seen_at=Now(), counts=counts)],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["kind", "seen_at", "counts"],
        )

    def fresh_kinds(self, age: timedelta) -> set[str]:
        """Return the kinds of process that have been heard of within `age`."""
        return set(self.filter(seen_at__gt=Now() - age).values_list("kind", flat=True))

    def forget(self, age: timedelta) -> int:
        """Delete what has not been heard of for `age`; return how many."""
        return self.filter(seen_at__lte=Now() - age).delete()[0]


class Heartbeat(models.Model):
    """A process that says it is alive. RQ's own registry forgets after a restart of Redis."""

    class Kind(models.TextChoices):
        WORKER = "worker"
        MAINTENANCE = "maintenance"
        SCHEDULER = "scheduler"

    name = models.CharField(primary_key=True, max_length=255)
    kind = models.CharField(max_length=11, choices=Kind)
    seen_at = models.DateTimeField()
    # What a worker has counted since it started (deliveries/tallies.py); null for the others.
    counts = models.JSONField(null=True)

    objects = HeartbeatQuerySet.as_manager()

    class Meta:
        db_table = "heartbeats"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
