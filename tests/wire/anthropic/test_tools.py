"""Tools of all three kinds, and what is said about those that cannot run here."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from pensieve.errors import InvalidRequest
from pensieve.generation import ToolChoice
from pensieve.wire.anthropic.client_tools import CLIENT_TOOLS
from pensieve.wire.anthropic.requests import DecodedRequest, decode_request
from pensieve.wire.anthropic.server_tools import ServerTool, encode_as_stream, encode_unavailable
from pensieve.wire.sse import SseDecoder

LOOK = {"name": "look", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8, "allowed_domains": []}
SDK_EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def read(*tools: Any, **fields: Any) -> DecodedRequest:
    """A request with these tools."""
    whole = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "tools": list(tools)}
    return decode_request(json.dumps(whole | fields).encode(), request_id="req_1")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bash_20250124", "bash"),
        ("text_editor_20250124", "str_replace_editor"),
        ("text_editor_20250728", "str_replace_based_edit_tool"),
        ("memory_20250818", "memory"),
        ("computer_20250124", "computer"),
    ],
)
def test_tools_that_the_api_defines_and_clients_run_have_a_schema_here(kind: str, name: str) -> None:
    """The model is told what they take, under the name that the client listens to."""
    [tool] = read({"type": kind, "name": name}).request.tools
    assert (tool.name, tool.parameters["type"]) == (name, "object")
    assert tool.parameters["properties"]
    assert tool.description


def test_their_schemas_require_only_what_they_describe() -> None:
    """A required field without a description could never be filled."""
    for tool in CLIENT_TOOLS:
        assert set(tool.parameters["required"]) <= set(tool.parameters["properties"])


def test_a_screens_size_is_told() -> None:
    """Coordinates mean nothing without it."""
    screen = {"type": "computer_20250124", "name": "computer", "display_width_px": 1024, "display_height_px": 768}
    decoded = read(screen)
    assert "1024 x 768" in decoded.request.tools[0].description
    assert decoded.unknown_fields == ()


@pytest.mark.parametrize("choice", [None, {"type": "auto"}, {"type": "any"}, {"type": "none"}])
def test_tools_that_would_run_on_a_server_are_left_out(choice: object) -> None:
    """The model is never offered what cannot be done, and the session goes on with the others."""
    decoded = read(SEARCH, LOOK, tool_choice=choice)
    assert [tool.name for tool in decoded.request.tools] == ["look"]
    assert (decoded.forced, decoded.unknown_fields) == (None, ())


@pytest.mark.parametrize("tool", [{"type": "web_9", "name": "a"}, {"type": "computer_toolset_20260801"}])
def test_kinds_that_nobody_knows_are_left_out_and_named(tool: dict[str, Any]) -> None:
    """For the log, as fields are."""
    decoded = read(tool, tool, LOOK) if "name" not in tool else read(tool, LOOK)
    assert [each.name for each in decoded.request.tools] == ["look"]
    assert decoded.unknown_fields[0] == f"tools.type={tool['type']}"


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "web_search"}, {"type": "any"}])
def test_a_request_that_leaves_no_other_way_is_marked(choice: object) -> None:
    """No model can answer it."""
    decoded = read(SEARCH, tool_choice=choice)
    assert decoded.forced is not None
    assert (decoded.forced.name, decoded.forced.result) == ("web_search", "web_search_tool_result")
    assert decoded.request.tool_choice == ToolChoice()


def test_tools_that_a_server_would_search_for_are_offered_at_once() -> None:
    """Nobody searches here, so that nobody would ever find them."""
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    assert [tool.is_deferred for tool in read(search, LOOK | {"defer_loading": True}).request.tools] == [False]
    assert [tool.is_deferred for tool in read(LOOK | {"defer_loading": True}).request.tools] == [True]


def test_a_name_is_unique_over_all_kinds() -> None:
    """Or a choice by name would be a lottery."""
    with pytest.raises(InvalidRequest, match=r"tools\.1\.name: tool names must be unique"):
        read(SEARCH, LOOK | {"name": "web_search"})


FORCED = [
    "web_search_20260318",
    "web_fetch_20250910",
    "code_execution_20250825",
    "tool_search_tool_regex_20251119",
    "tool_search_tool_bm25",
]


def unavailable(kind: str) -> dict[str, Any]:
    """The answer to a request that insists on a tool of that kind."""
    forced = read({"type": kind}, tool_choice={"type": "any"}).forced
    assert forced is not None
    return encode_unavailable(forced, message_id="msg_1", model="m")


@pytest.mark.parametrize("kind", FORCED)
def test_the_answer_to_a_forced_server_tool_is_well_formed(kind: str) -> None:
    """A call, its result with the error `unavailable`, and a sentence: the SDK's own types take it strictly."""
    answer = anthropic.types.Message.model_validate_json(json.dumps(unavailable(kind)), strict=True)
    use, result, text = answer.content
    assert (use.type, text.type, answer.stop_reason) == ("server_tool_use", "text", "end_turn")
    assert getattr(result, "content").error_code == "unavailable"  # noqa: B009 - a union the type checker cannot see through
    assert getattr(result, "tool_use_id") == getattr(use, "id")  # noqa: B009


@pytest.mark.parametrize("kind", FORCED)
def test_the_same_answer_comes_as_a_stream(kind: str) -> None:
    """Each frame is one of the SDK's own, and together they say what the whole answer says."""
    answer = unavailable(kind)
    frames = SseDecoder().feed(encode_as_stream(answer))
    for frame in frames:
        SDK_EVENT.validate_json(frame.data, strict=True)
    starts = [json.loads(frame.data)["content_block"] for frame in frames if frame.event == "content_block_start"]
    assert starts[:2] == answer["content"][:2]
    assert (frames[0].event, frames[-1].event) == ("message_start", "message_stop")


def test_a_forced_tool_of_an_unknown_kind_is_answered_in_words() -> None:
    """There is no form for its result."""
    answer = encode_unavailable(ServerTool("a"), message_id="msg_1", model="m")
    assert [block["type"] for block in answer["content"]] == ["text"]
