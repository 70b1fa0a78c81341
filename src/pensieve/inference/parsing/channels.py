"""Output in channels (gpt-oss): messages with headers that name a channel and sometimes a recipient.

`analysis` is thinking; a recipient `functions.NAME` makes a call in either place of the header; every other channel,
known or not, is text, so that nothing said is lost. A header that is none is text too.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from pensieve.inference.parsing.calls import ArgumentsReader
from pensieve.inference.parsing.emitter import Emitter
from pensieve.inference.parsing.grammar import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START, OutputGrammar
from pensieve.inference.parsing.spans import first_marker, held_length
from pensieve.inference.parsing.tags import TagParser

_HEADER_MARKERS: Final = (START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL)
_BODY_ENDS: Final = (START, CHANNEL, END, RETURN, CALL)
_ROLE: Final = "assistant"
_TO: Final = "to="
_MOST_HEADER_CHARACTERS: Final = 256
_RECIPIENT: Final = re.compile(r"to=([^\s<]+)")
_CHANNEL_NAME: Final = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")
_FUNCTION: Final = re.compile(r"functions\.([\w.:/-]{1,128})")
_BODILESS: Final = re.compile(
    rf"\s*(?:{_ROLE})?\s*(?:to=[^\s<]+)?\s*{re.escape(CHANNEL)}\s*\w*\s*(?:to=[^\s<]+)?\s*(?:{re.escape(CONSTRAIN)})?\s*"
)
"""What a header may consist of, up to the type of its content."""


class ChannelParser:
    """Text in, findings to the emitter."""

    def __init__(self, grammar: OutputGrammar, emitter: Emitter) -> None:
        self._emitter = emitter
        self._reads_calls = grammar.reads_calls
        self._calls = OutputGrammar(calls=grammar.calls)
        self._text = TagParser(self._calls, emitter)
        """Reads the plain format's calls in what is said, where the prompt asked for that."""
        self._pending = ""
        self._header = ""
        self._place: Literal["header", "thinking", "text", "call"] = "header"
        self._recipient = ""
        self._arguments: ArgumentsReader | None = None
        self._skips_space = False
        self._written: list[str] = []

    def feed(self, text: str) -> None:
        """Take more text."""
        self._pending += text
        while self._pending and self._step():
            pass

    def flush(self, *, is_cut: bool) -> None:
        """The text is over; `is_cut`: not by itself. A call with whole arguments is complete without its end marker."""
        pending, self._pending = self._pending, ""
        if self._place != "header":
            self._take(pending)
            if self._place == "call" and is_cut:
                self._emitter.cut_call()
            else:
                self._end(is_cut=True)
        elif CHANNEL in self._header:
            self._lose_header()
        self._end_text(is_cut=is_cut)

    def _step(self) -> bool:
        markers = _HEADER_MARKERS if self._place == "header" else _BODY_ENDS
        place, marker = first_marker(self._pending, markers)
        is_found = place >= 0
        size = place if is_found else len(self._pending) - held_length(self._pending, markers)
        piece, self._pending = self._pending[:size], self._pending[size + len(marker) :]
        if self._place != "header":
            self._take(piece)
            if is_found:
                self._end()
                self._header = marker if marker == CHANNEL else ""
            return is_found
        self._header += piece
        if not self._is_header(self._header):
            self._pending = self._header[_MOST_HEADER_CHARACTERS:] + marker + self._pending
            self._header = self._header[:_MOST_HEADER_CHARACTERS]
            self._lose_header()
            return True
        if is_found:
            self._in_header(marker)
        return is_found

    def _in_header(self, marker: str) -> None:
        if marker in {CHANNEL, CONSTRAIN}:
            self._header += marker
        elif marker == MESSAGE:
            self._begin_body()
        else:
            self._lose_header()
            self._end()

    def _is_header(self, header: str) -> bool:
        """Whether this can still become a header."""
        role, marker, _ = header.partition(CHANNEL)
        if marker or len(header) > _MOST_HEADER_CHARACTERS:
            return len(header) <= _MOST_HEADER_CHARACTERS
        words = role.split()
        whole = words if role[-1:].isspace() else words[:-1]
        last = "" if whole == words else words[-1]
        is_known = all(word == _ROLE or word.startswith(_TO) for word in whole)
        return is_known and (_ROLE.startswith(last) or last.startswith(_TO) or _TO.startswith(last))

    def _lose_header(self) -> None:
        """No body was marked: what does not belong to a header is the body, in the channel that was named."""
        header, self._header = self._header, ""
        known = _BODILESS.match(header)
        body = header[known.end() :] if known else header.removeprefix(_ROLE)
        if known and len(body.split()) < 2:
            body = ""  # the type of the content, such as `json`
        names = _CHANNEL_NAME.findall(header)
        self._place = "thinking" if names and names[-1] == "analysis" else "text"
        self._take(body)

    def _begin_body(self) -> None:
        header, self._header = self._header, ""
        names, recipients = _CHANNEL_NAME.findall(header), _RECIPIENT.findall(header)
        self._recipient = recipients[-1] if recipients else ""
        function = _FUNCTION.fullmatch(self._recipient)
        self._written = [f"{_TO}{self._recipient} "]
        name = self._emitter.known_name(function[1]) if function is not None and self._reads_calls else ""
        if name:
            self._place, self._arguments = "call", ArgumentsReader(self._emitter, name)
        else:
            self._place = "thinking" if names and names[-1] == "analysis" and not recipients else "text"
            if recipients:
                self._emitter.say(self._written[0])

    def _take(self, body: str) -> None:
        match self._place:
            case "thinking":
                self._emitter.think(body)
            case "text":
                body = body.lstrip() if self._skips_space else body
                self._skips_space = self._skips_space and not body
                self._say(body)
            case "call":
                self._take_arguments(body)

    def _say(self, text: str) -> None:
        if self._calls.calls:
            self._text.feed(text)
        else:
            self._emitter.say(text)

    def _end_text(self, *, is_cut: bool = False) -> None:
        self._text.flush(is_cut=is_cut)
        self._text = TagParser(self._calls, self._emitter)

    def _take_arguments(self, body: str) -> None:
        assert self._arguments is not None, "a call has arguments"
        if len(self._written) == 1:
            body = body.lstrip()
        if not body:
            return
        at = self._arguments.take(body, 0)
        self._written.append(body[:at])
        if self._arguments.is_broken:
            self._emitter.drop_call("".join(self._written))
        if self._arguments.is_broken or self._arguments.is_over:
            self._place, self._skips_space = "text", self._arguments.is_over
            self._take(body[at:])

    def _end(self, *, is_cut: bool = False) -> None:
        """The message is over, by its marker or by what follows; a cut one is only over because the text is."""
        if self._place == "text" and not is_cut:
            self._end_text()
        if self._place == "thinking" and not is_cut:
            self._emitter.finish_thinking()
        elif self._place == "call" and self._arguments is not None:
            if len(self._written) > 1 or is_cut:
                self._emitter.drop_call("".join(self._written))
            else:
                self._arguments.finish_empty()
        self._place, self._skips_space = "header", False
