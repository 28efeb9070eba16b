"""Calls that count once, as rows; see deliveries/idempotency.py for how they are used."""

from django.db import models


class IdempotencyKey(models.Model):
    """A call that will be answered as the first of its kind."""

    scope = models.CharField(max_length=64)
    key = models.CharField(max_length=255)
    body_digest = models.BinaryField()
    # The request, or the first of the events, that the first call stored; and what it was
    # answered, where the id alone does not tell.
    stored_id = models.UUIDField()
    answer = models.BinaryField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "idempotency_keys"
        constraints = (models.UniqueConstraint(fields=("scope", "key"), name="idempotency_keys_once"),)
        # The purge: keys that hold no more.
        indexes = (models.Index(fields=("created_at",), name="idempotency_keys_by_age"),)

    def __str__(self) -> str:
        return f"{self.key} of {self.scope}"
