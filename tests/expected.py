"""What answers look like: the parts that many whole-body comparisons share."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

REQUEST_ID = "id-of-this-test"


def problem(status: int, code: str, detail: str, *errors: dict[str, str]) -> dict[str, Any]:
    """Return the whole problem document (RFC 9457) of a call that was made with REQUEST_ID."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": REQUEST_ID,
    }
    return document | ({"errors": list(errors)} if errors else {})


def invalid(*errors: tuple[str, str, str]) -> dict[str, Any]:
    """Return the problem document for bad input, with each error's pointer, code and detail."""
    names = ("pointer", "code", "detail")
    found = [dict(zip(names, error, strict=True)) for error in errors]
    return problem(400, "invalid", "The request is not valid; see errors.", *found)


def rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
