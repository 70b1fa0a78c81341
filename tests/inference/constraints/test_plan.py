"""What a request's answer must look like, in each family's markup."""

from __future__ import annotations

import pytest

from grammar_matching import is_accepted
from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, ToolChoice
from pensieve.inference.constraints.constraint import Constraint
from pensieve.inference.constraints.plan import plan
from pensieve.inference.parsing.grammar import (
    BARE_JSON,
    CHANNELS,
    PLAIN,
    PYTHON_TAG,
    THINK_TAGS,
    TOOL_CALL_PIPES,
    TOOL_CALL_TAGS,
    TOOL_CALLS_BRACKETS,
    OutputGrammar,
)
from pensieve.messages import Json, Message, ToolReferencePart, ToolResultPart, ToolSpec, say

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolSpec("weather", CITY)
STOP = ToolSpec("stop", {"type": "object", "properties": {}})
TAGS = OutputGrammar(calls=(TOOL_CALL_TAGS,), thinking=THINK_TAGS)


def request(mode: str = "auto", **fields: Json) -> GenerationRequest:
    """A request with two tools."""
    name, is_parallel = fields.pop("name", ""), fields.pop("is_parallel", True)
    choice = ToolChoice(mode, name, is_parallel)  # type: ignore[arg-type]
    messages = fields.pop("messages", (say("user", "Hello"),))
    tools = fields.pop("tools", (WEATHER, STOP))
    return GenerationRequest(id="1", model="m", messages=messages, tools=tools, tool_choice=choice, **fields)


def made(grammar: OutputGrammar, asked: GenerationRequest) -> Constraint:
    """The constraint, which there is."""
    constraint = plan(asked, grammar)
    assert constraint is not None
    return constraint


FORCED = [
    (TAGS, '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', "\n"),
    (
        OutputGrammar(calls=(TOOL_CALL_PIPES,)),
        '<|tool_call|>[{"name": "weather", "arguments": {"city":"Rome"}}]<|/tool_call|>',
        "",
    ),
    (OutputGrammar(calls=(PYTHON_TAG, BARE_JSON)), '{"name": "weather", "parameters": {"city": "Rome"}}', "; "),
    (OutputGrammar(calls=(TOOL_CALLS_BRACKETS,)), '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}', ""),
    (
        CHANNELS,
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Rome"}',
        "",
    ),
]


@pytest.mark.parametrize(("grammar", "call"), [each[:2] for each in FORCED])
def test_a_forced_call_is_written_in_the_family_s_own_markup(grammar: OutputGrammar, call: str) -> None:
    """And nothing else is: no text, no other tool where one is named, no arguments that miss the schema."""
    constraint = made(grammar, request("tool", name="weather"))
    assert is_accepted(constraint, call)
    assert not is_accepted(constraint, call.replace("weather", "stop"))
    assert not is_accepted(constraint, call.replace("city", "town"))
    assert not is_accepted(constraint, f"Well: {call}")
    assert not is_accepted(constraint, call[:-1])
    assert is_accepted(made(grammar, request("any")), call)


@pytest.mark.parametrize(("grammar", "call", "between"), FORCED[:4])
def test_several_calls_are_allowed_unless_that_is_disallowed(grammar: OutputGrammar, call: str, between: str) -> None:
    """Between them stands what the family writes there."""
    two = call + between + call
    if "[{" in call:
        inside = call[call.index("{") : call.rindex("}") + 1]
        two = call.replace(inside, f"{inside}, {inside}")
    assert is_accepted(made(grammar, request("any")), two)
    assert not is_accepted(made(grammar, request("any", is_parallel=False)), two)


def test_what_follows_thinking_may_begin_with_new_lines() -> None:
    """Families with thinking write them; a channel's next message has a header."""
    schema = {"type": "integer"}
    assert is_accepted(made(TAGS, request(output_schema=schema, tools=())), "\n\n12")
    assert not is_accepted(made(PLAIN, request(output_schema=schema, tools=())), "\n\n12")
    channels = made(CHANNELS, request(output_schema=schema, tools=()))
    assert is_accepted(channels, "<|channel|>final<|message|>12")
    assert is_accepted(channels, "<|start|>assistant<|channel|>final<|message|>12")


def test_an_answer_with_a_schema_may_be_a_call_where_tools_are_on_offer() -> None:
    """Its arguments are free unless the tool is strict."""
    constraint = made(TAGS, request(output_schema={"type": "integer"}))
    assert is_accepted(constraint, "12")
    assert is_accepted(constraint, '<tool_call>\n{"name": "weather", "arguments": {"town": 1}}\n</tool_call>')
    assert not is_accepted(constraint, "twelve")


def test_strict_tools_bind_calls_from_their_marker_on() -> None:
    """Text is free; tools that are not strict take any object."""
    strict = ToolSpec("weather", CITY, is_strict=True)
    constraint = made(TAGS, request(tools=(strict, STOP)))
    assert constraint.triggers == ("<tool_call>",)
    assert is_accepted(constraint, '<tool_call>\n{"name": "stop", "arguments": {"now": true}}\n</tool_call>')
    assert not is_accepted(constraint, '<tool_call>\n{"name": "weather", "arguments": {"now": true}}\n</tool_call>')
    channels = made(CHANNELS, request(tools=(strict,)))
    assert channels.triggers == (" to=functions.",)
    assert is_accepted(channels, ' to=functions.weather<|channel|>commentary <|constrain|>json<|message|>{"city":""}')


def test_strict_tools_without_a_marker_bind_an_answer_that_begins_like_a_call() -> None:
    """Any other text is free."""
    strict = ToolSpec("weather", CITY, is_strict=True)
    constraint = made(OutputGrammar(calls=(BARE_JSON,)), request(tools=(strict,)))
    assert constraint.triggers == ()
    assert is_accepted(constraint, '{"name": "weather", "parameters": {"city": "Rome"}}')
    assert is_accepted(constraint, 'It is {"name": 1}.')
    assert not is_accepted(constraint, '{"name": 1}')


def test_nothing_is_bound_that_need_not_be() -> None:
    """Tools of the model's choice, or none at all."""
    strict = ToolSpec("weather", CITY, is_strict=True)
    assert plan(request(), TAGS) is None
    assert plan(request(tools=()), PLAIN) is None
    assert plan(request("none", tools=(strict,)), TAGS) is None


def test_a_deferred_tool_can_be_called_once_it_was_referred_to() -> None:
    """Or where it is named."""
    hidden = ToolSpec("hidden", {"type": "object", "properties": {}}, is_deferred=True)
    call = '<tool_call>\n{"name": "hidden", "arguments": {}}\n</tool_call>'
    found = (say("user", "?"), Message("user", (ToolResultPart("1", (ToolReferencePart("hidden"),)),)))
    assert not is_accepted(made(TAGS, request("any", tools=(STOP, hidden))), call)
    assert is_accepted(made(TAGS, request("any", tools=(STOP, hidden), messages=found)), call)
    assert is_accepted(made(TAGS, request("tool", name="hidden", tools=(STOP, hidden))), call)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (request("any", tools=(STOP, ToolSpec("x", {"type": "object", "not": {}}))), "tools.1.input_schema"),
        (request(output_schema={"type": "object", "properties": {"a": {"if": {}}}}), "output_config.format.schema"),
        (request("tool", name="nobody"), "tool_choice.name"),
        (request("any", tools=()), "tool_choice"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_its_path(asked: GenerationRequest, path: str) -> None:
    """Before anything is generated."""
    with pytest.raises(InvalidRequest) as refused:
        plan(asked, TAGS)
    assert refused.value.path.startswith(path)
