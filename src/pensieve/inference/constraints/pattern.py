"""Regular expressions as JSON schemas have them (ECMA-262), read into rules over plain characters.

What has no place in a rule (look-around, back references, word boundaries, anchors in the middle) is refused by name.
Values in, values out: knows no schema and no engine.
"""

from __future__ import annotations

from typing import Final

from pensieve.inference.constraints.constraint import (
    ANY_CHARACTER,
    NOTHING,
    Characters,
    Choice,
    Literal,
    Repeat,
    Rule,
    Sequence,
    choice,
    sequence,
)
from pensieve.inference.constraints.texts import characters, complement

MAX_CHARACTERS: Final = 2_000
MAX_NESTING: Final = 24
MAX_REPEATS: Final = 10_000
MAX_PLACES: Final = 20_000
"""Characters of the expression once its repetitions are written out, which is what a lexer does."""

_DIGITS: Final = ((0x30, 0x39),)
_WORD: Final = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final = (
    *((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_LINE_ENDS: Final = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_CLASSES: Final = {
    "d": _DIGITS,
    "D": complement(_DIGITS),
    "w": _WORD,
    "W": complement(_WORD),
    "s": _SPACE,
    "S": complement(_SPACE),
}
_CONTROLS: Final = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "0": 0x00}
_HEX_DIGITS: Final = {"x": 2, "u": 4}
_ANYTHING: Final = Repeat(ANY_CHARACTER)
_MARKS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Unreadable(Exception):
    """The expression uses something that cannot be obeyed, or is none; says what."""


def pattern_rule(pattern: str) -> Rule:
    """What a text that the expression is found in looks like. Raises `Unreadable`."""
    if len(pattern) > MAX_CHARACTERS:
        raise Unreadable(f"it has more than {MAX_CHARACTERS:,} characters")
    return _Reader(pattern).whole()


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def whole(self) -> Rule:
        """The expression, and anything around those of its alternatives that are not anchored."""
        rule = self._alternatives(is_outermost=True)
        if self._at < len(self._pattern):
            raise Unreadable("a `)` without its `(`")
        if _num_places(rule) > MAX_PLACES:
            raise Unreadable(f"repetitions of more than {MAX_PLACES:,} characters in all")
        return rule

    def _alternatives(self, *, is_outermost: bool) -> Rule:
        options = [self._alternative(is_outermost=is_outermost)]
        while self._take("|"):
            options.append(self._alternative(is_outermost=is_outermost))
        return choice(*options)

    def _alternative(self, *, is_outermost: bool) -> Rule:
        start = self._at
        if is_outermost and (hoisted := self._lone_group()) is not None:
            return hoisted
        self._at = start
        is_begun = is_outermost and self._take("^")
        items: list[Rule] = []
        while self._next not in {"", "|", ")"}:
            if self._next == "$" and is_outermost and self._pattern[self._at + 1 : self._at + 2] in {"", "|", ")"}:
                break
            items.append(self._repeated(self._atom()))
        is_ended = is_outermost and self._take("$")
        if not is_outermost:
            return sequence(*items)
        return sequence(NOTHING if is_begun else _ANYTHING, *items, NOTHING if is_ended else _ANYTHING)

    def _lone_group(self) -> Rule | None:
        """An alternative that is one group and nothing else, whose own alternatives may be anchored; None if not."""
        if not self._opens_group():
            return None
        with _Deeper(self):
            inner = self._alternatives(is_outermost=True)
        if not self._take(")"):
            raise Unreadable("a `(` without its `)`")
        return inner if self._next in {"", "|", ")"} else None

    def _opens_group(self) -> bool:
        if not self._take("("):
            return False
        if self._take("?"):
            if self._take(":"):
                return True
            named = self._pattern[self._at : self._at + 2]
            if named[:1] == "<" and named[1:] not in {"=", "!", ""}:
                self._at = self._pattern.find(">", self._at) + 1
                if self._at:
                    return True
            raise Unreadable("look-around and flags, such as `(?=`")
        return True

    def _atom(self) -> Rule:
        if self._opens_group():
            with _Deeper(self):
                inner = self._alternatives(is_outermost=False)
            if not self._take(")"):
                raise Unreadable("a `(` without its `)`")
            return inner
        character = self._take_any()
        match character:
            case ".":
                return Characters(complement(_LINE_ENDS))
            case "[":
                return self._class()
            case "\\":
                return characters(self._escape(is_in_class=False))
            case "^" | "$":
                raise Unreadable(f"an anchor `{character}` that is not at the end of the expression")
            case "*" | "+" | "?":
                raise Unreadable(f"a `{character}` that repeats nothing")
        return Literal(character)

    def _repeated(self, atom: Rule) -> Rule:
        if self._next in _MARKS:
            at_least, at_most = _MARKS[self._take_any()]
        elif self._next == "{" and (bounds := self._bounds()) is not None:
            at_least, at_most = bounds
        else:
            return atom
        self._take("?")  # a lazy mark finds the same texts
        if self._next in _MARKS:
            raise Unreadable(f"a `{self._next}` that repeats nothing")
        return Repeat(atom, at_least=at_least, at_most=at_most)

    def _bounds(self) -> tuple[int, int | None] | None:
        """`{2}`, `{2,}` or `{2,5}`; None: these braces are text."""
        inside, brace, _ = self._pattern[self._at + 1 : self._at + 16].partition("}")
        first, comma, last = inside.partition(",")
        if not brace or not _is_number(first) or not (last == "" or _is_number(last)):
            return None
        self._at += len(inside) + 2
        at_least = int(first)
        at_most = (int(last) if last else None) if comma else at_least
        if max(at_least, at_most or 0) > MAX_REPEATS:
            raise Unreadable(f"a repetition of more than {MAX_REPEATS:,}")
        if at_most is not None and at_most < at_least:
            raise Unreadable("a repetition whose bounds are in the wrong order")
        return at_least, at_most

    def _class(self) -> Rule:
        is_negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            if not self._next:
                raise Unreadable("a `[` without its `]`")
            first = self._member()
            if self._next == "-" and self._pattern[self._at + 1 : self._at + 2] not in {"]", ""} and _is_one(first):
                self._at += 1
                last = self._member()
                if not _is_one(last) or last[0][0] < first[0][0]:
                    raise Unreadable("a range of characters in the wrong order")
                first = [(first[0][0], last[0][0])]
            ranges += first
        known = characters(ranges).ranges
        members = complement(known) if is_negated else known
        if not members:
            raise Unreadable("a class without any character")
        return Characters(members)

    def _member(self) -> list[tuple[int, int]]:
        character = self._take_any()
        if character == "\\":
            return list(self._escape(is_in_class=True))
        return [(ord(character), ord(character))]

    def _escape(self, *, is_in_class: bool) -> tuple[tuple[int, int], ...]:
        letter = self._take_any()
        if letter in _CLASSES:
            return tuple(_CLASSES[letter])
        if letter == "b" and is_in_class:
            return ((8, 8),)
        if letter in _HEX_DIGITS:
            code = self._code(letter)
        elif letter == "0" and self._next.isdecimal():
            raise Unreadable("an octal escape")
        elif letter in _CONTROLS:
            code = _CONTROLS[letter]
        elif letter.isalnum() or letter == "":
            raise Unreadable(f"the escape `\\{letter}`")
        else:
            code = ord(letter)
        return ((code, code),)

    def _code(self, letter: str) -> int:
        if letter == "u" and self._take("{"):
            digits, _, _ = self._pattern[self._at : self._at + 8].partition("}")
            self._at += len(digits) + 1
        else:
            digits = self._pattern[self._at : self._at + _HEX_DIGITS[letter]]
            self._at += len(digits)
            if len(digits) != _HEX_DIGITS[letter]:
                raise Unreadable(f"an unfinished `\\{letter}`")
        try:
            code = int(digits, 16)
        except ValueError:
            raise Unreadable(f"a `\\{letter}` without a number") from None
        if not any(first <= code <= last for first, last in ANY_CHARACTER.ranges):
            raise Unreadable("half of a surrogate pair")
        return code

    @property
    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        is_there = self._next == character
        self._at += is_there
        return is_there

    def _take_any(self) -> str:
        character = self._next
        self._at += 1
        return character

    def enter(self) -> None:
        """Another level of groups."""
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise Unreadable(f"more than {MAX_NESTING} groups in each other")

    def leave(self) -> None:
        """And back."""
        self._depth -= 1


class _Deeper:
    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        self._reader.enter()

    def __exit__(self, *_: object) -> None:
        self._reader.leave()


def _num_places(rule: Rule) -> int:
    match rule:
        case Literal(text):
            return len(text)
        case Sequence(items) | Choice(items):
            return sum(map(_num_places, items))
        case Repeat(item, _, at_least, at_most):
            return _num_places(item) * max(1, at_least, at_most or 0)
    return 1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_one(ranges: list[tuple[int, int]]) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
