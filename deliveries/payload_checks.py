"""Check payloads against the schema of their event type: pass, pass with findings, or refuse."""

from collections.abc import Sequence

from deliveries import sql
from subscriptions import catalog, filters, schema_cache
from subscriptions.problems import MAX_ERRORS, Problem
from subscriptions.schema_cache import CheckedType
from subscriptions.schemas import UNREADABLE, Finding

# How long the checks of one call may take: of a thousand events, each of which may take a tenth of a second.
CHECK_SECONDS = 5.0


class PayloadRefused(Problem):
    """Payloads do not fit the schemas of their event types, which are enforced."""

    def __init__(self, errors: Sequence[Finding]) -> None:
        detail = "The payload does not fit the schema of its event type; see errors."
        super().__init__(status=422, code="payload_refused", detail=detail, errors=list(errors[:MAX_ERRORS]))


def too_slow() -> Problem:
    """The payloads of one call take longer than CHECK_SECONDS to check."""
    detail = "The schemas of the event types take too long for this. Publish fewer or smaller events at once."
    return Problem(status=422, code="too_slow", detail=detail)


def findings_of(event_type: str, payload: bytes, *, pointer: str = "") -> list[Finding] | None:
    """Return what the schema of its event type finds wrong with a payload, None for nothing.

    Raises PayloadRefused if the schema is enforced, with pointers that begin with `pointer`.
    The database is asked once in a while; the payload is read only if there is a schema.
    """
    checked = _checked_type(event_type)
    if checked is None or checked.schema is None:
        return None
    document = filters.document(event_type=event_type, tenant="", payload=payload)
    is_read = "body" in document
    findings = checked.schema.findings(document["body"], size=len(payload)) if is_read else [UNREADABLE]
    if findings and checked.is_enforced:
        raise PayloadRefused([finding | {"pointer": pointer + finding["pointer"]} for finding in findings])
    return findings or None


def _checked_type(event_type: str) -> CheckedType | None:
    types = schema_cache.fresh()
    if types is None:
        try:
            types = sql.again_if_disconnected(catalog.read_checked)
        finally:
            # Here, because a database that is away may fail before anything is read.
            schema_cache.end_reading()
    return types.get(event_type)
