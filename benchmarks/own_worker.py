"""Our worker as a benchmark asks it: texts in, the times of the pieces out, without the HTTP server."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from bare_engines import Timed
from pensieve.config.settings import Settings
from pensieve.generation import Finished, GenerationRequest, TextDelta, ThinkingDelta, Usage
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.spec import ModelSpec
from pensieve.sampling.params import SamplingParams

WORDS = ("sea", "keeper", "light", "storm", "ship", "stone", "wind", "door", "night", "salt", "rope", "bell")
QUESTION = " Write a very long story about all of this."

_numbers = itertools.count()


def text_of(num_words: int, seed: str) -> str:
    """A text of about that many tokens for any tokenizer of English, then a question with a long answer."""
    return " ".join(random.Random(seed).choices(WORDS, k=num_words)) + "." + QUESTION


def request_of(text: str, max_tokens: int) -> GenerationRequest:
    """A greedy request of one user message."""
    return GenerationRequest(
        id=f"bench-{next(_numbers)}",
        model="m",
        messages=(say("user", text),),
        sampling=SamplingParams(temperature=0.0),
        max_tokens=max_tokens,
    )


class OwnWorker:
    """A worker process with its model; blocks like the bare engines do."""

    def __init__(self, spec: ModelSpec, settings: Settings, state_folder: Path | None = None) -> None:
        self._runner = asyncio.Runner()
        self.backend = WorkerBackend(spec, settings, state_folder)
        began = time.perf_counter()
        self.count(QUESTION)  # starts the worker, which loads the model
        self.load_seconds = time.perf_counter() - began

    def count(self, text: str) -> int:
        """Tokens of the prompt that the text becomes."""
        return self._runner.run(self.backend.count_tokens(request_of(text, 1)))

    def answer(self, texts: Sequence[str], max_tokens: int) -> list[tuple[Timed, Usage]]:
        """Answer all texts at once."""

        async def together() -> list[tuple[Timed, Usage]]:
            began = time.perf_counter()
            return await asyncio.gather(*(self._one(text, max_tokens, began) for text in texts))

        return self._runner.run(together())

    async def _one(self, text: str, max_tokens: int, began: float) -> tuple[Timed, Usage]:
        times: list[float] = []
        usage = Usage()
        async with aclosing(self.backend.generate(request_of(text, max_tokens))) as events:
            async for event in events:
                if isinstance(event, TextDelta | ThinkingDelta):
                    times.append(time.perf_counter() - began)
                elif isinstance(event, Finished):
                    usage = event.usage
        return Timed(tuple(times)), usage

    def close(self) -> None:
        """End the worker."""
        self._runner.run(self.backend.aclose())
        self._runner.close()
