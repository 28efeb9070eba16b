"""JSON Schema: what is one, what is wrong with a payload, and what it must never do."""

import json
import socket
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subscriptions import schemas
from subscriptions.schemas import InvalidSchema


def findings(schema, value):
    return schemas.compile_schema(schema).findings(value, size=0)


INVOICE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["invoice"],
    "properties": {
        "invoice": {"type": "integer", "minimum": 1},
        "total": {"$ref": "#/$defs/money"},
        "email": {"format": "email"},
        "lines": {"type": "array", "items": {"properties": {"sku": {}}, "additionalProperties": False}},
    },
    "$defs": {"money": {"type": "string", "pattern": "^[0-9]+[.][0-9]{2}$"}},
}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"invoice": 1}, []),
        ({"invoice": Decimal("1.0"), "total": "19.90", "email": "a@example.com"}, []),
        ({"invoice": 10**40}, []),
        ({}, [("", "required", '"invoice" is a required property')]),
        ([], [("", "type", '[] is not of type "object"')]),
        ({"invoice": 0}, [("/invoice", "minimum", "0 is less than the minimum of 1")]),
        ({"invoice": True}, [("/invoice", "type", 'true is not of type "integer"')]),
        (
            {"invoice": 1, "total": "1"},
            [("/total", "pattern", '"1" does not match "^[0-9]+[.][0-9]{2}$"')],
        ),
        ({"invoice": 1, "email": "x"}, [("/email", "format", '"x" is not a "email"')]),
        (
            {"invoice": 1, "lines": [{}, {"a/b": 1}]},
            [
                (
                    "/lines/1",
                    "additionalProperties",
                    "Additional properties are not allowed ('a/b' was unexpected)",
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(value, found):
    told = [(finding["pointer"], finding["code"], finding["detail"]) for finding in findings(INVOICE, value)]
    assert told == found


def test_it_tells_so_many_findings_and_so_much_of_each():
    told = findings({"items": {"type": "integer"}}, ["x" * 1000] * 100)
    assert len(told) == 20
    assert {len(finding["detail"]) for finding in told} == {200}


INTEGERS = {"type": "array", "items": {"type": "integer"}}
FIRST = {"pointer": "/1", "code": "type", "detail": '"x" is not of type "integer"'}
SOMEWHERE = {
    "pointer": "",
    "code": "schema",
    "detail": "The payload does not fit the schema, and is too large to say where.",
}


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (INTEGERS, FIRST),
        ({"anyOf": [INTEGERS, {"type": "null"}]}, SOMEWHERE),
        ({"oneOf": [INTEGERS]}, SOMEWHERE),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, SOMEWHERE),
    ],
)
def test_the_first_finding_of_a_large_payload_is_all_that_is_sought(schema, found):
    compiled = schemas.compile_schema(schema)
    value = [1, *["x"] * 100_000]
    size = len(json.dumps(value))
    started_at = time.process_time()
    assert [compiled.findings(value, size=size) for _ in range(50)] == [[found]] * 50
    assert time.process_time() - started_at < 10  # all of them together take half a minute or more
    assert compiled.findings({} if schema.get("$ref") else [1] * 100_000, size=size) == []


def test_the_text_of_a_finding_has_no_nul_character():
    [told] = findings({"additionalProperties": {"type": "string"}}, {"a\0b": 1})
    assert told == {"pointer": r"/a\u0000b", "code": "type", "detail": '1 is not of type "string"'}
    [told] = findings({"properties": {"b": {}}, "additionalProperties": False}, {"a\0b": 1})
    assert r"'a\u0000b' was unexpected" in told["detail"]


@pytest.mark.parametrize(
    ("schema", "pointer", "words"),
    [
        (True, "", "A schema is a JSON object."),
        ([], "", "A schema is a JSON object."),
        ({"type": "objekt"}, "/type", "is not valid under any of the schemas listed in the 'anyOf' keyword"),
        ({"properties": {"a": {"minimum": "x"}}}, "/properties/a/minimum", 'is not of type "number"'),
        ({"pattern": "("}, "/pattern", 'is not a "regex"'),
        ({"pattern": "(?=a)b"}, "/pattern", 'is not a "regex"'),
        ({"pattern": r"(a)\1"}, "/pattern", 'is not a "regex"'),
        ({"pattern": "((a{1000}){1000}){1000}"}, "/pattern", 'is not a "regex"'),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "/$schema",
            "Only JSON Schema 2020-12 is understood",
        ),
        ({"$ref": "#/$defs/none"}, "", "does not exist"),
    ],
)
def test_it_refuses_what_is_no_schema_and_says_where(schema, pointer, words):
    with pytest.raises(InvalidSchema) as refused:
        schemas.compile_schema(schema)
    assert refused.value.pointer == pointer
    assert words in str(refused.value)


@pytest.mark.parametrize("place", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize(
    "make_uri",
    [
        lambda port: f"http://127.0.0.1:{port}/schema.json",
        lambda port: f"https://127.0.0.1:{port}/schema.json",
        lambda port: "file:///etc/passwd",
        lambda port: "other.json",
    ],
)
def test_it_fetches_nothing(place, make_uri):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        schema = {"$id": "http://127.0.0.1/", "properties": {"a": {place: make_uri(server.getsockname()[1])}}}
        with pytest.raises(InvalidSchema, match="leads out of the schema"):
            schemas.compile_schema(schema)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_reference_to_json_schema_itself_needs_no_fetching():
    assert findings({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "string"}) == []


def test_no_pattern_backtracks():
    started_at = time.monotonic()
    assert len(findings({"pattern": "^(a+)+$"}, "a" * 100_000 + "!")) == 1
    assert time.monotonic() - started_at < 10


def test_what_is_nested_too_deeply_is_refused_or_found():
    schema, value = {}, None
    for _ in range(2000):
        schema, value = {"properties": {"a": schema}}, {"a": value}
    with pytest.raises(InvalidSchema):
        schemas.compile_schema(schema)
    for found in findings({"additionalProperties": {"$ref": "#"}}, value):
        assert found["code"] == "unreadable"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "$ref", "required", "enum", "pattern", "allOf", "a"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(schema=JSON, value=JSON)
def test_no_json_makes_it_raise_anything_else(schema, value):
    try:
        compiled = schemas.compile_schema(schema)
    except InvalidSchema as refused:
        words = str(refused)
    else:
        words = "".join(finding["detail"] for finding in compiled.findings(value, size=0)) or "none"
    assert words
