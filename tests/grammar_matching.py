"""Whether a text fits a constraint, asked of both engines' grammars: llguidance's own matcher, and a reader of GBNF.

The two must agree: what one engine takes, the other does too.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from pensieve.inference.constraints.constraint import (
    Characters,
    Choice,
    Constraint,
    Lexeme,
    Literal,
    Repeat,
    Rule,
    Sequence,
)
from pensieve.inference.constraints.gbnf import to_gbnf
from pensieve.inference.constraints.lark import to_lark

NUM_BYTES = 256


class _Bytes:
    """A vocabulary of bytes and an end."""

    def __init__(self) -> None:
        self.eos_token_id = NUM_BYTES
        self.bos_token_id = None
        self.tokens = [bytes([value]) for value in range(NUM_BYTES)] + [b"<end>"]
        self.special_token_ids = [NUM_BYTES]

    def __call__(self, text: bytes) -> list[int]:
        """One token a byte."""
        return list(text)


@cache
def byte_tokenizer() -> LLTokenizer:
    """A vocabulary of bytes, as llguidance knows it."""
    return LLTokenizer(TokenizerWrapper(_Bytes()))


def is_accepted(constraint: Constraint, text: str) -> bool:
    """Whether both grammars take the whole text; fails where they differ."""
    answers = Gbnf(to_gbnf(constraint)).matches(text), lark_accepts(constraint, text)
    assert answers[0] == answers[1], f"llama.cpp's grammar says {answers[0]}, llguidance's {answers[1]}: {text!r}"
    return answers[0]


def lark_accepts(constraint: Constraint, text: str) -> bool:
    """Whether llguidance takes the whole text."""
    matcher = LLMatcher(byte_tokenizer(), to_lark(constraint), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


class _Repeated(NamedTuple):
    item: _Node
    at_least: int
    at_most: float


class _Class(NamedTuple):
    ranges: tuple[tuple[str, str], ...]
    is_negated: bool


class _Either(NamedTuple):
    options: tuple[tuple[_Node, ...], ...]


class _Name(NamedTuple):
    name: str


_Node = str | _Repeated | _Class | _Either | _Name

_TOKEN = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|::=|[A-Za-z][\w-]*|[()|*+?]|\{\d+(?:,\d*)?\})|\s*\Z', re.DOTALL
)
_ESCAPE = re.compile(r"\\(x[0-9A-F]{2}|U[0-9A-F]{8})|(.)", re.DOTALL)
_MARKS = {"*": (0, float("inf")), "+": (1, float("inf")), "?": (0, 1)}


class Gbnf:
    """A grammar of llama.cpp's, read and matched by the letter; slow, and independent of our writer."""

    def __init__(self, text: str) -> None:
        self._rules: dict[str, _Either] = {}
        for line in text.splitlines():
            self._tokens = _tokens(line)
            name, is_defined, *self._tokens = self._tokens
            assert is_defined == "::="
            assert name not in self._rules
            self._rules[name] = self._alternatives()
            assert not self._tokens, line
        self._memory: dict[tuple[_Node, int], frozenset[int]] = {}
        self._text = ""

    def matches(self, text: str) -> bool:
        """Whether `root` is the whole text."""
        self._text, self._memory = text, {}
        return len(text) in self._ends(_Name("root"), 0)

    def _alternatives(self) -> _Either:
        options: list[list[_Node]] = [[]]
        while self._tokens and self._tokens[0] != ")":
            token = self._tokens.pop(0)
            if token == "|":
                options.append([])
            else:
                options[-1].append(self._marked(self._unit(token)))
        return _Either(tuple(map(tuple, options)))

    def _unit(self, token: str) -> _Node:
        if token == "(":
            inner = self._alternatives()
            assert self._tokens.pop(0) == ")"
            return inner
        if token[0] == '"':
            return "".join(_letters(token[1:-1]))
        return _class(token[1:-1]) if token[0] == "[" else _Name(token)

    def _marked(self, unit: _Node) -> _Node:
        while self._tokens and self._tokens[0][0] in "*+?{":
            mark = self._tokens.pop(0)
            if mark in _MARKS:
                at_least, at_most = _MARKS[mark]
            else:
                first, comma, last = mark[1:-1].partition(",")
                at_least = int(first)
                at_most = (float(last) if last else float("inf")) if comma else at_least
                assert at_most < 2000, "llama.cpp makes a larger one endless in silence"
            unit = _Repeated(unit, at_least, at_most)
        return unit

    def _ends(self, node: _Node, at: int) -> frozenset[int]:
        key = (node, at)
        if key not in self._memory:
            self._memory[key] = frozenset()  # nothing that stands first in itself adds anything
            self._memory[key] = frozenset(self._find_ends(node, at))
        return self._memory[key]

    def _find_ends(self, node: _Node, at: int) -> set[int]:
        match node:
            case str():
                return {at + len(node)} if self._text.startswith(node, at) else set()
            case _Class():
                return {at + 1} if at < len(self._text) and node.is_negated != _is_in(self._text[at], node) else set()
            case _Name(name):
                return set(self._ends(self._rules[name], at))
            case _Either(options):
                return {end for option in options for end in self._after(option, at)}
        return self._repeated_ends(node, at)

    def _after(self, items: tuple[_Node, ...], at: int) -> set[int]:
        ends = {at}
        for item in items:
            ends = {end for start in ends for end in self._ends(item, start)}
        return ends

    def _repeated_ends(self, node: _Repeated, at: int) -> set[int]:
        found, ends, count = set[int](), {at}, 0
        while ends and count <= node.at_most:
            if count >= node.at_least:
                ends -= found
                found |= ends
            ends = {end for start in ends for end in self._ends(node.item, start)}
            count += 1
        return found


def _tokens(line: str) -> list[str]:
    found, at = list[str](), 0
    while at < len(line):
        match = _TOKEN.match(line, at)
        assert match is not None, f"no GBNF: {line[at:][:40]!r}"
        found += filter(None, match.groups())
        at = match.end()
    return found


def _letters(text: str) -> list[str]:
    return [chr(int(code[1:], 16)) if code else plain for code, plain in _ESCAPE.findall(text)]


def _class(text: str) -> _Class:
    is_negated = text.startswith("^")
    pieces = [
        (chr(int(code[1:], 16)), True) if code else (plain, False) for code, plain in _ESCAPE.findall(text[is_negated:])
    ]
    ranges: list[tuple[str, str]] = []
    while pieces:
        first, _ = pieces.pop(0)
        if len(pieces) > 1 and pieces[0] == ("-", False):
            ranges.append((first, pieces[1][0]))
            pieces = pieces[2:]
        else:
            ranges.append((first, first))
    return _Class(tuple(ranges), is_negated)


def _is_in(character: str, node: _Class) -> bool:
    return any(first <= character <= last for first, last in node.ranges)


def python_pattern(rule: Rule) -> str:
    """A rule without references, as an expression for `re`."""
    match rule:
        case Literal(text):
            return re.escape(text)
        case Characters(ranges):
            return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"
        case Sequence(items):
            return f"(?:{''.join(map(python_pattern, items))})"
        case Choice(options):
            return f"(?:{'|'.join(map(python_pattern, options))})" if options else r"(?!)"
        case Repeat(item, _, at_least, at_most):
            return f"(?:{python_pattern(item)}){{{at_least},{'' if at_most is None else at_most}}}"
        case Lexeme(inner):
            return python_pattern(inner)
    raise AssertionError(f"no lexeme: {rule}")
