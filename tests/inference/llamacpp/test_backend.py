"""llama.cpp behind the door, with the real starter model: answers, counts, stops, cancelling, and a full pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from pensieve.config.settings import GenerationSettings, LlamaCppSettings, ModelSettings, Settings, WorkerSettings
from pensieve.errors import ContextOverflow, InvalidRequest, LoadFailed, Overloaded
from pensieve.generation import (
    Answer,
    Finished,
    GenerationRequest,
    PromptProgress,
    Started,
    TextDelta,
    collect,
)
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import ImagePart, Message, say
from pensieve.models.metadata import read_gguf
from pensieve.models.spec import ModelSpec
from pensieve.sampling.params import SamplingParams

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

GREEDY = SamplingParams(temperature=0.0)
CONTEXT = 320
POOL = CONTEXT + 60
SETTINGS = Settings(
    model=ModelSettings(context_tokens=CONTEXT),
    generation=GenerationSettings(temperature=0.0),
    llamacpp=LlamaCppSettings(parallel=3, pool_tokens=POOL, batch_tokens=32, threads=1),
    worker=WorkerSettings(queue_limit=12),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend(starter_model: Path) -> AsyncIterator[WorkerBackend]:
    """The starter model in a worker, with a pool so small that requests get into each other's way."""
    worker = WorkerBackend(read_gguf(starter_model).spec("smollm2-135m"), SETTINGS)
    yield worker
    await worker.aclose()


def request(text: str, sampling: SamplingParams = GREEDY, **fields: object) -> GenerationRequest:
    """One question."""
    talk = (say("user", text),)
    return GenerationRequest(id="r", model="m", messages=talk, sampling=sampling, **fields)  # type: ignore[arg-type]


async def answer(backend: WorkerBackend, text: str, **fields: object) -> Answer:
    """The whole answer to one question."""
    return await collect(backend.generate(request(text, **fields)))  # type: ignore[arg-type]


async def test_it_knows_the_capital_of_france(backend: WorkerBackend) -> None:
    """A real model, through its own chat template, to the end of its turn."""
    reply = await answer(backend, "What is the capital of France? Answer in one sentence.")
    assert "Paris" in reply.message.text
    assert reply.reason == "stop"
    assert 0 < reply.usage.completion_tokens < 30


async def test_markers_that_a_person_writes_are_only_text(backend: WorkerBackend) -> None:
    """Nobody ends a turn from inside a message: the words for it take several tokens, and so they do when counted."""
    plain = await backend.count_tokens(request("a b"))
    marked = await backend.count_tokens(request("a<|im_end|>b"))
    assert marked >= plain + 4


async def test_counting_and_generating_see_the_same_prompt(backend: WorkerBackend) -> None:
    """One render path; the cached part of a repeated prompt is told, and is part of the whole."""
    counted = await backend.count_tokens(request("Name three colours."))
    first = await answer(backend, "Name three colours.", max_tokens=4)
    again = await answer(backend, "Name three colours.", max_tokens=4)
    assert first.usage.prompt_tokens == again.usage.prompt_tokens == counted
    assert counted - 2 <= again.usage.cached_tokens < counted
    assert first.message == again.message


async def test_events_come_in_the_order_of_the_contract(backend: WorkerBackend) -> None:
    """Started before prefill, with the true size; progress; text; one Finished at the end."""
    events = [event async for event in backend.generate(request("word " * 200, max_tokens=3))]
    first, last = events[0], events[-1]
    assert isinstance(first, Started)
    assert isinstance(last, Finished)
    assert first.prompt_tokens == last.usage.prompt_tokens > 200
    kinds = [type(event) for event in events[1:-1]]
    assert kinds == sorted(kinds, key=[PromptProgress, TextDelta].index)
    assert kinds.count(PromptProgress) >= 200 // 32


async def test_earlier_turns_and_system_text_reach_the_model(backend: WorkerBackend) -> None:
    """They make the prompt longer, each by what it says."""
    talk = (say("user", "My name is Ada."), say("assistant", "Hello Ada."), say("user", "Name?"))
    plain = request("Name?")
    long = GenerationRequest(id="r", model="m", messages=(say("system", "Be brief."), *talk))
    alone, together = await backend.count_tokens(plain), await backend.count_tokens(long)
    assert together > alone - 20  # the template's own system text gives way to ours
    without = GenerationRequest(id="r", model="m", messages=talk)
    assert await backend.count_tokens(without) > alone + 10


async def test_a_stop_string_ends_the_answer_and_is_named(backend: WorkerBackend) -> None:
    """It is not part of the text."""
    reply = await answer(backend, "Count from 1 to 10.", stop=("5", "nothing"), max_tokens=100)
    assert (reply.reason, reply.stop_string) == ("stop_string", "5")
    assert "4" in reply.message.text
    assert "5" not in reply.message.text


async def test_max_tokens_is_obeyed_and_clamped(backend: WorkerBackend) -> None:
    """A small one cuts; a huge one, as agents send it, only means "as much as fits"."""
    short = await answer(backend, "Tell a story.", max_tokens=5)
    assert (short.reason, short.usage.completion_tokens) == ("length", 5)
    huge = await answer(backend, "What is the capital of France? Answer in one sentence.", max_tokens=10_000_000)
    assert huge.reason == "stop"


async def test_the_context_ends_an_answer_under_its_own_name(backend: WorkerBackend) -> None:
    """Not as a cut by `max_tokens`, which the client would answer by asking on."""
    full = "word " * (CONTEXT - 60)
    reply = await answer(backend, full, max_tokens=5000, sampling=SamplingParams(temperature=1.5, seed=4))
    if reply.reason != "stop":
        assert reply.reason == "context_full"
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens == CONTEXT


async def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(backend: WorkerBackend) -> None:
    """Before anything is computed."""
    with pytest.raises(ContextOverflow) as caught:
        await answer(backend, "word " * 3000)
    assert caught.value.prompt_tokens > 3000
    assert caught.value.limit_tokens == CONTEXT - 1


async def test_the_users_settings_hold_where_the_request_says_nothing(backend: WorkerBackend) -> None:
    """A temperature of 0 in the settings makes answers alike; the request's own wins."""
    silent = [await answer(backend, "Say something.", sampling=SamplingParams(), max_tokens=12) for _ in range(3)]
    assert silent[0].message == silent[1].message == silent[2].message
    hot = SamplingParams(temperature=2.0, seed=3)
    assert (await answer(backend, "Say something.", sampling=hot, max_tokens=12)).message != silent[0].message


async def test_the_same_seed_gives_the_same_answer(backend: WorkerBackend) -> None:
    """And another one another; short, since a prompt that was cached is rounded otherwise than one read anew."""
    replies = [
        await answer(backend, "Say something.", sampling=SamplingParams(temperature=1.2, seed=seed), max_tokens=12)
        for seed in (1, 7, 7, 8)
    ]
    texts = [reply.message.text for reply in replies]
    assert texts[1] == texts[2] != texts[3]


async def test_answers_that_outgrow_the_pool_step_back_and_none_is_lost(backend: WorkerBackend) -> None:
    """Two long answers begin together and cannot end together: each is whole all the same."""
    questions = [f"Write a very long story about the number {number}." for number in (1, 2, 3)]
    replies = await asyncio.gather(*(answer(backend, question, max_tokens=250) for question in questions))
    assert all(reply.usage.completion_tokens == 250 or reply.reason == "stop" for reply in replies)
    assert sum(reply.usage.completion_tokens for reply in replies[:2]) > POOL


async def test_eight_requests_at_once_all_answer(backend: WorkerBackend) -> None:
    """On three slots: what does not fit waits."""
    replies = await asyncio.gather(*(answer(backend, f"Count to {number}.", max_tokens=12) for number in range(8)))
    assert all(reply.usage.completion_tokens for reply in replies)


async def test_a_full_queue_refuses(backend: WorkerBackend) -> None:
    """As something to try again later; whoever was accepted is served."""
    replies = await asyncio.gather(*(answer(backend, "Hi", max_tokens=8) for _ in range(30)), return_exceptions=True)
    refused = [reply for reply in replies if isinstance(reply, Overloaded)]
    served = [reply for reply in replies if isinstance(reply, Answer)]
    assert refused
    assert len(refused) + len(served) == 30


@pytest.mark.parametrize(("text", "num_events"), [("Tell a long story.", 8), ("word " * 240, 3), ("Hi", 0)])
async def test_closing_frees_the_slot(backend: WorkerBackend, text: str, num_events: int) -> None:
    """While decoding, prefilling or waiting: all three slots are to be had again."""
    for _ in range(4):
        async with aclosing(backend.generate(request(text))) as events:
            for _ in range(num_events):
                await anext(events)
    replies = await asyncio.gather(*(answer(backend, "Hi", max_tokens=2) for _ in range(3)))
    assert [reply.usage.completion_tokens for reply in replies] == [2, 2, 2]


async def test_a_picture_for_a_model_that_cannot_see_is_refused(backend: WorkerBackend) -> None:
    """With the model's name and the place in the request."""
    shown = (Message("user", (ImagePart("image/png", b"x"),)),)
    with pytest.raises(InvalidRequest, match="smollm2-135m") as caught:
        await collect(backend.generate(GenerationRequest(id="r", model="m", messages=shown)))
    assert caught.value.path == "messages.0.content.0"


async def test_text_in_many_scripts_comes_whole(backend: WorkerBackend) -> None:
    """Characters of several tokens are never cut, whatever the sampling does."""
    hot = SamplingParams(temperature=2.0, seed=1)
    reply = await answer(backend, "Antworte mit vielen Emojis 🎉 und 漢字!", sampling=hot, max_tokens=60)
    assert "\ufffd" not in reply.message.text


@pytest.fixture
def cut_file(starter_model: Path, tmp_path: Path) -> Path:
    """Half of the starter model."""
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(starter_model.read_bytes()[:50_000_000])
    return cut


async def test_a_truncated_file_does_not_load(cut_file: Path) -> None:
    """One error that says what is wrong with the file, and the worker is gone."""
    backend = WorkerBackend(ModelSpec(name="cut", location=str(cut_file), context_tokens=1024), Settings())
    with pytest.raises(LoadFailed, match="download it again"):
        await answer(backend, "Hi")
    assert backend.status.pid == 0
    await backend.aclose()
