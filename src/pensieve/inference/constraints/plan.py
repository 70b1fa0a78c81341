"""From a request to what its answer must look like: schema, forced calls, strict calls. Knows no engine.

Thinking is no part of a rule: the engine lets the model think first, or closes the thinking, and then applies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest
from pensieve.inference.constraints.calls import (
    Offered,
    after_thinking,
    call_triggers,
    calls,
    calls_from_trigger,
    final_answer,
    no_call,
)
from pensieve.inference.constraints.constraint import Constraint, JsonOf, choice
from pensieve.inference.constraints.lowering import lowered
from pensieve.inference.parsing.grammar import OutputGrammar
from pensieve.messages import Json, ToolReferencePart, ToolResultPart

OUTPUT_PATH: Final = "output_config.format.schema"
_ANY_OBJECT: Final[dict[str, Json]] = {"type": "object"}


def plan(request: GenerationRequest, grammar: OutputGrammar) -> Constraint | None:
    """What the answer must look like, schemas lowered; None: anything. `grammar`: as `after` gives it for the prompt.

    May block for a second. Raises `InvalidRequest` with the path of a schema that cannot be obeyed, or of a tool that
    is not there.
    """
    constraint = _unlowered(request, grammar)
    return None if constraint is None else lowered(constraint)


def _unlowered(request: GenerationRequest, grammar: OutputGrammar) -> Constraint | None:
    offered = _offered(request)
    mode, is_parallel = request.tool_choice.mode, request.tool_choice.is_parallel_allowed
    if mode in {"any", "tool"}:
        forced = _forced(request, offered)
        return Constraint(after_thinking(calls(grammar, forced, is_parallel=is_parallel), grammar))
    if mode == "none" or not grammar.reads_calls:
        offered = ()
    if request.output_schema is not None:
        answer = final_answer(JsonOf(request.output_schema, OUTPUT_PATH), grammar)
        rule = choice(calls(grammar, offered, is_parallel=is_parallel), answer) if offered else answer
        return Constraint(after_thinking(rule, grammar))
    if not any(tool.is_strict for tool in request.tools) or not offered:
        return None
    triggers = call_triggers(grammar)
    if triggers:
        return Constraint(calls_from_trigger(grammar, offered, is_parallel=is_parallel), triggers)
    written = calls(grammar, offered, is_parallel=is_parallel)
    return Constraint(after_thinking(choice(written, no_call()), grammar))


def _offered(request: GenerationRequest) -> tuple[Offered, ...]:
    """The tools that can be called now; only strict ones have their arguments bound, unless a call is forced."""
    referenced = {
        part.name
        for message in request.messages
        for result in message.parts
        if isinstance(result, ToolResultPart)
        for part in result.parts
        if isinstance(part, ToolReferencePart)
    }
    is_forced = request.tool_choice.mode in {"any", "tool"}
    return tuple(
        Offered(
            tool.name,
            JsonOf(tool.parameters if is_forced or tool.is_strict else _ANY_OBJECT, f"tools.{index}.input_schema"),
        )
        for index, tool in enumerate(request.tools)
        if not tool.is_deferred or tool.name in referenced or tool.name == request.tool_choice.name
    )


def _forced(request: GenerationRequest, offered: Sequence[Offered]) -> tuple[Offered, ...]:
    if request.tool_choice.mode == "any":
        if not offered:
            raise InvalidRequest(
                "a tool must be called, but there is none: send `tools`, or choose `auto`", "tool_choice"
            )
        return tuple(offered)
    named = tuple(tool for tool in offered if tool.name == request.tool_choice.name)
    if not named:
        raise InvalidRequest(f"there is no tool named {request.tool_choice.name[:80]!r}", "tool_choice.name")
    return named
