"""POST /ingest keeps the payload byte for byte, whatever JSON it is."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries.envelopes import IngestEnvelope
from tests.conftest import ingest_body
from tests.deliveries.ingesting import MISSING, stored_payload

PAYLOADS = [
    '{"z":1,"a":2,"m":3}',
    '{"a":1,"a":2,"a":{"b":1,"b":2}}',
    '{"n":1.0,"m":1e2,"o":1E+2,"p":-0,"q":-0.0,"r":0.10,"s":1e-7}',
    '{"big":123456789012345678901234567890,"safe":9007199254740993,"huge":1e999}',
    '{"escaped":"\\u00e9\\u0041\\/\\"\\\\\\b\\f\\n\\r\\t","plain":"é/"}',
    '{"emoji":"🎉","escaped":"\\ud83c\\udf89","null":"\\u0000"}',
    '{"line":"\u2028\u2029","bidi":"\u202e","bom":"\ufeff"}',
    '{ "spaces" :\t[ 1 ,\r\n 2 ] , "end" : { } }',
    "{}",
    "[]",
    "[[[[[[[[[[]]]]]]]]]]",
    '""',
    '"text"',
    "0",
    "-0.0",
    "null",
    "true",
    '{"":""}',
    '{"text":"' + "x" * 100_000 + '"}',
    "[" * 500 + "]" * 500,
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[:20].encode().decode("ascii", "replace"))
def test_it_stores_the_payload_byte_for_byte(post_ingest, make_subscription, payload):
    assert post_ingest(ingest_body(make_subscription().id, body=payload)).status == 202
    assert stored_payload() == payload.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(
    value=json_values,
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 3, "\t"]),
    separators=st.sampled_from([(",", ":"), (" , ", " :\n")]),
)
def test_it_cuts_the_payload_out_of_any_json(value, ensure_ascii, indent, separators):
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)
    raw = ingest_body(MISSING, body=text)
    assert bytes(msgspec.json.decode(raw, type=IngestEnvelope).body) == text.encode()
