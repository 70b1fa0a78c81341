"""What an answer must look like, as frozen values of a small grammar.

Knows no engine, no request and no JSON schema: `plan` makes these, `lark` writes them down.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from pensieve.messages import Json

MAX_CODE_POINT = 0x10FFFF


class Literal(msgspec.Struct, frozen=True):
    """This very text; empty: nothing. Markers of the vocabulary may stand in it."""

    text: str


class Characters(msgspec.Struct, frozen=True):
    """One character out of these ranges of code points: sorted, apart from each other, ends included."""

    ranges: tuple[tuple[int, int], ...]


class Sequence(msgspec.Struct, frozen=True):
    """One after the other."""

    items: tuple[Rule, ...]


class Choice(msgspec.Struct, frozen=True):
    """One of these; none of them: nothing can be said."""

    options: tuple[Rule, ...]


class Repeat(msgspec.Struct, frozen=True):
    """The item so many times, `separator` between two of them; `at_most` None: without end."""

    item: Rule
    separator: Rule = Literal("")
    at_least: int = 0
    at_most: int | None = None


class Reference(msgspec.Struct, frozen=True):
    """The rule of that name among the constraint's definitions."""

    name: str


class Lexeme(msgspec.Struct, frozen=True):
    """A rule without references, which llguidance's lexer reads in one go: a string, a number."""

    rule: Rule


class FreeText(msgspec.Struct, frozen=True):
    """Any text up to the first `closer`, and the closer itself."""

    closer: str


class JsonOf(msgspec.Struct, frozen=True):
    """A JSON document that obeys the schema; `path` says where the request has it. Lowering replaces it."""

    schema: Json
    path: str


Rule = Literal | Characters | Sequence | Choice | Repeat | Reference | Lexeme | FreeText | JsonOf


class Constraint(msgspec.Struct, frozen=True):
    """What an answer must look like, after whatever thinking comes first.

    Without triggers the rule holds from the first character. With triggers text is free until one of them has been
    written; the rule tells everything from there to the end of the answer, the trigger itself included.
    """

    rule: Rule
    triggers: tuple[str, ...] = ()
    definitions: Mapping[str, Rule] = MappingProxyType({})


NOT_KEPT: Final = "the answer could not be kept within its schema, which became too complex: make the schema simpler"
"""What a user is told when an engine fails at a constraint in the middle of an answer."""

NOTHING = Literal("")
NEVER = Choice(())
ANY_CHARACTER = Characters(((0, 0xD7FF), (0xE000, MAX_CODE_POINT)))


def optional(rule: Rule) -> Rule:
    """The rule or nothing."""
    return Repeat(rule, at_most=1)


def sequence(*items: Rule) -> Rule:
    """One after the other, as few values as can be: neighbouring literals are joined."""
    flat: list[Rule] = []
    for item in items:
        for part in item.items if isinstance(item, Sequence) else (item,):
            if isinstance(part, Literal) and flat and isinstance(before := flat[-1], Literal):
                flat[-1] = Literal(before.text + part.text)
            elif part != NOTHING:
                flat.append(part)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat)) if flat else NOTHING


def choice(*options: Rule) -> Rule:
    """One of these, as few values as can be: choices within are opened, what repeats is left out."""
    unique: list[Rule] = []
    for option in options:
        for one in option.options if isinstance(option, Choice) else (option,):
            if one not in unique:
                unique.append(one)
    return unique[0] if len(unique) == 1 else Choice(tuple(unique))
