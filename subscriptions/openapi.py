"""What the generated API documentation cannot find out by itself."""

from collections.abc import Iterator
from functools import cache
from threading import Lock
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer

from subscriptions import event_types, problems
from subscriptions.auth import Auth
from subscriptions.authentication import HasScope
from subscriptions.credentials import UNREADABLE

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "What went wrong (RFC 9457). `code` is stable and for machines, `detail` for people.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "Always `about:blank`: `code` says more.",
            "examples": ["about:blank"],
        },
        "title": {"type": "string", "description": "The HTTP status in words.", "examples": ["Bad Request"]},
        "status": {
            "type": "integer",
            "minimum": 400,
            "maximum": 599,
            "description": "The HTTP status, as in the first line of the answer.",
        },
        "detail": {
            "type": "string",
            "description": "What went wrong, for people.",
            "examples": [problems.INVALID],
        },
        "code": {
            "type": "string",
            "description": "What went wrong, for machines: one of the codes in the table under Errors.",
            "examples": ["invalid"],
        },
        "request_id": {"type": "string", "description": "The Request-Id of the call."},
        "errors": {
            "type": "array",
            "description": "For bad input: what is wrong where.",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "A JSON pointer (RFC 6901) into the body, or / and a parameter's name. "
                        "What a schema finds wrong with a payload is below `/body`, in a batch `/events/7/body`.",
                        "examples": ["/target_url"],
                    },
                    "code": {
                        "type": "string",
                        "description": "The rule that is broken; of a payload, the keyword of its JSON Schema.",
                        "examples": ["refused_url"],
                    },
                    "detail": {"type": "string", "description": "What is wrong, for people."},
                },
            },
        },
    },
}

# What an operation may answer besides its own, by what it takes.
ALWAYS = {"503": "The database is away, nothing was stored; try again after Retry-After."}
WITH_INPUT = {"400": "Not valid: `errors` says what is wrong where."}
WITH_BODY = {"413": "The body is too large.", "415": "The body is not application/json in UTF-8."}
WITH_KEY = {
    "401": "The API key is missing, unknown, expired or revoked.",
    "403": "The key lacks the scope.",
    "429": "The API key called too often; try again after Retry-After.",
}
WITH_PAGES = {"422": "It took too long and was given up: ask for less."}
WITH_ID = {"404": "There is no such thing, or it is another tenant's."}

RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "integer"}, "description": "Seconds to wait."}}
RATE_LIMIT = {
    "RateLimit-Policy": {
        "schema": {"type": "string", "examples": ['"default";q=500;w=1']},
        "description": "How many calls (`q`) the key has in how many seconds (`w`).",
    },
    "RateLimit": {
        "schema": {"type": "string", "examples": ['"default";r=0;t=1']},
        "description": "How many are left (`r`), and in how many seconds there are more (`t`).",
    },
}
HEADERS = {"412": RETRY_AFTER, "429": RETRY_AFTER | RATE_LIMIT, "503": RETRY_AFTER}


# The codes of a refusal, for its examples: by its status, and where operations differ by both.
CODE_OF_STATUS = {
    "400": "invalid",
    "401": "not_authenticated",
    "403": "permission_denied",
    "404": "not_found",
    "409": "subscription_disabled",
    "412": "precondition_failed",
    "413": "too_large",
    "415": "unsupported_media_type",
    "422": "too_slow",
    "429": "rate_limited",
    "503": "unavailable",
}
REFUSED_AT_INTAKE = ("payload_refused", "idempotency_key_reused")
CODES = {
    ("event_types_create", "409"): ("event_type_exists",),
    ("operations_cancel", "409"): ("finished",),
    ("requests_cancel", "409"): ("settled",),
    ("requests_replay", "409"): ("pending",),
    ("ingest", "401"): ("signature_invalid",),
    ("ingest", "422"): REFUSED_AT_INTAKE,
    ("events_publish", "422"): REFUSED_AT_INTAKE,
    ("events_publish_batch", "422"): REFUSED_AT_INTAKE,
    ("events_preview", "422"): ("payload_refused",),
}

# What is said with a code whatever the operation; with the others, what the operation says of the status.
DETAILS = {
    "invalid": problems.INVALID,
    "payload_refused": "The payload does not fit the schema of its event type; see errors.",
    "idempotency_key_reused": "This Idempotency-Key was used with another body within the last 24 hours.",
}
FINDING = {"pointer": "/colour", "code": "unknown", "detail": "This field is not known."}
MISFIT = {"pointer": "/body/total", "code": "type", "detail": '"x" is not of type "number"'}


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "subscriptions.authentication.BearerAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, made with `manage.py create_api_key`. Optional in local development.",
        }


class AuthFieldSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """`auth` is written as one of its kinds and shown by its type alone."""

    target_class = "subscriptions.fields.AuthField"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        _, kinds = msgspec.json.schema_components((Auth,))
        types = [kind["properties"]["type"]["enum"][0] for kind in kinds.values()]
        if direction == "request":
            return {"oneOf": list(kinds.values())}
        shown = {"type": {"type": "string", "enum": [*types, UNREADABLE]}}
        return {"type": "object", "properties": shown, "required": ["type"]}


class Schema(AutoSchema):
    """Describes an operation by its view's docstring, whose first sentence is the summary, and by its scope."""

    def get_summary(self) -> str:
        given = super().get_summary()
        return given or " ".join(self.get_description().split("\n\n")[0].split()).partition(". ")[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]
        given: str = super().get_description()
        if HasScope not in self.view.permission_classes:
            return given
        return f"{given}\n\nThe API key needs the scope `{HasScope.scope_of(self.view, self.method)}`."


# drf-spectacular loads what it is extended with as it goes, which fails in two threads at once.
_describing = Lock()


def description(request: HttpRequest) -> HttpResponse:
    """Answer with the description of the API, to whoever asks."""
    with _describing:
        content = _description()
    return HttpResponse(content, content_type=OpenApiJsonRenderer.media_type)


@cache
def _description() -> bytes:
    """Return the description in JSON, which takes a third of a second to make and is always the same."""
    schema = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    rendered: bytes = OpenApiJsonRenderer().render(schema, renderer_context={})
    return rendered


def document_problems(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say of each operation what it answers when it refuses; drf-spectacular's postprocessing hook."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    for path, method, operation in _operations(result):
        answers = operation["responses"]
        for status, description in _refusals(path, method, operation).items():
            answers.setdefault(status, {"description": description})
        for status, answer in answers.items():
            if status >= "400" and "content" not in answer:
                examples = _refusals_like(status, operation["operationId"], answer["description"])
                answer["content"] = {
                    problems.CONTENT_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {example["code"]: {"value": example} for example in examples},
                    }
                }
            if status in HEADERS and problems.CONTENT_TYPE in answer["content"]:
                answer["headers"] = HEADERS[status]
        operation["responses"] = dict(sorted(answers.items()))
    return result


def document_strictness(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say of each request body that unknown fields are refused; drf-spectacular's postprocessing hook."""
    for name, schema in result["components"]["schemas"].items():
        if name.endswith("Request") and "properties" in schema:
            schema["additionalProperties"] = False
    return result


def document_event_types(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say how an event type is written, wherever one is given; drf-spectacular's postprocessing hook."""
    for name, schema in result["components"]["schemas"].items():
        if name.endswith("Request"):
            _add_patterns(schema.get("properties", {}))
    for _, _, operation in _operations(result):
        parameters = operation.get("parameters", [])
        _add_patterns({parameter["name"]: parameter["schema"] for parameter in parameters})
    return result


def _add_patterns(fields: dict[str, Any]) -> None:
    if "event_type" in fields:
        fields["event_type"]["pattern"] = event_types.NAME_PATTERN
    if "event_types" in fields:
        fields["event_types"]["items"]["pattern"] = event_types.TAKEN_PATTERN


def document_anything(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say of a field that takes any JSON, null included, just that; drf-spectacular's postprocessing hook.

    Its own `oneOf` of anything and null holds for everything but null.
    """
    for schema in result["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            if field.get("oneOf") == [{}, {"type": "null"}]:
                del field["oneOf"]
    return result


def _operations(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _refusals_like(status: str, operation_id: str, description: str) -> Iterator[dict[str, Any]]:
    """Yield what an operation answers with this status, for examples."""
    for code in CODES.get((operation_id, status)) or (CODE_OF_STATUS[status],):
        yield _refusal(status, code, description)


def _refusal(status: str, code: str, description: str) -> dict[str, Any]:
    problem = problems.Problem(status=int(status), code=code, detail=DETAILS.get(code, description))
    example = problem.document() | {"request_id": "01a20d7a-3e01-7369-86b1-86d04e467171"}
    if code in ("invalid", "payload_refused"):
        example["errors"] = [FINDING if code == "invalid" else MISFIT]
    return example


def _refusals(path: str, method: str, operation: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    if path == "/health":
        return found
    places = {parameter["name"]: parameter["in"] for parameter in operation.get("parameters", [])}
    parameters = set(places.values())
    has_body = method in ("post", "patch")  # also where it has to be empty
    if has_body or "query" in parameters:
        found |= WITH_INPUT
    if has_body:
        found |= WITH_BODY
    if {BearerScheme.name: []} in operation.get("security", []):
        found |= WITH_KEY
    if "path" in parameters:
        found |= WITH_ID
    if "cursor" in places:
        found |= WITH_PAGES
    return found | ALWAYS
