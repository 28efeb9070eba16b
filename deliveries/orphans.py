"""What deleted subscriptions leave behind: pending requests to cancel, and in the end their rows to purge."""

from datetime import datetime

from deliveries import sql

BATCH = 1_000

# What the call that deletes a subscription cancels by itself; the rest is done in the background.
CANCELED_AT_ONCE = 10_000

REASON = "The subscription was deleted."

# Whoever settles or cancels one of these at this moment is left to it.
CANCEL = """
WITH orphans AS (
    SELECT pending.id
    FROM subscriptions AS s
    CROSS JOIN LATERAL (
        SELECT id
        FROM webhook_requests
        WHERE subscription_id = s.id AND status = 'pending'
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS pending
    WHERE s.deleted_at IS NOT NULL
    LIMIT %(limit)s
)
UPDATE webhook_requests AS r
SET
    status = 'canceled', status_reason = %(reason)s, settled_at = statement_timestamp(),
    next_attempt_at = NULL, lease_token = NULL
FROM orphans
WHERE r.id = orphans.id AND r.status = 'pending'
RETURNING r.id
"""

PURGE = """
DELETE FROM subscriptions AS s
WHERE s.deleted_at <= %(until)s
    AND NOT EXISTS (SELECT FROM webhook_requests AS r WHERE r.subscription_id = s.id)
    AND NOT EXISTS (SELECT FROM delivery_attempts AS a WHERE a.subscription_id = s.id)
RETURNING s.id
"""


def cancel(*, limit: int) -> int:
    """Cancel pending requests of deleted subscriptions, until there are `limit` or no more; return how many.

    There may be some that came in beside the deletion, or that somebody replayed since.
    """
    canceled = 0
    while canceled < limit:
        batch = len(sql.run(CANCEL, {"limit": BATCH, "reason": REASON}))
        canceled += batch
        if batch < BATCH:
            break
    return canceled


def purge(*, until: datetime) -> int:
    """Delete the rows of subscriptions deleted until then that have no history left; return how many."""
    return len(sql.run(PURGE, {"until": until}))
