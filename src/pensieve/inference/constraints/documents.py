"""JSON documents as rules: objects, lists, and any document at all. Knows no schema keyword and no engine.

White space is at most one space behind `:` and `,`, so that no model can lose itself in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from pensieve.inference.constraints.constraint import (
    NOTHING,
    Choice,
    Lexeme,
    Literal,
    Reference,
    Repeat,
    Rule,
    choice,
    optional,
    sequence,
)
from pensieve.inference.constraints.numbers import ANY_NUMBER
from pensieve.inference.constraints.texts import ANY_STRING, quoted

SPACE: Final = optional(Literal(" "))
COMMA: Final = sequence(Literal(","), SPACE)
COLON: Final = sequence(Literal(":"), SPACE)
BOOLEAN: Final = choice(Literal("true"), Literal("false"))
NULL: Final = Literal("null")

ANY_DEPTH: Final = 6
"""How deep a document goes whose form nothing says."""

ANY_STRING_NAME: Final = "any string"
ANY_NUMBER_NAME: Final = "any number"

Define = Callable[[Rule], Rule]
"""Gives a rule a name; what comes back stands for it."""


class Member(msgspec.Struct, frozen=True):
    """A named property of an object."""

    name: str
    value: Rule
    is_required: bool


def any_name(depth: int = ANY_DEPTH) -> str:
    """The definition of any document of that depth."""
    return f"any {depth}"


def any_definitions() -> dict[str, Rule]:
    """What `any_name` and the other names stand for."""
    definitions: dict[str, Rule] = {ANY_STRING_NAME: Lexeme(ANY_STRING.rule), ANY_NUMBER_NAME: ANY_NUMBER}
    scalar = choice(Reference(ANY_STRING_NAME), Reference(ANY_NUMBER_NAME), BOOLEAN, NULL)
    definitions[any_name(0)] = scalar
    for depth in range(1, ANY_DEPTH + 1):
        inner = Reference(any_name(depth - 1))
        entry = sequence(Reference(ANY_STRING_NAME), COLON, inner)
        definitions[any_name(depth)] = choice(scalar, list_of((), inner, 0, None), map_of(entry, 0, None))
    return definitions


def list_of(first: Sequence[Rule], rest: Rule | None, at_least: int, at_most: int | None) -> Rule:
    """A list that begins with `first` and goes on with `rest`; None: it does not go on."""
    first = first[:at_most]
    more = _more_items(rest, max(0, at_least - len(first)), None if at_most is None else at_most - len(first))
    if not first:
        bare = NOTHING if rest is None else Repeat(rest, COMMA, at_least, at_most)
        return sequence(Literal("["), bare, Literal("]"))
    inside: Rule = more
    for place in range(len(first) - 1, -1, -1):
        item = sequence(COMMA if place else NOTHING, first[place], inside)
        inside = item if place < at_least else optional(item)
    return sequence(Literal("["), inside, Literal("]"))


def _more_items(rest: Rule | None, at_least: int, at_most: int | None) -> Rule:
    if rest is None or at_most == 0:
        return NOTHING
    return Repeat(sequence(COMMA, rest), at_least=at_least, at_most=at_most)


def map_of(entry: Rule, at_least: int, at_most: int | None) -> Rule:
    """An object of such entries."""
    return sequence(Literal("{"), Repeat(entry, COMMA, at_least, at_most), Literal("}"))


def object_of(members: Sequence[Member], extra: Rule | None, define: Define, *, may_be_empty: bool = True) -> Rule:
    """An object with its members in this order, those that are not required left out or not, then extra entries."""
    written = [sequence(Literal(quoted(member.name)), COLON, member.value) for member in members]
    num_firsts = next((place + 1 for place, member in enumerate(members) if member.is_required), len(members))
    if num_firsts > 1:  # whatever comes first, the rest is the same: written once
        written = [define(rule) for rule in written]
    further = [sequence(COMMA, rule) for rule in written]
    further = [rule if member.is_required else optional(rule) for rule, member in zip(further, members, strict=True)]
    rests = _endings(further, define) if num_firsts > 1 else [NOTHING, sequence(*further[1:])]
    tail: Rule = NOTHING if extra is None else Repeat(sequence(COMMA, extra))
    options: list[Rule] = [sequence(written[place], rests[place + 1], tail) for place in range(num_firsts)]
    if extra is not None and not any(member.is_required for member in members):
        options.append(sequence(extra, tail))
    # Names differ, so that nothing repeats: to look for it would take longer than all else.
    inside: Rule = NOTHING if not options else options[0] if len(options) == 1 else Choice(tuple(options))
    if options and may_be_empty and not any(member.is_required for member in members):
        inside = optional(inside)
    return sequence(Literal("{"), inside, Literal("}"))


def _endings(rules: Sequence[Rule], define: Define) -> list[Rule]:
    """What is left of a sequence from each of its places on, its end included; halves that stand in each other, since
    engines follow definitions within definitions on their stack.
    """
    if len(rules) == 1:
        return [rules[0], NOTHING]
    middle = len(rules) // 2
    second = _endings(rules[middle:], define)
    whole = define(second[0])
    return [*(sequence(ending, whole) for ending in _endings(rules[:middle], define)[:-1]), *second]
