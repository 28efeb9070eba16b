"""The ids of rows."""

from uuid import UUID

import uuid_utils.compat


def new_id() -> UUID:
    """Return a new UUID of version 7 (RFC 9562): ids sort by the time they were made."""
    return uuid_utils.compat.uuid7()
