"""llama.cpp as a `Backend`: render -> tokens -> admission -> complete -> events. Runs inside a worker process.

One text thread renders and tokenizes, one engine thread per slot blocks in llama.cpp, and the event loop decides.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import msgspec

from pensieve.config.settings import Settings
from pensieve.devices.memory import read_memory
from pensieve.errors import BackendFailure, ContextOverflow, InvalidRequest
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.backend import Limits
from pensieve.inference.delivery import Bell, Inbox
from pensieve.inference.llamacpp import sizing
from pensieve.inference.llamacpp.engine import Engine
from pensieve.inference.llamacpp.pool import Demand, TokenPool
from pensieve.inference.llamacpp.sequence import Sequence
from pensieve.inference.llamacpp.tokenizer import EngineTokenizer
from pensieve.inference.parsing.families import dialect_for
from pensieve.inference.render_thread import RenderThread
from pensieve.inference.sampling_defaults import sampling_defaults
from pensieve.models.metadata import read_gguf, read_markers
from pensieve.models.spec import ModelSpec
from pensieve.prompts.prompt import PromptRenderer
from pensieve.prompts.template import ChatTemplate
from pensieve.sampling.params import merge


class LlamaCppBackend:
    """A `Backend` over one loaded GGUF file."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        """Load the model. Blocks for seconds to minutes; raises `LoadFailed`."""
        header = read_gguf(Path(spec.location))
        sizes = sizing.choose(spec, settings, available_bytes=read_memory().available_bytes or 0)
        self._limits = Limits(spec.name, sizes.context_tokens, sizes.context_tokens, engine="llama.cpp")
        self._engine = Engine(spec, sizes, settings.llamacpp)
        self._tokenizer = EngineTokenizer(self._engine.socket_path, self._engine.key, read_markers(Path(spec.location)))
        self._renderer = PromptRenderer(
            ChatTemplate(header.chat_template, bos_token=header.bos_token, eos_token=header.eos_token),
            self._tokenizer,
            added_bos=header.bos_token if header.adds_bos else "",
            model_name=spec.name,
            has_native_tools=dialect_for(header.chat_template, spec.architecture).has_native_tools,
        )
        self._sampling = sampling_defaults(settings.generation)
        self._pool = TokenPool(
            capacity_tokens=sizes.pool_tokens,
            num_slots=sizes.num_slots,
            queue_limit=settings.worker.queue_limit,
        )
        self._is_closed = False
        self._bell: Bell | None = None
        self._sequences: dict[str, Sequence] = {}
        self._ids = itertools.count(1)
        self._text = RenderThread(queue_limit=settings.worker.queue_limit)
        self._engine_threads = ThreadPoolExecutor(sizes.num_slots, "engine")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`."""
        sequence = self._sequence(request, await self._render(request))
        self._pool.enqueue(Demand(sequence.id, sequence.held_tokens, sequence.most_tokens))
        self._sequences[sequence.id] = sequence
        try:
            self._admit()
            while sequence.finished is None:
                await sequence.admitted.wait()
                async with aclosing(self._run(sequence)) as events:
                    async for event in events:
                        yield event
        finally:
            self._abandon(sequence)

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        return len(await self._render(request))

    async def limits(self) -> Limits:
        """See `Backend.limits`."""
        return self._limits

    async def aclose(self) -> None:
        """Cancel what runs and wait for the engine threads."""
        self._is_closed = True
        for sequence in self._sequences.values():
            sequence.is_cancelled = True
        await asyncio.to_thread(self._engine_threads.shutdown)
        await asyncio.to_thread(self._text.close)
        self._tokenizer.close()
        self._engine.close()

    async def _render(self, request: GenerationRequest) -> list[int]:
        _refuse_unsupported(request)
        return await self._text.render(lambda: self._renderer.render(msgspec.structs.replace(request, thinking=None)))

    def _sequence(self, request: GenerationRequest, prompt: list[int]) -> Sequence:
        self._bell = self._bell or Bell(asyncio.get_running_loop())
        context = self._limits.context_tokens
        if len(prompt) >= context:
            raise ContextOverflow(prompt_tokens=len(prompt), limit_tokens=context - 1)
        room = context - len(prompt)
        return Sequence(
            str(next(self._ids)),
            prompt,
            sampling=merge(self._sampling, request.sampling),
            max_tokens=min(room, request.max_tokens or room),
            reason_at_max="length" if request.max_tokens and request.max_tokens <= room else "context_full",
            stop=request.stop,
            turn_stop=self._renderer.stop,
            inbox=Inbox(self._bell),
        )

    async def _run(self, sequence: Sequence) -> AsyncGenerator[GenerationEvent, None]:
        """Run an admitted sequence until it is finished or has stepped back."""
        loop = asyncio.get_running_loop()
        said: list[int] = []
        if sequence.text:  # it has stepped back before
            said = await self._text.render(lambda: self._renderer.continuation(sequence.text))
        sequence.thread = loop.run_in_executor(self._engine_threads, self._complete, sequence, said)
        while (chunk := await sequence.inbox.get()) is not None:
            for event in sequence.advance(chunk):
                yield event
            if sequence.finished is not None:
                return
            if victim := self._pool.grow(sequence.id, sequence.held_tokens):
                self._sequences[victim].is_stepping_back = True
        await sequence.thread
        if not sequence.is_stepping_back:
            raise BackendFailure("llama.cpp stopped in the middle of an answer")
        sequence.step_back()
        self._pool.step_back(sequence.id, sequence.held_tokens)
        self._admit()

    def _complete(self, sequence: Sequence, said: list[int]) -> None:
        """On an engine thread."""
        try:
            self._engine.complete(
                sequence.prompt + said, sequence.sampling, sequence.remaining_tokens, sequence.on_chunk
            )
        finally:
            sequence.inbox.put(None)

    def _admit(self) -> None:
        for sequence_id in () if self._is_closed else self._pool.admit():
            self._sequences[sequence_id].admitted.set()

    def _abandon(self, sequence: Sequence) -> None:
        """Nobody reads this sequence any more: its seat is free as soon as its engine thread has let go."""
        sequence.is_cancelled = True
        if sequence.thread is None or sequence.thread.done():
            self._leave(sequence)
        else:
            sequence.thread.add_done_callback(lambda _: self._leave(sequence))

    def _leave(self, sequence: Sequence) -> None:
        self._pool.leave(sequence.id)
        del self._sequences[sequence.id]
        self._admit()


def _refuse_unsupported(request: GenerationRequest) -> None:
    """What this backend cannot do yet is refused by name, never ignored."""
    if request.tools:
        raise InvalidRequest("this server cannot call tools yet: leave `tools` out", "tools")
    if request.output_schema is not None:
        raise InvalidRequest("this server cannot follow a JSON schema yet", "output_config.format")
    for name in ("logit_bias", "stop_tokens", "num_logprobs"):
        if getattr(request, name) not in ({}, (), None):
            raise InvalidRequest("models in GGUF files do not take this here; models of the MLX engine do", name)
    # `adaptive` leaves it to the model; agents send it to every model.
    if request.thinking is not None and request.thinking.mode == "enabled":
        raise InvalidRequest("this server cannot make the model think yet: leave `thinking` out", "thinking")
