"""Foreign text on its way to a terminal. Knows no command and no setting."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HIDDEN = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """The text without control characters (newline and tab stay), bidirectional overrides and lone surrogates.

    Works character by character, so a stream may be cleaned in any pieces.
    """
    return _SURROGATE.sub("\ufffd", _UNPRINTABLE.sub("", text))


def printable_json(document: bytes) -> str:
    """The same JSON with what `printable` leaves out, which can only stand in its strings, written as escapes."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", document.decode(errors="replace"))


def one_line(text: str) -> str:
    """The text made printable, on a single line."""
    return " ".join(printable(text).split())
