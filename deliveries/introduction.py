"""What /docs says before and beside its operations: how to begin, to sign, to filter; what a receiver gets."""

from typing import Any

from deliveries import idempotency, problem_codes, retry
from deliveries.ingestion import SIGNATURE_HEADER

TEXT = f"""
Accepts signed events and delivers them, signed, to the endpoints that subscribed to them.

## From nothing to a delivery

1. Make an API key with `manage.py create_api_key --name shop --scope publish --scope read --scope manage`, and
   send it as `Authorization: Bearer whk_…`. In local development calls without a key are taken too. With
   `--tenant acme` it is bound to a tenant, and sees nothing of the others; with a key that is not, say the
   `tenant` where there is such a field, or it is the tenant `""`. Each operation below names the scope that it
   needs.
2. `POST /subscriptions` with a `target_url`. The answer holds the secret that deliveries are signed with: this
   once.
3. `POST /events` publishes an event to every subscription of its tenant that takes it, and names the webhook
   request that each of them gets. `POST /events/preview` says who would get it, and why the others would not.
4. `GET /status/request/{{id}}` tells what came of it, with every attempt. It is tried again by the
   subscription's `retry_schedule`, usually 2, 4, 8, 16 and 32 minutes after the failure before, or up to a tenth
   later; after the last attempt it is `failed`.
5. `POST /requests/{{id}}/replay` delivers one again, `POST /subscriptions/{{id}}/recover` whatever failed or was
   skipped since a time, and `POST /operations` whatever fits the filters of `GET /requests`. The last two run in
   the background, and only count with `"dry_run": true`: `GET /operations/{{id}}` tells how far they are.
6. `POST /subscriptions/{{id}}/rotate-secret` gives it a new secret; for the overlap ingest calls may be signed
   with either, and `webhook-signature` holds one of each. `{SIGNATURE_HEADER}` of a delivery is the new one's.

## Which events a subscription gets

Those of its `event_types`: names (`invoice.paid`), wildcards below a segment (`invoice.*`) or `*`; none means
all. Of these, with a `filter`, the ones that meet all its conditions on `body`, `event_type` and `tenant`:

```json
{{"body": {{"status": "paid", "total": {{"$gte": 100}}, "email": {{"$endsWith": "@example.com"}}}}}}
```

| condition | met by |
|---|---|
| `{{"status": "paid"}}` | a member of that value, or an array with such an item |
| `{{"tags": ["urgent", "new"]}}` | an array with all of these items |
| `{{"items": {{"sku": "A1", "quantity": 2}}}}` | an object that meets all of it, or an array with one that does |
| `$eq`, `$neq` | what is equal, is not equal, as a whole: an array too, whatever is in it |
| `$gt`, `$gte`, `$lt`, `$lte` | a number, or a text by its characters (`"10"` is less than `"9"`); no array |
| `$in`, `$nin` with a list | what is, is not, one of the list |
| `$in`, `$nin` with one value | a text with that text in it, an array with that item; what is neither |
| `$startsWith`, `$endsWith` | a text that begins, ends, with the text or with one of a list of texts |
| `$exist` | what is there (`true`), `null` too; what is not (`false`) |
| `$and`, `$or`, `$not` | all, at least one, of a list of conditions; what does not meet the condition |

`"1"` is not `1`, but `1.0` is. A name with a dot in it is a name and no path. A member that is missing meets
`{{"$exist": false}}` and no other comparison, not even `$neq`; but it meets a `$not` of one.

## Sign a call to /ingest, verify a delivery

`POST /ingest` is for one subscription alone, and takes a signature under its secret instead of an API key. The
key of a secret that begins with `whsec_` is what the base64 after that decodes to, of any other its UTF-8 bytes.
The signature is over the raw bytes of the body, as they are sent:

```python
import base64, hashlib, hmac, time

def sign(secret: str, body: bytes) -> str:
    \"""Return the value of {SIGNATURE_HEADER}.\"""
    return "sha256=" + hmac.new(key_of(secret), body, hashlib.sha256).hexdigest()

def is_genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    \"""Say whether a delivery, with its headers by their names in lower case, came from this service just now.\"""
    sent_at = headers.get("webhook-timestamp", "")
    signed = f"{{headers.get('webhook-id')}}.{{sent_at}}.".encode() + body
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    given = headers.get("webhook-signature", "").encode().split()
    is_signed = any(hmac.compare_digest(expected, each) for each in given)
    return is_signed and abs(time.time() - int(sent_at)) < 300

def key_of(secret: str) -> bytes:
    text = secret.removeprefix("whsec_")
    return secret.encode() if text == secret else base64.b64decode(text)
```

What else a receiver gets, and what its answers mean: see the webhook `delivery`, at the end.

## Repeat a call safely

`/ingest`, `/events` and `/events/batch` take an `{idempotency.HEADER}`: the same one within 24 hours gets the
first answer again, with `{idempotency.REPLAYED_HEADER}: true`, and stores nothing; with other bytes as its body
it is refused with 422. A key of `/ingest` holds for the subscription. `/events` and `/events/batch` share theirs
among the API keys of one tenant, or among those that are bound to none.

## Lists

They are newest first, 50 at a time (`limit`, at most 250), or fewer where a page would have more than 4 MB. `next`
is the URL of the next page, null on the last.
Filters narrow a list together, and each is given once. Times are ISO 8601, in UTC if they say no offset; in a URL
write `Z`, since a plain `+` there is a space.

## Change what others change too

A subscription comes with an `ETag`. Send it back as `If-Match` with a change: it is refused with 412 if somebody
else changed the subscription meanwhile.

## Errors

All are `application/problem+json` (RFC 9457). `code` is stable and for machines; for bad input `errors` points
to the mistakes that were found first. A `Request-Id` that you send comes back, and is in the service's logs.
Unknown fields and parameters are refused, and nothing is converted: `"5"` is no number. 429 and 503 say in
`Retry-After` how many seconds to wait.

{problem_codes.table()}
"""

TAGS = {
    "subscriptions": "Who wants which events, where and how.",
    "events": "Publish to every subscription that takes an event, and see what came of it.",
    "ingest": "An event for one subscription, signed with its secret.",
    "requests": "Webhook requests: one payload for one subscription. Look, replay, cancel.",
    "status": "Where a request stands, with its attempts.",
    "operations": "Deliver very many requests again, in the background.",
    "event types": "What event types mean, and what their payloads have to look like.",
    "health": "Whether the service lives, and whether all its parts are well.",
}

HEADERS = {
    "User-Agent": "The product and its version.",
    "webhook-id": "The request's id: the same on every try, so that repeats can be discarded.",
    "webhook-timestamp": "Unix seconds of this attempt. Refuse one that is more than five minutes off.",
    "webhook-signature": "Standard Webhooks: `v1,` and the base64 HMAC-SHA256 of `webhook-id`, a dot, "
    "`webhook-timestamp`, a dot and the raw body. During a rotation one per key, newest first, separated by a "
    "space: one that matches is enough.",
    "X-Webhook-Signature": "`sha256=` and the hex HMAC-SHA256 of the raw body, as for an ingest call. During a "
    "rotation it is under the new secret alone.",
    "X-Webhook-Event": "The event type.",
    "X-Webhook-Attempt": "The number of this attempt, from 1.",
}

ANSWERS = {
    "2XX": "Delivered.",
    "410": "The subscription is disabled, and its pending requests stop.",
    "429": "Not again before `Retry-After`, at most 10 hours, and never earlier than the schedule.",
    "503": "As 429.",
    "default": f"A failure, 3XX too: it is tried again. With the header `{retry.CONTROL_HEADER}: disable` the "
    f"subscription is disabled, with `{retry.CONTROL_HEADER}: abort-message` this request alone is given up, "
    "and `failed`.",
}

DELIVERY = {
    "operationId": "delivery",
    "summary": "What a receiver gets",
    "description": "A `POST` to the subscription's `target_url`, with the payload's bytes exactly as they were "
    "sent to the service, on every try. The key of both signatures is the secret's, as for an ingest call. "
    "Compare in constant time, over the raw body. The subscription's own `headers`, `secret_headers` and `auth` "
    "come along.",
    "tags": ["deliveries"],
    "parameters": [
        {"in": "header", "name": name, "required": True, "schema": {"type": "string"}, "description": meaning}
        for name, meaning in HEADERS.items()
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {}, "examples": {"Payload": {"value": {"invoice": 4711}}}}},
    },
    "responses": {status: {"description": meaning} for status, meaning in ANSWERS.items()},
}


# Where the id of something new is in an answer, and the parameter that takes it.
MADE = {
    ("/subscriptions", "201"): ("id", "subscription_id"),
    ("/subscriptions/{subscription_id}/recover", "202"): ("id", "operation_id"),
    ("/operations", "202"): ("id", "operation_id"),
    ("/events", "202"): ("event_id", "event_id"),
    ("/ingest", "202"): ("request_id", "request_id"),
}


def introduce(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the introduction, the tags and the webhook; drf-spectacular's postprocessing hook."""
    result["info"]["description"] = TEXT.strip()
    tags = TAGS | {"deliveries": "What the service sends to receivers."}
    result["tags"] = [{"name": name, "description": meaning} for name, meaning in tags.items()]
    result["webhooks"] = {"delivery": {"post": DELIVERY}}
    return result


def link(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say of what is made which operations take its id; drf-spectacular's postprocessing hook."""
    for (path, status), (field, parameter) in MADE.items():
        taking = (
            operation["operationId"]
            for path, found in result["paths"].items()
            if f"{{{parameter}}}" in path
            for operation in found.values()
        )
        value = f"$response.body#/{field}"
        links = {name: {"operationId": name, "parameters": {parameter: value}} for name in taking}
        result["paths"][path]["post"]["responses"][status]["links"] = links
    return result
