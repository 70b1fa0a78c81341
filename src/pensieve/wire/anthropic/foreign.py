"""What only other servers make, and clients echo: such blocks become plain text or nothing, before a body is checked.

Works on plain JSON and keeps every block's place, so that paths in errors stay true. What a user says in words nobody
knows is left alone here, and refused by name later.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pensieve.messages import Json

PASSED_OVER = "pensieve_passed_over"
"""The kind of block that stands where one was taken out."""

SPOKEN = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
"""What a model says in words that are known here."""
RESULT_CONTENT = frozenset({"text", "image", "document", "search_result", "tool_reference"})
"""What a tool's result may hold."""
_READABLE = frozenset(
    {
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "advisor_tool_result",
        "mcp_tool_result",
        "compaction",
    }
)
"""Blocks in which another server told the model something."""
_UNREADABLE = frozenset({"server_tool_use", "mcp_tool_use", "mcp_tool_listing", "fallback"})
"""Blocks that tell the model nothing it needs: what came of a call stands in its result."""
FOREIGN = _READABLE | _UNREADABLE
"""What other servers make, wherever it is echoed."""
TOOL_CHANGES = frozenset({"tool_addition", "tool_removal"})
_TEXT_FIELDS = (
    "title",
    "url",
    "text",
    "stdout",
    "stderr",
    "lines",
    "tool_name",
    "content",
    "source",
    "tool_references",
)
_MAX_READ_CHARACTERS = 100_000


def settle(raw: dict[str, Json]) -> tuple[str, ...]:
    """Change the messages of a body in place; gives the kinds of blocks that were passed over without being known."""
    unknown: dict[str, None] = {}
    messages = raw.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            for at, block in enumerate(content):
                if isinstance(block, dict) and isinstance(block.get("type"), str):
                    content[at] = _settled(raw, message.get("role"), block, unknown)
    return tuple(unknown)


def _settled(raw: dict[str, Json], role: Json, block: dict[str, Json], unknown: dict[str, None]) -> dict[str, Json]:
    kind = block["type"]
    if role == "system":
        return _settled_change(raw, block) if kind in TOOL_CHANGES else block
    if kind in _READABLE:
        return _read(kind, block)
    if kind in _UNREADABLE:
        return {"type": PASSED_OVER}
    if role == "assistant" and kind not in SPOKEN:
        unknown[kind] = None
        return {"type": PASSED_OVER}
    if kind == "tool_result" and isinstance(block.get("content"), list):
        return block | {"content": [_settled_result(item, unknown) for item in block["content"]]}
    return block


def _settled_result(item: Json, unknown: dict[str, None]) -> Json:
    kind = item.get("type") if isinstance(item, dict) else None
    if not isinstance(kind, str) or kind in RESULT_CONTENT:
        return item
    # A refusal would stay in the conversation and end it; the model learns that something is missing.
    unknown[kind] = None
    text = "\n".join(_texts(item))[:_MAX_READ_CHARACTERS]
    return {"type": "text", "text": text or f"[a result of the kind {kind[:64]}, which cannot be shown here]"}


def _read(kind: str, block: dict[str, Json]) -> dict[str, Json]:
    text = "\n".join(_texts(block.get("content")))[:_MAX_READ_CHARACTERS]
    return {"type": "text", "text": f"[{kind}]\n{text}"} if text else {"type": PASSED_OVER}


def _texts(value: Json) -> Iterator[str]:
    """Everything in it that a reader could read; errors and encrypted parts are not."""
    match value:
        case str():
            if value.strip():
                yield value
        case list():
            for item in value:
                yield from _texts(item)
        case {"type": "text", "data": str(data)}:
            yield data
        case dict() if not str(value.get("type")).endswith("_error"):
            for name in _TEXT_FIELDS:
                yield from _texts(value.get(name))


def _settled_change(raw: dict[str, Json], block: dict[str, Json]) -> dict[str, Json]:
    """Tools that come or go in the middle of a conversation: told in words, so that the prompt before it stays."""
    tool = block.get("tool")
    definition = tool.get("definition") if isinstance(tool, dict) else None
    if isinstance(definition, dict):
        tool = definition
        _define(raw, definition)
    name = tool.get("name") if isinstance(tool, dict) else None
    if not isinstance(name, str):
        return {"type": "text", "text": ""}
    if block["type"] == "tool_removal":
        return {"type": "text", "text": f"The tool {name} is not available any more."}
    known = definition or next((each for each in _tools(raw) if each.get("name") == name), {})
    told = {field: known[field] for field in ("name", "description", "input_schema") if known.get(field)}
    return {
        "type": "text",
        "text": f"From here on this tool is available: {msgspec.json.encode(told or name).decode()}",
    }


def _tools(raw: dict[str, Json]) -> list[dict[str, Json]]:
    tools = raw.get("tools")
    return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []


def _define(raw: dict[str, Json], definition: dict[str, Json]) -> None:
    if raw.get("tools") is None:
        raw["tools"] = []
    known = [tool.get("name") for tool in _tools(raw)]
    name = definition.get("name")
    if isinstance(raw["tools"], list) and isinstance(name, str) and name not in known:
        raw["tools"].append(definition | {"defer_loading": True})
