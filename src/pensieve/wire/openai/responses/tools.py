"""The tools of a request, and which of them may or must be called: JSON to our values and back.

Three kinds: functions, tools that take text instead of an object, and those that run on OpenAI's servers or are built
into its models, which are left out of the prompt. A namespace holds tools of the first two kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.generation import ToolChoice
from pensieve.messages import Json, ToolSpec
from pensieve.wire.openai.responses.items import NonEmpty
from pensieve.wire.openai.responses.names import INPUT, Names, qualified
from pensieve.wire.openai.tools import NO_PARAMETERS

HOSTED = ("web_search", "file_search", "code_interpreter", "computer", "image_generation", "tool_search")
"""What the kinds begin with that run on OpenAI's servers, or are clients' parts of what runs there."""
MODES: dict[str, Literal["auto", "any", "none"]] = {"auto": "auto", "required": "any", "none": "none"}
_WORDS = {mode: word for word, mode in MODES.items()}


class Format(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the text of a tool looks like; a grammar is told to the model, and not enforced."""

    type: str = "text"
    syntax: str | None = None
    definition: str | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool, or a namespace of tools. The fields typed `Json` change nothing."""

    type: NonEmpty
    name: NonEmpty | None = None
    description: str | None = None
    parameters: dict[str, Json] | None = None
    strict: bool | None = None
    format: Format | None = None
    tools: tuple[Tool, ...] | None = None
    defer_loading: Json = None
    allowed_callers: Json = None
    output_schema: Json = None


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tool that must be called, or several that may be."""

    type: NonEmpty
    name: NonEmpty | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: tuple[Choice, ...] | None = None


class Offer(NamedTuple):
    """A tool as a model is told of it, and how its client knows it."""

    spec: ToolSpec
    kind: str
    name: str
    namespace: str


class DecodedTools(msgspec.Struct, frozen=True):
    """The tools that a model is offered, and the kinds that were left out."""

    offered: tuple[Offer, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools in our words."""
        return tuple(offer.spec for offer in self.offered)

    @property
    def names(self) -> Names:
        """How calls of them are told."""
        spaces = {offer.spec.name: (offer.namespace, offer.name) for offer in self.offered if offer.namespace}
        return Names(spaces, frozenset(offer.spec.name for offer in self.offered if offer.kind == "custom"))


def decode_tools(tools: tuple[Tool, ...]) -> DecodedTools:
    """All tools of a request; raises `InvalidRequest` with the path of what is wrong."""
    offered: list[Offer] = []
    left_out: dict[str, None] = {}
    known: set[str] = set()
    for tool, space, path in _flat(tools):
        if tool.type not in ("function", "custom"):
            _check_hosted(tool, path)
            left_out[tool.type[:64]] = None
            continue
        offer = _offer(tool, space, path)
        if offer.spec.name in known:
            raise InvalidRequest("tool names must be unique", path=f"{path}.name")
        known.add(offer.spec.name)
        offered.append(offer)
    return DecodedTools(tuple(offered), tuple(left_out))


def decode_tool_choice(
    choice: str | Choice | None, tools: DecodedTools, *, is_parallel_allowed: bool
) -> tuple[ToolChoice, DecodedTools]:
    """What may or must be called, and the tools that are left to choose from."""
    if choice is None or isinstance(choice, str):
        mode = MODES.get(choice or "auto")
        if mode is None:
            raise InvalidRequest(f"{ascii(choice)[:100]} is not supported here", path="tool_choice")
        if mode == "any" and not tools.offered:
            raise InvalidRequest("there are no tools to choose from", path="tool_choice")
        return ToolChoice(mode, "", is_parallel_allowed), tools
    if choice.type == "allowed_tools":
        return _decode_allowed(choice, tools, is_parallel_allowed=is_parallel_allowed)
    return ToolChoice("tool", _find(choice, tools, "tool_choice").spec.name, is_parallel_allowed), tools


def encode_tool(tool: ToolSpec) -> Tool:
    """One tool as it stands in JSON."""
    return Tool(
        type="function",
        name=tool.name,
        description=tool.description or None,
        parameters=tool.parameters,
        strict=tool.is_strict,
    )


def encode_tool_choice(choice: ToolChoice) -> str | Choice:
    """The choice as it stands in JSON."""
    return Choice(type="function", name=choice.name) if choice.mode == "tool" else _WORDS[choice.mode]


def _flat(tools: tuple[Tool, ...]) -> Iterator[tuple[Tool, str, str]]:
    """Each tool with its namespace and its place."""
    for at, tool in enumerate(tools):
        if tool.type != "namespace":
            yield tool, "", f"tools.{at}"
            continue
        if tool.name is None:
            raise InvalidRequest("field is missing", path=f"tools.{at}.name")
        for within, inner in enumerate(tool.tools or ()):
            yield inner, tool.name, f"tools.{at}.tools.{within}"


def _check_hosted(tool: Tool, path: str) -> None:
    if tool.type == "mcp":
        raise InvalidRequest("MCP servers are not supported: connect them in the client", path=path)


def _offer(tool: Tool, space: str, path: str) -> Offer:
    if tool.name is None:
        raise InvalidRequest("field is missing", path=f"{path}.name")
    name, said = qualified(space, tool.name), tool.description or ""
    if tool.type == "function":
        spec = ToolSpec(name, tool.parameters or NO_PARAMETERS, said, bool(tool.strict))
    else:
        spec = ToolSpec(name, _text_parameters(), _told(said, tool.format))
    return Offer(spec, tool.type, tool.name, space)


def _text_parameters() -> dict[str, Json]:
    properties = {INPUT: {"type": "string", "description": "The whole text that the tool is given."}}
    return {"type": "object", "properties": properties, "required": [INPUT], "additionalProperties": False}


def _told(description: str, form: Format | None) -> str:
    if form is None or not form.definition:
        return description
    return f"{description}\n\nThe {INPUT} obeys this {form.syntax or ''} grammar:\n{form.definition}".strip()


def _decode_allowed(
    choice: Choice, tools: DecodedTools, *, is_parallel_allowed: bool
) -> tuple[ToolChoice, DecodedTools]:
    listed = enumerate(choice.tools or ())
    allowed = [_find(each, tools, f"tool_choice.tools.{at}") for at, each in listed if not each.type.startswith(HOSTED)]
    if choice.mode == "required" and not allowed:
        raise InvalidRequest("there are no tools to choose from", path="tool_choice.tools")
    left = tuple(offer for offer in tools.offered if offer in allowed)
    mode = MODES[choice.mode] if left else "none"
    return ToolChoice(mode, "", is_parallel_allowed), DecodedTools(left, tools.left_out)


def _find(choice: Choice, tools: DecodedTools, path: str) -> Offer:
    if choice.type not in ("function", "custom"):
        problem = f"the tool {choice.type[:64]!a} runs elsewhere and not here: leave it out"
        raise InvalidRequest(problem, path=f"{path}.type")
    if choice.name is None:
        raise InvalidRequest("field is missing", path=f"{path}.name")
    named = [offer for offer in tools.offered if offer.kind == choice.type]
    wanted = qualified(choice.namespace, choice.name)
    by_own_name = (offer for offer in named if not choice.namespace and offer.name == choice.name)
    found = next((offer for offer in named if offer.spec.name == wanted), None) or next(by_own_name, None)
    if found is None:
        raise InvalidRequest("it names none of the tools", path=f"{path}.name")
    return found
