"""JSON Schema (2020-12): is this a schema, and what does it find wrong with a payload? All pure.

The only module that knows jsonschema-rs. Nothing is ever fetched, and no pattern backtracks.
"""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs

from subscriptions import schema_costs
from subscriptions.filters import pointer_of
from subscriptions.schema_costs import MAX_COMPARISONS, MAX_SEARCH_WORK, MAX_WORK, CostlySchema, Looks

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What is told of one payload, and of one finding.
MAX_FINDINGS = 20
MAX_DETAIL_LENGTH = 200

# Of the payload's own names, which may be as long as the payload: of 20 findings, and of 250 events in a list.
MAX_POINTER_LENGTH = 500

# Bytes of a payload of which all findings are sought: a larger one may have so many that they fill the memory.
MAX_SEARCHED_BYTES = 16_384

# Without look-around and back-references, patterns are matched in time linear in the text. How
# much of it depends on the pattern: by the bytes that it takes, as many looks for each of the text.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=1_000_000)
_LOOKS_OF_SMALLER_PATTERNS = {10_000: 10, 100_000: 100}
_LOOKS_OF_PATTERN = 1_000
# Of all patterns together: the largest take 3 to 20 ms to compile, in which no other thread runs.
MAX_LOOKS_OF_PATTERNS = 200_000

ARITHMETIC_WORDS = tuple(f'"{word}"' for word in (*schema_costs.ARITHMETIC, "enum", "const", "uniqueItems"))

Finding = dict[str, str]

UNREADABLE: Finding = {
    "pointer": "",
    "code": "unreadable",
    "detail": "The payload cannot be checked: it is nested too deeply, or has a number that is too large.",
}


class InvalidSchema(ValueError):
    """What is wrong with a schema, and where in it: a JSON pointer (RFC 6901)."""

    def __init__(self, pointer: str, words: str) -> None:
        super().__init__(words)
        self.pointer = pointer


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """A schema that is ready to check payloads."""

    validator: jsonschema_rs.Draft202012Validator
    has_choices: bool
    looks: Looks
    ways: Looks  # as many findings there may be: of patterns, one each
    comparisons: Looks | None  # None if no numbers are compared
    has_fractions: bool  # whether integers are compared with what is none, which takes longer
    has_integers: bool  # whether a number may be asked whether it is an integer

    def findings(self, value: Any, *, size: int) -> list[Finding]:
        """Return what is wrong with `value`: a pointer into it, the keyword that says so, and words.

        Of a value with more than MAX_SEARCHED_BYTES of JSON, its `size`, or with very many ways to fail, it is the
        first finding alone. What would take too long is not checked, and that is the finding.
        """
        work = self.looks.work(value, size=size)
        if work is None or work > MAX_WORK or self._compares_too_much(value):
            detail = "The payload cannot be checked: it is too large, or nested too deeply, for this schema."
            return [{"pointer": "", "code": "unreadable", "detail": detail}]
        try:
            if size > MAX_SEARCHED_BYTES or self._may_have_many(value, size=size):
                return self._first_finding(value)
            return [_finding(error) for error in itertools.islice(self.validator.iter_errors(value), MAX_FINDINGS)]
        except (ValueError, RecursionError):
            return [UNREADABLE]

    def _compares_too_much(self, value: Any) -> bool:
        if self.has_integers and (powers := schema_costs.powers_in(value)):
            work = self.looks.work(value, size=powers)
            if work is None or work > MAX_COMPARISONS:
                return True
        if self.comparisons is None:
            return False
        numbers = schema_costs.comparisons_in(value, with_integers=self.has_fractions)
        work = self.comparisons.work(value, size=numbers)
        return work is None or work > MAX_COMPARISONS

    def _may_have_many(self, value: Any, *, size: int) -> bool:
        work = self.ways.work(value, size=size)
        return work is None or work > MAX_SEARCH_WORK

    def _first_finding(self, value: Any) -> list[Finding]:
        if self.validator.is_valid(value):
            return []
        if self.has_choices:  # an error of anyOf holds all the errors of all its branches
            detail = "The payload does not fit the schema, and is too large to say where."
            return [{"pointer": "", "code": "schema", "detail": detail}]
        try:
            self.validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [_finding(error)]
        return []


def compile_schema(value: Any) -> Schema:
    """Return a schema that is ready to check payloads; raise InvalidSchema for what is none.

    References lead within the schema, or to JSON Schema itself, and not in so many ways that a
    check could take long.
    """
    if not isinstance(value, dict):
        raise InvalidSchema("", "A schema is a JSON object.")
    if value.get("$schema", DIALECT) != DIALECT:
        raise InvalidSchema("/$schema", f"Only JSON Schema 2020-12 is understood: {DIALECT}.")
    try:
        looks = schema_costs.count_looks(value, looks_of_pattern=_PatternLooks())
        ways = schema_costs.count_looks(value, looks_of_pattern=lambda pattern: 1)
        comparisons = schema_costs.count_comparisons(value) if _mentions(value, ARITHMETIC_WORDS) else None
        validator = jsonschema_rs.Draft202012Validator(
            value, offline=True, validate_formats=True, pattern_options=_PATTERNS
        )
    except jsonschema_rs.ValidationError as error:
        raise InvalidSchema(_pointer(error), _shortened(error.message)) from None
    except (jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
        raise InvalidSchema("", _shortened(str(error))) from None
    return Schema(
        validator=validator,
        has_choices=_mentions(value, ('"anyOf"', '"oneOf"', "json-schema.org")),
        looks=looks,
        ways=ways,
        comparisons=comparisons,
        has_fractions=_has_fractions(value),
        has_integers=_mentions(value, ('"integer"', "json-schema.org")),
    )


class _PatternLooks:
    """Tells how many looks each pattern of one schema takes; raises CostlySchema if all of them take too many."""

    def __init__(self) -> None:
        self._left = MAX_LOOKS_OF_PATTERNS

    def __call__(self, pattern: str) -> int:
        looks = _looks_of_pattern(pattern)
        self._left -= looks
        if self._left < 0:
            raise CostlySchema("The patterns of the schema are too many, or too large.")
        return looks


@lru_cache(maxsize=1_000)
def _looks_of_pattern(pattern: str) -> int:
    for size, looks in _LOOKS_OF_SMALLER_PATTERNS.items():
        options = jsonschema_rs.RegexOptions(size_limit=size)
        try:
            jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True, pattern_options=options)
        except (jsonschema_rs.ValidationError, ValueError):
            continue
        return looks
    return _LOOKS_OF_PATTERN


def _mentions(schema: dict[str, Any], words: Iterable[str]) -> bool:
    """Say whether one of these words may be in a schema, or in JSON Schema, which it may refer to."""
    text = json.dumps({name: member for name, member in schema.items() if name != "$schema"})
    return any(word in text for word in words)


def _has_fractions(value: Any) -> bool:
    unread = [value]
    while unread:
        each = unread.pop()
        if isinstance(each, float):
            return True
        unread.extend(each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
    return False


def _finding(error: jsonschema_rs.ValidationError) -> Finding:
    return {
        "pointer": _pointer(error)[:MAX_POINTER_LENGTH],
        "code": error.kind.name,
        "detail": _shortened(error.message),
    }


def _pointer(error: jsonschema_rs.ValidationError) -> str:
    return _without_nul(pointer_of(tuple(str(step) for step in error.instance_path)))


def _without_nul(text: str) -> str:
    """Return a text that PostgreSQL can keep as JSON: with a NUL character as JSON escapes it."""
    return text.replace("\0", r"\u0000")


def _shortened(text: str) -> str:
    text = _without_nul(text[: MAX_DETAIL_LENGTH + 1])
    return text if len(text) <= MAX_DETAIL_LENGTH else text[: MAX_DETAIL_LENGTH - 1] + "…"
