"""What two requests of the Messages API have in common from the start, as a shorter request that can be counted.

Reads a request in the order in which models read it: tools, system, messages. What tells the model nothing (marks,
metadata, volatile blocks, the form of content) is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

Block = dict[str, Any]
VOLATILE = re.compile(r"x-anthropic-billing-header:.*|\s*<total_tokens>.*</total_tokens>\s*", re.DOTALL)


def readable(body: dict[str, Any]) -> dict[str, Any]:
    """The request without what tells the model nothing."""
    messages = [{"role": message["role"], "content": blocks(message["content"])} for message in body["messages"]]
    return {
        "model": body["model"],
        "tools": [plain(tool) for tool in body.get("tools", [])],
        "system": blocks(body.get("system", [])),
        "messages": [message for message in messages if message["content"]],
    }


def blocks(content: str | list[Block]) -> list[Block]:
    """Content as a list of blocks, without volatile ones."""
    listed = [{"type": "text", "text": content}] if isinstance(content, str) else [plain(block) for block in content]
    return [block for block in listed if not VOLATILE.fullmatch(block.get("text", ""))]


def plain(block: Block) -> Block:
    """Without the mark that moves from turn to turn."""
    return {key: value for key, value in block.items() if key != "cache_control"}


def common(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The longest request that both readable ones begin with; its last message may be a part of theirs."""
    tools = same(in_prefix(new["tools"]), in_prefix(old["tools"]))
    if len(tools) < max(len(in_prefix(new["tools"])), len(in_prefix(old["tools"]))):
        return new | {"tools": tools, "system": [], "messages": []}
    system = same_blocks(new["system"], old["system"])
    if system != new["system"]:
        return new | {"system": system, "messages": []}
    messages = same(new["messages"], old["messages"])
    rest_new, rest_old = new["messages"][len(messages) :], old["messages"][len(messages) :]
    if rest_new and rest_old and rest_new[0]["role"] == rest_old[0]["role"]:
        begun = same_blocks(rest_new[0]["content"], rest_old[0]["content"])
        messages += [rest_new[0] | {"content": begun}] if begun else []
    return new | {"messages": messages}


def in_prefix(tools: list[Block]) -> list[Block]:
    """Tools that stand before everything else; the others stand where they are referred to."""
    return [tool for tool in tools if not tool.get("defer_loading")]


def same(new: Sequence[Block], old: Sequence[Block]) -> list[Block]:
    """What both lists begin with."""
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(new, old, strict=False))]


def same_blocks(new: list[Block], old: list[Block]) -> list[Block]:
    """What both begin with; of the first blocks that differ, the words that are the same."""
    found = same(new, old)
    if len(found) == min(len(new), len(old)):
        return found
    one, other = new[len(found)], old[len(found)]
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one.get("text", ""), other.get("text", ""), strict=False))
    words = "".join(letter for letter, _ in pairs).rpartition(" ")[0]
    return [*found, one | {"text": words}] if words else found


def size(request: dict[str, Any]) -> int:
    """Characters, to tell which of several is the longest."""
    return len(str(in_prefix(request["tools"]))) + len(str(request["system"])) + len(str(request["messages"]))


def countable(request: dict[str, Any]) -> dict[str, Any]:
    """The same as a body of count_tokens, which must ask something."""
    asked = request["messages"] or [{"role": "user", "content": "."}]
    return {key: value for key, value in (request | {"messages": asked}).items() if value}
