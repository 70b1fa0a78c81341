"""What styles look like: names to the codes that terminals know. Knows no markup and no screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from pensieve.cli.chat.drawing.spans import Row

RESET = "\x1b[0m"
_SHAPES = {"bold": "1", "italic": "3", "struck": "9", "heading": "1", "heading1": "1;4", "dim": "2", "thinking": "2;3"}
_SHAPES |= {"quote": "3", "link": "4", "comment": "2", "error": "1", "warning": "1", "tool": "1", "prompt": "1"}

_ANSI = _SHAPES | {
    "code": "36", "heading": "1;35", "heading1": "1;4;35", "bullet": "33", "link": "4;34", "comment": "2;3",
    "keyword": "35", "string": "32", "number": "33", "name": "34", "builtin": "36", "deleted": "31",
    "error": "1;31", "warning": "1;33", "tool": "1;36", "prompt": "1;32", "good": "32", "bad": "1;31",
}  # fmt: skip
_DARK = _ANSI | {
    "code": "38;5;216", "heading": "1;38;5;111", "heading1": "1;4;38;5;111", "bullet": "38;5;180", "link": "4;38;5;75",
    "comment": "3;38;5;102", "keyword": "38;5;176", "string": "38;5;114", "number": "38;5;180", "name": "38;5;75",
    "builtin": "38;5;80", "prompt": "1;38;5;114",
}  # fmt: skip
_LIGHT = _ANSI | {
    "code": "38;5;88", "heading": "1;38;5;25", "heading1": "1;4;38;5;25", "bullet": "38;5;94", "link": "4;38;5;25",
    "comment": "3;38;5;102", "keyword": "38;5;90", "string": "38;5;28", "number": "38;5;94", "name": "38;5;25",
    "builtin": "38;5;30", "prompt": "1;38;5;28", "warning": "1;38;5;130", "good": "38;5;28",
}  # fmt: skip


class Theme(msgspec.Struct, frozen=True, dict=True):
    """Codes for styles; a style without one is plain."""

    name: str
    codes: Mapping[str, str]

    def paint(self, row: Row) -> str:
        """The row as a terminal reads it, with every style ended."""
        return "".join(self._painted(span.text, span.style) for span in row)

    def _painted(self, text: str, style: str) -> str:
        if not style or not text:
            return text
        opening = self._openings.get(style)
        if opening is None:
            codes = ";".join(self.codes[name] for name in style.split() if name in self.codes)
            opening = self._openings[style] = f"\x1b[{codes}m" if codes else ""
        return f"{opening}{text}{RESET}" if opening else text

    @cached_property
    def _openings(self) -> dict[str, str]:
        return {}


THEMES: Mapping[str, Theme] = {
    theme.name: theme
    for theme in (
        Theme("terminal", _ANSI),
        Theme("dark", _DARK),
        Theme("light", _LIGHT),
        Theme("mono", _SHAPES),
        Theme("none", {}),
    )
}
"""`terminal` uses the colours that the person gave their terminal; `mono` none, only bold and the like."""


def plain(rows: Iterable[Row]) -> str:
    """The rows as text."""
    return "\n".join("".join(span.text for span in row) for row in rows)
