"""How much of a prompt is read again: sessions beside each other, abandoned prompts, and the same one sent twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from inference.llamacpp.conftest import SETTINGS
from pensieve.config.settings import LlamaCppSettings, ModelSettings
from pensieve.generation import Answer, GenerationRequest, PromptProgress, Started, collect
from pensieve.inference.llamacpp.backend import LlamaCppBackend
from pensieve.messages import Message, say
from pensieve.models.metadata import read_gguf

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANUAL = say("system", "Rules of the house, which both sides know by heart. " * 12)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend(plain_model: Path) -> AsyncIterator[LlamaCppBackend]:
    """A tiny model with small steps, so that a prompt is read in many."""
    settings = msgspec.structs.replace(
        SETTINGS,
        model=ModelSettings(context_tokens=2048),
        llamacpp=LlamaCppSettings(parallel=4, pool_tokens=8192, batch_tokens=8, threads=1),
    )
    found = LlamaCppBackend(read_gguf(plain_model).spec("tiny"), settings)
    yield found
    await found.aclose()


def request(*messages: Message, max_tokens: int = 8) -> GenerationRequest:
    """A request for a few words."""
    return GenerationRequest(id="r", model="m", messages=messages, max_tokens=max_tokens)


class Session:
    """A conversation, and how much of what it could reuse it did."""

    def __init__(self, backend: LlamaCppBackend, name: str) -> None:
        self._backend = backend
        self._talk: list[Message] = [MANUAL, say("user", f"I am {name} and have much to ask.")]
        self.reusable = self.reused = 0

    async def turn(self) -> Answer:
        """One more; all of the last prompt can be reused, save the few tokens that ask for an answer."""
        answer = await collect(self._backend.generate(request(*self._talk)))
        self.reused += min(answer.usage.cached_tokens, self.reusable_now)
        self.reusable += self.reusable_now
        self.reusable_now = answer.usage.prompt_tokens - 8
        self._talk += [say("assistant", "So it is."), say("user", "And what then? Tell me a little more.")]
        return answer

    reusable_now = 0


async def test_sessions_beside_each_other_keep_what_they_have_read(backend: LlamaCppBackend) -> None:
    """Two that talk on, and small ones between them that share the same beginning."""
    first, second = Session(backend, "Ada"), Session(backend, "Bea")
    for number in range(8):
        await first.turn()
        await second.turn()
        if number % 3 == 0:
            await Session(backend, f"helper {number}").turn()
    reused, reusable = first.reused + second.reused, first.reusable + second.reusable
    assert reused / reusable > 0.99


async def test_a_turn_that_comes_at_once_waits_for_no_thread(
    backend: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has said its last word: that its thread is not back yet is no reason to read anything again."""
    may_return, complete = threading.Event(), backend._engine.complete

    def complete_late(*arguments: Any) -> None:
        complete(*arguments)
        may_return.wait(20)

    monkeypatch.setattr(backend._engine, "complete", complete_late)
    session = Session(backend, "Dora, who is quick")
    for _ in range(3):
        await session.turn()
    may_return.set()
    assert session.reused / session.reusable > 0.99


async def test_a_new_session_begins_with_what_others_have_read(backend: LlamaCppBackend) -> None:
    """Copied, not read."""
    answer = await Session(backend, "Cleo, who is new").turn()
    shared = await backend.count_tokens(request(MANUAL))
    assert answer.usage.cached_tokens > shared - 30


async def test_an_abandoned_prompt_is_not_read_twice(backend: LlamaCppBackend) -> None:
    """What was finished of it stays."""
    long = request(say("user", "Something entirely else. " * 30))
    async with aclosing(backend.generate(long)) as events:
        read = 0
        async for event in events:
            read = event.processed_tokens if isinstance(event, PromptProgress) else read
            if read > 200:
                break
    again = await collect(backend.generate(long))
    assert again.usage.cached_tokens >= read - 1


async def test_a_prompt_that_is_sent_twice_is_read_once(backend: LlamaCppBackend) -> None:
    """The second waits for the first, and both answer."""
    twice = request(say("user", "Twice the very same. " * 40), max_tokens=2)
    first, second = await asyncio.gather(*(collect(backend.generate(twice)) for _ in range(2)))
    read = [answer.usage.prompt_tokens - answer.usage.cached_tokens for answer in (first, second)]
    assert min(read) <= 2
    assert first.message == second.message


async def test_a_client_that_leaves_while_it_waits_takes_no_slot_with_it(backend: LlamaCppBackend) -> None:
    """All of them are to be had again."""
    waiting = [asyncio.create_task(collect(backend.generate(request(MANUAL, say("user", f"{n}"))))) for n in range(9)]
    for delay, task in enumerate(waiting):
        await asyncio.sleep(0.002 * delay)
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    answers = await asyncio.gather(
        *(collect(backend.generate(request(say("user", f"{number} is enough.")))) for number in range(8))
    )
    assert all(answer.usage.completion_tokens == 8 or answer.reason == "stop" for answer in answers)


async def test_cached_tokens_are_told_before_the_prompt_is_read(backend: LlamaCppBackend) -> None:
    """As they are in the end."""
    events = [event async for event in backend.generate(request(say("user", "Twice the very same. " * 40)))]
    assert isinstance(started := events[0], Started)
    assert started.cached_tokens == started.prompt_tokens - 1
