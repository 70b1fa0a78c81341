"""Code as it is written, line by line: each line is coloured once. Knows no markup and no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any

from pensieve.cli.chat.drawing.spans import Row, Span, cut, merged

MAX_LINE_CHARACTERS = 2_000
"""A longer line is drawn in pieces."""
_STYLES = (
    ("Token.Comment", "comment"),
    ("Token.Keyword", "keyword"),
    ("Token.Literal.String", "string"),
    ("Token.Literal.Number", "number"),
    ("Token.Name.Function", "name"),
    ("Token.Name.Class", "name"),
    ("Token.Name.Builtin", "builtin"),
    ("Token.Name.Decorator", "builtin"),
    ("Token.Name.Tag", "keyword"),
    ("Token.Name.Attribute", "builtin"),
    ("Token.Generic.Deleted", "deleted"),
    ("Token.Generic.Inserted", "string"),
    ("Token.Generic.Heading", "keyword"),
    ("Token.Operator.Word", "keyword"),
)


class CodeBlock:
    """The lines of one block; what language it is in may be anything."""

    def __init__(self, width: int, language: str = "", indent: int = 0) -> None:
        self._width = width
        self._indent = " " * indent
        self._paint = _painter(language)
        self._line = ""

    def feed(self, text: str) -> list[Row]:
        """Take more of the current line; rows only where the line has become very long."""
        self._line += text
        rows: list[Row] = []
        while len(self._line) > MAX_LINE_CHARACTERS:
            piece, self._line = self._line[:MAX_LINE_CHARACTERS], self._line[MAX_LINE_CHARACTERS:]
            rows.append(self._row(piece))
        return rows

    def end_line(self) -> list[Row]:
        """The line that is complete now; longer ones are left to the terminal to wrap, so that they copy whole."""
        line, self._line = self._line, ""
        return [self._row(line)]

    def tail(self) -> list[Row]:
        """The line that is not complete, without colour, in pieces as wide as the screen."""
        line = Span(self._indent + self._line.replace("\t", "    "), "plain")
        return [(piece,) for piece in cut(line, max(self._width, 8))]

    def _row(self, line: str) -> Row:
        return merged((Span(self._indent), *self._paint(line.replace("\t", "    "))))


def _painter(language: str) -> Callable[[str], Iterable[Span]]:
    """Gives the spans of one line after the other."""
    lexer = _lexer(language.lower())
    if lexer is None:
        return lambda line: (Span(line, "plain"),)
    from pygments.lexer import LexerContext  # noqa: PLC0415 - slow to import, and needed for code only

    stack = ["root"]

    def paint(line: str) -> Iterable[Span]:
        context = LexerContext(f"{line}\n", 0, stack)
        tokens = _tokens(lexer, context)
        stack[:] = context.stack or ["root"]
        if "".join(text for _, _, text in tokens) != f"{line}\n":
            return (Span(line, "plain"),)  # a lexer may colour code, not change it
        return [Span(text.rstrip("\n"), _style(str(kind))) for _, kind, text in tokens]

    return paint


def _tokens(lexer: Any, context: Any) -> list[tuple[int, Any, str]]:
    """The tokens of the next line; the context keeps what is open at its end, such as a string."""
    from pygments.lexer import ExtendedRegexLexer, RegexLexer  # noqa: PLC0415 - as above

    if isinstance(lexer, RegexLexer) and not isinstance(lexer, ExtendedRegexLexer):
        try:
            # The one that takes and gives back a context works on the tables of any.
            return list(ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=context))
        except TypeError:
            context.stack = ["root"]  # a lexer with callbacks of its own: each line for itself
    return list(lexer.get_tokens_unprocessed(context.text))


@cache
def _aliases() -> dict[str, str]:
    from pygments.lexers import get_all_lexers  # noqa: PLC0415 - as above

    return {alias: aliases[0] for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases}


@lru_cache(maxsize=32)
def _lexer(language: str) -> Any:
    if not language or language in {"text", "plain", "txt"} or language not in _aliases():
        return None
    from pygments.lexers import get_lexer_by_name  # noqa: PLC0415 - as above

    return get_lexer_by_name(_aliases()[language])


@cache
def _style(kind: str) -> str:
    return next((style for beginning, style in _STYLES if kind.startswith(beginning)), "plain")
