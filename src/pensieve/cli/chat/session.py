"""A conversation with one backend: what was said, what goes into the next request, what was not answered yet.

Knows no terminal: text in, events out.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from pensieve.cli.recipe import Recipe
from pensieve.errors import ContextOverflow
from pensieve.generation import Collector, GenerationEvent
from pensieve.inference.backend import Backend
from pensieve.messages import Message, say

FILL_AFTER_FORGETTING = 0.75
"""Share of the context the prompt may take once turns had to leave; the rest is for the answer."""


class Turn(msgspec.Struct, frozen=True):
    """One exchange: the question and what was answered, wholly or until it was interrupted."""

    question: Message
    answer: Message
    is_interrupted: bool = False


class Forgot(msgspec.Struct, frozen=True):
    """The oldest turns left the conversation, because the context is full."""

    num_turns: int


class ChatSession:
    """The conversation; one question at a time."""

    def __init__(self, backend: Backend, recipe: Recipe) -> None:
        self._backend = backend
        self._recipe = recipe
        self._key = uuid.uuid4().hex
        self._is_full = False
        self.turns: tuple[Turn, ...] = ()
        self.unanswered = ""
        """The last question, while there is no answer to it that was kept."""

    async def submit(self, text: str) -> AsyncGenerator[GenerationEvent | Forgot, None]:
        """Ask; closing the generator keeps what was said so far as an interrupted turn. Raises `PensieveError`."""
        self.unanswered = text
        question, collector = say("user", text), Collector()
        try:
            async with aclosing(self._events(question)) as events:
                async for event in events:
                    if not isinstance(event, Forgot):
                        collector.add(event)
                    yield event
        except (GeneratorExit, asyncio.CancelledError):
            self._keep(question, collector)
            raise
        self._keep(question, collector)

    def clear(self) -> None:
        """Forget everything that was said."""
        self._is_full = False
        self.turns = ()
        self.unanswered = ""
        self._key = uuid.uuid4().hex

    async def _events(self, question: Message) -> AsyncGenerator[GenerationEvent | Forgot, None]:
        # An answer that ended because the context was full: the next one would be cut off at once.
        turns = self.turns[num_to_forget(self.turns, question, 1.0) :] if self._is_full else self.turns
        while True:
            request = self._recipe.request(_messages(turns, question), self._key)
            try:
                async with aclosing(self._backend.generate(request)) as events:
                    async for event in events:
                        if len(turns) < len(self.turns):
                            forgot, self.turns = Forgot(len(self.turns) - len(turns)), turns
                            yield forgot
                        yield event
            except ContextOverflow as overflow:
                if not turns:
                    raise
                fullness = overflow.prompt_tokens / max(1, overflow.limit_tokens)
                turns = turns[num_to_forget(turns, question, fullness) :]
            else:
                return

    def _keep(self, question: Message, collector: Collector) -> None:
        answer, finished = collector.message, collector.finished
        self._is_full = finished is not None and finished.reason == "context_full"
        if answer.text:
            self.turns += (Turn(question, answer, finished is None),)
            self.unanswered = ""


def _messages(turns: Sequence[Turn], question: Message) -> tuple[Message, ...]:
    said = (message for turn in turns for message in (turn.question, turn.answer))
    return (*said, question)


def num_to_forget(turns: Sequence[Turn], question: Message, fullness: float) -> int:
    """How many of the oldest turns must leave when the prompt fills the context `fullness` times; at least one.

    Tokens are guessed from each turn's share of the text, so asking again may be needed.
    """
    sizes = [len(turn.question.text) + len(turn.answer.text) for turn in turns]
    num_characters = sum(sizes) + len(question.text)
    allowed = num_characters * FILL_AFTER_FORGETTING / fullness
    for num_forgotten, size in enumerate(sizes):
        if num_forgotten and num_characters <= allowed:
            return num_forgotten
        num_characters -= size
    return len(turns)
