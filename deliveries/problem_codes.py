"""The stable codes of problems: with which status each comes, and what it means. For the documentation."""

MEANINGS = {
    "bad_request": (400, "This is no HTTP request that makes sense: its host, its query or its Content-Type."),
    "parse_error": (400, "The body is not JSON in UTF-8."),
    "duplicate_member": (400, "An object in the body has a member twice."),
    "invalid": (400, "A field or a parameter is missing, not known or not valid: see `errors`."),
    "invalid_idempotency_key": (
        400,
        "The Idempotency-Key is empty, too long, sent twice or not what its pattern says.",
    ),
    "not_authenticated": (401, "There is no API key, or for `/metrics` no token."),
    "authentication_failed": (401, "The API key is unknown, expired or revoked, or the token is wrong."),
    "signature_missing": (401, "An ingest call is not signed."),
    "signature_invalid": (401, "The signature of an ingest call is not this body's under this secret."),
    "permission_denied": (403, "The API key lacks the scope, or is bound to a tenant and may not do this."),
    "not_found": (404, "There is no such thing, or it is another tenant's."),
    "method_not_allowed": (405, "The path is not for this method: `Allow` names those it has."),
    "event_type_exists": (409, "There is an event type of this name."),
    "subscription_disabled": (409, "Enable the subscription first."),
    "subscription_deleted": (409, "The request's subscription was deleted."),
    "pending": (409, "The request will be delivered without a replay."),
    "settled": (409, "The request is over: there is nothing to cancel."),
    "finished": (409, "The operation is over: there is nothing to stop."),
    "precondition_failed": (412, "The subscription was changed since: read it again."),
    "too_large": (
        413,
        "The body has over `MAX_BODY_BYTES`, a batch makes too many requests, or a preview too long an answer.",
    ),
    "unsupported_media_type": (415, "The body is not said to be `application/json` in UTF-8, not compressed."),
    "payload_refused": (422, "The payload does not fit the schema of its event type: see `errors`."),
    "idempotency_key_reused": (422, "The Idempotency-Key was used with another body."),
    "too_slow": (422, "It took too long and was given up: ask for less."),
    "rate_limited": (429, "Too many calls with this API key, or tests of this subscription."),
    "too_many_calls": (429, "Too many calls of the tenant are being answered at this moment."),
    "too_many_operations": (429, "Too many of the tenant's operations are under way."),
    "too_many_tests": (429, "Too many test calls are being made at this moment."),
    "internal_error": (500, "A mistake of the service, which is in its logs."),
    "unavailable": (503, "Nothing could be stored: try again."),
}


def table() -> str:
    """Return the codes as a table of Markdown, by status."""
    rows = [f"| {status} | `{code}` | {meaning} |" for code, (status, meaning) in MEANINGS.items()]
    return "\n".join(["| status | `code` | meaning |", "|---|---|---|", *rows])
