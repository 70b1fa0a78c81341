"""Tools of Chat Completions, and which of them may or must be called: JSON to our values and back."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.generation import ToolChoice
from pensieve.messages import Json, ToolSpec
from pensieve.wire.body import check

NonEmpty = Annotated[str, Meta(min_length=1)]
NO_PARAMETERS: dict[str, Json] = {"type": "object", "properties": {}}


class FunctionBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the client runs."""

    name: NonEmpty
    description: str | None = None
    parameters: dict[str, Json] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    """Our own: see `ToolSpec.is_deferred`."""


class ToolBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool; one of another type than `function` would run elsewhere, and is left out."""

    type: str
    function: FunctionBody | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    """A function by its name."""

    name: NonEmpty


class NamedTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool by its name."""

    type: Literal["function"] = "function"
    function: NamedFunction


class AllowedTools(msgspec.Struct, frozen=True):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    tools: tuple[NamedTool, ...]


class AllowedChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Only some of the tools may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class _NamedChoice(msgspec.Struct, frozen=True):
    tool_choice: NamedTool


class _AllowedChoice(msgspec.Struct, frozen=True):
    tool_choice: AllowedChoice


ChoiceBody = Literal["none", "auto", "required"] | dict[str, Json]


class DecodedTools(msgspec.Struct, frozen=True):
    """What a model is offered and may do with it, and the types of tools that were left out."""

    offered: tuple[ToolSpec, ...]
    choice: ToolChoice
    unknown_types: tuple[str, ...] = ()


def decode_tools(tools: tuple[ToolBody, ...], choice: ChoiceBody | None, *, is_parallel_allowed: bool) -> DecodedTools:
    """All of it; raises `InvalidRequest` with the path of what is wrong."""
    offered: list[ToolSpec] = []
    for at, tool in enumerate(tools):
        if tool.type != "function":
            continue
        if tool.function is None:
            raise InvalidRequest("field is missing", path=f"tools.{at}.function")
        if any(tool.function.name == other.name for other in offered):
            raise InvalidRequest("tool names must be unique", path=f"tools.{at}.function.name")
        offered.append(_spec(tool.function))
    unknown = tuple(tool.type for tool in tools if tool.type != "function")
    kept, chosen = _chosen(tuple(offered), choice, is_parallel_allowed=is_parallel_allowed)
    return DecodedTools(kept, chosen, unknown)


def encode_tool(tool: ToolSpec) -> ToolBody:
    """One tool as it stands in JSON."""
    function = FunctionBody(
        tool.name, tool.description or None, tool.parameters, tool.is_strict or None, tool.is_deferred or None
    )
    return ToolBody(type="function", function=function)


def encode_tool_choice(choice: ToolChoice) -> ChoiceBody | None:
    """The choice as it stands in JSON; None for what goes without saying."""
    match choice.mode:
        case "auto":
            return None
        case "any":
            return "required"
        case "none":
            return "none"
        case "tool":
            return {"type": "function", "function": {"name": choice.name}}


def _spec(function: FunctionBody) -> ToolSpec:
    parameters = NO_PARAMETERS if function.parameters is None else function.parameters
    return ToolSpec(
        function.name,
        parameters,
        function.description or "",
        is_strict=bool(function.strict),
        is_deferred=bool(function.defer_loading),
    )


def _chosen(
    offered: tuple[ToolSpec, ...], choice: ChoiceBody | None, *, is_parallel_allowed: bool
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = check({"tool_choice": choice}, _AllowedChoice).tool_choice.allowed_tools
        names = {tool.function.name for tool in allowed.tools}
        offered = tuple(spec for spec in offered if spec.name in names)
        choice = allowed.mode
    if isinstance(choice, dict):
        name = check({"tool_choice": choice}, _NamedChoice).tool_choice.function.name
        if name not in {spec.name for spec in offered}:
            raise InvalidRequest("it names none of the tools that can run here", path="tool_choice.function.name")
        return offered, ToolChoice("tool", name, is_parallel_allowed)
    if choice == "required" and not offered:
        raise InvalidRequest("there are no tools to choose from", path="tool_choice")
    return offered, ToolChoice(_MODES[choice or "auto"], "", is_parallel_allowed)


_MODES: dict[str, Literal["auto", "any", "none"]] = {"auto": "auto", "required": "any", "none": "none"}
