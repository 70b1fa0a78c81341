"""Markup within a line (bold, italics, code, links) as spans, while the line is still being written.

What has begun and not ended is held back for a while, so that what was drawn once stays. In whatever pieces a line
comes, the spans are the same. Knows no width.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pensieve.cli.chat.drawing.spans import Span

PATIENCE_CHARACTERS = 300
"""An opening mark without its end after so much text is only a character."""

_MARK = re.compile(r"\\.?|`+|\*{1,3}|_{1,3}|~~|!?\[|https?://[^\s<>\"')\]*`]{0,250}")
_CODE = re.compile(r"(`+)(?!`)(.{1,300}?(?<!`)\1(?!`))?")
"""A whole run of backticks, and what it ends with if its end is there; asked for where a run begins."""
_HIDDEN = re.compile(rf"\\.|{_CODE.pattern}")
"""What can hold no mark: an escaped character, code."""
_PARTIAL = re.compile(r"(?:!|h(?:t(?:t(?:ps?(?::/?)?)?)?)?)\Z")
"""An end that may become a mark."""
_LINK = re.compile(
    r"!?\[([^\[\]]{0,300})\]\(\s*<?([^\s<>()]{0,300}(?:\([^\s<>()]{0,300}\))?[^\s<>()]{0,300})>?(?:\s+\"[^\"]{0,300}\")?\s*\)"
)
_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_STYLES = {"*": "italic", "_": "italic", "**": "bold", "__": "bold", "***": "bold italic", "___": "bold italic"}
_STYLES["~~"] = "struck"


class _Found(NamedTuple):
    """What a mark turned out to be, and where it ends."""

    spans: list[Span]
    end: int


def resolve(source: str, style: str = "", *, before: str = " ", is_complete: bool = False) -> tuple[list[Span], int]:
    """What can be said for certain of the source: spans, and how many characters of it they stand for.

    `before` is the character that stands before the source.
    """
    spans: list[Span] = []
    masked = _HIDDEN.sub(_mask, source)
    position = 0
    for mark in _MARK.finditer(source):
        if mark.start() < position:
            continue
        found = _understand(source, masked, mark, style, before)
        spans.append(Span(source[position : mark.start()], style))
        position = mark.start()
        is_open = found is None or found.end == len(source)
        if is_open and not is_complete and len(source) - position <= PATIENCE_CHARACTERS:
            return [span for span in spans if span.text], position
        if found is None or found.end - position > PATIENCE_CHARACTERS:
            found = _Found([Span(mark[0], style)], mark.end())
        spans += found.spans
        position = found.end
    partial = None if is_complete else _PARTIAL.search(source, max(position, len(source) - 7))
    end = len(source) if partial is None else partial.start()
    spans.append(Span(source[position:end], style))
    return [span for span in spans if span.text], end


def preview(pending: str, style: str = "") -> list[Span]:
    """How the part that was held back looks meanwhile: as if its mark were closed now."""
    mark = _MARK.match(pending)
    if mark is None:
        return resolve(pending, style, is_complete=True)[0]
    token, inner = mark[0], pending[mark.end() :]
    if not inner:
        return [Span(token, style)] if token.startswith("http") else []
    if token.startswith("`"):
        return [Span(inner.rstrip("`"), _with(style, "code"))]
    if token in _STYLES:
        return resolve(inner.rstrip("*_~"), _with(style, _STYLES[token]), is_complete=True)[0]
    return resolve(pending, style, is_complete=True)[0]


def _mask(hidden: re.Match[str]) -> str:
    is_code_or_escape = hidden[2] is not None or hidden[0].startswith("\\")
    return "\x00" * len(hidden[0]) if is_code_or_escape else hidden[0]


def _with(style: str, more: str) -> str:
    return f"{style} {more}".lstrip()


def _understand(source: str, masked: str, mark: re.Match[str], style: str, before: str) -> _Found | None:
    """What the mark is; None: its end is missing."""
    token, start, end = mark[0], mark.start(), mark.end()
    match token[0]:
        case "\\":
            return _escape(token, end, style)
        case "`":
            return _code(source, mark, style)
        case "[" | "!":
            return _link(source, mark, style)
        case "h":
            return _Found([Span(token, _with(style, "link"))], end)
        case _:
            return _emphasis(source, masked, mark, style, source[start - 1] if start else before)


def _escape(token: str, end: int, style: str) -> _Found | None:
    if len(token) == 1:
        return None
    return _Found([Span(token[1] if token[1] in _PUNCTUATION else token, style)], end)


def _code(source: str, mark: re.Match[str], style: str) -> _Found | None:
    found = _CODE.match(source, mark.start())
    if found is None or found[2] is None:
        return None
    code = found[0].strip("`")
    if len(code) > 2 and code[0] == code[-1] == " " and code.strip():
        code = code[1:-1]
    return _Found([Span(code, _with(style, "code"))], found.end())


def _link(source: str, mark: re.Match[str], style: str) -> _Found | None:
    found = _LINK.match(source, mark.start())
    if found is not None:
        text, address = found[1], found[2]
        shown = resolve(text or address, _with(style, "link"), is_complete=True)[0]
        # The address is always told: a text may claim to be another one.
        told = [] if text in ("", address) else [Span(f" ({address})", _with(style, "dim"))]
        return _Found(shown + told, found.end())
    close = source.find("]", mark.end())
    could_still = close < 0 or close == len(source) - 1 or (source[close + 1] == "(" and ")" not in source[close:])
    return None if could_still else _Found([Span(mark[0], style)], mark.end())


def _emphasis(source: str, masked: str, mark: re.Match[str], style: str, before: str) -> _Found | None:
    token, end = mark[0], mark.end()
    if end == len(source):
        return None
    can_open = not source[end].isspace() and not (token[0] == "_" and before.isalnum())
    if not can_open or token not in _STYLES:
        return _Found([Span(token, style)], end)
    close = _closing(masked, token, end)
    if close < 0 or "`" in masked[end:close]:
        return None
    inner = resolve(source[end:close], _with(style, _STYLES[token]), is_complete=True)[0]
    return _Found(inner, close + len(token))


def _closing(masked: str, token: str, start: int) -> int:
    """Where the mark that ends this one stands; -1: not yet."""
    place = masked.find(token, start + 1)
    while place >= 0:
        after = masked[place + len(token) : place + len(token) + 1]
        is_longer_run = after == token[0] or (len(token) == 1 and masked[place - 1] == token)
        is_within_word = token[0] == "_" and after.isalnum()
        if not (masked[place - 1].isspace() or is_longer_run or is_within_word):
            return place
        place = masked.find(token, place + 1)
    return -1
