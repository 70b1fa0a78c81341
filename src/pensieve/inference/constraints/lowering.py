"""A constraint without schemas: each replaced by its rule, what is referred to among the definitions, all of it sound.

Raises `InvalidRequest` for what cannot be obeyed. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.inference.constraints.constraint import (
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
    choice,
    sequence,
)
from pensieve.inference.constraints.documents import any_definitions
from pensieve.inference.constraints.schema import SchemaReader

MAX_DEPTH: Final = 64
"""Definitions within definitions: llguidance follows them on its stack, which is small on some threads."""


def lowered(constraint: Constraint) -> Constraint:
    """The same constraint without `JsonOf`. Raises `InvalidRequest`."""
    definitions: dict[str, Rule] = dict(constraint.definitions)
    lowering = _Lowering(definitions)
    try:
        rule = lowering.rule(constraint.rule)
    except RecursionError:
        raise InvalidRequest("the schemas of this request stand too deep in each other: make them flatter") from None
    if lowering.num_schemas:
        definitions.update({name: each for name, each in any_definitions().items() if name not in definitions})
    return Constraint(rule, constraint.triggers, _reachable(rule, definitions))


class _Lowering:
    def __init__(self, definitions: dict[str, Rule]) -> None:
        self._definitions = definitions
        self.num_schemas = 0

    def rule(self, rule: Rule) -> Rule:
        match rule:
            case JsonOf(schema, path):
                self.num_schemas += 1
                made = SchemaReader(schema, path, self._definitions, f"{self.num_schemas} ").rule()
                _check(made, {**self._definitions, **any_definitions()}, path)
                return made
            case Sequence(items):
                return sequence(*map(self.rule, items))
            case Choice(options):
                return choice(*map(self.rule, options))
            case Repeat(item, separator):
                return msgspec.structs.replace(rule, item=self.rule(item), separator=self.rule(separator))
        return rule


def _check(rule: Rule, definitions: Mapping[str, Rule], path: str) -> None:
    """Every definition in use can end, and begins with something of its own."""
    used = _reachable(rule, definitions)
    if _depth(rule, used) > MAX_DEPTH:
        raise InvalidRequest("schemas stand too deep in each other: make them flatter", path)
    if _settled(used, _is_finite) != used.keys():
        raise InvalidRequest("a schema stands in itself without a way to end: make it optional there", path)
    if _settled(used, lambda rule, begun: begun.issuperset(_firsts(rule))) != used.keys():
        raise InvalidRequest("a schema is defined by itself: give it a form of its own", path)


def _depth(rule: Rule, definitions: Mapping[str, Rule]) -> int:
    """How many definitions are followed within each other by whoever goes into each once."""
    deepest, seen = 0, set[str]()
    open_rules = [_references(rule)]
    while open_rules:
        name = next(open_rules[-1], None)
        if name is None:
            open_rules.pop()
        elif name not in seen:
            seen.add(name)
            open_rules.append(_references(definitions[name]))
            deepest = max(deepest, len(open_rules))
    return deepest


def _settled(used: dict[str, Rule], is_settled: Callable[[Rule, set[str]], bool]) -> set[str]:
    """The definitions of which it holds, given those of which it holds already: it begins with those met last."""
    settled: set[str] = set()
    num_before = -1
    while len(settled) > num_before:
        num_before = len(settled)
        for name in reversed(used):
            if name not in settled and is_settled(used[name], settled):
                settled.add(name)
    return settled


def _reachable(rule: Rule, definitions: Mapping[str, Rule]) -> dict[str, Rule]:
    used: dict[str, Rule] = {}
    waiting = list(_references(rule))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = definitions[name]
            waiting += _references(definitions[name])
    return used


def _references(rule: Rule) -> Iterator[str]:
    match rule:
        case Reference(name):
            yield name
        case Sequence(items) | Choice(items):
            for item in items:
                yield from _references(item)
        case Repeat(item, separator):
            yield from _references(item)
            yield from _references(separator)


def _is_finite(rule: Rule, finite: set[str]) -> bool:
    """Whether there is a text that ends, if these definitions have one."""
    match rule:
        case Reference(name):
            return name in finite
        case Sequence(items):
            return all(_is_finite(item, finite) for item in items)
        case Choice(options):
            return any(_is_finite(option, finite) for option in options)
        case Repeat(item, _, at_least):
            return at_least == 0 or _is_finite(item, finite)
    return True


def _firsts(rule: Rule) -> Iterator[str]:
    """Definitions that may stand at the very beginning."""
    match rule:
        case Reference(name):
            yield name
        case Choice(options):
            for option in options:
                yield from _firsts(option)
        case Repeat(item):
            yield from _firsts(item)
        case Sequence(items):
            for item in items:
                yield from _firsts(item)
                if not _may_be_empty(item):
                    return


def _may_be_empty(rule: Rule) -> bool:
    """Whether nothing at all may stand there; a definition never is empty where schemas made it begin with a mark."""
    match rule:
        case Literal(text):
            return not text
        case Repeat(item, _, at_least):
            return at_least == 0 or _may_be_empty(item)
        case Sequence(items):
            return all(_may_be_empty(item) for item in items)
        case Choice(options):
            return any(_may_be_empty(option) for option in options)
        case Lexeme(inner):
            return _may_be_empty(inner)
        case FreeText() | Reference():
            return True
    return False
