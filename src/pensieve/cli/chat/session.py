"""A conversation with one backend: what is asked next, what goes into a request, and what is kept of it.

Knows no terminal: text in, events out. Everything said is in the archive before and while it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from pensieve.cli.chat.archive import Archive, Recorder, end_late, ended_here
from pensieve.cli.chat.retries import problem_of, retry_delay_seconds
from pensieve.cli.chat.window import Forgot, Window, surely_fits
from pensieve.cli.recipe import Recipe
from pensieve.conversation.choices import Choices
from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.store import ConversationStore
from pensieve.errors import ConversationNotFound, PensieveError, UsageError
from pensieve.generation import Collector, Finished, GenerationEvent, GenerationRequest
from pensieve.inference.backend import Backend
from pensieve.messages import Message, Part, TextPart, say

SUMMARIZE = (
    "Summarise our conversation so far, for yourself: what was asked, what was found or decided, names, numbers, code "
    "and wishes that will be needed again. Leave out what is settled and of no more use. Write only the summary."
)

NOTHING_SAID = "nothing was said yet in this conversation: ask something first"
SUMMARY_LAST = "the last turn is a summary: /undo takes it back, /compact makes another"
SUMMARY_TOKENS = 1024
"""The longest summary, whatever the longest answer is."""


class Retrying(msgspec.Struct, frozen=True):
    """The answer failed, and begins anew by itself: what came of it counts no more."""

    problem: str
    delay_seconds: float


Event = GenerationEvent | Forgot | Retrying


class ChatSession:
    """The conversation; one question at a time."""

    def __init__(
        self,
        backend: Backend,
        recipe: Recipe,
        archive: Archive,
        *,
        given: Choices = Choices(),  # noqa: B008 - frozen
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.backend = backend
        self.base = recipe
        """What holds where nothing else was chosen."""
        self.given = given
        """The command line's: they win over what an opened conversation has, until a command chooses otherwise."""
        self.choices = given
        """What was chosen for this conversation."""
        self.recipe = recipe.asked(given)
        """What holds now."""
        self.archive = archive
        self.attachments: tuple[Part, ...] = ()
        """They go with the next question."""
        self.waiting: tuple[Message, ...] = ()
        """Questions that the archive did not take yet, as they were typed, oldest first."""
        self.failed = ""
        """Why the last answer broke off, until the next is asked for; one that was stopped did not."""
        self.last_request: GenerationRequest | None = None
        self.window = Window()
        self._pause = pause
        self._measured: int | None = None
        """The turn whose usage tells how long the prompt is; None where the model, or what comes first, is another."""
        self._conversation: Conversation | None = None
        self._unended: dict[int, tuple[Message, Finished | None]] = {}
        """Answers that the archive did not take whole, by turn."""

    @property
    def conversation(self) -> Conversation | None:
        """The conversation so far; None: nothing was said yet."""
        return self._conversation

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns from the first to the last, as they are spoken now."""
        return () if self._conversation is None else self._conversation.path()

    @property
    def unanswered(self) -> Message | None:
        """The last question, while there is no answer to it."""
        last = self.turns[-1] if self.turns else None
        return last.question if last is not None and last.answer is None and not last.is_summary else None

    # Asking.

    async def submit(self, text: str) -> AsyncGenerator[Event, None]:
        """Ask; closing the generator keeps what was said so far as an interrupted turn. Raises `PensieveError`."""
        await self.put(text)
        async with aclosing(self.answer()) as events:
            async for event in events:
                yield event

    async def put(self, text: str) -> None:
        """Keep a question, with what is attached, as the one that waits; one that waited before stays a branch."""
        question = Message("user", (*self.attachments, TextPart(text)))
        self.waiting, self.attachments, self.failed = (*self.waiting, question), (), ""
        await self._put(question)

    async def again(self, text: str | None = None) -> None:
        """Let the last question wait once more, in other words if `text` says so; its old answer stays a branch."""
        if self.waiting:
            first, *others = self.waiting
            if text is not None:
                first = in_other_words(first, text)
                self.waiting = (first, *others)
            await self._put(first)
            return
        last = self._last()
        if last.is_summary:
            raise UsageError(SUMMARY_LAST)
        if text is None and len(last.messages) == 1:
            return
        question = last.question or say("user", "")
        await self._begin(question if text is None else in_other_words(question, text), last.parent)

    async def keep_rest(self) -> None:
        """Let the archive take what it did not take yet: answers, and questions as branches; raises what it raises."""
        while self.waiting:
            await self._put(self.waiting[0])
        if unended := dict(self._unended):
            await self.archive.do(lambda store: end_late(store, unended))
            self._unended.clear()

    def withdraw(self) -> Message:
        """Give the last of the questions that wait back; it waits no more."""
        *others, last = self.waiting
        self.waiting = tuple(others)
        return last

    async def answer(self) -> AsyncGenerator[Event, None]:
        """Answer the question that waits; raises `UsageError` if there is none."""
        if self.unanswered is None:
            raise UsageError("there is no question to answer: type one")
        turn = self.turns[-1]
        collector, recorder = Collector(), Recorder(self.archive, turn)
        self.failed = ""
        try:
            async with aclosing(self._attempts(turn.messages[0])) as events:
                async for event in events:
                    if isinstance(event, Retrying):
                        collector = Collector()
                        recorder.begin_anew()
                    elif not isinstance(event, Forgot):
                        collector.add(event)
                        recorder.add(event)
                    yield event
        except PensieveError as error:
            self.failed = str(error)
            raise
        finally:
            await self._end(turn, collector, recorder)

    async def compact(self) -> AsyncGenerator[Event, None]:
        """Let the model summarise what was said; the summary then stands for it in prompts, and nothing is deleted."""
        if not any(turn.answer for turn in self.turns):
            raise UsageError("there is nothing to summarise yet")
        question, collector = say("user", SUMMARIZE), Collector()
        async with aclosing(self._attempts(question, SUMMARY_TOKENS)) as events:
            async for event in events:
                if isinstance(event, Retrying):
                    collector = Collector()
                elif not isinstance(event, Forgot):
                    collector.add(event)
                yield event
        summary, finished = say("assistant", collector.message.text), collector.finished
        if not summary.text.strip() or finished is None or finished.reason == "repetition":
            raise UsageError("the model gave no usable summary, so nothing was changed: try again, or another /model")
        await self._begin((question, summary), is_summary=True)

    # Conversations.

    def use(self, backend: Backend, model: str) -> None:
        """Let another backend answer from the next question on."""
        self.backend, self._measured = backend, None
        self.recipe = msgspec.structs.replace(self.recipe, model=model)

    def new(self) -> None:
        """Begin a new conversation; the old one stays in the archive, and what is attached waits for a question."""
        self._conversation = self._measured = None
        self.failed = ""
        self.window = Window()

    async def open(self, conversation_id: int) -> Conversation:
        """Go on with that conversation; raises `ConversationNotFound`."""
        return self._show(await self.archive.do(lambda store: store.open(conversation_id)))

    async def rename(self, title: str) -> None:
        """Give this conversation a title."""
        here = self._here()
        await self.archive.do(lambda store: store.rename(here.id, title))
        self._conversation = msgspec.structs.replace(here, title=title)

    async def set_system(self, system: str) -> None:
        """What the model is told before the conversation from now on."""
        self.recipe, self._measured = msgspec.structs.replace(self.recipe, system=system), None
        if (here := self._conversation) is not None:
            await self.archive.do(lambda store: store.set_system(here.id, system))
            self._conversation = msgspec.structs.replace(here, system=system)

    async def choose(self, choices: Choices) -> None:
        """How it is asked from now on."""
        self.given = self.given.shared_with(choices)
        self._hold(choices)
        if (here := self._conversation) is not None:
            await self.archive.do(lambda store: store.set_choices(here.id, choices))
            self._conversation = msgspec.structs.replace(here, choices=choices)

    async def go(self, turn_id: int | None) -> None:
        """Go on after that turn, of any branch; None: before the first. Nothing is deleted."""
        here = self._here()
        await self.archive.do(lambda store: store.move_head(here.id, turn_id))
        self._conversation = msgspec.structs.replace(here, head=turn_id)

    async def undo(self) -> Turn:
        """Go back before the last turn, which stays a branch; gives that turn."""
        last = self._last()
        await self.go(last.parent)
        return last

    async def count(self) -> int:
        """Tokens of the next prompt, but for its question; 0 while nothing is in it."""
        turns = self.window.turns(self._spoken())
        if not turns:  # a prompt without a question is none that could be counted
            return await self.count_text(self.recipe.system) if self.recipe.system else 0
        said = tuple(message for turn in turns for message in turn.messages)
        return await self.backend.count_tokens(self.recipe.request(said))

    async def count_alone(self, message: Message) -> int:
        """Tokens that this message takes, with what the template puts around it."""
        alone = msgspec.structs.replace(self.recipe, system="")
        return await self.backend.count_tokens(alone.request((message,)))

    async def count_text(self, text: str) -> int:
        """Tokens of a text as a message of its own."""
        return await self.count_alone(say("user", text))

    # Inside.

    async def _put(self, question: Message) -> None:
        await self._begin(question)
        self.waiting = tuple(each for each in self.waiting if each != question)  # typed twice, it is asked once

    async def _attempts(self, question: Message, max_tokens: int | None = None) -> AsyncGenerator[Event, None]:
        """The answer; once more from its beginning where that can help."""
        try:
            async with aclosing(self._events(question, max_tokens)) as events:
                async for event in events:
                    yield event
        except PensieveError as error:
            delay = retry_delay_seconds(error)
            if delay is None:
                raise
            retrying = Retrying(problem_of(error), delay)
        else:
            return
        yield retrying
        await self._pause(retrying.delay_seconds)
        async with aclosing(self._events(question, max_tokens)) as events:
            async for event in events:
                yield event

    async def _events(self, question: Message, max_tokens: int | None) -> AsyncGenerator[Event, None]:
        forgot = await self._fit(question)
        if forgot is not None:
            yield forgot
        request = self._request(self.window.turns(self._spoken()), question)
        self.last_request = request if max_tokens is None else msgspec.structs.replace(request, max_tokens=max_tokens)
        async with aclosing(self.backend.generate(self.last_request)) as events:
            async for event in events:
                yield event

    async def _fit(self, question: Message) -> Forgot | None:
        spoken, max_tokens = self._spoken(), self.recipe.max_tokens
        if not spoken:
            return None  # nothing can leave; a question that is too long is refused with its numbers
        limits = await self.backend.limits()
        limit = limits.context_tokens
        is_measured = self._measured == spoken[-1].id and not limits.is_planned
        if not limit or (is_measured and surely_fits(spoken[-1].usage, _num_bytes(question), limit, max_tokens)):
            return None

        async def count(turns: Sequence[Turn]) -> int:
            return await self.backend.count_tokens(self._request(turns, question))

        return await self.window.fit(spoken, count, limit, max_tokens)

    def _request(self, turns: Sequence[Turn], question: Message) -> GenerationRequest:
        said = (message for turn in turns for message in turn.messages)
        key = self._conversation.uid if self._conversation is not None else ""
        return self.recipe.request((*said, question), key)

    def _spoken(self) -> tuple[Turn, ...]:
        return () if self._conversation is None else self._conversation.spoken()

    async def _begin(
        self, said: Message | tuple[Message, ...], parent: int | None = -1, *, is_summary: bool = False
    ) -> None:
        messages = (said,) if isinstance(said, Message) else said
        here, recipe, choices, unended = self._conversation, self.recipe, self.choices, dict(self._unended)
        before = self._answered_head() if parent == -1 else parent

        def keep(store: ConversationStore) -> Conversation:
            begun = here or store.create(system=recipe.system, model=recipe.model, choices=choices)
            if begun.choices != choices:
                store.set_choices(begun.id, choices)
            if begun.system != recipe.system:  # the file did not take it when it was said
                store.set_system(begun.id, recipe.system)
            end_late(store, unended)
            begin = store.append if is_summary else store.begin_turn
            turn = begin(begun.id, messages, parent=before, model=recipe.model, is_summary=is_summary)
            if here is None:
                return store.open(begun.id)
            return msgspec.structs.replace(here.with_turn(turn), choices=choices, system=recipe.system)

        try:
            self._conversation = await self.archive.do(keep)
            self._unended.clear()
        except ConversationNotFound as error:
            raise UsageError(
                "another program deleted this conversation: /save FILE keeps what is here, /new begins another, and "
                "/retry then asks there"
            ) from error

    def _answered_head(self) -> int | None:
        """Where the next turn goes: after the last one, in the place of one that nobody answered."""
        if self._conversation is None:
            return None
        return self.turns[-1].parent if self.unanswered is not None else self._conversation.head

    async def _end(self, turn: Turn, collector: Collector, recorder: Recorder) -> None:
        """Keep what was answered; where the archive fails, the conversation has it at least until the chat ends."""
        try:
            ended = await recorder.finish(collector.message, collector.finished)
        except PensieveError:
            self._unended[turn.id] = (collector.message, collector.finished)
            self._take(ended_here(turn, collector))
            raise
        self._unended.pop(turn.id, None)  # of an attempt before
        self._take(ended)
        self._measured = ended.id

    def _take(self, turn: Turn) -> None:
        self._conversation = self._here().with_turn(turn)

    def _show(self, conversation: Conversation) -> Conversation:
        self.new()
        self._conversation = conversation
        self.recipe = msgspec.structs.replace(self.recipe, system=conversation.system)
        self._hold(conversation.choices.below(self.given))
        return conversation

    def _hold(self, choices: Choices) -> None:
        self.choices = choices
        held = msgspec.structs.replace(self.base, system=self.recipe.system, model=self.recipe.model)
        self.recipe = held.asked(choices)

    def _here(self) -> Conversation:
        if self._conversation is None:
            raise UsageError(NOTHING_SAID)
        return self._conversation

    def _last(self) -> Turn:
        if not self.turns:
            raise UsageError(NOTHING_SAID)
        return self.turns[-1]


def in_other_words(question: Message, text: str) -> Message:
    """The question with this text; what was attached to it stays."""
    others = tuple(part for part in question.parts if not isinstance(part, TextPart))
    return Message("user", (*others, TextPart(text)))


def _num_bytes(message: Message) -> int:
    """Of all it holds; what is no text makes it large, so that it is counted."""
    return len(msgspec.msgpack.encode(message))
