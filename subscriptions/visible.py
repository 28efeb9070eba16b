"""Make text of strangers harmless to look at: what hides or reorders text is spelled out. Pure."""

import json
import re

# Control characters but tab and line ends, soft hyphen, fillers and other invisible ones (Default_Ignorable in
# Unicode), bidirectional controls (UAX 9), line separators of Unicode, lone surrogates, tags. Not the joiners and
# the first selectors of variants, which emoji and several scripts need.
_TREACHEROUS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""Return `text` with each character that hides or reorders others as its JSON escape, such as \u202e."""
    return _TREACHEROUS.sub(lambda match: json.dumps(match[0])[1:-1], text)


# Django writes what is in a field's attributes and text without < and >.
_FIELD_OR_TREACHEROUS = re.compile(
    rf"(?P<field><input\b[^>]*>|<textarea\b[^>]*>[^<]*</textarea>)|{_TREACHEROUS.pattern}"
)


def visible_page(page: str) -> str:
    """Return a page of HTML with its text visible; what is in fields stays, because it may be sent back."""
    return _FIELD_OR_TREACHEROUS.sub(lambda match: match["field"] or visible(match[0]), page)
