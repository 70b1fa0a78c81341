"""A constraint as text that llguidance takes for a grammar (a dialect of Lark). Does not import llguidance.

Lexemes become terminals, which its lexer reads in one go. Markers of the vocabulary become token ids, since a special
token is no text to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from pensieve.errors import InvalidRequest
from pensieve.inference.constraints.constraint import (
    NOTHING,
    Characters,
    Choice,
    Constraint,
    FreeText,
    JsonOf,
    Lexeme,
    Literal,
    Reference,
    Repeat,
    Rule,
    Sequence,
)
from pensieve.inference.constraints.lowering import lowered

_PIECES: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\s"{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
"""A quoted text, a mark of JSON or a space, or a run of anything else."""


def to_lark(constraint: Constraint, markers: Mapping[str, int] | None = None) -> str:
    """The grammar; `markers` are texts that the vocabulary has a token of its own for, with that token's id."""
    try:
        return _Writer(lowered(constraint), markers or {}).text()
    except RecursionError:
        raise InvalidRequest("the schemas of this request stand too deep in each other: make them flatter") from None


class _Writer:
    def __init__(self, constraint: Constraint, markers: Mapping[str, int]) -> None:
        self._constraint = constraint
        self._markers = markers
        self._marker = re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True)))) if markers else None
        self._names = {name: f"d{index}" for index, name in enumerate(constraint.definitions)}
        self._terminals: dict[str, str] = {}
        self._lazy: list[str] = []

    def text(self) -> str:
        rules = [f"start: {self._expression(self._constraint.rule)}"]
        rules += [
            f"{self._names[name]}: {self._expression(rule)}" for name, rule in self._constraint.definitions.items()
        ]
        rules += self._lazy
        return "\n".join([*rules, *(f"{name}: {right}" for right, name in self._terminals.items())]) + "\n"

    def _expression(self, rule: Rule) -> str:
        match rule:
            case Literal(text):
                return self._literal(text)
            case Sequence(items):
                return f"({' '.join(filter(None, map(self._expression, items)))})"
            case Choice(options):
                return f"({' | '.join(map(self._expression, options))})"
            case Repeat(item, separator, at_least, at_most):
                return self._repeat(self._expression(item), separator, at_least, at_most)
            case Reference(name):
                return self._names[name]
            case Lexeme(inner):
                return self._terminal(f"/{_regex(inner)}/")
            case Characters():
                return self._terminal(f"/{_regex(rule)}/")
            case FreeText(closer):
                return self._free_text(closer)
            case JsonOf():
                raise AssertionError("schemas are lowered before they are written")

    def _repeat(self, item: str, separator: Rule, at_least: int, at_most: int | None) -> str:
        if at_most == 0:
            return '""'
        if separator == NOTHING:
            return f"({item}){_count(at_least, at_most)}"
        more = ""
        if at_most != 1:
            following = _count(max(0, at_least - 1), None if at_most is None else at_most - 1)
            more = f"({self._expression(separator)} {item}){following}"
        return f"({item} {more})" if at_least else f"({item} {more})?"

    def _literal(self, text: str) -> str:
        pieces, start = [], 0
        for found in self._marker.finditer(text) if self._marker is not None else ():
            pieces += _apart(text[start : found.start()])
            pieces.append(f"<[{self._markers[found[0]]}]>")
            start = found.end()
        pieces += _apart(text[start:])
        return pieces[0] if len(pieces) == 1 else f"({' '.join(pieces)})" if pieces else '""'

    def _free_text(self, closer: str) -> str:
        name = f"f{len(self._lazy)}"
        self._lazy.append(f"{name}[lazy]: /(?s:.*){_quoted(closer)}/")
        return name

    def _terminal(self, right: str) -> str:
        return self._terminals.setdefault(right, f"T{len(self._terminals)}")


def _apart(text: str) -> list[str]:
    """Text in pieces that the lexer cannot confuse: it takes the longest that fits, and never a shorter one later, so
    none may begin with another that could go on differently, as `{"a":` does with `{`.
    """
    return [json.dumps(piece) for piece in _PIECES.findall(text)]


def _count(at_least: int, at_most: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?", (1, 1): ""}
    mark = known.get((at_least, at_most))
    return mark if mark is not None else f"{{{at_least},{'' if at_most is None else at_most}}}"


def _regex(rule: Rule) -> str:
    match rule:
        case Literal(text):
            return f"(?:{_quoted(text)})"
        case Characters(ranges):
            return f"[{''.join(f'{_code(first)}-{_code(last)}' for first, last in ranges)}]"
        case Sequence(items):
            return f"(?:{''.join(map(_regex, items))})"
        case Choice(options):
            return f"(?:{'|'.join(map(_regex, options))})"
        case Repeat(item, _, at_least, at_most):
            return f"(?:{_regex(item)}){_count(at_least, at_most)}"
        case Lexeme(inner):
            return _regex(inner)
    raise AssertionError("a lexeme is made of characters alone")


def _quoted(text: str) -> str:
    return "".join(
        character if character.isascii() and character.isalnum() else _code(ord(character)) for character in text
    )


def _code(code: int) -> str:
    """A character in a regular expression, safe within any class."""
    return f"\\x{{{code:X}}}"
