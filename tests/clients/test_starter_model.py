"""The whole way, as users go it: `pensieve serve` in a process of its own, the real model, the official SDK."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from served import serve, text_of, worker_of

pytestmark = pytest.mark.model

CAPITAL: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 128_000,
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    "extra_body": {"temperature": 0},
}


@pytest.fixture(scope="module")
def server(starter_model: Path) -> Iterator[subprocess.Popen[str]]:
    """The server of the starter model, from its command."""
    with serve(starter_model.parents[3], secret="capital", PENSIEVE_CONTEXT_TOKENS="1024") as process:
        yield process


async def test_a_message_is_created(client: anthropic.AsyncAnthropic) -> None:
    """By a model that knows its capitals, under whatever name the client asks for."""
    message = await client.messages.create(**CAPITAL)
    assert "Paris" in text_of(message)
    assert (message.model, message.stop_reason) == ("smollm2-135m", "end_turn")


async def test_a_message_is_streamed(client: anthropic.AsyncAnthropic) -> None:
    """The accumulator takes it without a warning, and its usage adds up to the counted prompt."""
    counted = await client.messages.count_tokens(model="m", messages=CAPITAL["messages"])
    async with client.messages.stream(**CAPITAL) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        usage = (await stream.get_final_message()).usage
    assert "Paris" in text
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted.input_tokens
    assert usage.output_tokens > 3


async def test_eight_at_once_all_answer(client: anthropic.AsyncAnthropic) -> None:
    """On fewer slots; half of them streamed."""

    async def streamed() -> str:
        async with client.messages.stream(**CAPITAL) as stream:
            return await stream.get_final_text()

    async def whole() -> str:
        return text_of(await client.messages.create(**CAPITAL))

    texts = await asyncio.gather(*(streamed() if number % 2 else whole() for number in range(8)))
    assert all("Paris" in text for text in texts)


async def test_a_prompt_that_is_too_long_is_said_so_with_both_numbers(client: anthropic.AsyncAnthropic) -> None:
    """As coding agents parse it, before any stream opens."""
    await client.messages.count_tokens(model="m", messages=CAPITAL["messages"])  # the model is loaded now
    long = CAPITAL | {"messages": [{"role": "user", "content": "word " * 3000}]}
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: 30\d\d tokens > 1023 maximum"):
        async with client.messages.stream(**long):
            pass


async def test_a_killed_worker_ends_the_stream_and_is_back_for_the_next(
    client: anthropic.AsyncAnthropic, server: subprocess.Popen[str]
) -> None:
    """One error event for the client, not a dead server."""
    story = CAPITAL | {"messages": [{"role": "user", "content": "Tell a very long story."}]}
    async with client.messages.stream(**story) as stream:
        pieces = aiter(stream.text_stream)
        for _ in range(4):
            await anext(pieces)
        os.kill(worker_of(server), signal.SIGKILL)
        with pytest.raises(anthropic.APIStatusError, match="SIGKILL"):
            await stream.until_done()
    assert "Paris" in text_of(await client.messages.create(**CAPITAL))


async def test_the_model_is_listed_with_the_context_really_loaded(url: str) -> None:
    """Agents size their windows by it; nothing names a path."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as plain:
        listed = (await plain.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()["data"][0]
        health = (await plain.get("/health")).text
    assert (listed["id"], listed["max_input_tokens"]) == ("smollm2-135m", 1024)
    assert listed["created_at"] > "2020"
    assert ".gguf" not in health
