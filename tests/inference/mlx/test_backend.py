"""MLX behind the door, with tiny models: what clients ask for is honoured or refused, and markup becomes events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import pytest_asyncio

from pensieve.config.settings import GenerationSettings, MlxSettings, ModelSettings, Settings, WorkerSettings
from pensieve.errors import BackendFailure, ContextOverflow, InvalidRequest, Overloaded
from pensieve.generation import Answer, GenerationRequest, Started, TextDelta, TokenLogprob, ToolChoice, collect
from pensieve.inference.mlx.backend import MlxBackend
from pensieve.inference.several import several
from pensieve.messages import TextPart, ThinkingPart, ToolSpec, say
from pensieve.models.folders import read_folder
from pensieve.sampling.params import SamplingParams
from real_templates import real_template
from tiny_engines import Wrapped

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTEXT = 512
SETTINGS = Settings(
    model=ModelSettings(context_tokens=CONTEXT),
    generation=GenerationSettings(temperature=0.0),
    mlx=MlxSettings(device="cpu", parallel=4, prefix_cache_mib=16),
    worker=WorkerSettings(queue_limit=8),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend(folder_of: Callable[..., Path]) -> AsyncIterator[MlxBackend]:
    """The tiny Llama in its plain format, in this process."""
    backend = await asyncio.to_thread(open_backend, folder_of("llama"))
    yield backend
    await backend.aclose()


def open_backend(folder: Path, state_folder: Path | None = None) -> MlxBackend:
    """A loaded backend; blocks."""
    return MlxBackend(read_folder(folder).spec(folder.name), SETTINGS, state_folder)


def request(text: str = "Where is Paris?", **fields: Any) -> GenerationRequest:
    """One question."""
    return GenerationRequest(id="r", model="m", messages=(say("user", text),), **fields)


async def answer(backend: MlxBackend, text: str = "Where is Paris?", **fields: Any) -> Answer:
    """The whole answer to one question."""
    return await collect(backend.generate(request(text, **fields)))


async def test_what_is_counted_is_what_is_generated_from(backend: MlxBackend) -> None:
    """One render path; the answer has as many tokens as were asked for."""
    counted = await backend.count_tokens(request())
    reply = await answer(backend, max_tokens=7)
    assert reply.usage.prompt_tokens == counted
    assert (reply.usage.completion_tokens, reply.reason) == (7, "length")


async def test_the_limits_are_those_that_were_loaded(backend: MlxBackend) -> None:
    """The settings' context, below the model's own, and what computes here."""
    limits = await backend.limits()
    assert (limits.context_tokens, limits.is_planned) == (CONTEXT, False)
    assert "MLX on cpu" in limits.engine


async def test_a_prompt_as_long_as_the_context_is_refused_and_a_shorter_one_fills_it(backend: MlxBackend) -> None:
    """With both numbers; an answer without a limit ends where the context does."""
    with pytest.raises(ContextOverflow, match=f"> {CONTEXT - 1} maximum"):
        await answer(backend, "x " * CONTEXT)
    reply = await answer(backend, "word " * 90)
    assert reply.reason == "context_full"
    assert reply.usage.prompt_tokens + reply.usage.completion_tokens == CONTEXT


async def test_a_schema_that_cannot_be_obeyed_is_refused_by_name(backend: MlxBackend) -> None:
    """With the place and the keyword; and so is a forced call of a tool that is not there."""
    tool = ToolSpec("f", {"type": "object", "properties": {"a": {"not": {}}}}, is_strict=True)
    with pytest.raises(InvalidRequest, match=r"input_schema\.properties\.a: .*`not`"):
        await answer(backend, tools=(tool,))
    with pytest.raises(InvalidRequest, match="patternProperties"):
        await answer(backend, output_schema={"type": "object", "patternProperties": {}})
    with pytest.raises(InvalidRequest, match="no tool named 'g'"):
        await answer(backend, tools=(ToolSpec("f", {}),), tool_choice=ToolChoice("tool", "g"))
    assert set((await backend.limits()).capabilities) >= {"tools", "structured_outputs"}


async def test_bias_stop_tokens_and_seeds_reach_the_sampler(backend: MlxBackend) -> None:
    """A token that is forced is all there is, one that stops ends at once, and a seed repeats."""
    forced = await answer(backend, max_tokens=5, logit_bias={40: 100.0})
    assert forced.message.text == backend._tokenizer.token_text(40) * 5
    stopped = await answer(backend, max_tokens=5, logit_bias={40: 100.0}, stop_tokens=(40,))
    assert (stopped.message.text, stopped.reason, stopped.usage.completion_tokens) == ("", "stop", 0)
    hot = [SamplingParams(temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = [await answer(backend, max_tokens=20, sampling=sampling) for sampling in hot]
    assert first.message == again.message != other.message


async def test_probabilities_come_with_the_text(backend: MlxBackend) -> None:
    """For every token of the answer, with as many alternatives as were asked for."""
    events = [event async for event in backend.generate(request(max_tokens=9, num_logprobs=3))]
    logprobs: list[TokenLogprob] = [each for event in events if isinstance(event, TextDelta) for each in event.logprobs]
    assert len(logprobs) == 9
    assert all(each.alternatives[0][0] == each.token and len(each.alternatives) == 3 for each in logprobs)
    assert all(each.logprob == each.alternatives[0][2] < 0.0 for each in logprobs)


async def test_several_answers_share_a_prompt_that_is_read_once(backend: MlxBackend) -> None:
    """Each with a seed of its own; what all have said is counted together."""
    asked = request("Tell " + "me more " * 12, max_tokens=6, num_answers=3, sampling=SamplingParams(1.5, seed=1))
    told = await collect(several(backend.generate, asked))
    assert len({each.message.text for each in (told, *told.others)}) == 3
    assert told.usage.prompt_tokens == await backend.count_tokens(asked)
    assert 6 < told.usage.completion_tokens <= 18


async def test_plain_text_is_gone_on_from_without_a_role(backend: MlxBackend) -> None:
    """No word of a template is in the prompt, and what looks like markup in the answer is text."""
    asked = GenerationRequest(id="r", model="m", messages=(), text="one two", max_tokens=4)
    told = await collect(backend.generate(asked))
    assert told.usage.prompt_tokens == len(backend._tokenizer.encode("one two", adds_special=True))
    assert (
        told.usage.prompt_tokens == await backend.count_tokens(asked) < await backend.count_tokens(request("one two"))
    )
    assert (told.usage.completion_tokens, told.reason) == (4, "length")


async def test_a_client_that_leaves_frees_the_engine(backend: MlxBackend) -> None:
    """Before and after the first token; whoever comes next is answered, and nothing of it is left."""
    engine = backend._engine
    before = engine._num_steps
    for kind in (Started, TextDelta):
        async with aclosing(backend.generate(request(max_tokens=400))) as events:
            async for event in events:
                if isinstance(event, kind):
                    break
    reply = await answer(backend, max_tokens=3)
    assert reply.usage.completion_tokens == 3
    while engine._sequences:
        await answer(backend, max_tokens=1)
    assert engine._scheduler.is_idle
    assert engine._num_steps - before < 200


async def test_more_than_can_run_or_wait_are_refused_and_the_rest_answered(backend: MlxBackend) -> None:
    """Four run and eight wait: of forty at once many are refused with a time to come again, and none is lost."""
    results = await collect_all(backend, 40)
    refused = [each for each in results if isinstance(each, Overloaded)]
    answered = [each for each in results if isinstance(each, Answer)]
    assert len(refused) + len(answered) == 40
    assert len(answered) >= 8
    assert refused
    assert all(each.usage.completion_tokens == 12 for each in answered)


async def collect_all(backend: MlxBackend, count: int) -> list[Answer | BaseException]:
    """The ends of so many requests that come at once."""
    asked = (answer(backend, f"{place} is a number", max_tokens=12) for place in range(count))
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_after_the_end_a_request_hears_so(folder_of: Callable[..., Path]) -> None:
    """Those that run end with one error, those that come later as well, and no thread stays."""
    backend = await asyncio.to_thread(open_backend, folder_of("llama"))
    events = backend.generate(request(max_tokens=400))
    assert isinstance(await anext(events), Started)
    await backend.aclose()
    with pytest.raises(BackendFailure, match="shutting down"):
        async for _ in events:
            pass
    await backend.aclose()
    assert sum(thread.name.startswith("mlx") for thread in threading.enumerate()) <= 1


async def test_the_last_answer_before_the_end_is_kept_on_disk(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """An end in order writes what the engine found no quiet moment for."""
    backend = await asyncio.to_thread(open_backend, folder_of("llama"), tmp_path)
    await answer(backend, "word " * 80, max_tokens=2)
    await backend.aclose()
    assert await asyncio.to_thread(lambda: list(tmp_path.rglob("*.safetensors")))


class Scripted(Wrapped):
    """A model that says a fixed answer: the real one fills the caches, and only its scores are replaced."""

    def __init__(self, model: Any, num_prompt_tokens: int, script: list[int]) -> None:
        super().__init__(model)
        self._num_prompt_tokens = num_prompt_tokens
        self._script = [*script, 0, 0, 0]

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        """Logits [1, L, V]: after so many tokens of the answer, the script's next."""
        logits = super().__call__(tokens, cache)
        place = min(max(cache[0].offset - self._num_prompt_tokens, 0), len(self._script) - 1)
        return mx.where(mx.arange(logits.shape[-1]) == self._script[place], 10.0, 0.0) + 0.0 * logits


async def scripted_answer(folder: Path, script: str, **fields: Any) -> Answer:
    """What a client gets of an answer that the model writes so."""
    backend = await asyncio.to_thread(open_backend, folder)
    runner = backend._engine._machine.runner
    tokens = backend._tokenizer.encode(script, adds_special=False)
    runner._model = Scripted(runner._model, await backend.count_tokens(request()), tokens)
    try:
        return await answer(backend, max_tokens=200, **fields)
    finally:
        await backend.aclose()


async def test_gpt_oss_channels_become_thinking_and_text(folder_of: Callable[..., Path]) -> None:
    """Through the real template and the whole engine; no marker is ever shown, and its own end ends it."""
    folder = folder_of("gpt_oss", chat_template=real_template("gpt-oss"))
    reply = await scripted_answer(
        folder,
        "<|channel|>analysis<|message|>France, so Paris.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is in France.<|return|>",
    )
    assert reply.message.parts == (ThinkingPart("France, so Paris."), TextPart("It is in France."))
    assert reply.reason == "stop"


@pytest.mark.parametrize("family", ["gptj", "gpt_neox"])
async def test_a_model_without_a_template_ends_where_it_would_write_the_next_question(
    folder_of: Callable[..., Path], family: str
) -> None:
    """The plain format's own mark, which is not one of the client's stop strings."""
    reply = await scripted_answer(folder_of(family), "In France.\nUser: And Rome?")
    assert (reply.message.text.strip(), reply.reason, reply.stop_string) == ("In France.", "stop", None)


async def test_a_clients_stop_string_ends_the_answer_and_the_engine(folder_of: Callable[..., Path]) -> None:
    """It is named, and what the engine said beyond it is not counted."""
    reply = await scripted_answer(folder_of("llama"), "one two three", stop=(" two",))
    assert (reply.message.text, reply.reason, reply.stop_string) == ("one", "stop_string", " two")
    assert reply.usage.completion_tokens <= len("one two")
