"""Embeddings through llama.cpp: a second, small context over the model's file, there only while it is used.

Its weights are the same mapped file, on the CPU, so that they are in memory once. How the vectors of a text's tokens
become one is the model's own way, where it was made for embeddings; else their mean.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import xllamacpp

from pensieve.config.settings import Settings
from pensieve.devices.memory import MemoryReading, read_memory
from pensieve.errors import BackendFailure, ContextOverflow, MemoryShort, Overloaded
from pensieve.inference.backend import Embeddings
from pensieve.inference.guard import MemoryGuard
from pensieve.models.gguf import open_container
from pensieve.models.sizes import gigabytes
from pensieve.models.spec import ModelSpec

IDLE_SECONDS: Final = 2.0
"""What nobody uses is given back before a worker is weighed."""
BYTES_PER_LOGIT: Final = 8
"""Measured: llama.cpp computes the next token's logits for every token that it embeds, and holds them twice."""


class Embedder:
    """Embeds one text after another, on a thread of its own."""

    def __init__(
        self,
        spec: ModelSpec,
        settings: Settings,
        *,
        num_threads: int,
        read: Callable[[], MemoryReading] = read_memory,
    ) -> None:
        self._read = read
        self._spec, self._settings, self._num_threads = spec, settings, num_threads
        self._thread = ThreadPoolExecutor(1, "embed")
        self._server: Any = None
        self._num_waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit_tokens(self) -> int:
        """Tokens of the longest text."""
        return min(self._settings.llamacpp.embedding_tokens, self._spec.context_tokens or 2**31)

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """See `Embeds`: whoever stops waiting stops the work after the text that is read. Raises `Overloaded`."""
        if self._num_waiting >= self._settings.worker.queue_limit:
            raise Overloaded(f"{self._num_waiting} requests are waiting for their embeddings", 5.0)
        loop = asyncio.get_running_loop()
        self._num_waiting += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            done = [await loop.run_in_executor(self._thread, self._one, text) for text in texts]
        finally:
            self._num_waiting -= 1
            self._timer = loop.call_later(IDLE_SECONDS, self._tidy)
        return Embeddings(tuple(vector for vector, _ in done), sum(num_tokens for _, num_tokens in done))

    async def aclose(self) -> None:
        """Wait for the text that is read, and give everything back."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        self._server = None

    def _tidy(self) -> None:
        if not self._num_waiting:
            self._server = None

    def _one(self, text: str) -> tuple[bytes, int]:
        """The vector of one text, and its tokens; on the thread."""
        self._server = server = self._server or self._load()
        try:
            answer = server.handle_embeddings({"input": [text], "encoding_format": "base64"})
        except (RuntimeError, ValueError) as error:
            raise BackendFailure(f"llama.cpp: {error}") from error
        if "error" in answer:
            raise self._refusal(answer["error"])
        return base64.b64decode(answer["data"][0]["embedding"]), int(answer["usage"]["prompt_tokens"])

    def _refusal(self, error: dict[str, Any]) -> Exception:
        message = str(error.get("message", ""))
        first = message.partition("(")[2].partition(" tokens)")[0]
        if first.isdigit():
            return ContextOverflow(prompt_tokens=int(first), limit_tokens=self.limit_tokens)
        return BackendFailure(f"llama.cpp: {message[:300]}")

    def _load(self) -> Any:
        with open_container(Path(self._spec.location)) as container:
            is_made_for_it = container.number(f"{self._spec.architecture}.pooling_type") is not None
            num_tokens = len(container.texts("tokenizer.ggml.tokens"))
        self._check_memory(num_tokens)
        params = xllamacpp.CommonParams()
        params.model.path = self._spec.location
        params.embedding = True
        params.n_ctx = params.n_batch = params.n_ubatch = self.limit_tokens
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._num_threads
        params.cache_ram_mib = 0
        params.warmup = params.fit_params = params.ui = False
        params.offline = True
        params.verbosity = 1
        if not is_made_for_it:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        try:
            return xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise BackendFailure(f"{self._spec.name} makes no embeddings: llama.cpp refused it") from error

    def _check_memory(self, vocabulary_tokens: int) -> None:
        needed_bytes = self.limit_tokens * (self._spec.cache_bytes_per_token + BYTES_PER_LOGIT * vocabulary_tokens)
        guard = MemoryGuard(self._settings.memory, self._read)
        guard.look()
        spare_bytes = guard.spare_bytes(is_safe=False)
        if spare_bytes is not None and spare_bytes < needed_bytes:
            raise MemoryShort(f"embeddings need {gigabytes(needed_bytes)} more than is free: end other programs", 10.0)
