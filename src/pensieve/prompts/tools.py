"""How tools are told to a model: in the shape its template takes, or in a plain format of our own (`docs/tools.md`).

Deterministic: the order of tools and of the keys in their schemas is the request's. Knows no template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pensieve.messages import Json, ToolSpec

CALL_OPENER: Final = "<tool_call>"
CALL_CLOSER: Final = "</tool_call>"
_RESULT: Final = "tool_result"
_UNTOLD: Final = ("$schema",)
"""Says nothing to a model."""

_INTRODUCTION: Final = f"""\
# Tools

You can call these tools. To call one, write this and nothing behind it:
{CALL_OPENER}
{{"name": "NAME", "arguments": {{"KEY": "VALUE"}}}}
{CALL_CLOSER}
Its result comes in the next message. The tools, with the JSON schema of their arguments:
"""


def told(tools: Sequence[ToolSpec]) -> list[ToolSpec]:
    """The tools that stand in the prompt from its beginning; deferred ones come where they are referenced."""
    return [tool for tool in tools if not tool.is_deferred]


def entry(tool: ToolSpec) -> dict[str, Any]:
    """The tool as templates expect it."""
    parameters = {key: value for key, value in tool.parameters.items() if key not in _UNTOLD}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def introduction(entries: Sequence[Mapping[str, Any]]) -> str:
    """The plain format's words on tools, for the end of the system text."""
    return _INTRODUCTION + "\n".join(_compact(found["function"]) for found in entries)


def referenced(found: Mapping[str, Any]) -> str:
    """A tool that is available from here on."""
    return f"This tool can be called from now on:\n{_compact(found['function'])}"


def call_text(name: str, arguments: Mapping[str, Json]) -> str:
    """A call in the plain format, as the model is asked to write it."""
    return f"{CALL_OPENER}\n{_compact({'name': name, 'arguments': arguments})}\n{CALL_CLOSER}"


def result_text(name: str, text: str) -> str:
    """A result in the plain format; its closer inside of it is broken up."""
    naming = f' tool="{name}"' if name else ""
    return f"<{_RESULT}{naming}>\n{unclosed(text, _RESULT)}\n</{_RESULT}>"


def unclosed(text: str, element: str) -> str:
    """Text that stands inside of such an element and does not end it."""
    return text.replace(f"</{element}", f"< /{element}")


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
