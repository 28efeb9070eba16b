"""How often a schema has a payload looked at, counted without looking."""

import json
import time

import pytest

from subscriptions import filters, schema_costs, schemas
from subscriptions.schema_costs import CostlySchema, Looks
from subscriptions.schemas import InvalidSchema

TOO_MANY_WAYS = (
    "A value may be looked at more than 10000 times: too many ways lead to the same schemas, or its patterns are "
    "too large."
)
UNREADABLE = {
    "pointer": "",
    "code": "unreadable",
    "detail": "The payload cannot be checked: it is too large, or nested too deeply, for this schema.",
}


def fan_out(levels: int, *, keyword: str = "allOf", reference: str = "$ref", make_target=None) -> dict:
    """Return a schema whose every level leads to the next one twice."""
    make_target = make_target or (lambda level: f"#/$defs/{level}")
    twice = {
        str(level): {keyword: [{reference: make_target(level + 1)} for _ in range(2)]} for level in range(levels)
    }
    for level, schema in twice.items():
        schema["$anchor" if reference == "$ref" else "$dynamicAnchor"] = f"level-{level}"
    last = {"$anchor": f"level-{levels}", "$dynamicAnchor": f"level-{levels}", "type": "integer"}
    return {"$ref": "#/$defs/0", "$defs": twice | {str(levels): last}}


def counted(schema: dict) -> Looks:
    return schema_costs.count_looks(schema, looks_of_pattern=len)


def seconds_of(schema: dict, value: object, *, size: int = 0) -> float:
    compiled = schemas.compile_schema(schema)
    started_at = time.process_time()
    compiled.findings(value, size=size)
    return time.process_time() - started_at


@pytest.mark.parametrize(
    ("schema", "by_depth"),
    [
        ({}, (1,)),
        ({"type": "integer", "minimum": 1}, (1,)),
        ({"allOf": [{}, True, {"not": {}}]}, (5,)),
        ({"if": {}, "then": {}, "else": {}}, (4,)),
        ({"properties": {"a": {}, "b": {"allOf": [{}, {}]}}}, (1, 3)),
        ({"properties": {"a": {}}, "patternProperties": {"a": {}, "b": {}}}, (3, 3)),
        ({"items": {}, "prefixItems": [{"not": {}}], "contains": {}}, (1, 3)),
        ({"items": {"items": {"items": {}}}}, (1, 1, 1, 1)),
        ({"items": {"$ref": "#"}}, (1, 2)),
        ({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}, (1, 2)),
        ({"pattern": "12345", "patternProperties": {"123": {}}}, (9, 9)),
        ({"items": {"pattern": "12345"}}, (1, 6)),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {}}}}, (3,)),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, (2,)),
        ({"dependentSchemas": {"a": {}, "b": {}}}, (3,)),
        ({"enum": list(range(100))}, (11,)),
        ({"enum": [1, [], {}]}, (21,)),
        ({"allOf": [{"not": {}}], "unevaluatedProperties": {}}, (7, 7)),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, (61, 61)),
        ({"$id": "https://example.com/a", "$ref": "a#/$defs/x", "$defs": {"x": {}}}, (2,)),
        # What is no schema is told by jsonschema-rs.
        ({"allOf": 1, "properties": [], "$ref": 5, "items": "x"}, (2, 2)),
    ],
)
def test_it_counts_looks_by_the_depth_of_the_payload(schema, by_depth):
    assert counted(schema) == Looks(by_depth=by_depth, is_whole=True)


@pytest.mark.parametrize("levels", range(1, 8))
def test_it_counts_each_way_to_the_same_schema(levels):
    # The schema, one node for each way, and one for each reference.
    ways = 2 ** (levels + 1) - 1
    assert counted(fan_out(levels)).by_depth == (1 + ways + ways - 1,)


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_a_schema_that_fans_out_is_refused_before_it_costs_anything(keyword):
    started_at = time.process_time()
    for levels in (13, 30, 1000):
        with pytest.raises(InvalidSchema) as refused:
            schemas.compile_schema(fan_out(levels, keyword=keyword))
        assert (str(refused.value), refused.value.pointer) == (TOO_MANY_WAYS, "")
    assert time.process_time() - started_at < 10


def test_the_most_that_is_taken_is_checked_in_no_time():
    assert seconds_of(fan_out(11), 1) < 1
    assert seconds_of(fan_out(11), "x") < 1


@pytest.mark.parametrize(
    "fields",
    [
        {"make_target": lambda level: f"#level-{level}"},
        {"make_target": lambda level: f"#level-{level}", "reference": "$dynamicRef"},
        {"make_target": lambda level: f"#/%24defs/{level}"},
    ],
)
def test_no_way_to_write_a_reference_gets_round_it(fields):
    with pytest.raises(InvalidSchema, match="too many ways"):
        schemas.compile_schema(fan_out(30, **fields))


@pytest.mark.parametrize("base", ["https://example.com/a/b.json", "urn:example:b"])
@pytest.mark.parametrize("reference", ["{base}#/$defs/{level}", "b.json#/$defs/{level}", "#/$defs/{level}"])
def test_the_name_of_the_schema_gets_nobody_round_it(base, reference):
    def target(level: int) -> str:
        return reference.format(base=base, level=level)

    with pytest.raises(InvalidSchema, match=r"too many ways|leads out of the schema"):
        schemas.compile_schema(fan_out(30, make_target=target) | {"$id": base})


def test_leaving_over_doubles_what_is_looked_at():
    schema: dict = {}
    for _ in range(20):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    with pytest.raises(InvalidSchema, match="too many ways"):
        schemas.compile_schema(schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#"}, "leads back to where it came from"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "leads back"),
        ({"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]}, "leads back"),
        ({"$ref": "other.json"}, "The reference other.json leads out of the schema."),
        ({"$ref": "json-schema:///#/$defs/a", "$defs": {"a": {}}}, "leads out of the schema"),
        ({"$ref": "http://json-schema.org/draft-07/schema#"}, "leads out of the schema"),
        ({"$ref": "#/$defs/none"}, "The reference #/$defs/none leads to what does not exist."),
        ({"$ref": "#none"}, "The reference #none leads to what does not exist."),
        ({"$ref": "http://["}, "leads out of the schema"),
        ({"$id": "http://["}, "Invalid URI reference"),
        ({"$defs": {"a": {"$id": "https://example.com/a"}}}, "Only the schema as a whole may have an $id."),
        ({"$id": "https://json-schema.org/draft/2020-12/schema"}, "The $id is that of JSON Schema itself."),
        ({"$dynamicAnchor": "meta"}, "The anchor meta is that of JSON Schema itself."),
    ],
)
def test_it_refuses_what_cannot_be_counted(schema, words):
    with pytest.raises(InvalidSchema) as refused:
        schemas.compile_schema(schema)
    assert words in str(refused.value)


def nested(depth: int, *, inner: object = None) -> object:
    value = inner
    for _ in range(depth):
        value = {"a": value}
    return value


DOUBLING = {"allOf": [{"additionalProperties": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}}]}


def test_a_schema_that_doubles_with_the_depth_checks_shallow_payloads_alone():
    compiled = schemas.compile_schema(DOUBLING)
    assert not compiled.looks.is_whole
    deepest = len(compiled.looks.by_depth) - 1
    assert 11 <= deepest <= 14
    assert compiled.findings(nested(deepest), size=100) == []
    started_at = time.process_time()
    assert compiled.findings(nested(deepest + 1), size=100) == [UNREADABLE]
    assert compiled.findings(nested(200), size=2000) == [UNREADABLE]
    assert time.process_time() - started_at < 10


def test_a_schema_that_grows_faster_is_refused():
    branch = {"additionalProperties": {"$ref": "#"}}
    with pytest.raises(CostlySchema, match="too many ways"):
        counted({"allOf": [branch] * 8})


def test_a_schema_that_leads_to_itself_once_checks_deep_payloads():
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
        "additionalProperties": {"items": {"$ref": "#"}},
    }
    compiled = schemas.compile_schema(tree)
    assert compiled.looks.is_whole
    value: object = {}
    for _ in range(60):
        value = {"left": value, "right": {}, "list": [{}, {"left": {}}]}
    assert compiled.findings(value, size=5000) == []


@pytest.mark.parametrize("size", [1_000_000, 500_000])
def test_a_large_payload_is_not_compared_with_many_branches(size):
    branches = {"items": {"anyOf": [{"const": str(number)} for number in range(1000)]}}
    value = [0] * (size // 2)
    compiled = schemas.compile_schema(branches)
    started_at = time.process_time()
    assert compiled.findings(value, size=size) == [UNREADABLE]
    assert time.process_time() - started_at < 1
    assert [finding["code"] for finding in compiled.findings([0], size=3)] == ["anyOf"]


def test_a_large_payload_is_checked_with_an_ordinary_schema():
    line = {"type": "object", "properties": {name: {"type": "string"} for name in "abcdefgh"}, "required": ["a"]}
    schema = {"type": "object", "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}}}
    compiled = schemas.compile_schema(schema | {"$defs": {"line": line}})
    value = {"lines": [dict.fromkeys("abcdefgh", "x")] * 10_000}
    assert compiled.findings(value, size=1_000_000) == []


@pytest.mark.parametrize(
    ("value", "depth"), [(None, 0), ([], 0), ({}, 0), ([1], 1), ({"a": []}, 1), ({"a": [[1]], "b": 2}, 3)]
)
def test_it_measures_the_depth_of_a_value(value, depth):
    assert schema_costs.depth_of(value) == depth


@pytest.mark.parametrize(
    ("is_whole", "value", "size", "work"),
    [
        (True, [[[1]]], 100, 400),
        (True, [[[1]]], 1_000_000, 4_000_000),
        (True, [[1]], 1_000_000, 4_000_000),
        (True, [1], 1_000_000, 2_000_000),
        (True, [1], 100, 400),
        (False, [1], 100, 200),
        (False, [[1]], 100, 400),
        (False, [[[1]]], 100, None),
    ],
)
def test_the_work_is_so_many_looks_at_so_many_bytes(is_whole, value, size, work):
    assert Looks(by_depth=(1, 2, 4), is_whole=is_whole).work(value, size=size) == work


def test_findings_of_which_there_may_be_very_many_are_not_all_sought():
    schema = fan_out(11)
    assert len(schemas.compile_schema(schema).findings("x", size=3)) == 20
    assert len(schemas.compile_schema(schema).findings("x", size=100)) == 1


def test_a_large_pattern_does_not_keep_findings_from_being_sought():
    names = {name: {"type": "string", "pattern": "^.{1,255}$"} for name in "abc"}
    compiled = schemas.compile_schema({"properties": names})
    found = compiled.findings({"a": "", "b": "", "c": 1, "d": "x" * 10_000}, size=10_100)
    assert [(finding["pointer"], finding["code"]) for finding in found] == [
        ("/a", "pattern"),
        ("/b", "pattern"),
        ("/c", "type"),
    ]


@pytest.mark.parametrize("pattern", ["(a?){2000}a{2000}", "[ab]*a[ab]{4000}c"])
def test_no_pattern_takes_long(pattern):
    compiled = schemas.compile_schema({"pattern": pattern})
    assert compiled.findings("ab" * 500_000, size=1_000_000) == [UNREADABLE]
    assert seconds_of({"pattern": pattern}, "ab" * 5_000, size=10_000) < 10


@pytest.mark.parametrize("pattern", ["^[0-9]+[.][0-9]{2}$", "^[a-f0-9]{64}$", r"^\w{1,50}$"])
def test_ordinary_patterns_are_looked_for_in_large_payloads(pattern):
    compiled = schemas.compile_schema({"properties": {"a": {"pattern": pattern}, "b": {"pattern": pattern}}})
    assert compiled.findings({"c": "x" * 1_000_000}, size=1_000_000) == []


def properties(number: int, pattern: str) -> dict:
    return {"properties": {str(each): {"pattern": f"^{each}{pattern}$"} for each in range(number)}}


def test_very_many_large_patterns_are_not_compiled():
    started_at = time.process_time()
    with pytest.raises(InvalidSchema, match="The patterns of the schema are too many, or too large"):
        schemas.compile_schema(properties(4_000, r"[\p{L}\p{N}]{1,18}"))
    assert time.process_time() - started_at < 5


@pytest.mark.parametrize(("number", "pattern"), [(100, ".{1,255}"), (1_000, "[A-Z]{2}[0-9]{1,20}")])
def test_ordinary_patterns_may_be_many(number, pattern):
    assert schemas.compile_schema(properties(number, pattern)).findings({"1": "2"}, size=10)


def ring(length: int) -> dict:
    """Return a schema whose definitions lead to each other in turn, a step deeper each time."""
    steps = {str(step): {"items": {"$ref": f"#/$defs/{(step + 1) % length}"}} for step in range(length)}
    return {"$ref": "#/$defs/0", "$defs": steps}


def test_counting_takes_no_long_time_itself():
    started_at = time.process_time()
    assert schemas.compile_schema(ring(2_400)).looks.is_whole
    with pytest.raises(InvalidSchema, match="more than 5000 schemas in it"):
        schemas.compile_schema(ring(40_000))
    assert time.process_time() - started_at < 30


@pytest.mark.parametrize(
    "keywords",
    [
        {"enum": list(range(2, 100))},
        {"enum": [each + 0.5 for each in range(100)]},
        {"maximum": 7.5, "minimum": -1e300},
        {"multipleOf": 0.01},
        {"multipleOf": 1e-300},
        {"const": 0.5},
        {"type": "integer"},
        {"allOf": [{"multipleOf": 0.01}] * 150},
    ],
)
@pytest.mark.parametrize(
    "number", ["5e-324", "1e308", "1e-1000", "1e-5000", "1e-9999", "1.5", "1", f"0.{'7' * 1000}", "7" * 4000]
)
def test_numbers_that_take_long_to_compare_are_not_compared(keywords, number):
    schema = {"items": {"anyOf": [keywords, True]}}
    payload = f"[{','.join([number] * (100_000 // len(number)))}]".encode()
    document = filters.document(event_type="a", tenant="", payload=payload)
    assert seconds_of(schema, document["body"], size=len(payload)) < 3


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": list(range(100))}}, [7] * 100_000),
        ({"items": {"minimum": 0, "maximum": 99.5, "multipleOf": 0.5}}, [19.5] * 50_000),
        ({"items": {"type": "number"}}, [5e-324] * 100_000),
        ({"uniqueItems": True}, [each + 0.5 for each in range(50_000)]),
        ({"properties": {"status": {"enum": list(range(100))}}}, {"status": 7, "points": [0.25] * 5_000}),
    ],
)
def test_ordinary_numbers_are_compared_however_many(schema, value):
    compiled = schemas.compile_schema(schema)
    assert compiled.findings(value, size=len(json.dumps(value))) == []
