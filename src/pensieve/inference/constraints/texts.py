"""Characters and texts as rules: one character of a JSON string, one of many texts, any text but some.

Values in, values out: knows no schema and no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pensieve.inference.constraints.constraint import (
    ANY_CHARACTER,
    NOTHING,
    Characters,
    Choice,
    Lexeme,
    Literal,
    Repeat,
    Rule,
    choice,
    sequence,
)
from pensieve.inference.constraints.constraint import Sequence as Rules

Ranges = Sequence[tuple[int, int]]

MOST_BRANCHES: Final = 48
"""Texts are written as a tree to this depth, and side by side below it."""

KEY_CHARACTERS: Final = 64
"""The longest name of a property that a schema does not name."""

_ESCAPED: Final = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
_NO_CHARACTERS: Final = ((0xD800, 0xDFFF),)
_HEX: Final = Characters(((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)))
_BELOW_SURROGATES: Final = Characters(((0x30, 0x39), (0x41, 0x43), (0x45, 0x46), (0x61, 0x63), (0x65, 0x66)))
_NO_SURROGATE: Final = choice(
    sequence(_BELOW_SURROGATES, _HEX, _HEX, _HEX),
    sequence(Characters(((0x44, 0x44), (0x64, 0x64))), Characters(((0x30, 0x37),)), _HEX, _HEX),
)


def characters(ranges: Iterable[tuple[int, int]]) -> Characters:
    """One character of these ranges, in any order and overlapping as they may be."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(each for each in ranges if each[0] <= each[1]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return Characters(tuple(merged))


def without(ranges: Ranges, taken: Ranges) -> tuple[tuple[int, int], ...]:
    """What is in `ranges` and not in `taken`."""
    left = list(ranges)
    for first, last in taken:
        left = [
            piece
            for start, end in left
            for piece in ((start, min(end, first - 1)), (max(start, last + 1), end))
            if piece[0] <= piece[1]
        ]
    return characters(left).ranges


def complement(ranges: Ranges) -> tuple[tuple[int, int], ...]:
    """Every character that is not in `ranges`."""
    return without(ANY_CHARACTER.ranges, ranges)


def in_string(ranges: Ranges) -> Rule:
    """One of these characters as it stands in a JSON string."""
    plain = without(ranges, (*_ESCAPED, *_NO_CHARACTERS))
    outside = without(ranges, plain)
    escapes = [chr(code) for first, last in without(outside, _NO_CHARACTERS) for code in range(first, last + 1)]
    written = [Literal(quoted(character)[1:-1]) for character in escapes]
    return choice(*([Characters(plain)] if plain else []), *written)


def quoted(text: str) -> str:
    """The text as a JSON string."""
    return msgspec.json.encode(text).decode()


ANY_IN_STRING: Final = choice(
    Characters(complement(_ESCAPED)),
    sequence(
        Literal("\\"),
        choice(characters((ord(letter), ord(letter)) for letter in '"\\/bfnrt'), sequence(Literal("u"), _NO_SURROGATE)),
    ),
)
"""Any character of a JSON string, with the escapes that models may write."""

ANY_STRING: Final = Lexeme(sequence(Literal('"'), Repeat(ANY_IN_STRING), Literal('"')))
_KEY_RANGES: Final = complement(_ESCAPED)


def one_of(texts: Iterable[str], depth: int = 0) -> Rule:
    """One of these texts; what they begin with in common is written once."""
    different = sorted(set(texts))
    if len(different) <= 2 or depth > MOST_BRANCHES:
        return choice(*map(Literal, different))
    groups: dict[str, list[str]] = {}
    for text in different:
        groups.setdefault(text[:1], []).append(text)
    options: list[Rule] = []
    for group in groups.values():
        common = _beginning(group[0], group[-1])
        rest = [text[len(common) :] for text in group]
        options.append(sequence(Literal(common), one_of(rest, depth + 1)))
    return choice(*options)


def _beginning(first: str, last: str) -> str:
    """What two texts begin with in common."""
    size = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:size] if size is not None else min(first, last, key=len)


def key_other_than(names: Iterable[str]) -> Rule:
    """A property's name in quotes that is none of these. Names that JSON would escape are never among what it makes."""
    taken = {name for name in names if len(name) <= KEY_CHARACTERS and quoted(name) == f'"{name}"'}
    return Lexeme(sequence(Literal('"'), _other_than(frozenset(taken), KEY_CHARACTERS), Literal('"')))


def _other_than(taken: frozenset[str], most: int) -> Rule:
    """At most so many characters that together are none of these texts."""
    if not taken:
        return Repeat(Characters(_KEY_RANGES), at_most=most)
    if most == 0:
        return Choice(()) if "" in taken else NOTHING
    firsts = sorted({text[0] for text in taken if text})
    others = without(_KEY_RANGES, [(ord(first), ord(first)) for first in firsts])
    options: list[Rule] = [] if "" in taken else [NOTHING]
    options.append(Rules((Characters(others), Repeat(Characters(_KEY_RANGES), at_most=most - 1))))
    for first in firsts:
        rest = _other_than(frozenset(text[1:] for text in taken if text[:1] == first), most - 1)
        if rest != Choice(()):
            options.append(Rules((Literal(first), rest)))
    return Choice(tuple(options))
