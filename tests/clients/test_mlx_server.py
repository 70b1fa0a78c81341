"""The whole way through the MLX engine: a GGUF file is converted, served from its command, and asked by the SDK."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from served import MLX_NAME, command, serve, text_of, variables, worker_of

BLOCK_TOKENS = 64
"""Prompts are kept in such pieces."""

pytestmark = pytest.mark.model

QUESTION = "What is the capital of France? Answer in one sentence."
RULES = " ".join(f"Rule {number}: be brief, be kind, and say only what you know for sure." for number in range(1, 5))
CAPITAL: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 12,
    "messages": [{"role": "user", "content": QUESTION}],
    "extra_body": {"temperature": 0},
}
RULED: dict[str, Any] = CAPITAL | {"system": RULES, "max_tokens": 2}
"""A prompt of more than one block; once it came twice, it is worth a place on disk."""


@pytest.fixture(scope="module")
def server(mlx_home: Path) -> Iterator[subprocess.Popen[str]]:
    """The server of the converted model, from its command."""
    with serve(mlx_home, "--model", MLX_NAME, secret="capital") as process:
        yield process


def cached_tokens(message: anthropic.types.Message) -> int:
    """Tokens of the prompt that were not computed for this answer."""
    return message.usage.cache_read_input_tokens or 0


def until_kept(home: Path) -> None:
    """Wait until a prompt lies on disk."""
    for _ in range(600):
        if list((home / "state" / "prefix-cache").rglob("*.safetensors")):
            return
        time.sleep(0.1)
    pytest.fail("no prompt came to disk in a minute")


async def test_the_answer_is_the_one_llama_cpp_gives(client: anthropic.AsyncAnthropic, mlx_home: Path) -> None:
    """To the letter, from the same codes of the same weights, on the other engine."""
    message = await client.messages.create(**CAPITAL)
    asked = command("ask", QUESTION, "--temperature", "0", "--model", "smollm2-135m")
    environment = variables(mlx_home)
    done = await asyncio.to_thread(
        subprocess.run, asked, check=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert "Paris" in text_of(message)
    assert text_of(message) == done.stdout.strip()
    assert (message.model, message.stop_reason) == ("smollm2-135m-mlx", "end_turn")


async def test_a_streamed_answer_is_the_same(client: anthropic.AsyncAnthropic) -> None:
    """The accumulator takes it without a warning, and the prompt was counted the same way."""
    counted = await client.messages.count_tokens(model="m", messages=CAPITAL["messages"])
    async with client.messages.stream(**CAPITAL) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        usage = (await stream.get_final_message()).usage
    assert "Paris" in text
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted.input_tokens
    assert 3 < usage.output_tokens <= 12


async def test_a_request_sent_again_is_not_read_again(client: anthropic.AsyncAnthropic) -> None:
    """The whole blocks of its prompt, one here, come from the cache, and the answer does not change."""
    first = await client.messages.create(**RULED)
    second = await client.messages.create(**RULED)
    assert cached_tokens(first) == 0
    assert cached_tokens(second) == BLOCK_TOKENS
    assert cached_tokens(second) + second.usage.input_tokens == first.usage.input_tokens
    assert text_of(first) == text_of(second)


async def test_the_engine_is_named(client: anthropic.AsyncAnthropic, url: str) -> None:
    """By the health route, once the model is loaded; nothing names a path."""
    await client.messages.count_tokens(model="m", messages=CAPITAL["messages"])
    async with httpx.AsyncClient(base_url=url, trust_env=False) as plain:
        health = (await plain.get("/health")).text
    assert "MLX on cpu" in health
    assert "safetensors" not in health


async def test_a_killed_worker_costs_one_error_and_forgets_no_prompt(
    client: anthropic.AsyncAnthropic, server: subprocess.Popen[str], mlx_home: Path
) -> None:
    """The next request is answered by a new worker, with the prompt that the last one has left on disk."""
    before, _ = [await client.messages.create(**RULED) for _ in range(2)]
    await asyncio.to_thread(until_kept, mlx_home)
    story = CAPITAL | {"max_tokens": 500, "messages": [{"role": "user", "content": "Tell a very long story."}]}
    async with client.messages.stream(**story) as stream:
        await anext(aiter(stream.text_stream))
        os.kill(worker_of(server), signal.SIGKILL)
        with pytest.raises(anthropic.APIStatusError, match="SIGKILL"):
            await stream.until_done()
    after = await client.messages.create(**RULED)
    assert cached_tokens(after) == BLOCK_TOKENS
    assert text_of(after) == text_of(before)
