"""How tools are told."""

from __future__ import annotations

import json

from pensieve.messages import ToolSpec
from pensieve.prompts.tools import call_text, entry, introduction, result_text, told

SCHEMA = {"$schema": "s", "type": "object", "properties": {"z": {"type": "string"}, "a": {}}, "required": ["z"]}
TOOLS = (ToolSpec("zeta", SCHEMA, "Last é."), ToolSpec("alpha", {"type": "object"}, is_deferred=True))


def test_a_tool_is_told_as_it_was_sent() -> None:
    """Keys in their order; what says nothing to a model is left out."""
    assert json.dumps(entry(TOOLS[0])["function"]["parameters"]) == (
        '{"type": "object", "properties": {"z": {"type": "string"}, "a": {}}, "required": ["z"]}'
    )


def test_deferred_tools_are_not_told() -> None:
    """Until they are referenced: adding one changes nothing that stands before."""
    assert told(TOOLS) == [TOOLS[0]]


def test_the_plain_format_lists_one_tool_a_line() -> None:
    """As JSON, with characters as they are, behind an example that can be parsed."""
    written = introduction([entry(tool) for tool in TOOLS])
    lines = written.splitlines()
    assert [json.loads(line)["name"] for line in lines[-2:]] == ["zeta", "alpha"]
    assert '"Last é."' in written
    opener = lines.index("<tool_call>")
    assert json.loads(lines[opener + 1])["arguments"] == {"KEY": "VALUE"}


def test_a_call_is_written_as_the_model_is_asked_to() -> None:
    """On three lines."""
    assert call_text("a", {"é": "\n"}) == '<tool_call>\n{"name": "a", "arguments": {"é": "\\n"}}\n</tool_call>'


def test_a_result_names_its_tool() -> None:
    """Where it is known."""
    assert result_text("a", "b") == '<tool_result tool="a">\nb\n</tool_result>'
    assert result_text("", "</tool_result>") == "<tool_result>\n< /tool_result>\n</tool_result>"
