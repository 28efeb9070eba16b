"""Content filters: JSON conditions over an event. Does it meet them, and if not, which not? All pure.

The syntax is that of Hookdeck's filters, which Outpost has too; docs/filters.md has it in full.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from subscriptions import jsonb
from subscriptions.filter_operators import OPERATORS, equal, quote

MAX_BYTES = 8_192
MAX_DEPTH = 20
MAX_CONDITIONS = 100

# Values and conditions that are looked at for one event: some hundredths of a second.
MAX_STEPS = 50_000

# So many characters in which a text is looked for take as long as a step, if somebody has chosen both so.
CHARACTERS_PER_STEP = 200

# What of an event a filter can look at.
FIELDS = ("event_type", "tenant", "body")

Path = tuple[str, ...]


class InvalidFilter(ValueError):
    """What is wrong with a filter, and where in it: a JSON pointer (RFC 6901)."""

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(words)
        self.pointer = pointer_of(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmet:
    """A clause that an event does not meet: where it is in the filter, and why not, in words."""

    pointer: str
    detail: str


# Says which clause is not met. Most such words are never read: another of the conditions or of the items is met,
# and the names in a pointer may have 8 KB each.
Telling = Callable[[], Unmet]


def check(value: Any) -> None:
    """Raise InvalidFilter unless `value` is a filter: an object of conditions; `{}` is met by every event."""
    if not isinstance(value, dict):
        raise InvalidFilter((), "A filter is a JSON object.")
    for path, text in _texts(value, ()):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidFilter(path, "A filter has no NUL character and no lone surrogate in it.")
    if _size(value) > MAX_BYTES:
        raise InvalidFilter((), f"A filter has at most {MAX_BYTES} bytes of JSON, with its numbers written out.")
    if sum(1 for _ in _check_all(value, (), is_root=True)) > MAX_CONDITIONS:
        raise InvalidFilter((), f"A filter has at most {MAX_CONDITIONS} conditions.")


def document(*, event_type: str, tenant: str, payload: bytes) -> dict[str, Any]:
    """Return an event as filters see it, with the numbers of its body read exactly.

    A body that cannot be read (an integer of thousands of digits) is left out, so that it
    meets no condition.
    """
    fields: dict[str, Any] = {"event_type": event_type, "tenant": tenant}
    try:
        fields["body"] = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return fields
    return fields


def explain(conditions: Mapping[str, Any] | None, event: Any) -> Unmet | None:
    """Return the first clause that `event`, a document, does not meet; None if it meets them all.

    After MAX_STEPS it is given up, and counts as not met: no filter can keep a process busy.
    """
    try:
        tell = _Match(steps_left=MAX_STEPS).unmet(conditions, event, (), ()) if conditions else None
    except _TooManySteps:
        return Unmet(pointer="", detail="The event is too large to be compared with so many conditions.")
    return None if tell is None else tell()


def pointer_of(path: Path) -> str:
    """Return the JSON pointer (RFC 6901) of the member that `path` leads to."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


# --- Matching ----------------------------------------------------------------------------


class _TooManySteps(Exception):
    """The filter has looked at all that it may."""


@dataclass(slots=True)
class _Match:
    """One event and one filter: what may still be looked at."""

    steps_left: int

    def unmet(self, condition: Any, value: Any, path: Path, place: Path) -> Telling | None:
        """Compare `value`, which is at `place` in the event, with the condition at `path` in the filter."""
        self._step()
        if not isinstance(condition, dict):
            is_met = self._is_met_by(condition, value)
            return None if is_met else lambda: _refuse(path, place, f"be {quote(condition)}", value)
        if isinstance(value, list) and any(not name.startswith("$") for name in condition):
            return self._no_item_meets(condition, value, path, place)
        for name, operand in condition.items():
            if (tell := self._clause_unmet(name, operand, value, (*path, name), place)) is not None:
                return tell
        return None

    def _step(self, count: int = 1) -> None:
        self.steps_left -= count
        if self.steps_left < 0:
            raise _TooManySteps

    def _clause_unmet(self, name: str, operand: Any, value: Any, path: Path, place: Path) -> Telling | None:
        match name:
            case "$and":
                return self._all_unmet(operand, value, path, place)
            case "$or":
                if any(self.unmet(each, value, path, place) is None for each in operand):
                    return None
                detail = f"None of the {len(operand)} conditions of $or is met."
                return lambda: Unmet(pointer=pointer_of(path), detail=detail)
            case "$not":
                if self.unmet(operand, value, path, place) is not None:
                    return None
                return lambda: Unmet(pointer=pointer_of(path), detail="The condition of $not is met.")
            case "$exist":
                if (value is not msgspec.UNSET) == operand:
                    return None
                return lambda: _refuse(path, place, "exist" if operand else "not exist", value)
        if name in OPERATORS:
            return self._operator_unmet(name, operand, value, path, place)
        member = value.get(name, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
        return self.unmet(operand, member, path, (*place, name))

    def _operator_unmet(self, name: str, operand: Any, value: Any, path: Path, place: Path) -> Telling | None:
        # An operator looks at each item of a list, and at all that is in its operand.
        self._step(max(len(value) if isinstance(value, list) else 1, _values_in(operand)))
        if name in ("$in", "$nin") and isinstance(value, str) and isinstance(operand, str):
            self._step(len(value) // CHARACTERS_PER_STEP)
        operator = OPERATORS[name]
        if value is not msgspec.UNSET and operator.is_met(value, operand):
            return None
        return lambda: _refuse(path, place, f"{operator.words} {quote(operand)}", value)

    def _all_unmet(self, conditions: Sequence[Any], value: Any, path: Path, place: Path) -> Telling | None:
        for index, each in enumerate(conditions):
            if (tell := self.unmet(each, value, (*path, str(index)), place)) is not None:
                return tell
        return None

    def _no_item_meets(self, condition: Any, items: list[Any], path: Path, place: Path) -> Telling | None:
        """Ask for one object among the items of an array that meets the whole condition."""
        for item in items:
            self._step()
            if isinstance(item, dict) and self.unmet(condition, item, path, place) is None:
                return None
        return lambda: Unmet(
            pointer=pointer_of(path), detail=f"No item of {pointer_of(place)} meets the condition."
        )

    def _is_met_by(self, condition: Any, value: Any) -> bool:
        """Compare with a bare value: equal, or contained in an array; a list asks for each of its items."""
        if isinstance(condition, list):
            return isinstance(value, list) and all(self._contains(value, item) for item in condition)
        return self._contains(value, condition) if isinstance(value, list) else equal(value, condition)

    def _contains(self, items: list[Any], condition: Any) -> bool:
        for item in items:
            self._step()
            if isinstance(condition, dict):
                if self.unmet(condition, item, (), ()) is None:
                    return True
            elif equal(item, condition):
                return True
        return False


def _values_in(operand: Any) -> int:
    """Return how many values an operand has in it; one if it is a value by itself."""
    if isinstance(operand, dict | list):
        return max(sum(map(_values_in, operand.values() if isinstance(operand, dict) else operand)), 1)
    return 1


def _refuse(path: Path, place: Path, words: str, value: Any) -> Unmet:
    found = "is missing" if value is msgspec.UNSET else f"is {quote(value)}"
    where = pointer_of(place) or "The event"
    return Unmet(pointer=pointer_of(path), detail=f"{where} should {words}, and {found}.")


# --- Checking ----------------------------------------------------------------------------


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield every text and name in a filter with its place; raise InvalidFilter if it is too deep."""
    if len(path) > MAX_DEPTH:
        raise InvalidFilter(path, f"A filter is at most {MAX_DEPTH} levels deep.")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, str(index)))
    elif isinstance(value, dict):
        for name, member in value.items():
            yield path, name
            yield from _texts(member, (*path, name))


def _size(value: Any) -> int:
    try:
        return jsonb.size_of(value, allow_nan=False)
    except ValueError:  # NaN, infinity, an integer of thousands of digits
        raise InvalidFilter((), "A filter has a number in it that is too large, or none.") from None


def _check_all(condition: Any, path: Path, *, is_root: bool = False) -> Iterator[Path]:
    """Yield the place of each condition; raise InvalidFilter at the first that is none."""
    if isinstance(condition, list):
        for index, item in enumerate(condition):
            yield from _check_all(item, (*path, str(index)))
    elif isinstance(condition, dict):
        if not condition and path:
            raise InvalidFilter(path, "There is no condition here.")
        _check_names(condition, path, is_root=is_root)
        for name, operand in condition.items():
            yield from _check_clause(name, operand, (*path, name), is_root=is_root)
    else:
        yield path


def _check_names(condition: dict[str, Any], path: Path, *, is_root: bool) -> None:
    compared = [name for name in condition if name in OPERATORS or name == "$exist"]
    members = [name for name in condition if not name.startswith("$")]
    if is_root and (strange := [*compared, *(name for name in members if name not in FIELDS)]):
        raise InvalidFilter((*path, strange[0]), f"A filter begins with {', '.join(FIELDS)}, $and, $or or $not.")
    if compared and members:
        raise InvalidFilter((*path, members[0]), f"A member cannot stand beside {compared[0]}.")


def _check_clause(name: str, operand: Any, path: Path, *, is_root: bool) -> Iterator[Path]:
    if name in ("$and", "$or"):
        if not isinstance(operand, list) or not operand:
            raise InvalidFilter(path, f"{name} takes a list of conditions.")
        for index, each in enumerate(operand):
            yield from _check_nested(each, (*path, str(index)), is_root=is_root)
    elif name == "$not":
        yield from _check_nested(operand, path, is_root=is_root)
    elif name in OPERATORS or name == "$exist":
        _check_operand(name, operand, path)
        yield path
    elif name.startswith("$"):
        raise InvalidFilter(path, f"There is no operator {quote(name)}.")
    else:
        yield from _check_all(operand, path)


def _check_nested(condition: Any, path: Path, *, is_root: bool) -> Iterator[Path]:
    if is_root and not isinstance(condition, dict):
        raise InvalidFilter(path, "A condition on an event is an object.")
    yield from _check_all(condition, path, is_root=is_root)


def _check_operand(name: str, operand: Any, path: Path) -> None:
    if name == "$exist":
        if not isinstance(operand, bool):
            raise InvalidFilter(path, "$exist takes true or false.")
        return
    operator = OPERATORS[name]
    if not operator.takes(operand):
        raise InvalidFilter(path, f"{name} takes {operator.taken}.")


def _read_fraction(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal has
        return float(text)


_decoder = msgspec.json.Decoder(float_hook=_read_fraction)
