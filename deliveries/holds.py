"""What keeps pending requests waiting that nothing is wrong with. Pure."""

from django.db import models

# Fields of a subscription that say when and whether its requests are tried.
HOLDING_FIELDS = (
    "status",
    "ordered",
    "blocked_until",
    "circuit_opened_at",
    "circuit_probe_at",
    "rate_limit",
    "rate_times",
    "rate_counts",
)


class HoldReason(models.TextChoices):
    """Why a pending request waits though nothing is wrong with it."""

    PAUSED = "paused"
    DISABLED = "disabled"  # goes out when its subscription is enabled again
    CIRCUIT_OPEN = "circuit_open"
    ORDERED = "ordered"
    RATE_LIMITED = "rate_limited"
