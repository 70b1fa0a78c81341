"""Blocks that only other servers make, in the history of a conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.messages import Part, TextPart, ToolReferencePart, ToolResultPart, ToolSpec, say
from pensieve.wire.anthropic.foreign import settle
from pensieve.wire.anthropic.requests import DecodedRequest, decode_request
from wire.strategies import PROPERTY, json_values

FOUND = {"type": "web_search_result", "title": "A page", "url": "https://a", "encrypted_content": "xyz"}


def read(*messages: Any, **fields: Any) -> DecodedRequest:
    """The request with these messages after a first question."""
    whole = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}, *messages]} | fields
    return decode_request(json.dumps(whole).encode(), request_id="req_1")


def parts(*blocks: Any, role: str = "assistant") -> tuple[Part, ...]:
    """What becomes of a message of these blocks."""
    return read({"role": role, "content": list(blocks)}).request.messages[-1].parts


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("web_search_tool_result", [FOUND, FOUND], "A page\nhttps://a\nA page\nhttps://a"),
        (
            "web_fetch_tool_result",
            {"url": "https://a", "content": {"title": "T", "source": {"type": "text", "data": "words"}}},
            "https://a\nT\nwords",
        ),
        ("code_execution_tool_result", {"stdout": "out", "stderr": "err", "return_code": 1}, "out\nerr"),
        ("bash_code_execution_tool_result", {"stdout": "out", "stderr": "", "content": []}, "out"),
        ("text_editor_code_execution_tool_result", {"lines": ["-a", "+b"]}, "-a\n+b"),
        ("mcp_tool_result", [{"type": "text", "text": "ok"}], "ok"),
        ("compaction", "The story so far.", "The story so far."),
        ("tool_search_tool_result", {"tool_references": [{"tool_name": "look"}]}, "look"),
    ],
)
def test_what_another_servers_tool_found_is_read_as_text(kind: str, content: object, text: str) -> None:
    """The model knows on what its own words rest; the call itself and encrypted parts tell it nothing."""
    use = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    said = parts(use, {"type": kind, "tool_use_id": "s", "content": content}, {"type": "text", "text": "so"})
    assert said == (TextPart(f"[{kind}]\n{text}"), TextPart("so"))


def test_our_own_unavailable_answer_comes_back_as_its_sentence() -> None:
    """The call and its error say nothing that the text does not."""
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    use = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": error}
    assert parts(use, result, {"type": "text", "text": "no"}) == (TextPart("no"),)


def test_an_unknown_block_of_an_assistant_is_passed_over_and_named() -> None:
    """It is history: refusing it would end the session."""
    decoded = read({"role": "assistant", "content": [{"type": "hologram"}, {"type": "text", "text": "so"}]})
    assert decoded.request.messages[-1] == say("assistant", "so")
    assert decoded.unknown_fields == ("messages.content.type=hologram",)


def test_an_unknown_block_inside_a_tools_result_leaves_a_note() -> None:
    """The model learns that something is missing; readable words in it are kept."""
    content = [{"type": "hologram"}, {"type": "browser_state", "tabs": [], "text": "a page"}]
    [result] = parts({"type": "tool_result", "tool_use_id": "t", "content": content}, role="user")
    assert isinstance(result, ToolResultPart)
    note = TextPart("[a result of the kind hologram, which cannot be shown here]")
    assert result.parts == (note, TextPart("a page"))


def test_a_tools_reference_is_left_as_it_is() -> None:
    """It is ours to read."""
    content = [{"type": "tool_reference", "tool_name": "fetch"}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": content}
    assert parts(result, role="user") == (ToolResultPart("t", (ToolReferencePart("fetch"),)),)


def test_a_users_message_of_nothing_readable_disappears() -> None:
    """An empty turn would say nothing either."""
    assert read({"role": "user", "content": [{"type": "fallback"}]}).request.messages == (say("user", "hi"),)


def test_a_tool_that_comes_later_is_told_where_it_comes() -> None:
    """What stands before it in the prompt stays as it was."""
    tool = {"name": "fetch", "description": "Fetches.", "input_schema": {"type": "object"}, "defer_loading": True}
    added = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "fetch"}}
    removed = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "look"}}
    definition = '{"name":"fetch","description":"Fetches.","input_schema":{"type":"object"}}'
    told = read({"role": "system", "content": [added, removed]}, tools=[tool]).request.messages[-1]
    assert [part.text for part in told.parts if isinstance(part, TextPart)] == [
        f"From here on this tool is available: {definition}",
        "The tool look is not available any more.",
    ]


def test_a_tool_that_is_defined_on_the_way_can_be_called() -> None:
    """It joins the tools, deferred, so that their part of the prompt does not change."""
    definition = {"name": "fetch", "input_schema": {"type": "object"}}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}
    request = read({"role": "system", "content": [added]}).request
    assert request.tools == (ToolSpec("fetch", {"type": "object"}, is_deferred=True),)
    assert "fetch" in request.messages[-1].text


kinds = st.sampled_from(
    ["text", "server_tool_use", "web_search_tool_result", "tool_result", "tool_addition", "hologram", "mcp_tool_result"]
)
blocks = st.builds(
    lambda kind, more: more | {"type": kind},
    kinds,
    st.dictionaries(st.sampled_from(["content", "tool", "text", "source", "type", "name"]), json_values),
)


@PROPERTY
@given(st.sampled_from(["user", "assistant", "system"]), st.lists(blocks | json_values), json_values)
def test_no_block_makes_it_fail_or_move(role: str, content: list[Any], tools: object) -> None:
    """Whatever stands in a message, as many blocks stand there afterwards."""
    raw = {"messages": [{"role": role, "content": list(content)}], "tools": tools}
    settle(raw)
    assert len(raw["messages"][0]["content"]) == len(content)  # type: ignore[index]


def test_messages_of_another_shape_are_left_to_the_check() -> None:
    """It names them better."""
    for raw in ({}, {"messages": None}, {"messages": ["x", {"role": "user"}, {"role": "user", "content": "x"}]}):
        assert settle(raw) == ()
