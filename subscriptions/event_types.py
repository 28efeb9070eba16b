"""Does a subscription take an event type? Names, wildcards and the match, all pure."""

import re
from collections.abc import Sequence

MAX_LENGTH = 128
RULE = "An event type has letters, digits, _ and -, in segments joined by dots."
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

# The same for JSON Schema (ECMA-262): what names an event type, and what a subscription may take.
NAME_PATTERN = f"^{_NAME.pattern}$"
TAKEN_PATTERN = rf"^(\*|{_NAME.pattern}(\.\*)?)$"


def is_event_type(text: str) -> bool:
    """Return whether `text` names an event type: segments of letters, digits, `_`, `-`, joined by dots."""
    return len(text) <= MAX_LENGTH and _NAME.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Return whether `text` is an event type, `*`, or a trailing wildcard such as `invoice.*`."""
    return text == "*" or is_event_type(text.removesuffix(".*"))


def accepts(patterns: Sequence[str], event_type: str) -> bool:
    """Return whether one of `patterns` takes `event_type`; none at all takes every one.

    `invoice.*` takes everything below `invoice.` (`invoice.paid`, `invoice.item.added`)
    and not `invoice` itself.
    """
    if not patterns:
        return True
    return any(_matches(pattern, event_type) for pattern in patterns)


def patterns_taking(event_type: str) -> list[str]:
    """Return every pattern that takes `event_type`: itself, `*`, and the wildcards above it."""
    segments = event_type.split(".")
    wildcards = [".".join([*segments[:length], "*"]) for length in range(len(segments))]
    return [event_type, *wildcards]


def in_words(patterns: Sequence[str], *, most: int) -> str:
    """Return patterns for people to read: the first `most` of them, and how many more there are."""
    more = len(patterns) - most
    return ", ".join(patterns[:most]) + (f" and {more} more" if more > 0 else "")


def _matches(pattern: str, event_type: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type
