"""Tools that the API's own servers would run. There is no such server here, and nobody is told otherwise: they are left
out of the prompt, and a request that insists on one is answered at once with a well-formed "unavailable".
"""

from __future__ import annotations

import uuid

import msgspec

from pensieve.generation import Usage
from pensieve.messages import Json
from pensieve.wire.anthropic.answers import encode_usage
from pensieve.wire.sse import encode_event


class ServerTool(msgspec.Struct, frozen=True):
    """A tool that cannot run here; `result` is empty for a kind nobody knows."""

    name: str
    result: str = ""
    error: str = ""


class _Family(msgspec.Struct, frozen=True):
    prefix: str
    name: str
    result: str
    error: str


_FAMILIES = (
    _Family("web_search_", "web_search", "web_search_tool_result", "web_search_tool_result_error"),
    _Family("web_fetch_", "web_fetch", "web_fetch_tool_result", "web_fetch_tool_result_error"),
    _Family("code_execution_", "code_execution", "code_execution_tool_result", "code_execution_tool_result_error"),
    *(
        _Family(kind, kind, "tool_search_tool_result", "tool_search_tool_result_error")
        for kind in ("tool_search_tool_regex", "tool_search_tool_bm25")
    ),
    _Family("advisor_", "advisor", "advisor_tool_result", "advisor_tool_result_error"),
)


def find_server_tool(kind: str, name: str) -> ServerTool:
    """What is known of a tool of that `type`."""
    family = next((family for family in _FAMILIES if kind.startswith(family.prefix)), None)
    if family is None:
        return ServerTool(name or kind)
    return ServerTool(name or family.name, family.result, family.error)


def is_tool_search(kind: str) -> bool:
    """Whether the tool would find and load other tools."""
    return kind.startswith("tool_search_tool_")


def encode_unavailable(tool: ServerTool, *, message_id: str, model: str) -> dict[str, Json]:
    """The whole answer to a request that insists on the tool; no prompt was read for it, so nothing is counted."""
    call_id = f"srvtoolu_{uuid.uuid4().hex[:24]}"
    blocks: list[Json] = []
    if tool.result:
        error = {"type": tool.error, "error_code": "unavailable"}
        blocks = [
            {"type": "server_tool_use", "id": call_id, "name": tool.name, "input": {}},
            {"type": tool.result, "tool_use_id": call_id, "content": error},
        ]
    said = f"The tool {tool.name[:64]} runs on a server that this local model does not have, so it is unavailable here."
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [*blocks, {"type": "text", "text": said}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": encode_usage(Usage()),
    }


def encode_as_stream(message: dict[str, Json]) -> bytes:
    """The frames of a whole answer that is known already."""
    opening = message | {"content": [], "stop_reason": None}
    frames = [encode_event("message_start", {"type": "message_start", "message": opening})]
    for index, block in enumerate(message["content"]):
        frames += _block_frames(index, block)
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    frames.append(encode_event("message_delta", {"type": "message_delta", "delta": delta, "usage": message["usage"]}))
    return b"".join([*frames, encode_event("message_stop", {"type": "message_stop"})])


def _block_frames(index: int, block: dict[str, Json]) -> list[bytes]:
    is_text = block["type"] == "text"
    shown = {"type": "text", "text": ""} if is_text else block
    frames = [
        encode_event("content_block_start", {"type": "content_block_start", "index": index, "content_block": shown})
    ]
    if is_text:
        delta = {"type": "text_delta", "text": block["text"]}
        data = {"type": "content_block_delta", "index": index, "delta": delta}
        frames.append(encode_event("content_block_delta", data))
    return [*frames, encode_event("content_block_stop", {"type": "content_block_stop", "index": index})]
