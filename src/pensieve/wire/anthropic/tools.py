"""The tools of a request, and which of them may or must be called: JSON to our values and back.

Three kinds: the client's own, those the API defines and the client runs, and those that would run on the API's servers.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.generation import ToolChoice
from pensieve.messages import Json, ToolSpec
from pensieve.wire.anthropic.blocks import NonEmpty
from pensieve.wire.anthropic.client_tools import find_client_tool, told
from pensieve.wire.anthropic.server_tools import ServerTool, find_server_tool, is_tool_search


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool; one with another `type` than `custom` is defined by the API. The fields typed `Json` change nothing."""

    name: NonEmpty | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Json] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    display_width_px: int | None = None
    display_height_px: int | None = None
    allowed_callers: Json = None
    allowed_domains: Json = None
    blocked_domains: Json = None
    cache_control: Json = None
    caching: Json = None
    citations: Json = None
    configs: Json = None
    default_config: Json = None
    display_number: Json = None
    eager_input_streaming: Json = None
    enable_zoom: Json = None
    input_examples: Json = None
    max_characters: Json = None
    max_content_tokens: Json = None
    max_tokens: Json = None
    max_uses: Json = None
    mcp_server_name: Json = None
    model: Json = None
    tools: Json = None
    use_cache: Json = None
    user_location: Json = None


class ToolChoiceBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tools may or must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class DecodedTools(msgspec.Struct, frozen=True):
    """The tools that a model is offered, those that cannot run here, and what was left out without being known."""

    offered: tuple[ToolSpec, ...] = ()
    unavailable: tuple[ServerTool, ...] = ()
    unknown_kinds: tuple[str, ...] = ()


def decode_tools(tools: tuple[Tool, ...]) -> DecodedTools:
    """All tools of a request; raises `InvalidRequest` with the path of what is wrong."""
    offered: list[ToolSpec] = []
    unavailable: list[ServerTool] = []
    unknown_kinds: list[str] = []
    names: set[str] = set()
    for at, tool in enumerate(tools):
        spec = _offered(tool, f"tools.{at}")
        if spec is not None:
            offered.append(spec)
        else:
            unavailable.append(find_server_tool(tool.type or "", tool.name or ""))
            unknown_kinds += [] if unavailable[-1].result else [tool.type or ""]
        name = tool.name or ("" if spec is None else spec.name)
        if name and name in names:
            raise InvalidRequest("tool names must be unique", path=f"tools.{at}.name")
        names.add(name)
    if any(is_tool_search(tool.type or "") for tool in tools):
        # Nobody searches here, so that what waits to be found is offered from the start.
        offered = [msgspec.structs.replace(spec, is_deferred=False) for spec in offered]
    return DecodedTools(tuple(offered), tuple(unavailable), tuple(unknown_kinds))


def decode_tool_choice(choice: ToolChoiceBody | None, tools: DecodedTools) -> ToolChoice | ServerTool:
    """What may or must be called; a tool that cannot run here where the request leaves no other way."""
    if choice is None:
        return ToolChoice()
    is_parallel_allowed = not choice.disable_parallel_tool_use
    if choice.type in ("any", "tool") and not (tools.offered or tools.unavailable):
        raise InvalidRequest("there are no tools to choose from", path="tool_choice")
    if choice.type == "any" and not tools.offered:
        return tools.unavailable[0]
    if choice.type != "tool":
        return ToolChoice(choice.type, "", is_parallel_allowed)
    if not choice.name:
        raise InvalidRequest("field is missing", path="tool_choice.name")
    if choice.name in {spec.name for spec in tools.offered}:
        return ToolChoice("tool", choice.name, is_parallel_allowed)
    forced = next((tool for tool in tools.unavailable if tool.name == choice.name), None)
    if forced is None:
        raise InvalidRequest("it names none of the tools", path="tool_choice.name")
    return forced


def encode_tool(tool: ToolSpec) -> Tool:
    """One tool as it stands in JSON."""
    return Tool(
        name=tool.name,
        description=tool.description or None,
        input_schema=tool.parameters,
        strict=tool.is_strict or None,
        defer_loading=tool.is_deferred or None,
    )


def encode_tool_choice(choice: ToolChoice) -> ToolChoiceBody | None:
    """The choice as it stands in JSON; None for what goes without saying."""
    if choice == ToolChoice():
        return None
    return ToolChoiceBody(choice.mode, choice.name or None, None if choice.is_parallel_allowed else True)


def _offered(tool: Tool, path: str) -> ToolSpec | None:
    """The tool as a model is told of it; None for one that runs on the API's servers."""
    is_strict, is_deferred = bool(tool.strict), bool(tool.defer_loading)
    if tool.type in (None, "custom"):
        if tool.name is None or tool.input_schema is None:
            missing = "name" if tool.name is None else "input_schema"
            raise InvalidRequest("field is missing", path=f"{path}.{missing}")
        return ToolSpec(tool.name, tool.input_schema, tool.description or "", is_strict, is_deferred)
    known = find_client_tool(tool.type)
    if known is None:
        return None
    description = told(known, msgspec.structs.asdict(tool))
    return ToolSpec(tool.name or known.name, known.parameters, description, is_strict, is_deferred)
