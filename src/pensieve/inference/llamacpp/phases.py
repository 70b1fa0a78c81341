"""The phases of an answer: thinking, which is free and may have a budget, and what a constraint rules afterwards.

llama.cpp holds a grammar from the first token of a run, and knows no budget: a phase that must end is a run that is cut
and continued. Text in, verdicts out; knows no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from pensieve.inference.llamacpp.triggers import TriggerWatch
from pensieve.inference.parsing.grammar import CHANNEL, END, MESSAGE, START, THINK_TAGS, OutputGrammar, Span

_ANALYSIS: Final = Span(f"{CHANNEL}analysis{MESSAGE}", END)


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a piece of text."""

    shown: str
    """What a parser may read now."""
    is_over: bool = False
    """The run ends here."""
    cut_characters: int = 0
    """How much at the end of what was said is not part of the answer,"""
    put: str = ""
    """and what is put there instead; it is in `shown` too."""


class Phases:
    """Follows one answer. Where nothing is bound or limited it passes text on."""

    def __init__(
        self,
        grammar: OutputGrammar,
        *,
        is_thinking_wanted: bool,
        budget_tokens: int | None,
        is_bound: bool,
        triggers: Sequence[str] = (),
    ) -> None:
        """`grammar`: as its `after` gives it; `is_bound`: a constraint rules what comes after the thinking.

        With `triggers`, it rules what comes from the first of them on, which is no thinking.
        """
        self._span = _ANALYSIS if grammar.style == "channels" else grammar.thinking
        self._grammar = grammar
        self._budget_tokens = budget_tokens if is_thinking_wanted else None
        self._is_bound = is_bound and not triggers
        self._num_thinking = 0
        self._tail = ""
        self._state: Literal["before", "thinking", "after"] = "before" if is_thinking_wanted else "after"
        self.opening = ""
        """What is put at the very beginning: it closes thinking that the prompt opened and nobody wants."""
        if self._span is None:
            self._state = "after"
        elif self._is_open(self._span, grammar):
            self._state = "thinking" if is_thinking_wanted else "after"
            self.opening = "" if is_thinking_wanted else self._closing(self._span)
        elif grammar.style == "channels" and grammar.opening.endswith(MESSAGE):
            self._state = "after"  # the prompt has begun what the user will see
        is_watched = is_bound and bool(triggers)
        self._watch = TriggerWatch(triggers, grammar, grammar.opening + self.opening) if is_watched else None
        self._is_triggered = False

    @property
    def is_ruled(self) -> bool:
        """Whether a run that begins now obeys the constraint."""
        return self._is_triggered or (self._is_bound and self._state == "after")

    def take(self, text: str, num_tokens: int) -> Verdict:
        """What to do with what the model has just said."""
        if self._watch is None:
            return self._turned(text, num_tokens)
        return Verdict(text) if self._is_triggered else self._watched(self._turned(text, num_tokens), self._watch)

    def rest(self) -> str:
        """What was kept back though the answer is over: a parser may read it now."""
        return "" if self._watch is None else self._watch.rest()

    def _turned(self, text: str, num_tokens: int) -> Verdict:
        """As `take`, for triggers unseen."""
        if self._state == "after" or self._span is None:
            return self._passed(text)
        if self._state == "before":
            return self._begun(text, num_tokens, self._span)
        return self._thought(text, text, num_tokens, self._span)

    def end(self) -> Verdict:
        """The model ended its turn: is there more to be said?"""
        if not self._is_bound or self._state == "after" or self._span is None:
            return Verdict("")
        if self._state == "before":
            return self._unthought()
        return self._stopped("", self._span)

    def _watched(self, verdict: Verdict, watch: TriggerWatch) -> Verdict:
        """The run is cut in front of a trigger, and the rule writes it again."""
        shown, num_ruled = watch.take(verdict.shown)
        if not num_ruled:
            return msgspec.structs.replace(verdict, shown=shown)
        self._is_triggered = True
        return Verdict(shown, is_over=True, cut_characters=max(0, num_ruled - len(verdict.put)))

    def _passed(self, text: str) -> Verdict:
        """Thinking may come a second time, and counts too."""
        if self._budget_tokens is not None and not self._is_bound and self._span is not None:
            self._tail = (self._tail + text)[-len(self._span.opener) - len(text) :]
            found = self._tail.rfind(self._span.opener)
            if found >= 0:
                self._state, self._tail = "thinking", self._tail[found + len(self._span.opener) :]
        return Verdict(text)

    def _begun(self, text: str, num_tokens: int, span: Span) -> Verdict:
        self._tail += text
        written = self._tail.lstrip()
        if written.startswith(span.opener):
            shown = self._tail if self._is_bound else text
            self._state, self._tail = "thinking", ""
            return self._thought(shown, written[len(span.opener) :], num_tokens, span)
        if span.opener.startswith(written):
            return Verdict("" if self._is_bound else text)
        return self._unthought() if self._is_bound else self._answered(text)

    def _answered(self, text: str) -> Verdict:
        self._state = "after"
        return self._passed(text)

    def _unthought(self) -> Verdict:
        """It answers at once: then it does so by the rule, from the beginning."""
        self._state = "after"
        return Verdict("", is_over=True, cut_characters=len(self._tail))

    def _thought(self, shown: str, text: str, num_tokens: int, span: Span) -> Verdict:
        self._num_thinking += num_tokens
        self._tail += text
        place = self._tail.find(span.closer)
        if place >= 0:
            rest = self._tail[place + len(span.closer) :]
            self._state, self._tail = "after", ""
            if not self._is_bound:
                return Verdict(shown)
            cut = len(rest) if rest.strip() else 0
            return Verdict(shown[: len(shown) - cut], is_over=True, cut_characters=cut)
        self._tail = self._tail[-len(span.closer) :]
        if self._budget_tokens is not None and self._num_thinking >= self._budget_tokens:
            return self._stopped(shown, span)
        return Verdict(shown)

    def _stopped(self, shown: str, span: Span) -> Verdict:
        self._state, self._tail = "after", ""
        closing = self._closing(span)
        return Verdict(shown + closing, is_over=True, put=closing)

    def _closing(self, span: Span) -> str:
        """The end of thinking as models write it, and for channels the way to what the user sees."""
        if self._grammar.style == "channels":
            if self._is_bound:
                return END
            return f"{END}{START}assistant" + ("" if self._grammar.reads_calls else f"{CHANNEL}final{MESSAGE}")
        return f"\n{span.closer}\n\n" if span == THINK_TAGS else span.closer

    @staticmethod
    def _is_open(span: Span, grammar: OutputGrammar) -> bool:
        return grammar.starts_in_thinking or (grammar.style == "channels" and grammar.opening.endswith(span.opener))
