"""The tools of a request: functions, namespaces, tools that take text, and those that run elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pensieve.errors import InvalidRequest
from pensieve.generation import ToolChoice
from pensieve.messages import ToolCallPart, ToolSpec
from pensieve.wire.openai.responses.requests import DecodedRequest, decode_request

SCHEMA = {"type": "object", "properties": {"at": {"type": "integer"}}}
LOOK = {"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": True}
AGENTS = {"type": "namespace", "name": "agents", "description": "Others.", "tools": [LOOK | {"strict": False}]}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Changes files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'},
}


def decoded(**fields: Any) -> DecodedRequest:
    """A request with these fields."""
    return decode_request(json.dumps({"model": "m", "input": "hi"} | fields).encode(), request_id="req_1")


def refused(**fields: Any) -> str:
    """Where such a request is refused."""
    with pytest.raises(InvalidRequest) as raised:
        decoded(**fields)
    return raised.value.path


def test_a_function_is_offered_as_it_is() -> None:
    """With its schema, and whether it is held to it."""
    assert decoded(tools=[LOOK]).request.tools == (ToolSpec("look", SCHEMA, "Looks.", is_strict=True),)


def test_tools_in_a_namespace_have_names_of_their_own() -> None:
    """So that two of the same name stand apart; the client gets its own words back."""
    read = decoded(tools=[LOOK, AGENTS])
    assert [tool.name for tool in read.request.tools] == ["look", "agents__look"]
    assert read.manner.names.on_wire("agents__look") == {"name": "look", "namespace": "agents"}
    assert read.manner.names.on_wire("look") == {"name": "look"}


def test_an_echoed_call_of_a_namespace_has_the_name_that_the_model_knows() -> None:
    """The prompt of the next turn is the one that was read, and more."""
    call = {"type": "function_call", "call_id": "c", "name": "look", "namespace": "agents", "arguments": "{}"}
    request = decoded(tools=[AGENTS], input=[{"role": "user", "content": "x"}, call]).request
    assert request.messages[1].parts == (ToolCallPart("c", "agents__look", {}),)


def test_a_tool_that_takes_text_is_offered_as_an_object_of_one_text() -> None:
    """Its grammar is told to the model."""
    read = decoded(tools=[PATCH])
    (tool,) = read.request.tools
    assert list(tool.parameters["properties"]) == ["input"]
    assert tool.description.endswith('grammar:\nstart: "x"')
    assert read.manner.names.customs == frozenset({"patch"})


def test_what_runs_elsewhere_is_left_out_and_not_echoed() -> None:
    """The response lists the tools that are there."""
    read = decoded(tools=[{"type": "web_search"}, LOOK])
    assert [tool.name for tool in read.request.tools] == ["look"]
    assert read.manner.echoed["tools"] == [LOOK]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ({"type": "function", "name": "look"}, ToolChoice("tool", "look")),
        ({"type": "function", "name": "look", "namespace": "agents"}, ToolChoice("tool", "agents__look")),
        ({"type": "custom", "name": "patch"}, ToolChoice("tool", "patch")),
    ],
)
def test_a_choice_is_read_in_every_form(choice: Any, expected: ToolChoice) -> None:
    """As words, and as a tool by its name."""
    assert decoded(tools=[LOOK, AGENTS, PATCH], tool_choice=choice).request.tool_choice == expected


def test_calls_one_by_one_are_asked_for_as_such() -> None:
    """And all at once otherwise."""
    assert not decoded(tools=[LOOK], parallel_tool_calls=False).request.tool_choice.is_parallel_allowed
    assert decoded(tools=[LOOK]).request.tool_choice.is_parallel_allowed


def test_allowed_tools_are_those_that_are_offered() -> None:
    """And one of them must be called where the client says so."""
    listed = [{"type": "custom", "name": "patch"}, {"type": "web_search"}]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": listed}
    request = decoded(tools=[LOOK, PATCH], tool_choice=allowed).request
    assert ([tool.name for tool in request.tools], request.tool_choice) == (["patch"], ToolChoice("any"))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tools": [LOOK, LOOK]}, "tools.1.name"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "namespace", "tools": [LOOK]}]}, "tools.0.name"),
        ({"tools": [AGENTS | {"tools": [LOOK, LOOK]}]}, "tools.0.tools.1.name"),
        ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, "tools.0"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
        ({"tools": [LOOK], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "mode": "required"}}, "tool_choice.tools"),
    ],
)
def test_tools_that_make_no_sense_are_refused_where_they_stand(fields: dict[str, Any], path: str) -> None:
    """And a tool that runs elsewhere where the request insists on it."""
    assert refused(**fields) == path
