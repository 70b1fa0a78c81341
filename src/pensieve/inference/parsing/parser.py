"""The one parser of model output: chunks of text in, generation events out, whatever the grammar and the cuts.

Text arrives with the vocabulary's markers visible; what may be the beginning of one waits until that is decided. Knows
no engine: whoever feeds it ends the text with `flush`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from pensieve.generation import FinishReason, GenerationEvent
from pensieve.inference.parsing.channels import ChannelParser
from pensieve.inference.parsing.emitter import Emitter
from pensieve.inference.parsing.grammar import OutputGrammar
from pensieve.inference.parsing.tags import TagParser


def new_call_id() -> str:
    """An id for a tool call: no two in a conversation are the same, whoever made them."""
    return f"toolu_{secrets.token_hex(12)}"


class OutputParser:
    """Parses one answer.

    Arguments of a call go out as they are written. A call that breaks after it was announced gets no
    `ToolCallFinished`, and all that was written of it follows as text. `stop` ends the visible answer only: it is not
    looked for in thinking, nor in a call, nor across one.
    """

    def __init__(
        self, grammar: OutputGrammar, *, new_call_id: Callable[[], str] = new_call_id, stop: tuple[str, ...] = ()
    ) -> None:
        """`grammar` as its `after` gives it for this prompt; `new_call_id` gives each call an id of its own."""
        self._emitter = Emitter(new_call_id, stop, grammar.tools)
        parser = ChannelParser if grammar.style == "channels" else TagParser
        self._parser = parser(grammar, self._emitter)
        self._parser.feed(grammar.opening)
        self._emitter.take()  # a prefilled beginning of the answer is the prompt's

    @property
    def matched_stop(self) -> str | None:
        """The stop string that ended the answer; what comes after it is not parsed."""
        return self._emitter.matched_stop

    @property
    def finish_hint(self) -> FinishReason | None:
        """`stop_string` or `tool_calls` where an answer that ended by itself ended with these; else None."""
        if self.matched_stop is not None:
            return "stop_string"
        return "tool_calls" if self._emitter.num_calls else None

    def feed(self, text: str) -> list[GenerationEvent]:
        """The events that this piece of text completes."""
        if self.matched_stop is None:
            self._parser.feed(text)
        return self._emitter.take()

    def flush(self, *, is_cut: bool = False) -> list[GenerationEvent]:
        """The events of what was held back; call it once, when the model has ended.

        `is_cut`: it did not end by itself, so a call in the middle is no mistake of the model's: it stays unfinished
        if it was announced, and is left out if not, where else it would be shown as the text it is.
        """
        if self.matched_stop is None:
            self._parser.flush(is_cut=is_cut)
            self._emitter.flush()
        return self._emitter.take()
