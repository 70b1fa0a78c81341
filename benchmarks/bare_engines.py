"""The engines without Pensieve around them, in this process: what server and worker are held against.

Takes token ids, gives the times of the tokens. Each model is loaded with the sizes that our worker would use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pensieve.config.settings import Settings
from pensieve.models.spec import ModelSpec

SHARED = "You are a helpful assistant."


class Timed(NamedTuple):
    """When the tokens of one answer came, in seconds, counted from the request."""

    token_seconds: tuple[float, ...]

    @property
    def first_seconds(self) -> float:
        """To the first token."""
        return self.token_seconds[0]

    @property
    def whole_seconds(self) -> float:
        """To the last token."""
        return self.token_seconds[-1]


class BareEngine(Protocol):
    """A loaded model."""

    name: str
    load_seconds: float

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special ones."""
        ...

    def answer(self, prompts: Sequence[list[int]], max_tokens: int) -> list[Timed]:
        """Answer all prompts at once, greedily."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class BareLlama:
    """xllamacpp with our sizes."""

    name = "bare xllamacpp"

    def __init__(self, spec: ModelSpec) -> None:
        began = time.perf_counter()
        from pensieve.inference.llamacpp import sizing  # noqa: PLC0415 - one engine a process
        from pensieve.inference.llamacpp.engine import Engine  # noqa: PLC0415
        from pensieve.inference.llamacpp.tokenizer import EngineTokenizer  # noqa: PLC0415
        from pensieve.sampling.params import DEFAULTS, SamplingParams, merge  # noqa: PLC0415

        sizes = sizing.choose(spec, Settings(), available_bytes=2**34)
        self._engine = Engine(spec, sizes, Settings().llamacpp)
        self.load_seconds = time.perf_counter() - began
        self._tokenizer = EngineTokenizer(self._engine.socket)
        self._greedy = merge(DEFAULTS, SamplingParams(temperature=0.0))

    def encode(self, text: str) -> list[int]:
        """See `BareEngine.encode`."""
        return self._tokenizer.encode(text)

    def answer(self, prompts: Sequence[list[int]], max_tokens: int) -> list[Timed]:
        """See `BareEngine.answer`; one thread for each prompt."""
        from pensieve.inference.llamacpp.completion import Run  # noqa: PLC0415 - one engine a process

        times: list[list[float]] = [[] for _ in prompts]
        began = time.perf_counter()

        def run(place: int) -> None:
            def on_chunk(chunk: Any) -> bool:
                if chunk.text:
                    times[place].append(time.perf_counter() - began)
                return False

            self._engine.complete(Run(prompts[place], self._greedy, max_tokens), on_chunk)

        threads = [threading.Thread(target=run, args=(place,)) for place in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [Timed(tuple(seconds)) for seconds in times]

    def close(self) -> None:
        """See `BareEngine.close`."""
        self._engine.close()


class BareMlx:
    """mlx-lm's batch generator; the end token counts as any other."""

    name = "bare mlx-lm"

    def __init__(self, spec: ModelSpec) -> None:
        began = time.perf_counter()
        from mlx_lm import load  # noqa: PLC0415 - one engine a process
        from mlx_lm.generate import BatchGenerator  # noqa: PLC0415

        self._model, self._tokenizer, *_ = load(spec.location)
        self.load_seconds = time.perf_counter() - began
        self._generator_class = BatchGenerator

    def encode(self, text: str) -> list[int]:
        """See `BareEngine.encode`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def answer(self, prompts: Sequence[list[int]], max_tokens: int) -> list[Timed]:
        """See `BareEngine.answer`."""
        generator = self._generator_class(self._model, max_tokens=max_tokens)
        began = time.perf_counter()
        uids = generator.insert([list(prompt) for prompt in prompts])
        times: dict[int, list[float]] = {uid: [] for uid in uids}
        while any(len(seconds) < max_tokens for seconds in times.values()):
            responses = generator.next_generated()
            now = time.perf_counter() - began
            for response in responses:
                times[response.uid].append(now)
        generator.close()
        return [Timed(tuple(times[uid])) for uid in uids]

    def close(self) -> None:
        """See `BareEngine.close`."""
        del self._model


def prompt_like(bare: BareEngine, text: str, num_tokens: int, num_shared: int) -> list[int]:
    """As many tokens as our side had, as many of them shared by all prompts: a template's first words, already read."""
    shared, own = bare.encode(SHARED), bare.encode(text)
    shared = (shared * (num_shared // len(shared) + 1))[:num_shared]
    return shared + (own * (num_tokens // len(own) + 1))[: num_tokens - num_shared]


def open_bare(spec: ModelSpec) -> BareEngine:
    """The bare engine for the model's format."""
    return BareMlx(spec) if Path(spec.location).is_dir() else BareLlama(spec)
