"""Signs of life of a worker whose engine reads a long prompt: many seconds in one call, and no hang."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pensieve.config.settings import LlamaCppSettings, ModelSettings, Settings, WorkerSettings
from pensieve.generation import GenerationRequest
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.metadata import read_gguf

HANG_SECONDS = 1.5
STEP_TOKENS = 512
LONG = "one two three four five six seven "


@pytest.mark.model
@pytest.mark.parametrize("num_words", [560, pytest.param(4200, marks=[pytest.mark.stress, pytest.mark.timeout(1200)])])
async def test_a_long_prefill_is_no_hang(starter_model: Path, num_words: int) -> None:
    """The engine says nothing for longer than a hung worker may, and the worker answers pings all the while."""
    settings = Settings(
        model=ModelSettings(context_tokens=8192),
        llamacpp=LlamaCppSettings(threads=1, pool_tokens=8192, batch_tokens=STEP_TOKENS),
        worker=WorkerSettings(hang_seconds=HANG_SECONDS),
    )
    header = await asyncio.to_thread(read_gguf, starter_model)
    backend = WorkerBackend(header.spec("starter"), settings)
    question = GenerationRequest(id="r", model="m", messages=(say("user", LONG * (num_words // 7)),), max_tokens=2)
    try:
        await backend.count_tokens(question)
        heard, longest_seconds = time.monotonic(), 0.0
        async for _ in backend.generate(question):
            longest_seconds, heard = max(longest_seconds, time.monotonic() - heard), time.monotonic()
        status = backend.status
    finally:
        await backend.aclose()
    print(f"{num_words} words: silent for {longest_seconds:.1f} s, {status.num_hangs} hangs")
    assert longest_seconds > HANG_SECONDS, "this machine is so quick that the test shows nothing: make the step larger"
    assert (status.num_hangs, status.num_crashes, status.num_loads) == (0, 0, 1)
