"""A constraint as text that llama.cpp takes for a grammar (GBNF).

llama.cpp makes a rule of each repetition and takes at most 2,000 of them, a longer one without end in silence: what
repeats often is written here as doubled rules instead. Knows no request.
"""

from __future__ import annotations

from functools import cache
from typing import Final

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
    sequence,
)
from pensieve.inference.constraints.lowering import lowered

MOST_REPEATED: Final = 1000
"""A repetition of more than this is written by doubling, which leaves llama.cpp more ways to follow at a time."""


def to_gbnf(constraint: Constraint) -> str:
    """The grammar; its root is the whole rule."""
    return _Writer(lowered(constraint)).text()


class _Writer:
    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._names = {name: f"d{index}" for index, name in enumerate(constraint.definitions)}
        self._rules: dict[str, str] = {}
        self._known: dict[tuple[str, str], str] = {}
        """What stands on the right of a made rule -> its name, so that equal ones are written once."""

    def text(self) -> str:
        root = self._expression(self._constraint.rule)
        for name, rule in self._constraint.definitions.items():
            self._rules[self._names[name]] = self._expression(rule)
        lines = [f"root ::= {root}", *(f"{name} ::= {right}" for name, right in self._rules.items())]
        return "\n".join(lines) + "\n"

    def _expression(self, rule: Rule) -> str:
        """The rule as one unit: something a repetition mark could follow."""
        match rule:
            case Literal(text):
                return f'"{"".join(_escaped(character, _IN_QUOTES) for character in text)}"'
            case Characters(ranges):
                return f"[{''.join(_range(*each) for each in ranges)}]"
            case Sequence(items):
                return f"({' '.join(self._expression(item) for item in items)})" if items else '""'
            case Choice(options):
                return f"({' | '.join(self._expression(option) for option in options)})"
            case Repeat():
                return self._repeat(rule)
            case Reference(name):
                return self._names[name]
            case Lexeme(inner):
                return self._expression(inner)
            case FreeText(closer):
                return self._free_text(closer)
            case JsonOf():
                raise AssertionError("schemas are lowered before they are written")

    # Repetitions.

    def _repeat(self, repeat: Repeat) -> str:
        item, at_least, at_most = repeat.item, repeat.at_least, repeat.at_most
        if at_most == 0:
            return '""'
        if repeat.separator == NOTHING:
            return self._plain_repeat(self._unit(item), at_least, at_most)
        more = self._unit(sequence(repeat.separator, item))
        rest = self._plain_repeat(more, max(0, at_least - 1), None if at_most is None else at_most - 1)
        whole = f"({self._unit(item)} {rest})"
        return f"({whole})?" if at_least == 0 else whole

    def _plain_repeat(self, unit: str, at_least: int, at_most: int | None) -> str:
        if at_most is None:
            return f"{unit}*" if at_least == 0 else f"({self._exactly(unit, at_least)} {unit}*)"
        if at_most <= MOST_REPEATED:
            return f"{unit}{{{at_least},{at_most}}}"
        more = self._up_to(unit, at_most - at_least)
        return f"({self._exactly(unit, at_least)} {more})" if at_least else more

    @cache  # noqa: B019 - a writer lives for one grammar
    def _exactly(self, unit: str, count: int) -> str:
        if count <= MOST_REPEATED:
            return f"{unit}{{{count}}}"
        half = self._named("n", self._exactly(unit, count // 2))
        return f"({half} {half} {unit})" if count % 2 else f"({half} {half})"

    @cache  # noqa: B019
    def _up_to(self, unit: str, count: int) -> str:
        """At most so many: without a doubt at any place about how many are still to come, or there would be as many
        ways to read a text as there are to split it.
        """
        if count <= MOST_REPEATED:
            return f"{unit}{{0,{count}}}"
        half = count // 2
        rest = self._named("u", self._up_to(unit, count - half - 1))
        few = self._named("u", self._up_to(unit, half))
        return f"({self._named('n', self._exactly(unit, half + 1))} {rest} | {few})"

    # Free text.

    def _free_text(self, closer: str) -> str:
        """Text up to `closer`: a rule for each of its beginnings that may have been written last."""
        names = [*(self._reserve("f") for _ in closer), '""']
        letters = "".join(sorted(set(closer)))
        for size, name in enumerate(names[:-1]):
            ways: dict[str, str] = {}
            for letter in letters:
                following = names[_overlap(closer, closer[:size] + letter)]
                ways[following] = ways.get(following, "") + _escaped(letter, _IN_CLASS)
            others = "".join(_escaped(letter, _IN_CLASS) for letter in letters)
            options = [f"[{written}] {following}" for following, written in ways.items()]
            self._rules[name] = " | ".join([*options, f"[^{others}] {names[0]}"])
        return names[0]

    # Names.

    def _unit(self, rule: Rule) -> str:
        """The rule under a name, unless it is as short as one."""
        written = self._expression(rule)
        return written if isinstance(rule, Reference | Literal) else self._named("r", written)

    def _named(self, kind: str, written: str) -> str:
        known = self._known.get((kind, written))
        if known is None:
            known = self._reserve(kind)
            self._known[kind, written] = known
            self._rules[known] = written
        return known

    def _reserve(self, kind: str) -> str:
        name = f"{kind}{len(self._rules)}"
        self._rules[name] = ""
        return name


_IN_QUOTES: Final = '"\\'
_IN_CLASS: Final = "[]^-\\"


def _escaped(character: str, special: str) -> str:
    code = ord(character)
    if character in special or not 0x20 <= code < 0x7F:
        return f"\\x{code:02X}" if code < 0x80 else f"\\U{code:08X}"
    return character


def _range(first: int, last: int) -> str:
    start = _escaped(chr(first), _IN_CLASS)
    return start if first == last else f"{start}-{_escaped(chr(last), _IN_CLASS)}"


def _overlap(text: str, written: str) -> int:
    """How much of the beginning of `text` stands at the end of `written`."""
    return next(size for size in range(min(len(text), len(written)), -1, -1) if written.endswith(text[:size]))
