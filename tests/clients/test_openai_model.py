"""The `openai` SDK and the real starter model, as users go it: `pensieve serve` in a process of its own."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from served import serve

pytestmark = pytest.mark.model

CAPITAL: dict[str, Any] = {
    "model": "gpt-5",
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    "temperature": 0,
    "max_tokens": 12,
}
LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"enum": ["door", "wall"]}}, "required": ["at"]},
    },
}


class City(BaseModel):
    """What an answer is read as."""

    capital: Literal["Paris", "Rome"]


@pytest.fixture(scope="module")
def server(starter_model: Path) -> Iterator[subprocess.Popen[str]]:
    """The server of the starter model, from its command."""
    with serve(starter_model.parents[3], secret="capital", PENSIEVE_CONTEXT_TOKENS="1024") as process:
        yield process


@pytest.fixture
async def gpt(url: str) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as its users make it."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=120) as made:
        yield made


async def test_an_answer_comes_whole_and_streamed(gpt: AsyncOpenAI) -> None:
    """The same words, and the second time the prompt comes from the cache."""
    whole = await gpt.chat.completions.create(**CAPITAL)
    stream = await gpt.chat.completions.create(**CAPITAL, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert whole.choices[0].message.content == text
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens - (usage.prompt_tokens_details.cached_tokens or 0) <= 8


async def test_probabilities_are_the_models_own(gpt: AsyncOpenAI) -> None:
    """The greedy token is the likeliest, and its text is the answer's."""
    answer = await gpt.chat.completions.create(**CAPITAL, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(each.token for each in logprobs.content) == answer.choices[0].message.content
    assert all(each.top_logprobs[0].token == each.token for each in logprobs.content)
    assert all(each.logprob > each.top_logprobs[1].logprob for each in logprobs.content)


async def test_an_answer_is_parsed_and_a_tool_is_forced(gpt: AsyncOpenAI) -> None:
    """By a model that would not do either by itself."""
    parsed = await gpt.chat.completions.parse(**CAPITAL | {"max_tokens": 40}, response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City)
    forced: Any = {"type": "function", "function": {"name": "look"}}
    called = await gpt.chat.completions.create(
        **CAPITAL | {"max_tokens": 40}, tools=[LOOK], tool_choice=forced, parallel_tool_calls=False
    )
    calls: Any = called.choices[0].message.tool_calls
    assert json.loads(calls[0].function.arguments)["at"] in {"door", "wall"}
    assert called.choices[0].finish_reason == "tool_calls"


async def test_a_response_is_streamed_parsed_and_forced(gpt: AsyncOpenAI) -> None:
    """The same through the Responses API; the second turn's prompt comes from the cache."""
    asked: dict[str, Any] = {"model": "any", "input": CAPITAL["messages"], "temperature": 0, "max_output_tokens": 40}
    async with gpt.responses.stream(**asked) as stream:
        first = await stream.get_final_response()
    again = await gpt.responses.create(**asked)
    parsed = await gpt.responses.parse(**asked, text_format=City)
    tool: Any = {"type": "function", **LOOK["function"]}
    forced = await gpt.responses.create(
        **asked, tools=[tool], tool_choice={"type": "function", "name": "look"}, parallel_tool_calls=False
    )
    assert "Paris" in first.output_text
    assert again.usage is not None
    assert again.usage.input_tokens - again.usage.input_tokens_details.cached_tokens <= 8
    assert isinstance(parsed.output_parsed, City)
    (call,) = forced.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["at"] in {"door", "wall"}


async def test_a_text_is_gone_on_from(gpt: AsyncOpenAI) -> None:
    """As it stands, without a role."""
    answer = await gpt.completions.create(
        model="any", prompt="The capital of France is", max_tokens=3, temperature=0, logprobs=1, echo=True
    )
    assert answer.choices[0].text.startswith("The capital of France is Paris")
    assert answer.choices[0].finish_reason == "length"


def likeness(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between vectors of length 1."""
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


async def test_texts_that_mean_alike_have_vectors_that_are_alike(gpt: AsyncOpenAI) -> None:
    """Of length 1, in the form that the SDK asks for by itself."""
    texts = ["The cat sleeps on the sofa.", "A kitten is sleeping on the couch.", "Interest rates rose by a quarter."]
    cat, kitten, money = (each.embedding for each in (await gpt.embeddings.create(model="any", input=texts)).data)
    assert likeness(cat, cat) == pytest.approx(1.0, abs=1e-4)
    assert likeness(cat, kitten) > likeness(cat, money)


async def test_a_text_too_long_to_embed_has_the_code_that_clients_know(gpt: AsyncOpenAI) -> None:
    """They cut it, then."""
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt.embeddings.create(model="any", input="word " * 600)
    assert refused.value.code == "context_length_exceeded"
