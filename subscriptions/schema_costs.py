"""How often a JSON Schema has one part of a payload looked at, which bounds the time a check takes. All pure.

A schema that leads to the same place in several ways, through references or through itself, may
double that with each step. Nothing is expanded here: each schema is counted once for each depth
of a payload, from what it leads to.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

# How often one part of a payload may be looked at, and that times the bytes of a payload. A look
# takes some 10 ns, and a payload has a value for every other byte at most.
MAX_LOOKS = 10_000
MAX_WORK = 200_000_000
# To look for all findings takes 10 µs and some memory for each.
MAX_SEARCH_WORK = 200_000

# So many schemas in a schema take a second to count.
MAX_SCHEMAS = 5_000

# Payloads that are nested less deeply than this can be checked with every schema that is taken.
LEAST_DEPTH = 12
# More deeply nested ones are not read by jsonschema-rs.
MOST_DEPTH = 255

# Of enum, required, properties and the like, so many entries count like one look; but a list or an
# object that a value may be equal to counts like so many looks itself.
ENTRIES_PER_LOOK = 10
LOOKS_PER_CHOICE = 10

# Numbers are compared as exact fractions, in 1 or 2 µs, and much longer if they have many digits: 1e-5000 in 1 ms.
# Small integers are compared in no time, except with fractions.
MAX_COMPARISONS = 1_000_000
MOST_DIGITS = 20_000
DIGITS_OF_INTEGERS = 20
DIGITS_OF_POWERS = 50
# Keywords that compare numbers, and as how many comparisons each counts: the values of short lists are
# compared with each other.
ARITHMETIC = {"multipleOf": 2, "maximum": 1, "minimum": 1, "exclusiveMaximum": 1, "exclusiveMinimum": 1}
COMPARISONS_OF_UNIQUE = 5

# JSON Schema itself, as a schema: it leads to each part of a payload once, with so many keywords.
VOCABULARIES = "https://json-schema.org/draft/2020-12/"
LOOKS_OF_VOCABULARIES = 60

# Keywords whose value is a schema, several, or several by name: for the same value as the schema
# they are in, for one each of the values in it, or for all of these.
SAME_VALUE = ("not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas")
ONE_EACH = ("properties", "prefixItems", "items", "additionalProperties")
ALL_OF_THEM = ("patternProperties", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
REFERENCES = ("$ref", "$dynamicRef")
BY_NAME = ("properties", "patternProperties", "dependentSchemas")
# To know what is left over, jsonschema-rs looks at the other keywords again.
LEFT_OVER_TIMES = 3
LEFT_OVER = ("unevaluatedItems", "unevaluatedProperties")

# Places in the list of nodes.
_ANYTHING, _VOCABULARY, _ROOT = range(3)


class CostlySchema(ValueError):
    """A schema that would take too long, or of which that cannot be told; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """How often one part of a payload is looked at, by the depth of the payload, and at most."""

    by_depth: tuple[int, ...]
    is_whole: bool  # whether a payload that is deeper yet is looked at no more often

    def work(self, value: Any, *, size: int) -> int | None:
        """Return how much work it is to check a value with JSON of `size` bytes; None for no end of it."""
        if self.is_whole and size * self.by_depth[-1] <= MAX_SEARCH_WORK:
            return size * self.by_depth[-1]
        depth = depth_of(value)
        if depth >= len(self.by_depth) and not self.is_whole:
            return None
        return size * self.by_depth[min(depth, len(self.by_depth) - 1)]


@dataclass(kw_only=True, slots=True)
class _Node:
    """One schema: what a look at it costs, and which others it leads to."""

    weight: int
    times: int = 1  # how often those for the same value are looked at
    same_value: list[int] = field(default_factory=list)
    one_each: list[int] = field(default_factory=list)
    all_of_them: list[int] = field(default_factory=list)


def count_looks(schema: dict[str, Any], *, looks_of_pattern: Callable[[str], int]) -> Looks:
    """Count how often a schema has a value looked at; raise CostlySchema if that is far too often.

    The schema need not be a valid one. References lead within it, or to JSON Schema itself.
    """
    return _count(schema, lambda each: _weight_of(each, looks_of_pattern))


def count_comparisons(schema: dict[str, Any]) -> Looks:
    """Count how often a schema has a number compared, and one for each look; raise as `count_looks` does."""
    return _count(schema, lambda each: 1 + comparisons_of(each))


def _count(schema: dict[str, Any], weight_of: Callable[[dict[str, Any]], int]) -> Looks:
    nodes = _Graph(schema, weight_of).nodes
    before = {number: node.same_value for number, node in enumerate(nodes)}
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:
        raise CostlySchema("A reference leads back to where it came from, for the same value.") from None
    most = 0
    by_depth: list[int] = []
    for looks in _by_depth(nodes, order):
        most = max(most, looks)
        if most > MAX_LOOKS and len(by_depth) < LEAST_DEPTH:
            raise CostlySchema(
                f"A value may be looked at more than {MAX_LOOKS} times: too many ways lead to the same schemas, "
                "or its patterns are too large."
            )
        if most > MAX_LOOKS:
            return Looks(by_depth=tuple(by_depth), is_whole=False)
        by_depth.append(most)
    return Looks(by_depth=tuple(by_depth), is_whole=True)


def _by_depth(nodes: list[_Node], order: list[int]) -> Iterator[int]:
    """Yield how often a value is looked at that is so deep in the payload, until that repeats itself."""
    known: set[tuple[int, ...]] = set()
    looks = _looks(nodes, order, above=None)
    while looks[_ROOT] and tuple(looks) not in known and len(known) <= MOST_DEPTH:
        yield looks[_ROOT]
        known.add(tuple(looks))
        looks = _looks(nodes, order, above=looks)


def _looks(nodes: list[_Node], order: list[int], *, above: list[int] | None) -> list[int]:
    """Return for each schema how often it has a value looked at, one step deeper than `above`."""
    looks = [0] * len(nodes)
    for number in order:
        node = nodes[number]
        found = node.times * sum(looks[other] for other in node.same_value)
        if above is None or number == _VOCABULARY:
            found += node.weight
        if above is not None:
            found += max((above[other] for other in node.one_each), default=0)
            found += sum(above[other] for other in node.all_of_them)
        looks[number] = min(found, MAX_LOOKS + 1)
    return looks


class _Graph:
    """The schemas that a schema leads to, each once."""

    def __init__(self, root: dict[str, Any], weight_of: Callable[[dict[str, Any]], int]) -> None:
        self._root = root
        self._weight_of = weight_of
        self._base = urldefrag(_text(root.get("$id"))).url
        if self._base.startswith(VOCABULARIES):
            raise CostlySchema("The $id is that of JSON Schema itself.")
        self._anchors = _anchors_of(root)
        self.nodes = [_Node(weight=1), _Node(weight=LOOKS_OF_VOCABULARIES)]
        self._numbers: dict[int, int] = {}
        self._unread: deque[dict[str, Any]] = deque()
        self._number_of(root)
        while self._unread:
            self._read(self._unread.popleft())

    def _number_of(self, schema: Any) -> int:
        if not isinstance(schema, dict):
            return _ANYTHING
        if len(self.nodes) > MAX_SCHEMAS:
            raise CostlySchema(f"The schema has more than {MAX_SCHEMAS} schemas in it.")
        number = self._numbers.setdefault(id(schema), len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(_Node(weight=self._weight_of(schema)))
            self._unread.append(schema)
        return number

    def _read(self, schema: dict[str, Any]) -> None:
        node = self.nodes[self._numbers[id(schema)]]
        node.same_value = self._numbers_in(schema, SAME_VALUE)
        for keyword in REFERENCES:
            if isinstance(schema.get(keyword), str):
                node.same_value += self._referred(schema[keyword])
        node.one_each = self._numbers_in(schema, ONE_EACH)
        node.all_of_them = self._numbers_in(schema, ALL_OF_THEM)
        node.times = LEFT_OVER_TIMES if any(keyword in schema for keyword in LEFT_OVER) else 1

    def _numbers_in(self, schema: dict[str, Any], keywords: Iterable[str]) -> list[int]:
        return [
            self._number_of(each)
            for keyword in keywords
            if keyword in schema
            for each in _schemas_in(keyword, schema[keyword])
        ]

    def _referred(self, reference: str) -> list[int]:
        url, fragment = urldefrag(urljoin(self._base, reference))
        if url.startswith(VOCABULARIES):
            return [_VOCABULARY]
        if url not in ("", self._base):
            raise CostlySchema(f"The reference {reference} leads out of the schema.")
        fragment = unquote(fragment)
        found = self._anchors.get(fragment, []) if fragment and fragment[0] != "/" else [self._at(fragment)]
        if not found or found == [None]:
            raise CostlySchema(f"The reference {reference} leads to what does not exist.")
        return [self._number_of(each) for each in found]

    def _at(self, pointer: str) -> Any:
        """Return what a JSON pointer (RFC 6901) leads to, None if there is nothing."""
        place: Any = self._root
        for step in pointer.split("/")[1:]:
            try:
                place = place[int(step)] if isinstance(place, list) else place[_unescaped(step)]
            except (LookupError, TypeError, ValueError):
                return None
        return place


def _weight_of(schema: dict[str, Any], looks_of_pattern: Callable[[str], int]) -> int:
    entries = sum(len(value) for value in schema.values() if isinstance(value, list | dict))
    choices = [each for each in _list(schema.get("enum")) if isinstance(each, list | dict)]
    patterns = [schema.get("pattern"), *_dict(schema.get("patternProperties"))]
    looks_of_patterns = sum(looks_of_pattern(each) for each in patterns if isinstance(each, str))
    return 1 + entries // ENTRIES_PER_LOOK + LOOKS_PER_CHOICE * len(choices) + looks_of_patterns


def comparisons_of(schema: dict[str, Any]) -> int:
    """Return how often a schema by itself has a number compared."""
    found = sum(times * comparisons_in(schema.get(keyword)) for keyword, times in ARITHMETIC.items())
    choices = [*_list(schema.get("enum")), schema.get("const")]
    found += sum(1 if isinstance(each, list | dict) else comparisons_in(each) for each in choices)
    return found + COMPARISONS_OF_UNIQUE * (schema.get("uniqueItems") is True)


def comparisons_in(value: Any, *, with_integers: bool = True) -> int:
    """Return as how many comparisons the numbers in a JSON value count, each compared once."""
    found, unread = 0, [value]
    while unread:
        each = unread.pop()
        if isinstance(each, list | dict):
            unread.extend(_values_of(each))
        elif isinstance(each, int | float | Decimal) and not isinstance(each, bool):
            digits = _digits_of(each)
            is_plain = isinstance(each, int) and digits < DIGITS_OF_INTEGERS
            found += int(with_integers) if is_plain else 1 + _more_comparisons(digits)
    return found


def powers_in(value: Any) -> int:
    """Return as how many comparisons the numbers in a JSON value count that have an exponent of many digits.

    To find out whether one is an integer takes as long as to compare it: 5 ms for 1e-9000.
    """
    found, unread = 0, [value]
    while unread:
        each = unread.pop()
        if isinstance(each, list | dict):
            unread.extend(_values_of(each))
        elif isinstance(each, Decimal) and (digits := abs(each.adjusted())) > DIGITS_OF_POWERS:
            found += _more_comparisons(min(digits, MOST_DIGITS))
    return found


def _more_comparisons(digits: int) -> int:
    """Return by how many comparisons of small numbers one takes longer of a number with so many digits."""
    return digits // 10 + digits * digits // 6_000


def _digits_of(number: int | float | Decimal) -> int:
    """Return how many decimal digits a number has without an exponent, roughly; of very many, MOST_DIGITS."""
    if isinstance(number, Decimal):
        _, digits, exponent = number.as_tuple()
        return min(len(digits) + abs(exponent if isinstance(exponent, int) else 0), MOST_DIGITS)
    bits = number.bit_length() if isinstance(number, int) else abs(math.frexp(number)[1])
    return min(bits * 3 // 10, MOST_DIGITS)


def _schemas_in(keyword: str, value: Any) -> Iterable[Any]:
    if isinstance(value, list):
        return value
    return value.values() if keyword in BY_NAME and isinstance(value, dict) else [value]


def _anchors_of(root: dict[str, Any]) -> dict[str, list[Any]]:
    """Return all that has a name, by it; raise CostlySchema for what would change what a reference means."""
    anchors: dict[str, list[Any]] = {}
    unread: deque[Any] = deque([root])
    while unread:
        place = unread.popleft()
        if isinstance(place, dict):
            if place is not root and isinstance(place.get("$id"), str):
                raise CostlySchema("Only the schema as a whole may have an $id.")
            if place.get("$dynamicAnchor") == "meta":
                raise CostlySchema("The anchor meta is that of JSON Schema itself.")
            for name in {_text(place.get("$anchor")), _text(place.get("$dynamicAnchor"))} - {""}:
                anchors.setdefault(name, []).append(place)
        unread.extend(place.values() if isinstance(place, dict) else place if isinstance(place, list) else ())
    return anchors


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


def depth_of(value: Any) -> int:
    """Return how many lists and objects the innermost of a JSON value is in."""
    depth, within = 0, [value]
    while within := [inner for outer in within if isinstance(outer, list | dict) for inner in _values_of(outer)]:
        depth += 1
    return depth


def _values_of(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
