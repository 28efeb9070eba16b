"""What was asked for, and what came of it; and `publish`, for Django projects that install these apps."""

import os
from typing import TYPE_CHECKING, Any

# libcurl would write the keys of every TLS connection to the file that this names, so that
# whoever records the traffic can read it. It looks when pycurl is imported: not before this.
os.environ.pop("SSLKEYLOGFILE", None)

if TYPE_CHECKING:
    from deliveries.publishing import Published

__all__ = ("publish",)


def publish(event_type: str, body: Any, *, tenant: str = "", idempotency_key: str | None = None) -> "Published":
    """Publish an event to every subscription of `tenant` that takes it, within the open transaction.

    What a rollback undoes was never published; after the commit it is delivered. Outside of a
    transaction it has one of its own. `body` is bytes of JSON, which are delivered as they are,
    or anything that DjangoJSONEncoder writes. A call with the `idempotency_key` of one within
    the last 24 hours stores nothing and returns what that one did; while that one is not
    committed yet, it waits.

    Returns the id of the event, and of the requests that it made. Raises ValueError for what
    cannot be published: a payload that the schema of its event type refuses, for instance.
    """
    # Here and not above: an app is imported before models may be.
    from deliveries import in_process

    return in_process.publish(event_type, body, tenant=tenant, idempotency_key=idempotency_key)
