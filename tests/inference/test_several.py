"""Several answers to one request: marked, counted once, begun when the prompt is read, and ended together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from pensieve.errors import BackendFailure
from pensieve.generation import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptProgress,
    Started,
    Switched,
    TextDelta,
    Usage,
    collect,
)
from pensieve.inference.script import Delay, Fail, Progress, Say, Script, Turn
from pensieve.inference.scripted import ScriptedBackend
from pensieve.inference.several import several
from pensieve.messages import say
from pensieve.sampling.params import SamplingParams

ASKED = GenerationRequest(
    id="r", model="m", messages=(say("user", "well then"),), num_answers=3, sampling=SamplingParams(seed=2**32 - 2)
)


def playing(*turns: Turn) -> ScriptedBackend:
    """A backend that answers with these turns, one after another."""
    return ScriptedBackend(Script(turns=turns))


async def test_each_answer_is_its_own() -> None:
    """With the tokens of all counted, the prompt once, and seeds that differ and stay in their range."""
    backend = playing(*(Turn(steps=(Say(text),)) for text in ("a", "b b", "c c c")))
    answer = await collect(several(backend.generate, ASKED))
    assert [each.message.text for each in (answer, *answer.others)] == ["a", "b b", "c c c"]
    assert answer.usage == Usage(2, 0, 6)
    assert [request.sampling.seed for request in backend.requests] == [2**32 - 2, 0, 1]
    assert [request.id for request in backend.requests] == ["r", "r.1", "r.2"]


async def test_the_others_begin_when_the_prompt_is_read() -> None:
    """So that they find it in the cache; and nobody is told twice that it is read."""
    backend = playing(Turn(steps=(Progress(1), Say("x"))))
    events: list[GenerationEvent] = []
    async with aclosing(several(backend.generate, ASKED)) as answers:
        async for event in answers:
            events.append(event)
            if isinstance(event, Started | PromptProgress):
                assert backend.counts.accepted == 1
    assert sum(isinstance(event, Started) for event in events) == 1
    assert [event for event in events if isinstance(event, Switched)]
    assert sum(isinstance(event, Finished) for event in events) == 3


async def test_one_that_fails_ends_all() -> None:
    """Half of an answer is none."""
    backend = playing(Turn(steps=(Say("a"), Delay(60))), Turn(steps=(Fail("BackendFailure", {"problem": "oh"}),)))
    with pytest.raises(BackendFailure, match="oh"):
        await collect(several(backend.generate, ASKED))
    assert backend.counts.running == 0


async def test_an_answer_that_stops_without_an_end_is_an_error() -> None:
    """Nobody waits for it for ever."""

    async def broken(request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        del request
        yield Started(1, 0)
        yield TextDelta("half of")

    with pytest.raises(BackendFailure, match="broke off"):
        await collect(several(broken, ASKED))


async def test_leaving_ends_all() -> None:
    """Nothing runs for nobody."""
    backend = playing(Turn(steps=(Say("a"), Delay(60))))
    answers: AsyncGenerator[GenerationEvent, None] = several(backend.generate, ASKED)
    async with aclosing(answers):
        async for event in answers:
            if isinstance(event, TextDelta):
                break
    assert (backend.counts.running, backend.counts.finished) == (0, 0)
