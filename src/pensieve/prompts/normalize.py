"""Shape a conversation for a template: roles it knows, in an order it accepts, calls and results where it takes them.

What a template can express is a value, `TemplateTraits`; how parts are written is `contents`' work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pensieve.messages import Message, Role, ThinkingPart, ToolCallPart, ToolResultPart
from pensieve.prompts.contents import ContentWriter
from pensieve.prompts.probing import TemplateTraits, ToolTraits, as_parts, call_entry, call_key
from pensieve.prompts.tools import call_text, result_text

JOINT: Final = "\n\n"


class _Call(msgspec.Struct, frozen=True):
    """A call, numbered through the conversation; the number is its id in the prompt."""

    number: int
    name: str
    arguments: dict[str, Any]


class _Turn(msgspec.Struct):
    """What becomes one message of the template."""

    role: Role | str
    texts: list[str]
    thoughts: list[str] = []
    calls: list[_Call] = []
    answers: _Call | None = None
    """With role `tool`: the call whose result this is."""


def to_chat(
    messages: Sequence[Message], traits: TemplateTraits, writer: ContentWriter, *, introduction: str = ""
) -> list[dict[str, Any]]:
    """The template's messages: `{"role", "content"}` each, same roles in a row merged.

    With `traits.tools`, calls are the field `tool_calls` and results are messages of role `tool`; without, both are
    written in the plain format, and `introduction` tells of the tools at the end of the system text. System text that
    the template cannot express in its place is put into the user turn there, marked as what it is. Raises
    `InvalidRequest` for what cannot be written.
    """
    shaper = _Shaper(traits, writer)
    if introduction and not (messages and messages[0].role == "system"):
        shaper.system(introduction)
        introduction = ""
    for index, message in enumerate(messages):
        shaper.add(message, index)
        if index == 0 and introduction:
            shaper.system(introduction)
    return shaper.chat()


class _Shaper:
    def __init__(self, traits: TemplateTraits, writer: ContentWriter) -> None:
        self._traits = traits
        self._tools = traits.tools
        self._writer = writer
        self._turns: list[_Turn] = []
        self._num_calls = 0
        self._calls: dict[str, _Call] = {}
        """The last one by the id that the conversation gives it."""

    def add(self, message: Message, index: int) -> None:
        match message.role:
            case "system":
                self.system(self._writer.words(message.parts, index))
            case "user":
                self._user(message, index)
            case "assistant":
                self._assistant(message)

    def system(self, text: str) -> None:
        is_leading = not self._turns or (len(self._turns) == 1 and self._turns[0].role == "system")
        if self._traits.has_system if is_leading else self._traits.has_late_system:
            self._put("system", text)
        else:
            self._say(f"<system>\n{text}\n</system>")

    def chat(self) -> list[dict[str, Any]]:
        turns = self._turns
        if self._tools is not None and not self._tools.has_parallel_calls:
            turns = _one_by_one(turns)
        entries = [entry for turn in turns for entry in self._entries(turn)]
        return entries if self._traits.takes_text else [as_parts(entry) for entry in entries]

    def _user(self, message: Message, index: int) -> None:
        """Results first: templates want them right behind their calls."""
        has_results = False
        for place, part in enumerate(message.parts):
            if isinstance(part, ToolResultPart):
                self._result(self._writer.result(part, index, place), self._calls.get(part.call_id))
                has_results = True
        text = self._writer.words(message.parts, index)
        if text or not has_results:
            self._say(text)

    def _result(self, text: str, call: _Call | None) -> None:
        if self._tools is None or call is None:
            self._say(result_text(call.name if call else "", text))
        else:
            self._turns.append(_Turn("tool", [text], answers=call))

    def _assistant(self, message: Message) -> None:
        thoughts = [self._writer.own(part.text) for part in message.parts if isinstance(part, ThinkingPart)]
        calls = [self._call(part) for part in message.parts if isinstance(part, ToolCallPart)]
        text = self._writer.own_words(message)
        if self._tools is None:
            text = "\n".join([*filter(None, [text]), *(call_text(call.name, call.arguments) for call in calls)])
            calls = []
        if self._turns and self._turns[-1].role == "assistant" and not self._turns[-1].calls:
            turn = self._turns[-1]
            turn.texts.extend(filter(None, [text]))
        else:
            turn = _Turn("assistant", [text])
            self._turns.append(turn)
        turn.thoughts = turn.thoughts + thoughts
        turn.calls = turn.calls + calls

    def _call(self, part: ToolCallPart) -> _Call:
        call = _Call(self._num_calls, self._writer.name(part.name), self._writer.arguments(part.arguments))
        self._num_calls += 1
        self._calls[part.id] = call
        return call

    def _say(self, text: str) -> None:
        """In the user's turn, or in the result before it where the template cannot take a user message there."""
        is_behind_result = bool(self._turns) and self._turns[-1].role == "tool"
        if is_behind_result and self._tools is not None and not self._tools.takes_user_after_result:
            self._turns[-1].texts.append(f"<user>\n{text}\n</user>")
        else:
            self._put("user", text)

    def _put(self, role: Role, text: str) -> None:
        if self._turns and self._turns[-1].role == role:
            self._turns[-1].texts.append(text)
        else:
            self._turns.append(_Turn(role, [text]))

    def _entries(self, turn: _Turn) -> list[dict[str, Any]]:
        entry: dict[str, Any] = {"role": turn.role, "content": JOINT.join(turn.texts)}
        if turn.answers is not None:
            return [entry | {"name": turn.answers.name, "tool_call_id": call_key(turn.answers.number)}]
        thinking = JOINT.join(turn.thoughts) if self._traits.thinking_field else ""
        if self._tools is None or not turn.calls:
            return [_thinking(entry, self._traits.thinking_field, thinking)]
        return self._with_calls(entry, thinking, turn.calls, self._tools)

    def _with_calls(
        self, entry: dict[str, Any], thinking: str, calls: Sequence[_Call], tools: ToolTraits
    ) -> list[dict[str, Any]]:
        field = self._traits.thinking_field
        written = [
            call_entry(call.name, call.arguments, call.number, takes_json_text=tools.takes_json_text) for call in calls
        ]
        if tools.words == "apart" and entry["content"]:
            return [
                _thinking(entry, field, thinking),
                {"role": "assistant", "content": "", "tool_calls": written},
            ]
        if thinking and not tools.takes_words_with_thinking:
            thinking = JOINT.join(filter(None, [thinking, entry["content"]]))
            entry = entry | {"content": ""}
        return [_thinking(entry | {"tool_calls": written}, field, thinking)]


def _thinking(entry: dict[str, Any], field: str, thinking: str) -> dict[str, Any]:
    return entry | {field: thinking} if thinking else entry


def _one_by_one(turns: Sequence[_Turn]) -> list[_Turn]:
    """Each call in a message of its own, its result right behind it."""
    apart: list[_Turn] = []
    results: dict[int, list[_Turn]] = {}
    for turn in turns:
        if turn.answers is not None:
            results.setdefault(turn.answers.number, []).append(turn)
    for turn in turns:
        if turn.answers is None:
            apart.append(msgspec.structs.replace(turn, calls=turn.calls[:1]))
            for number, call in enumerate(turn.calls):
                if number:
                    apart.append(_Turn("assistant", [""], calls=[call]))
                apart += results.get(call.number, ())
    return apart
