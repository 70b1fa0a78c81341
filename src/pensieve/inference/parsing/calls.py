"""The body of a tool call, read as it is written: name and arguments go out at once, a broken call ends up as text.

One reader per body. It is given text and says how much of it belongs to the body; no engine, no template.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from pensieve.inference.parsing.emitter import Emitter
from pensieve.inference.parsing.grammar import CallSyntax
from pensieve.inference.parsing.spans import WHITESPACE, JsonSpan, is_arguments

_NAME: Final = re.compile(r"[\w.:/-]{1,128}")
_BARE_NAME: Final = re.compile(r"\s*([\w.:/-]{1,128})(?:\[CALL_ID\][^\[\]]*)?")
_MOST_NAME_CHARACTERS: Final = 256
_ARGUMENT_KEYS: Final = frozenset({"arguments", "parameters"})
_OTHER_KEYS: Final = frozenset({"id", "type", "index"})
"""Known to stand beside name and arguments; ids are ours to give."""

_Step = Literal["open", "first key", "key", "colon", "value", "next", "done", "broken"]
_STEPS: Final[dict[tuple[_Step, str], _Step]] = {
    ("open", "{"): "first key",
    ("first key", "}"): "done",
    ("colon", ":"): "value",
    ("next", ","): "key",
    ("next", "}"): "done",
}
_SPAN_STEPS: Final = frozenset({"first key", "key", "value"})


class ArgumentsReader:
    """The arguments of a call whose name is known: a JSON object, handed on as it comes."""

    def __init__(self, emitter: Emitter, name: str) -> None:
        self._emitter = emitter
        self._name = name
        self._span = JsonSpan()
        self._is_started = False
        self.is_over = False
        self.is_broken = False

    @property
    def is_called(self) -> bool:
        """Whether a complete call was handed on."""
        return self.is_over

    def take(self, text: str, at: int) -> int:
        """Take what belongs to the arguments; the index behind it."""
        at = self._span.take(text, at)
        self.offer(self._span)
        return at

    def offer(self, span: JsonSpan) -> None:
        """Hand on what this span has gathered."""
        if not span.is_object:
            self.is_broken = True
            return
        if not self._is_started:
            self._emitter.start_call(self._name)
            self._is_started = True
        self._emitter.add_arguments(span.drain())
        self.is_broken = span.is_done and not is_arguments(span)
        self.is_over = span.is_done and not self.is_broken
        if self.is_over:
            self._emitter.finish_call()

    def finish_empty(self) -> None:
        """The call has no arguments."""
        self._emitter.start_call(self._name)
        self._emitter.add_arguments("{}")
        self._emitter.finish_call()
        self.is_over = True


class ObjectReader:
    """One `{"name": ..., "arguments": {...}}`, its members in any order."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._step: _Step = "open"
        self._span: JsonSpan | None = None
        self._key = ""
        self._name = ""
        self._arguments: JsonSpan | None = None
        self._reader: ArgumentsReader | None = None

    @property
    def is_over(self) -> bool:
        """Whether the object was closed."""
        return self._step == "done"

    @property
    def is_broken(self) -> bool:
        """Whether this can no longer become a call."""
        return self._step == "broken"

    @property
    def is_called(self) -> bool:
        """Whether a complete call was handed on."""
        return self._reader is not None and self._reader.is_over

    def take(self, text: str, at: int) -> int:
        """Take characters up to the next thing that changes what this object is; the index behind them."""
        if self._span is not None:
            return self._take_value(text, at)
        character = text[at]
        if character in WHITESPACE:
            return at + 1
        if self._step == "value" or (self._step in _SPAN_STEPS and character == '"'):
            self._span = JsonSpan()
            return at
        self._step = _STEPS.get((self._step, character), "broken")
        if self._step == "done":
            self._close()
        return at + 1

    def _take_value(self, text: str, at: int) -> int:
        assert self._span is not None, "a value is open"
        at = self._span.take(text, at)
        if self._step == "value" and self._key in _ARGUMENT_KEYS:
            self._arguments = self._span
            self._call()
        if self._span.is_done and not self.is_broken:
            self._end_span(self._span)
            self._span = None
        return at

    def _end_span(self, span: JsonSpan) -> None:
        try:
            value = span.value()
        except ValueError:
            self._step = "broken"
            return
        if self._step == "value":
            self._step = "next"
            if self._key == "name":
                self._take_name(value)
            return
        is_repeated = (value == "name" and self._name) or (value in _ARGUMENT_KEYS and self._arguments)
        is_known = value == "name" or value in _ARGUMENT_KEYS or value in _OTHER_KEYS
        self._key, self._step = value, "colon" if is_known and not is_repeated else "broken"

    def _take_name(self, value: object) -> None:
        self._name = self._emitter.known_name(value) if isinstance(value, str) and _NAME.fullmatch(value) else ""
        if self._name:
            self._call()
        else:
            self._step = "broken"

    def _call(self) -> None:
        """Hand on what is known of the call, once it has a name and arguments that began."""
        if not self._name or self._arguments is None:
            return
        if self._reader is None:
            self._reader = ArgumentsReader(self._emitter, self._name)
        if not self._reader.is_over:
            self._reader.offer(self._arguments)
        if self._reader.is_broken:
            self._step = "broken"

    def _close(self) -> None:
        if self.is_called:
            return
        if not self._name:
            self._step = "broken"
            return
        self._reader = ArgumentsReader(self._emitter, self._name)
        self._reader.finish_empty()


class BodyReader:
    """Everything behind a call's opener, its closer included."""

    def __init__(self, emitter: Emitter, syntax: CallSyntax, *, before: str) -> None:
        """`before`: white space in front of the opener, which only matters if this ends up as text."""
        self._emitter = emitter
        self._syntax = syntax
        self._place: Literal["begin", "name", "between"] = "begin"
        self._reader: ObjectReader | ArgumentsReader | None = None
        self._is_in_list = False
        self._is_counted = False
        """Whether the reader's call was handed on."""
        self._has_call = False
        self._is_broken = False
        self._name = ""
        self._closing = ""
        self._written = [before, syntax.opener]
        self.is_over = False
        self.is_text = False
        """Whether it ended as text."""

    def take(self, text: str, at: int) -> int:
        """Take what belongs to the body; the index behind it. What turns out not to be a call is said as text."""
        while at < len(text) and not self.is_over:
            start = at
            at = self._step(text, at)
            self._written.append(text[start:at])
            self._look_back()
        return at

    def flush(self, rest: str, *, is_cut: bool) -> None:
        """The text is over: an unfinished call becomes text, unfinished markup behind a finished one does not."""
        assert not rest, "this reader leaves nothing"
        is_between = self._reader is None and self._has_call and self._place != "name"
        if self.is_over or is_between or (self._reader is not None and self._is_counted):
            return
        if is_cut:
            self._emitter.cut_call()
        else:
            self._break()

    def _step(self, text: str, at: int) -> int:
        if self._reader is not None:
            return self._reader.take(text, at)
        if self._place == "name":
            self._take_name(text[at])
            return at + 1
        if text[at] in WHITESPACE:
            return at + 1
        return self._begin(text, at) if self._place == "begin" else self._between(text, at)

    def _look_back(self) -> None:
        """What the last step brought to an end."""
        reader = self._reader
        if reader is not None:
            self._is_broken = reader.is_broken
            if (reader.is_called and not self._is_counted) or reader.is_over:
                self._has_call = self._is_counted = True
                self._written.clear()
            if reader.is_over:
                self._reader, self._place = None, "between"
        if self._is_broken:
            self._break()

    def _begin(self, text: str, at: int) -> int:
        if text[at] == "[" and not self._is_in_list:
            self._is_in_list = True
            return at + 1
        if text[at] == "{":
            self._reader, self._is_counted = ObjectReader(self._emitter), False
            return at
        if self._syntax.arguments_mark and not self._is_in_list:
            self._place, self._name = "name", ""
            return at
        return self._give_up(at)

    def _take_name(self, character: str) -> None:
        self._name += character
        mark = self._syntax.arguments_mark
        named = _BARE_NAME.fullmatch(self._name.removesuffix(mark))
        if named is not None and self._name.endswith(mark):
            name = self._emitter.known_name(named[1])
            self._is_broken = not name
            self._reader, self._is_counted = ArgumentsReader(self._emitter, name) if name else None, False
        else:
            is_name = _NAME.fullmatch(self._name.partition("[")[0]) is not None
            self._is_broken = not is_name or len(self._name) > _MOST_NAME_CHARACTERS

    def _between(self, text: str, at: int) -> int:
        character, closer = text[at], self._syntax.closer
        if self._is_in_list and character in ",]":
            self._is_in_list = character == ","
            self._place = "begin" if character == "," else "between"
            return at + 1
        if not self._is_in_list and closer.startswith(self._closing + character):
            self._closing += character
            self.is_over = self._closing == closer
            return at + 1
        is_next = not self._closing and (character == "{" or character == self._syntax.separator)
        if is_next and not self._is_in_list:
            self._place = "begin"
            return at + (character != "{")
        return self._give_up(at)

    def _give_up(self, at: int) -> int:
        """What comes next is not part of a call."""
        if self._has_call and not "".join(self._written).strip():
            self.is_over = True
        else:
            self._is_broken = True
        return at

    def _break(self) -> None:
        self._emitter.drop_call("".join(self._written))
        self.is_over = self.is_text = True
