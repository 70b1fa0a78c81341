"""How a model family marks thinking and tool calls in its text, as data. Parsing it is `parser`'s work.

Knows no model by name, no template and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from pensieve.generation import GenerationRequest
from pensieve.messages import ToolSpec


class Span(msgspec.Struct, frozen=True):
    """A marked stretch of text: what opens it and what closes it."""

    opener: str
    closer: str


class CallSyntax(msgspec.Struct, frozen=True):
    """One way of writing tool calls.

    A body of form `json` is `{"name": ..., "arguments": {...}}`, a list of those, or `name[ARGS]{...}`: what it begins
    with tells. `elements` is `<function=NAME><parameter=KEY>VALUE</parameter></function>`, with a line break on either
    side of the value; `pairs` is `NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>`: in both, the types of values
    stand in the tool's schema alone, strings as they are, all else as JSON. `terms` is
    `call:NAME{KEY:<|"|>TEXT<|"|>,KEY:3}`.
    """

    opener: str
    """Empty: the call is the answer's first JSON object, without any marker."""
    closer: str = ""
    arguments_mark: str = ""
    """Stands between a bare name and its arguments; empty: names only stand inside the JSON."""
    separator: str = ""
    """May stand between two calls of one body."""
    form: Literal["json", "elements", "pairs", "terms"] = "json"


class OutputGrammar(msgspec.Struct, frozen=True):
    """What a model family's output looks like. The empty value is plain text."""

    style: Literal["tags", "channels"] = "tags"
    """`channels`: every message has a header that names its channel and its recipient (gpt-oss)."""
    thinking: Span | None = None
    calls: tuple[CallSyntax, ...] = ()
    reads_calls: bool = True
    """Without tools on offer, what looks like a call is text."""
    tools: tuple[ToolSpec, ...] = ()
    """What can be called, once `after` has told; empty: anything."""
    opening: str = ""
    """What the prompt already wrote of the answer's own markup."""

    @property
    def starts_in_thinking(self) -> bool:
        """Whether the prompt already opened the thinking block."""
        return self.thinking is not None and self.opening == self.thinking.opener

    def after(self, ending: str, *, tools: Sequence[ToolSpec]) -> OutputGrammar:
        """The grammar of an answer to the rendered prompt that ends so, with these tools on offer."""
        calls = self.calls if tools else ()
        opening, reads_calls = self._opening(ending), bool(tools)
        return msgspec.structs.replace(self, opening=opening, calls=calls, reads_calls=reads_calls, tools=tuple(tools))

    def answering(self, request: GenerationRequest, ending: str) -> OutputGrammar:
        """As `after`, with the tools that the request lets the model call: the prompt tells of them in any case.

        What follows on plain text is plain text.
        """
        if request.text:
            return OutputGrammar()
        return self.after(ending, tools=() if request.tool_choice.mode == "none" else request.tools)

    def _opening(self, prompt: str) -> str:
        if self.style == "channels":
            _, marker, header = prompt.rpartition(START)
            return marker + header if marker and END not in header else ""
        is_open = self.thinking is not None and prompt.rstrip().endswith(self.thinking.opener.rstrip())
        return self.thinking.opener if self.thinking is not None and is_open else ""


START = "<|start|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
MESSAGE = "<|message|>"
END = "<|end|>"
RETURN = "<|return|>"
CALL = "<|call|>"

PLAIN = OutputGrammar()
CHANNELS = OutputGrammar(style="channels")
THINK_TAGS = Span("<think>", "</think>")
THINK_BRACKETS = Span("[THINK]", "[/THINK]")
THOUGHT_CHANNEL = Span("<|channel>thought\n", "<channel|>")

TOOL_CALL_TAGS = CallSyntax("<tool_call>", "</tool_call>")
FUNCTION_ELEMENTS = CallSyntax("<tool_call>", "</tool_call>", form="elements")
ARGUMENT_PAIRS = CallSyntax("<tool_call>", "</tool_call>", form="pairs")
CALL_TERMS = CallSyntax("<|tool_call>", "<tool_call|>", form="terms")
TOOL_CALLS_BRACKETS = CallSyntax("[TOOL_CALLS]", arguments_mark="[ARGS]")
TOOL_CALL_PIPES = CallSyntax("<|tool_call|>", "<|/tool_call|>")
PYTHON_TAG = CallSyntax("<|python_tag|>", separator=";")
BARE_JSON = CallSyntax("", separator=";")
