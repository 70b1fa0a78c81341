"""Answers that must have a form, by families of random weights: they always parse, alone and in company."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import mlx.core as mx
import pytest

from pensieve.config.settings import GenerationSettings, MlxSettings, Settings
from pensieve.errors import BackendFailure
from pensieve.generation import Answer, GenerationRequest, Thinking, ToolChoice, collect
from pensieve.inference.mlx.backend import MlxBackend
from pensieve.inference.mlx.sequence import Failed
from pensieve.inference.mlx.steering import Course, Steering
from pensieve.messages import TextPart, ThinkingPart, ToolCallPart, ToolSpec, say
from pensieve.models.folders import read_folder
from pensieve.sampling.params import SamplingParams
from real_templates import real_template
from tiny_engines import Wrapped, running
from tiny_engines import prompt_of as prompt

SETTINGS = Settings(
    generation=GenerationSettings(temperature=1.0, repetition_guard="off"),
    mlx=MlxSettings(device="cpu", prefill_tokens=256, parallel=4, prefix_cache_mib=64),
)
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,4}$"}, "maxItems": 2},
    },
    "required": ["city", "days"],
}
TOOLS = (ToolSpec("weather", WEATHER), ToolSpec("stop", {"type": "object", "properties": {}}))
ONE_CALL = ToolChoice("any", is_parallel_allowed=False)
FAMILIES = {
    "qwen3": "qwen-3",
    "gpt_oss": "gpt-oss",
    "llama": "llama-3.1",
    "mistral": "mistral-3",
    "phi3": "phi-3",
    "deepseek_v3": "deepseek-r1",
    "gptj": "",
}


@pytest.fixture(scope="module", params=FAMILIES)
def backend(request: pytest.FixtureRequest, folder_of: Callable[..., Path]) -> Iterator[Served]:
    """Each family in turn, with its real template where it has one."""
    family: str = request.param
    template = real_template(FAMILIES[family]) if FAMILIES[family] else None
    yield from served(folder_of(family, chat_template=template))


class Served(NamedTuple):
    """A backend, and the event loop that it belongs to."""

    backend: MlxBackend
    loop: asyncio.Runner


def served(folder: Path) -> Iterator[Served]:
    """The model in the folder, until the test is over."""
    with asyncio.Runner() as loop:
        backend = MlxBackend(read_folder(folder).spec(folder.name), SETTINGS)
        yield Served(backend, loop)
        loop.run(backend.aclose())


def ask(served: Served, *requests: dict[str, Any]) -> list[Answer]:
    """What is answered to requests that run together."""

    async def together() -> list[Answer]:
        return await asyncio.gather(*(collect(served.backend.generate(request(**each))) for each in requests))

    return served.loop.run(together())


def request(seed: int = 1, text: str = "Well?", max_tokens: int = 300, **fields: Any) -> GenerationRequest:
    """One question, with a seed."""
    sampling = fields.pop("sampling", SamplingParams(seed=seed))
    messages = (say("user", text),)
    return GenerationRequest(id="r", model="m", messages=messages, sampling=sampling, max_tokens=max_tokens, **fields)


def calls_of(answer: Answer) -> list[ToolCallPart]:
    """The calls of an answer that has nothing else but thinking."""
    parts = [part for part in answer.message.parts if not isinstance(part, ThinkingPart)]
    calls = [part for part in parts if isinstance(part, ToolCallPart)]
    assert len(calls) == len(parts) > 0, answer
    return calls


def test_a_forced_call_parses_and_validates(backend: Served) -> None:
    """One of two tools, or the named one, beside an answer that nothing binds."""
    off = Thinking("disabled")
    named = {"tools": TOOLS, "tool_choice": ToolChoice("tool", "weather", is_parallel_allowed=False), "thinking": off}
    either = {"tools": TOOLS, "tool_choice": ONE_CALL, "thinking": off}
    *answers, _ = ask(backend, {"seed": 1, **named}, {"seed": 2, **either}, {"seed": 3, "max_tokens": 60})
    for answer in answers:
        (call,) = calls_of(answer)
        assert answer.reason == "tool_calls"
        jsonschema.validate(call.arguments, WEATHER if call.name == "weather" else {"maxProperties": 0})
    assert calls_of(answers[0])[0].name == "weather"


def test_an_answer_obeys_its_schema_after_thinking(backend: Served) -> None:
    """A budget ends the thinking; the text alone is the document."""
    schema = {"output_schema": WEATHER}
    thinking = Thinking("enabled", 12)
    off = Thinking("disabled")
    for answer in ask(backend, {**schema, "thinking": off}, {**schema, "thinking": thinking, "seed": 5}):
        assert answer.reason == "stop"
        assert {type(part) for part in answer.message.parts} <= {ThinkingPart, TextPart}
        jsonschema.validate(json.loads(answer.message.text), WEATHER)


@pytest.fixture(scope="module")
def llama_backend(folder_of: Callable[..., Path]) -> Iterator[Served]:
    """One backend for what does not depend on the family."""
    yield from served(folder_of("llama"))


def test_a_bound_answer_is_the_same_alone_in_company_and_from_the_cache(llama_backend: Served) -> None:
    """With a seed and penalties; its neighbours are bound and not."""
    sampling = SamplingParams(seed=4, temperature=0.9, top_p=0.95, repetition_penalty=1.1, frequency_penalty=0.2)
    fields: dict[str, Any] = {"output_schema": WEATHER, "sampling": sampling, "text": "Tell me. " * 30}
    (alone,) = ask(llama_backend, fields)
    others = [{"seed": seed, "max_tokens": 50} for seed in (6, 7)]
    together, *_ = ask(llama_backend, fields, {"seed": 8, "output_schema": WEATHER}, *others)
    assert together.message == alone.message
    assert together.usage.cached_tokens > 0
    jsonschema.validate(json.loads(alone.message.text), WEATHER)


def test_probabilities_of_a_bound_answer_are_the_model_s_own(llama_backend: Served) -> None:
    """What it may say changes what is said, not what the model thinks of it."""

    async def logprobs() -> list[float]:
        asked = request(output_schema={"const": "x"}, num_logprobs=0)
        return [
            each.logprob
            async for event in llama_backend.backend.generate(asked)
            for each in getattr(event, "logprobs", ())
        ]

    found = llama_backend.loop.run(logprobs())
    assert len(found) == 3
    assert all(value < 0 for value in found)


def test_an_answer_that_is_cut_says_so(llama_backend: Served) -> None:
    """A call that is not complete is none."""
    document, call = ask(
        llama_backend,
        {"output_schema": {"type": "string", "minLength": 50}, "max_tokens": 20},
        {"tools": TOOLS, "tool_choice": ToolChoice("tool", "weather"), "max_tokens": 50},
    )
    assert (document.reason, call.reason) == ("length", "length")
    assert document.message.text.startswith('"')
    assert not [part for part in call.message.parts if isinstance(part, ToolCallPart)]


def test_a_schema_of_only_one_document_gives_it_whatever_the_bias(llama_backend: Served) -> None:
    """At any temperature, with candidates cut to one."""
    schema = {"type": "object", "properties": {"a": {"const": [1, {"b": None}]}}, "required": ["a"]}
    sampling = SamplingParams(temperature=3.0, top_k=1, seed=1)
    (answer,) = ask(llama_backend, {"output_schema": schema, "sampling": sampling, "logit_bias": {90: 50.0}})
    assert json.loads(answer.message.text) == {"a": [1, {"b": None}]}


class Short:
    """A matcher over the tokens of a text, and nothing after it; it fails at a stated place."""

    def __init__(self, tokens: list[int], *, fails_at: int | None = None) -> None:
        self._tokens, self._fails_at, self._place = tokens, fails_at, 0

    def mask(self) -> bytes:
        """The next token."""
        if self._place == self._fails_at:
            return b""
        mask = bytearray(64)
        token = self._tokens[self._place] if self._place < len(self._tokens) else 3
        mask[token // 8] |= 1 << token % 8
        return bytes(mask)

    def accepts(self, token: int) -> bool:
        """It alone."""
        return self._tokens[self._place] == token

    def take(self, tokens: Any) -> bool:
        """Whatever came."""
        self._place += len(tokens)
        return True

    def reset(self) -> None:
        """Begin again."""
        self._place = 0


class NoWords:
    """Steering that only matches needs none."""

    def bytes_of(self, token: int) -> bytes:
        """Nothing is read."""
        return bytes([token % 256])

    def only(self, tokens: Any) -> bytes:
        """Nothing is forced."""
        raise AssertionError(tokens)

    def without(self, tokens: Any) -> bytes:
        """Nothing is left out."""
        raise AssertionError(tokens)

    def beyond(self, marker: bytes) -> dict[int, tuple[int, ...]]:
        """There are no markers."""
        assert not marker
        return {}


def steering(tokens: list[int], **options: Any) -> Steering:
    """These tokens and no others."""
    return Steering(Course(), NoWords(), Short(tokens, **options))


def test_a_grammar_that_fails_fails_its_own_answer(llama: Path, alone: Callable[[list[int], int], list[int]]) -> None:
    """At the first token or later; its neighbours say what they say alone."""
    with running(llama) as tiny:
        other = tiny.ask(prompt(20), 30)
        failing = [tiny.ask(prompt(9, 1), 30, steering=steering([9] * 30, fails_at=at)) for at in (0, 4)]
        bound = tiny.ask(prompt(9, 2), 12, steering=steering(list(range(20, 40))))
        for each in failing:
            end = each.end()
            assert isinstance(end, Failed)
            assert isinstance(end.error, BackendFailure)
        assert failing[1].tokens == [9] * 3
        assert bound.tokens == list(range(20, 32))
        assert other.tokens == alone(prompt(20), 30)


class Stumbling(Wrapped):
    """A model whose twelfth step of decoding fails, and no other."""

    num_steps = 0
    num_stumbles = 0

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        """Logits."""
        if tokens.shape[1] == 1:
            self.num_steps += 1
            if self.num_steps == 12:
                Stumbling.num_stumbles += 1
                raise RuntimeError("stumbled")
        return super().__call__(tokens, cache)


def test_an_answer_that_steps_back_goes_on_within_its_grammar(llama: Path) -> None:
    """What it had drawn and nobody heard is drawn again, by the grammar's word."""
    with running(llama, Stumbling) as tiny:
        asked = [tiny.ask(prompt(20, seed), 20, steering=steering(list(range(40, 80)))) for seed in range(2)]
        assert [each.tokens for each in asked] == [list(range(40, 60))] * 2
    assert Stumbling.num_stumbles == 1
