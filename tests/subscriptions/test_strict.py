import pytest
from rest_framework import serializers

from subscriptions.strict import StrictFieldsMixin


class Everything(StrictFieldsMixin, serializers.Serializer):
    text = serializers.CharField(required=False, allow_null=True)
    name = serializers.UUIDField(required=False)
    flag = serializers.BooleanField(required=False)
    count = serializers.IntegerField(required=False, min_value=1)
    rate = serializers.FloatField(required=False)
    counts = serializers.ListField(child=serializers.IntegerField(min_value=1), required=False)
    texts = serializers.DictField(child=serializers.CharField(), required=False)
    anything = serializers.JSONField(required=False)


def judge(data):
    """Return what is said of `data`, or None if it is taken."""
    serializer = Everything(data=data)
    return None if serializer.is_valid() else serializer.errors


@pytest.mark.parametrize(
    "data",
    [
        {"text": "5"},
        {"text": None},
        {"name": "01a20c30-6f0e-7488-8eb1-af960fb351d9"},
        {"flag": False},
        {"count": 5},
        {"count": 5.0},
        {"rate": 1},
        {"rate": 0.5},
        {"counts": [1, 2]},
        {"texts": {"a": "b"}},
        {"anything": [1, "x", None, True]},
    ],
)
def test_it_takes_what_json_says(data):
    assert judge(data) is None


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        ({"text": 5}, {"text": ["Not a valid string."]}),
        ({"text": False}, {"text": ["Not a valid string."]}),
        ({"name": 5}, {"name": ["Must be a valid UUID."]}),
        ({"flag": 0}, {"flag": ["Must be a valid boolean."]}),
        ({"flag": "true"}, {"flag": ["Must be a valid boolean."]}),
        ({"count": "5"}, {"count": ["A valid integer is required."]}),
        ({"count": True}, {"count": ["A valid integer is required."]}),
        ({"rate": "0.5"}, {"rate": ["A valid number is required."]}),
        ({"rate": True}, {"rate": ["A valid number is required."]}),
        ({"counts": [1, "2"]}, {"counts": {1: ["A valid integer is required."]}}),
        ({"texts": {"a": 1}}, {"texts": {"a": ["Not a valid string."]}}),
    ],
)
def test_it_converts_nothing(data, errors):
    assert judge(data) == errors


def test_it_says_everything_at_once():
    data = {"text": 5, "count": 0, "counts": [0, "2"]}
    assert judge(data) == {
        "text": ["Not a valid string."],
        "count": ["Ensure this value is greater than or equal to 1."],
        "counts": {
            0: ["Ensure this value is greater than or equal to 1."],
            1: ["A valid integer is required."],
        },
    }


def test_it_refuses_fields_that_it_does_not_know():
    assert judge({"txet": "a typo"}) == {"txet": "This field is not known."}


def test_it_tells_of_a_hundred_fields_that_it_does_not_know_and_no_more():
    assert len(judge({f"field {number:05}": None for number in range(95_000)})) == 100


@pytest.mark.parametrize("name", ["counts", "texts"])
@pytest.mark.parametrize("extra", [0, 1])
def test_it_looks_at_no_more_items_than_there_may_be(name, extra):
    items = range(500 + extra)
    errors = judge({name: [0 for _ in items] if name == "counts" else {str(item): 0 for item in items}})
    if extra:
        assert errors == {name: ["There are more than 500 items."]}
    else:
        assert len(errors[name]) == 500
