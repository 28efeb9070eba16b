"""What a worker claimed and does not send: it gives it back, and it is due at once.

The answer to a claim may never come, though the claim was committed, or come too late for a
call to end within its lease. Nothing was sent then, and the worker lives. Left to its lease
the request would wait for it to end, log a lost worker, and be failed after three of them.
"""

import time
import uuid
from collections.abc import Iterable, Sequence

from deliveries import sql
from deliveries.leases import ClaimedRequest

# A claim that nobody answered may still be committed this much later, in seconds, by a server
# that was held up. So long it is asked for.
COMMITTED_SECONDS = 10.0

# The attempt was not made, and the next one gets its number. What another worker has locked is left to it.
GIVE_BACK = """
WITH unsent AS (
    SELECT id, subscription_id
    FROM webhook_requests
    WHERE lease_token IS NOT NULL
        AND lease_token = ANY(%(lease_tokens)s::uuid[])
        AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s::uuid[]))
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE webhook_requests AS r
SET
    -- in an ordered subscription it was at the head, and stays there
    next_attempt_at = CASE WHEN s.ordered THEN r.received_at ELSE statement_timestamp() END,
    lease_token = NULL,
    attempt_count = r.attempt_count - 1
FROM unsent
JOIN subscriptions AS s ON s.id = unsent.subscription_id
WHERE r.id = unsent.id
"""


def give_back(requests: Sequence[ClaimedRequest]) -> None:
    """Have these claimed requests be due now, as if they had not been claimed; stale leases change nothing.

    Only a rate limit has counted their calls, and holds them as long as if they had been made.
    """
    _give_back({request.lease_token for request in requests}, [request.id for request in requests])


class UnansweredClaims:
    """The tokens of the claims that a process made and got no answer to.

    A token is noted before its claim is made, and forgotten when the claim is known to be
    committed: what is between the two may have been taken, and nobody knows of it.
    """

    def __init__(self) -> None:
        self._noted_at: dict[uuid.UUID, float] = {}

    @property
    def are_there(self) -> bool:
        return bool(self._noted_at)

    def note(self, token: uuid.UUID) -> None:
        self._noted_at[token] = time.monotonic()

    def forget(self, token: uuid.UUID) -> None:
        del self._noted_at[token]

    def give_back(self) -> None:
        """Give back whatever they took. Raises the errors of a database that is away."""
        if not self.are_there:
            return
        asked_at = time.monotonic()
        _give_back(self._noted_at, None)
        self._noted_at = {
            token: noted_at
            for token, noted_at in self._noted_at.items()
            if asked_at - noted_at < COMMITTED_SECONDS
        }


def _give_back(tokens: Iterable[uuid.UUID], ids: Sequence[uuid.UUID] | None) -> None:
    sql.run(GIVE_BACK, {"lease_tokens": list(tokens), "ids": ids})
