"""Content filters: what they match, what they refuse to be, and what they say."""

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from subscriptions import filters
from subscriptions.filters import InvalidFilter, Unmet

TOO_LONG = "A filter has at most 8192 bytes of JSON, with its numbers written out."


def event(body, **fields):
    given = {"event_type": "invoice.paid", "tenant": "acme"} | fields
    return filters.document(**given, payload=body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("conditions", "body", "is_met"),
    [
        # bare values
        ({"status": "paid"}, {"status": "paid", "more": 1}, True),
        ({"status": "paid"}, {"status": "open"}, False),
        ({"status": "paid"}, {}, False),
        ({"status": None}, {"status": None}, True),
        ({"status": None}, {}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"customer": {"tier": "premium"}}, {"customer": {"tier": "premium"}}, True),
        ({"customer": {"tier": "premium"}}, {"customer": "premium"}, False),
        ("text", "text", True),
        (5, 5, True),
        # types do not turn into one another
        ({"n": 1}, {"n": "1"}, False),
        ({"n": 1}, {"n": True}, False),
        ({"n": True}, {"n": 1}, False),
        ({"n": 0}, {"n": False}, False),
        ({"n": 1}, {"n": 1.0}, True),
        # arrays contain
        ({"tags": "urgent"}, {"tags": ["urgent", "support"]}, True),
        ({"tags": "urgent"}, {"tags": ["support"]}, False),
        ({"tags": ["a", "b"]}, {"tags": ["c", "b", "a"]}, True),
        ({"tags": ["a", "b"]}, {"tags": ["a"]}, False),
        ({"tags": ["a"]}, {"tags": "a"}, False),
        ({"tags": [{"$startsWith": "ur"}]}, {"tags": ["x", "urgent"]}, True),
        ({"items": {"id": 2}}, {"items": [{"id": 1}, {"id": 2}]}, True),
        ({"items": {"id": 2, "n": 1}}, {"items": [{"id": 2, "n": 9}, {"id": 3, "n": 1}]}, False),
        ({"items": {"n": {"$lte": 10}}}, {"items": [{"n": 12}, {"n": 9}]}, True),
        ({"items": {"n": {"$lte": 10}}}, {"items": []}, False),
        ({"rows": 1}, {"rows": [[1]]}, False),
        # equality
        ({"a": {"$eq": "x"}}, {"a": "x"}, True),
        ({"a": {"$eq": ["x"]}}, {"a": ["x"]}, True),
        ({"a": {"$eq": "x"}}, {"a": ["x"]}, False),
        ({"a": {"$eq": {"b": 1, "c": [2]}}}, {"a": {"c": [2.0], "b": 1}}, True),
        ({"a": {"$eq": {"b": 1}}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a": {"$neq": "x"}}, {"a": "y"}, True),
        ({"a": {"$neq": "x"}}, {"a": "x"}, False),
        ({"a": {"$neq": "x"}}, {}, False),
        # order
        ({"n": {"$gt": 1, "$lt": 3}}, {"n": 2}, True),
        ({"n": {"$gt": 1, "$lt": 3}}, {"n": 3}, False),
        ({"n": {"$gte": 2}}, {"n": 2}, True),
        ({"n": {"$lte": 2}}, {"n": 2}, True),
        ({"n": {"$lt": 2}}, {"n": 2}, False),
        ({"n": {"$gt": "b"}}, {"n": "c"}, True),
        ({"n": {"$gt": "b"}}, {"n": "a"}, False),
        ({"n": {"$gt": 1}}, {"n": "2"}, False),
        ({"n": {"$gte": 0}}, {"n": True}, False),
        ({"n": {"$gte": 0}}, {"n": None}, False),
        ({"n": {"$gte": 0}}, {"n": [1]}, False),
        ({"n": {"$gte": 0}}, {}, False),
        # membership
        ({"s": {"$in": ["a", "b"]}}, {"s": "b"}, True),
        ({"s": {"$in": ["a", None, 1]}}, {"s": None}, True),
        ({"s": {"$in": ["a", "b"]}}, {"s": "c"}, False),
        ({"s": {"$in": [1]}}, {"s": True}, False),
        ({"s": {"$in": "tex"}}, {"s": "some text"}, True),
        ({"s": {"$in": "tex"}}, {"s": ["tex"]}, True),
        ({"s": {"$in": "tex"}}, {"s": ["text"]}, False),
        ({"s": {"$in": 1}}, {"s": 11}, False),
        ({"s": {"$nin": ["a"]}}, {"s": "b"}, True),
        ({"s": {"$nin": ["a"]}}, {"s": "a"}, False),
        ({"s": {"$nin": "a"}}, {"s": ["a", "b"]}, False),
        ({"s": {"$nin": ["a"]}}, {}, False),
        # texts
        ({"s": {"$startsWith": "some"}}, {"s": "some text"}, True),
        ({"s": {"$startsWith": ["x", "some"]}}, {"s": "some text"}, True),
        ({"s": {"$startsWith": "text"}}, {"s": "some text"}, False),
        ({"s": {"$startsWith": "1"}}, {"s": 1}, False),
        ({"s": {"$endsWith": "@example.com"}}, {"s": "a@example.com"}, True),
        ({"s": {"$endsWith": "some"}}, {"s": "some text"}, False),
        # existence
        ({"s": {"$exist": True}}, {"s": None}, True),
        ({"s": {"$exist": True}}, {}, False),
        ({"s": {"$exist": False}}, {}, True),
        ({"s": {"$exist": False}}, {"s": None}, False),
        ({"a": {"b": {"$exist": False}}}, {"a": 1}, True),
        # logic
        ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}, True),
        ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 3}, False),
        ({"n": {"$or": [1, 5]}}, {"n": 5}, True),
        ({"$and": [{"a": 1}, {"b": 2}]}, {"a": 1, "b": 2}, True),
        ({"$and": [{"a": 1}, {"b": 2}]}, {"a": 1}, False),
        ({"$not": {"a": 1}}, {"a": 2}, True),
        ({"$not": {"a": 1}}, {"a": 1}, False),
        ({"s": {"$not": {"$in": ["canceled", "refunded"]}}}, {"s": "paid"}, True),
        ({"s": {"$not": {"$in": ["canceled", "refunded"]}}}, {"s": "canceled"}, False),
        ({"s": {"$not": {"$in": ["canceled", "refunded"]}}}, {}, True),
        ({"a": 1, "$or": [{"b": 1}, {"b": 2}]}, {"a": 1, "b": 2}, True),
    ],
)
def test_it_matches_the_body(conditions, body, is_met):
    filters.check({"body": conditions})
    assert (filters.explain({"body": conditions}, event(body)) is None) is is_met


@pytest.mark.parametrize(
    ("conditions", "payload", "is_met"),
    [
        ({"$eq": 9007199254740993}, b"9007199254740993", True),
        ({"$eq": 9007199254740993}, b"9007199254740992", False),
        ({"$gt": 9007199254740992}, b"9007199254740993", True),
        ({"$eq": 0.1}, b"0.1", True),
        ({"$eq": 0.1}, b"0.10", True),
        ({"$eq": 0.1}, b"0.1000000000000000055", False),
        ({"$lt": 0.3}, b"0.29999999999999999999", True),
        ({"$gt": 10}, b"1e400", True),
        ({"$lt": 10}, b"1e999999999999999999999", False),
        ({"$gt": -1}, b"1e-999999999999999999999", True),
    ],
)
def test_numbers_are_compared_as_they_were_written(conditions, payload, is_met):
    assert (filters.explain({"body": {"n": conditions}}, event(b'{"n": ' + payload + b"}")) is None) is is_met


@pytest.mark.parametrize(
    ("conditions", "is_met"),
    [
        ({"event_type": {"$startsWith": "invoice."}}, True),
        ({"event_type": "invoice.open"}, False),
        ({"tenant": "acme"}, True),
        ({"$not": {"tenant": {"$in": ["acme", "other"]}}}, False),
        ({}, True),
        (None, True),
    ],
)
def test_it_matches_the_events_own_fields(conditions, is_met):
    assert (filters.explain(conditions, event({})) is None) is is_met


@pytest.mark.parametrize(
    ("conditions", "unmet"),
    [
        (
            {"body": {"total": {"$gte": 100}}},
            Unmet(pointer="/body/total/$gte", detail="/body/total should be at least 100, and is 50.5."),
        ),
        (
            {"body": {"paid": True}},
            Unmet(pointer="/body/paid", detail="/body/paid should be true, and is missing."),
        ),
        (
            {"body": {"a/b": "x"}},
            Unmet(pointer="/body/a~1b", detail='/body/a~1b should be "x", and is an object.'),
        ),
        (
            {"tenant": {"$in": ["other"]}},
            Unmet(pointer="/tenant/$in", detail='/tenant should be in, or contain, a list of 1, and is "acme".'),
        ),
        (
            {"body": {"$or": [{"total": 1}, {"total": 2}]}},
            Unmet(pointer="/body/$or", detail="None of the 2 conditions of $or is met."),
        ),
        (
            {"$and": [{"tenant": "acme"}, {"body": {"deleted": {"$exist": True}}}]},
            Unmet(pointer="/$and/1/body/deleted/$exist", detail="/body/deleted should exist, and is missing."),
        ),
        ({"$not": {"tenant": "acme"}}, Unmet(pointer="/$not", detail="The condition of $not is met.")),
        (
            {"body": {"items": {"id": 3}}},
            Unmet(pointer="/body/items", detail="No item of /body/items meets the condition."),
        ),
        (
            {"body": {"note": {"$endsWith": "."}}},
            Unmet(
                pointer="/body/note/$endsWith",
                detail='/body/note should end with ".", and is "' + "x" * 78 + "….",
            ),
        ),
    ],
)
def test_it_says_which_clause_is_not_met(conditions, unmet):
    filters.check(conditions)
    body = b'{"total": 50.5, "a/b": {"c": 1}, "items": [{"id": 1}, 2], "note": "' + b"x" * 1000 + b'"}'
    assert filters.explain(conditions, event(body)) == unmet


ROOT = "A filter begins with event_type, tenant, body, $and, $or or $not."


def nested(depth):
    condition = {"$eq": 1}
    for _ in range(depth):
        condition = {"a": condition}
    return {"body": condition}


@pytest.mark.parametrize(
    ("value", "pointer", "words"),
    [
        ([], "", "A filter is a JSON object."),
        ("body", "", "A filter is a JSON object."),
        (None, "", "A filter is a JSON object."),
        ({"status": "paid"}, "/status", ROOT),
        ({"$eq": 1}, "/$eq", ROOT),
        ({"$or": [{"status": "paid"}]}, "/$or/0/status", ROOT),
        ({"$or": [1]}, "/$or/0", "A condition on an event is an object."),
        ({"$not": [{"body": 1}]}, "/$not", "A condition on an event is an object."),
        ({"$or": []}, "/$or", "$or takes a list of conditions."),
        ({"body": {"a": {"$and": {"b": 1}}}}, "/body/a/$and", "$and takes a list of conditions."),
        ({"body": {}}, "/body", "There is no condition here."),
        ({"body": {"a": {"$regex": "x"}}}, "/body/a/$regex", 'There is no operator "$regex".'),
        ({"body": {"a": {"$gt": 1, "b": 2}}}, "/body/a/b", "A member cannot stand beside $gt."),
        ({"body": {"a": {"$gt": None}}}, "/body/a/$gt", "$gt takes a number or a text."),
        ({"body": {"a": {"$lte": True}}}, "/body/a/$lte", "$lte takes a number or a text."),
        (
            {"body": {"a": {"$startsWith": 1}}},
            "/body/a/$startsWith",
            "$startsWith takes a text or a list of texts.",
        ),
        ({"body": {"a": {"$endsWith": []}}}, "/body/a/$endsWith", "$endsWith takes a text or a list of texts."),
        (
            {"body": {"a": {"$in": [[1]]}}},
            "/body/a/$in",
            "$in takes a list of texts, numbers, true, false and null, or one of those.",
        ),
        ({"body": {"a/b": {"$exist": 1}}}, "/body/a~1b/$exist", "$exist takes true or false."),
        ({"body": "a\0b"}, "/body", "A filter has no NUL character and no lone surrogate in it."),
        ({"body": {"\ud800": 1}}, "/body", "A filter has no NUL character and no lone surrogate in it."),
        ({"body": float("nan")}, "", "A filter has a number in it that is too large, or none."),
        ({"body": "x" * 8192}, "", TOO_LONG),
        ({"body": {"a": {"$in": [1e308] * 30}}}, "", TOO_LONG),
        ({"body": {"$or": list(range(101))}}, "", "A filter has at most 100 conditions."),
        (nested(20), "/body" + "/a" * 20, "A filter is at most 20 levels deep."),
    ],
)
def test_it_refuses_what_is_no_filter_and_says_where(value, pointer, words):
    with pytest.raises(InvalidFilter) as refused:
        filters.check(value)
    assert (refused.value.pointer, str(refused.value)) == (pointer, words)


@pytest.mark.parametrize("value", [{}, nested(18), {"body": {"$or": list(range(100))}}, {"body": []}, {"body": 1}])
def test_it_takes_what_is_one(value):
    filters.check(value)


def test_a_body_that_cannot_be_read_meets_no_condition():
    unread = event(b"9" * 5000)
    assert unread == {"event_type": "invoice.paid", "tenant": "acme"}
    assert filters.explain({"body": {"$gt": 1}}, unread) == Unmet(
        pointer="/body/$gt", detail="/body should be greater than 1, and is missing."
    )


@pytest.mark.parametrize(
    "conditions",
    [
        {"$or": [str(number) for number in range(99)]},
        {"$or": [[number, {"$gt": 5}] for number in range(2, 40)]},
        {"$or": [{"$in": str(number)} for number in range(99)]},
        {"$or": [{"a": number} for number in range(99)]},
        {"a": {"$or": list(range(99))}},
        {"a": {"$in": [2] * 2700}},
        {"a": {"$nin": ["1"] * 1300}},
        {"a": {"$startsWith": ["b"] * 1300}},
    ],
)
@pytest.mark.parametrize("item", ["1", '{"a": "1"}'])
def test_a_filter_that_would_look_at_too_much_is_not_met(conditions, item):
    filters.check({"body": conditions})
    body = f"[{','.join([item] * 50_001)}]".encode()
    assert filters.explain({"body": conditions}, event(body)) == Unmet(
        pointer="", detail="The event is too large to be compared with so many conditions."
    )


@pytest.mark.parametrize(("size", "count"), [(29_900, 34), (1_000_000, 1)])
def test_texts_are_not_looked_for_in_more_than_ten_million_characters(size, count):
    """Of texts that are chosen so, each may take as many comparisons as it has characters, at each place."""
    needles = ["a" * (20 + number % 11) + "b" + "a" * (30 - number % 11) for number in range(100)]
    conditions = {"body": {"$or": [{"a": {"$in": needle}} for needle in needles]}}
    filters.check(conditions)
    too_large = filters.explain(conditions, event([{"a": "a" * size}] * count))
    assert too_large.detail == "The event is too large to be compared with so many conditions."
    assert filters.explain({"body": {"a": {"$in": needles[0]}}}, event({"a": "a" * 900_000 + needles[0]})) is None


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"b": inner}], ids=["list", "object"])
def test_all_that_is_in_an_operand_counts_as_looked_at(wrap):
    conditions = {"body": {"$or": [{"a": {"$eq": wrap([0] * 248 + [last])}} for last in range(1, 9)]}}
    filters.check(conditions)
    started_at = time.process_time()
    unmet = filters.explain(conditions, event([{"a": wrap([0] * 249)}] * 1_300))
    assert time.process_time() - started_at < 1
    assert "too large" in unmet.detail
    assert filters.explain(conditions, event([{"a": wrap([0] * 248 + [8])}])) is None


def test_a_large_event_that_a_few_steps_settle_is_no_matter():
    body = f'{{"many": [{",".join(["1"] * 100_000)}], "paid": true}}'.encode()
    assert filters.explain({"body": {"paid": True, "many": 1}}, event(body)) is None


@pytest.mark.parametrize("conditions", [{"~" * 7_000: 1}, {"a": {"~" * 7_000: {"x": 1}}}], ids=["item", "member"])
def test_long_names_take_no_longer_to_compare(conditions):
    """Only the words that are told are made: a pointer to each of fifty thousand items would take seconds."""
    started_at = time.process_time()
    unmet = filters.explain({"body": conditions}, event([{"a": {}}] * 60_000))
    assert time.process_time() - started_at < 1
    assert unmet.detail == "The event is too large to be compared with so many conditions."


LONG = 10**4_200 + 1


@pytest.mark.parametrize(
    ("conditions", "items"),
    [
        (LONG, ["0.5"] * 49_000),
        ([{"$gt": LONG}], ["9e4199"] * 16_000),
        ({"$or": [number + 0.5 for number in range(99)]}, [str(LONG + number) for number in range(240)]),
    ],
    ids=["equal", "ordered", "in_the_event"],
)
def test_long_integers_take_no_longer_to_compare_and_to_tell(conditions, items):
    body = f"[{','.join(items)}]".encode()
    started_at = time.process_time()
    unmet = filters.explain({"body": conditions}, event(body))
    assert time.process_time() - started_at < 2
    assert "too large" not in unmet.detail


@pytest.mark.parametrize(
    ("conditions", "payload", "is_met"),
    [
        (LONG, b"1" + b"0" * 4_199 + b"1.0", True),
        (LONG, b"1" + b"0" * 4_199 + b"1", True),
        (LONG, b"1e4200", False),
        ({"$gt": LONG}, b"1" + b"0" * 4_199 + b"1.01", True),
        ({"$gt": -LONG}, b"-1e4200", True),
        ({"$gt": 1e308}, str(LONG).encode(), True),
    ],
    ids=["as_fraction", "same", "rounded", "just_more", "negative", "in_the_event"],
)
def test_long_integers_are_compared_exactly(conditions, payload, is_met):
    assert (filters.explain({"body": {"n": conditions}}, event(b'{"n": ' + payload + b"}")) is None) is is_met


def test_a_long_integer_is_told_by_its_first_digits():
    unmet = filters.explain({"body": LONG}, event(b"-" + str(LONG).encode()))
    assert unmet.detail == f"/body should be 1{'0' * 78}…, and is -1{'0' * 77}…."


NAMES = st.sampled_from(["a", "b", "/", "$eq", "event_type", "body", "tenant"]) | st.text(max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(0, 10**40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
CONDITIONS = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.sampled_from([*filters.OPERATORS, "$exist", "$not"]), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$and", "$or"]), st.lists(inner, max_size=3), max_size=2)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(conditions=CONDITIONS | st.dictionaries(st.sampled_from(filters.FIELDS), CONDITIONS), body=VALUES)
@example(conditions={"body": {"$eq": {"a": 1}}}, body={"a": float("nan")})
def test_no_json_makes_it_raise(conditions, body):
    try:
        filters.check(conditions)
    except InvalidFilter:
        return
    for found in (event(json.dumps(body).encode()), {"event_type": "a", "tenant": "", "body": body}):
        unmet = filters.explain(conditions, found)
        assert unmet is None or (unmet.pointer.startswith("/") and unmet.detail.endswith("."))
        # A negation is met exactly when the condition is not.
        if conditions:
            assert (filters.explain({"$not": conditions}, found) is None) is (unmet is not None)
