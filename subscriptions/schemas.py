"""JSON Schema (2020-12): is this a schema, and what does it find wrong with a payload? All pure.

The only module that knows jsonschema-rs. Nothing is ever fetched, and no pattern backtracks.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from subscriptions.filters import pointer_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What is told of one payload, and of one finding.
MAX_FINDINGS = 20
MAX_DETAIL_LENGTH = 200

# Without look-around and back-references, patterns are matched in time linear in the text.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=1_000_000)

Finding = dict[str, str]


class InvalidSchema(ValueError):
    """What is wrong with a schema, and where in it: a JSON pointer (RFC 6901)."""

    def __init__(self, pointer: str, words: str) -> None:
        super().__init__(words)
        self.pointer = pointer


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """A schema that is ready to check payloads."""

    validator: jsonschema_rs.Draft202012Validator

    def findings(self, value: Any) -> list[Finding]:
        """Return what is wrong with `value`: a pointer into it, the keyword that says so, and words."""
        try:
            return [_finding(error) for error in itertools.islice(self.validator.iter_errors(value), MAX_FINDINGS)]
        except (ValueError, RecursionError):
            detail = "The payload cannot be checked: it is nested too deeply, or has a number that is too large."
            return [{"pointer": "", "code": "unreadable", "detail": detail}]


def compile_schema(value: Any) -> Schema:
    """Return a schema that is ready to check payloads; raise InvalidSchema for what is none.

    References lead within the schema, or to the vocabularies of JSON Schema itself.
    """
    if not isinstance(value, dict):
        raise InvalidSchema("", "A schema is a JSON object.")
    if value.get("$schema", DIALECT) != DIALECT:
        raise InvalidSchema("/$schema", f"Only JSON Schema 2020-12 is understood: {DIALECT}.")
    try:
        validator = jsonschema_rs.Draft202012Validator(
            value, offline=True, validate_formats=True, pattern_options=_PATTERNS
        )
    except jsonschema_rs.ValidationError as error:
        raise InvalidSchema(_pointer(error), _shortened(error.message)) from None
    except (jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
        raise InvalidSchema("", _shortened(str(error))) from None
    return Schema(validator=validator)


def _finding(error: jsonschema_rs.ValidationError) -> Finding:
    return {"pointer": _pointer(error), "code": error.kind.name, "detail": _shortened(error.message)}


def _pointer(error: jsonschema_rs.ValidationError) -> str:
    return pointer_of(tuple(str(step) for step in error.instance_path))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_LENGTH else text[: MAX_DETAIL_LENGTH - 1] + "…"
