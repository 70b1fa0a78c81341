"""Small conversations that are rendered once, to find out what a template can express. No list of model names.

Knows no request: it makes its messages up, marks each text, and looks for the marks in order.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from pensieve.errors import BackendFailure
from pensieve.messages import Role
from pensieve.prompts.template import NO_THINKING, ChatTemplate, TemplateOptions, TemplateRefusal

_THINKING_FIELDS: Final = ("reasoning_content", "message.thinking")
"""How templates mention it."""
_TOOL: Final = {
    "name": "mark_tool",
    "description": "mark description",
    "parameters": {"type": "object", "properties": {"mark_key": {"type": "string", "description": "Any."}}},
}
_TOOLS: Final = ({"type": "function", "function": _TOOL},)
_ID_DIGITS: Final = 9
"""Mistral's templates insist on it."""

Words = Literal["beside", "apart", "lost"]
"""Where what was said together with a call can stand: in its message, in one before it, or nowhere."""


class ToolTraits(msgspec.Struct, frozen=True):
    """How a template takes calls and results."""

    words: Words = "beside"
    takes_json_text: bool = False
    """Arguments are JSON text instead of an object."""
    has_parallel_calls: bool = True
    """Several calls may stand in one message."""
    takes_words_with_thinking: bool = True
    """A call's message may hold both."""
    takes_user_after_result: bool = True
    """A user message may follow results, and the thinking before them is still rendered then."""


class TemplateTraits(msgspec.Struct, frozen=True):
    """What a template can express."""

    has_system: bool
    """A system message before the first user message is rendered."""
    has_late_system: bool
    """A system message between later ones is rendered in its place."""
    thinking_field: str = ""
    """The field in which the template takes an assistant's earlier thinking; empty: it takes none."""
    takes_text: bool = True
    """A message's content may be a string; else it is a list of parts."""
    tools: ToolTraits | None = None
    """None: tools, calls or results are not rendered."""


def probe(template: ChatTemplate) -> TemplateTraits:
    """Find out what `template` can express, by rendering marked messages and looking for the marks in order."""
    probing = _Probing(template)
    has_system = probing.keeps_order("system", "user")
    field = next((field for field in _THINKING_FIELDS if field in template.source), "").rpartition(".")[2]
    return TemplateTraits(
        has_system=has_system,
        has_late_system=probing.keeps_order("user", "system", "user")
        and probing.keeps_order("user", "assistant", "system", "user"),
        thinking_field=field,
        takes_text=probing.takes_text,
        tools=probing.tools(field) if probing.shows_tools(has_system=has_system) else None,
    )


def as_parts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its content as a list, for templates that take nothing else."""
    return {**entry, "content": [{"type": "text", "text": entry["content"]}]}


def call_entry(name: str, arguments: Mapping[str, Any], number: int, *, takes_json_text: bool) -> dict[str, Any]:
    """A call as templates expect it; `number`: its place in the conversation."""
    written = json.dumps(arguments, ensure_ascii=False) if takes_json_text else dict(arguments)
    return {"id": call_key(number), "type": "function", "function": {"name": name, "arguments": written}}


def call_key(number: int) -> str:
    """An id for a call inside the prompt: the same in every session."""
    return f"{number:0{_ID_DIGITS}d}"


class _Probing:
    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self.takes_text = True
        if not self.keeps_order("user"):
            self.takes_text = False
            self.takes_text = not self.keeps_order("user")

    def keeps_order(self, *roles: Role) -> bool:
        marks = [f"mark{index}mark" for index in range(len(roles))]
        return self._shows([{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)], marks)

    def shows_tools(self, *, has_system: bool) -> bool:
        chat = [{"role": "user", "content": "mark1mark"}]
        marks = ["mark1mark"]
        if has_system:
            chat.insert(0, {"role": "system", "content": "mark0mark"})
            marks.insert(0, "mark0mark")
        text = self._render(chat, tools=_TOOLS)
        return all(mark in text for mark in (*marks, "mark_tool", "mark description", "mark_key"))

    def tools(self, thinking_field: str) -> ToolTraits | None:
        """The best way in which nothing is lost and everything stands in order."""
        ways: tuple[Words, ...] = ("beside", "apart", "lost")
        for words, takes_json_text, has_parallel_calls in itertools.product(ways, (False, True), (True, False)):
            traits = ToolTraits(words, takes_json_text, has_parallel_calls)
            if self._shows_loop(traits):
                return msgspec.structs.replace(
                    traits,
                    takes_words_with_thinking=self._thinks_with_words(traits, thinking_field),
                    takes_user_after_result=self._hears_after_result(traits, thinking_field),
                )
        return None

    def _shows_loop(self, traits: ToolTraits) -> bool:
        """The words are looked for while the loop goes on: once it is over, some templates drop them as thinking."""
        begun = [{"role": "user", "content": "mark0mark"}, *_loop(traits)]
        over = [*begun, {"role": "assistant", "content": "mark7mark"}, {"role": "user", "content": "mark8mark"}]
        marks = [f"mark{number}mark" for number in ((0, 2, 3, 4, 5) if traits.has_parallel_calls else (0, 2, 4, 3, 5))]
        words = [] if traits.words == "lost" else ["mark1mark"]
        return (
            self._shows(over, [*marks, "mark7mark", "mark8mark"], _TOOLS)
            and self._shows(begun, [marks[0], *words, *marks[1:]], _TOOLS)
            and "'mark_key': " not in self._render(begun, _TOOLS)
        )

    def _thinks_with_words(self, traits: ToolTraits, field: str) -> bool:
        if not field or traits.words != "beside":
            return True
        loop = _loop(traits)
        loop[0][field] = "mark9mark"
        return self._shows([{"role": "user", "content": "mark0mark"}, *loop], ["mark0mark", "mark5mark"], _TOOLS)

    def _hears_after_result(self, traits: ToolTraits, field: str) -> bool:
        loop = _loop(traits)
        if field:
            (loop[0] if traits.words == "beside" else _first_with_calls(loop))[field] = "mark9mark"
            if traits.words == "beside":
                loop[0]["content"] = ""
        before = [{"role": "user", "content": "mark0mark"}, *loop]
        if not self._shows([*before, {"role": "user", "content": "mark8mark"}], ["mark5mark", "mark8mark"], _TOOLS):
            return False
        options = TemplateOptions(is_thinking=True)
        is_kept = "mark9mark" in self._render(before, _TOOLS, options)
        after = self._render([*before, {"role": "user", "content": "mark8mark"}], _TOOLS, options)
        return not is_kept or "mark9mark" in after

    def _shows(self, chat: list[dict[str, Any]], marks: list[str], tools: Sequence[Mapping[str, Any]] = ()) -> bool:
        text = self._render(chat, tools)
        places = [text.find(mark) for mark in marks]
        return -1 not in places and places == sorted(places)

    def _render(
        self,
        chat: list[dict[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        options: TemplateOptions = NO_THINKING,
    ) -> str:
        try:
            entries = chat if self.takes_text else [as_parts(entry) for entry in chat]
            return self._template.try_render(entries, tools=tools, options=options)
        except (TemplateRefusal, BackendFailure):
            return ""


def _loop(traits: ToolTraits) -> list[dict[str, Any]]:
    """Words, two calls, two results, shaped as these traits want it."""
    calls = [
        call_entry("mark_tool", {"mark_key": f"mark{2 + n}mark"}, n, takes_json_text=traits.takes_json_text)
        for n in (0, 1)
    ]
    results = [
        {"role": "tool", "name": "mark_tool", "tool_call_id": call_key(n), "content": f"mark{4 + n}mark"}
        for n in (0, 1)
    ]
    first, second = {"role": "assistant", "content": "mark1mark"}, {"role": "assistant", "content": ""}
    if traits.words == "apart":
        words, first = [first], {"role": "assistant", "content": ""}
    else:
        words = []
    if traits.has_parallel_calls:
        return [*words, {**first, "tool_calls": calls}, *results]
    return [*words, {**first, "tool_calls": calls[:1]}, results[0], {**second, "tool_calls": calls[1:]}, results[1]]


def _first_with_calls(loop: list[dict[str, Any]]) -> dict[str, Any]:
    return next(entry for entry in loop if "tool_calls" in entry)
