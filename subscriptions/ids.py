"""The ids of rows."""

from datetime import datetime
from uuid import UUID

import uuid_utils.compat

# How far the clocks of those who make ids may be off the database's.
CLOCK_SLACK_MS = 5 * 60 * 1000
_LAST_MS = 2**48 - 1


def new_id() -> UUID:
    """Return a new UUID of version 7 (RFC 9562): ids sort by the time they were made."""
    return uuid_utils.compat.uuid7()


def lowest_id_at(moment: datetime, *, slack_ms: int = 0) -> UUID:
    """Return the lowest id that can be made at `moment` plus the slack, or later."""
    milliseconds = int(moment.timestamp() * 1000) + slack_ms
    return UUID(int=min(max(milliseconds, 0), _LAST_MS) << 80)
