"""How calls and answers are written in a model family's markup, as rules. Must write what `parsing` reads.

Values in, values out: knows no request and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Final

import msgspec

from pensieve.inference.constraints.constraint import (
    ANY_CHARACTER,
    MAX_CODE_POINT,
    Characters,
    JsonOf,
    Lexeme,
    Literal,
    Repeat,
    Rule,
    choice,
    optional,
    sequence,
)
from pensieve.inference.parsing.grammar import (
    CHANNEL,
    CONSTRAIN,
    MESSAGE,
    START,
    TOOL_CALL_PIPES,
    CallSyntax,
    OutputGrammar,
)

MOST_CALLS: Final = 16
"""So many calls in one answer at most: a small model would go on calling until it is cut."""

_TO_FUNCTION: Final = " to=functions."
_NOT_SPACE_NOR_BRACE: Final = Characters(
    ((0, 8), (0x0B, 0x0C), (0x0E, 0x1F), (0x21, 0x7A), (0x7C, 0xD7FF), (0xE000, MAX_CODE_POINT))
)


class Offered(msgspec.Struct, frozen=True):
    """A tool that may be called, and what its arguments must look like."""

    name: str
    arguments: JsonOf


def calls(grammar: OutputGrammar, tools: Several[Offered], *, is_parallel: bool) -> Rule:
    """One call of one of these tools; one or more where `is_parallel`."""
    if grammar.style == "channels":  # a call ends the turn, so there is never a second
        return choice(*(_channel_call(tool) for tool in tools))
    syntax = _syntax(grammar)
    options: list[Rule] = []
    if syntax.arguments_mark:
        options.append(_named_calls(syntax, tools, is_parallel=is_parallel))
    if syntax.arguments_mark or syntax == TOOL_CALL_PIPES:
        options.append(_listed_calls(syntax, tools, is_parallel=is_parallel))
    return choice(*options) if options else _separate_calls(syntax, tools, is_parallel=is_parallel)


def calls_from_trigger(grammar: OutputGrammar, tools: Several[Offered], *, is_parallel: bool) -> Rule:
    """As `calls`, from the trigger on."""
    if grammar.style != "channels":
        return calls(grammar, tools, is_parallel=is_parallel)
    body = f"{CONSTRAIN}json{MESSAGE}"
    rest = choice(Literal(f" {body}"), Literal(f"{CHANNEL}commentary {body}"))
    return choice(*(sequence(Literal(f"{_TO_FUNCTION}{tool.name}"), rest, tool.arguments) for tool in tools))


def call_triggers(grammar: OutputGrammar) -> tuple[str, ...]:
    """What begins a call wherever it stands in the answer; none: a call is told by how the answer begins."""
    if grammar.style == "channels":
        return (_TO_FUNCTION,)
    opener = _syntax(grammar).opener
    return (opener,) if opener else ()


def no_call() -> Rule:
    """An answer that does not begin as a call without markers does."""
    return optional(Lexeme(sequence(_NOT_SPACE_NOR_BRACE, Repeat(ANY_CHARACTER))))


def final_answer(answer: Rule, grammar: OutputGrammar) -> Rule:
    """What the user is told, in the family's markup."""
    return sequence(Literal(f"{CHANNEL}final{MESSAGE}"), answer) if grammar.style == "channels" else answer


def after_thinking(rule: Rule, grammar: OutputGrammar) -> Rule:
    """The rule with what families write between their thinking and the rest."""
    if grammar.style == "channels":
        return sequence(optional(Literal(f"{START}assistant")), rule)
    return sequence(Repeat(Literal("\n"), at_most=2), rule) if grammar.thinking is not None else rule


def _syntax(grammar: OutputGrammar) -> CallSyntax:
    """The family's own way for tools that are not built in: without markers where there is such a way."""
    assert grammar.calls, "a model without its own way of writing calls gets the plain one"
    return next((syntax for syntax in grammar.calls if not syntax.opener), grammar.calls[0])


def _object(tool: Offered, syntax: CallSyntax) -> Rule:
    key = "arguments" if syntax.opener else "parameters"
    name = msgspec.json.encode(tool.name).decode()
    return sequence(Literal(f'{{"name": {name}, "{key}": '), tool.arguments, Literal("}"))


def _separate_calls(syntax: CallSyntax, tools: Several[Offered], *, is_parallel: bool) -> Rule:
    """Each call between markers of its own; without a closer, all behind one opener."""
    body = choice(*(_object(tool, syntax) for tool in tools))
    if not syntax.closer:
        between = Literal(f"{syntax.separator} ")
        return sequence(Literal(syntax.opener), Repeat(body, between, 1, MOST_CALLS if is_parallel else 1))
    call = sequence(Literal(f"{syntax.opener}\n"), body, Literal(f"\n{syntax.closer}"))
    return Repeat(call, Literal("\n"), 1, MOST_CALLS if is_parallel else 1)


def _listed_calls(syntax: CallSyntax, tools: Several[Offered], *, is_parallel: bool) -> Rule:
    """All calls in one JSON list."""
    body = choice(*(_object(tool, syntax) for tool in tools))
    listed = Repeat(body, Literal(", "), 1, MOST_CALLS if is_parallel else 1)
    space = optional(Literal(" ")) if syntax.arguments_mark else Literal("")
    return sequence(Literal(syntax.opener), space, Literal("["), listed, Literal(f"]{syntax.closer}"))


def _named_calls(syntax: CallSyntax, tools: Several[Offered], *, is_parallel: bool) -> Rule:
    """A name, a mark, and the arguments."""
    each = (sequence(Literal(f"{syntax.opener}{tool.name}{syntax.arguments_mark}"), tool.arguments) for tool in tools)
    return Repeat(choice(*each), at_least=1, at_most=MOST_CALLS if is_parallel else 1)


def _channel_call(tool: Offered) -> Rule:
    header = f"{CHANNEL}commentary{_TO_FUNCTION}{tool.name} {CONSTRAIN}json{MESSAGE}"
    return sequence(Literal(header), tool.arguments)
