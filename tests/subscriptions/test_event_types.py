import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.event_types import MAX_LENGTH, accepts, is_event_type, is_pattern

segments = st.text("abcXYZ019_-", min_size=1, max_size=8)
event_types = st.lists(segments, min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    "text",
    ["invoice", "invoice.paid", "Invoice.Item.added-v2", "a_b.c-d", "0", "-", "x" * MAX_LENGTH],
)
def test_it_takes_a_name_of_dotted_segments(text):
    assert is_event_type(text)
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".paid",
        "invoice.",
        "invoice..paid",
        "invoice paid",
        "invoice/paid",
        "invoice.paid\n",
        "\ninvoice",
        "facture.payée",
        "invoice.\0",
        "invoice.p*id",
        "x" * (MAX_LENGTH + 1),
    ],
)
def test_it_refuses_what_is_no_name(text):
    assert not is_event_type(text)
    assert not is_pattern(text)


@pytest.mark.parametrize("text", ["*", "invoice.*", "invoice.item.*"])
def test_it_takes_a_trailing_wildcard_as_a_pattern_and_not_as_a_name(text):
    assert is_pattern(text)
    assert not is_event_type(text)


@pytest.mark.parametrize("text", ["**", "*.*", "*.paid", "invoice.*.paid", "invoice*", ".*", "invoice.**"])
def test_it_refuses_a_wildcard_anywhere_else(text):
    assert not is_pattern(text)


@pytest.mark.parametrize(
    ("patterns", "event_type", "expected"),
    [
        ([], "invoice.paid", True),
        (["*"], "invoice.paid", True),
        (["invoice.paid"], "invoice.paid", True),
        (["invoice.paid"], "invoice.paid.late", False),
        (["invoice.paid"], "invoice", False),
        (["invoice.paid"], "Invoice.paid", False),
        (["invoice.*"], "invoice.paid", True),
        (["invoice.*"], "invoice.item.added", True),
        (["invoice.*"], "invoice", False),
        (["invoice.*"], "invoices.paid", False),
        (["invoice.*"], "my.invoice.paid", False),
        (["invoice.item.*"], "invoice.paid", False),
        (["order.made", "invoice.*"], "invoice.paid", True),
        (["order.made", "invoice.sent"], "invoice.paid", False),
    ],
)
def test_it_decides_whether_patterns_take_a_type(patterns, event_type, expected):
    assert accepts(patterns, event_type) is expected


@given(event_types)
def test_it_takes_every_name_below_a_wildcard_and_never_the_name_itself(event_type):
    assert accepts([event_type], event_type)
    assert accepts([f"{event_type}.*"], f"{event_type}.more")
    assert not accepts([f"{event_type}.*"], event_type)
