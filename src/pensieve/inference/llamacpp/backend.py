"""llama.cpp as a `Backend`: render -> tokens -> admission -> slot -> runs -> events. Runs inside a worker process.

One text thread renders and tokenizes, one engine thread per slot blocks in llama.cpp, and the event loop decides.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

from pensieve.config.settings import Settings
from pensieve.devices.processes import read_own_memory
from pensieve.errors import BackendFailure, ContextOverflow, Overloaded
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.backend import Embeddings, Limits
from pensieve.inference.constraints.constraint import Constraint
from pensieve.inference.constraints.following import Follower, byte_matchers
from pensieve.inference.constraints.lark import to_lark
from pensieve.inference.constraints.plan import plan
from pensieve.inference.delivery import Bell, Inbox
from pensieve.inference.fitting import spare
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.llamacpp import sizing
from pensieve.inference.llamacpp.completion import Chunk, Run
from pensieve.inference.llamacpp.embedder import Embedder
from pensieve.inference.llamacpp.engine import Engine
from pensieve.inference.llamacpp.phases import Phases
from pensieve.inference.llamacpp.pool import Demand, TokenPool
from pensieve.inference.llamacpp.rendering import EngineRenderer
from pensieve.inference.llamacpp.seats import Seats
from pensieve.inference.llamacpp.sequence import Bound, EnginePrompt, Limit, Sequence
from pensieve.inference.llamacpp.tokenizer import EngineTokenizer
from pensieve.inference.parsing.families import dialect_for
from pensieve.inference.parsing.grammar import OutputGrammar
from pensieve.inference.parsing.parser import OutputParser
from pensieve.inference.render_thread import RenderThread
from pensieve.inference.repetition import RepetitionGuard
from pensieve.inference.sampling_defaults import sampling_defaults
from pensieve.models.metadata import GgufHeader, read_gguf, read_markers, read_special_tokens
from pensieve.models.projector import find_projector
from pensieve.models.spec import Capability, ModelSpec
from pensieve.prompts.prompt import PromptRenderer
from pensieve.prompts.template import ChatTemplate
from pensieve.sampling.params import merge


class LlamaCppBackend:
    """A `Backend` over one loaded GGUF file."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        """Load the model. Blocks for seconds to minutes; raises `LoadFailed`."""
        path = Path(spec.location)
        header = read_gguf(path)
        projector = find_projector(path, settings.llamacpp.mmproj)
        sizes = _sizes(spec, settings)
        self._settings = settings
        self._dialect = dialect_for(header.chat_template, spec.architecture)
        self._specials = read_special_tokens(path)
        self._markers = {text: token for token, text in self._specials.items()}
        self._byte_matchers = byte_matchers()
        self._engine = Engine(spec, sizes, settings.llamacpp, projector)
        self._renderer = self._renderer_for(spec, header)
        self._limits = Limits(
            spec.name,
            sizes.context_tokens,
            sizes.context_tokens,
            capabilities=self._capabilities(),
            engine=", ".join(
                part for part in ("llama.cpp", projector and f"sees through {projector.name}", sizes.problem) if part
            ),
        )
        self._sampling = sampling_defaults(settings.generation)
        self._pool = TokenPool(
            capacity_tokens=sizes.pool_tokens,
            num_slots=sizes.num_slots,
            queue_limit=settings.worker.queue_limit,
        )
        self._seats = Seats(
            self._engine,
            num_slots=sizes.num_slots,
            capacity_tokens=sizes.pool_tokens,
            aside_tokens=settings.llamacpp.prompt_cache_mib * 2**20 // max(1, spec.cache_bytes_per_token),
        )
        self.growth_bytes = sizes.cache_bytes
        """Pages of the cache are taken when they are first written."""
        self._is_closed = False
        self._bell: Bell | None = None
        self._sequences: dict[str, Sequence] = {}
        self._ids = itertools.count(1)
        self._text = RenderThread(queue_limit=settings.worker.queue_limit)
        self._embedder = Embedder(spec, settings, num_threads=sizes.num_threads)
        self._engine_threads = ThreadPoolExecutor(sizes.num_slots, "engine")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`."""
        bell = self._bell = self._bell or Bell(asyncio.get_running_loop())
        sequence = await self._text.render(lambda: self._sequence(request, Inbox(bell)))
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
        prompt, _ = await self._text.render(lambda: self._renderer.render(request))
        return len(prompt.tokens)

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """See `Embeds`."""
        return await self._embedder.embed(texts)

    async def limits(self) -> Limits:
        """See `Backend.limits`."""
        return self._limits

    def relieve(self, *, cache_share: float, is_frugal: bool) -> None:
        """See `Relievable`: pages of the cache are taken when they are first written, so that fewer may write.

        Memory for a step was taken at load, however many tokens are in it.
        """
        del cache_share
        self._pool.limit_running(1 if is_frugal else None)
        for sequence_id in self._pool.younger_half() if is_frugal else ():
            sequence = self._sequences[sequence_id]
            sequence.is_stepping_back = sequence.is_stepping_back or not sequence.is_pinned
        self._admit()

    async def aclose(self) -> None:
        """Cancel what runs and wait for the engine threads."""
        self._is_closed = True
        for sequence in self._sequences.values():
            sequence.is_cancelled = True
        await asyncio.to_thread(self._engine_threads.shutdown)
        await asyncio.to_thread(self._text.close)
        await self._embedder.aclose()
        await asyncio.to_thread(self._seats.close)
        self._engine.close()

    def _renderer_for(self, spec: ModelSpec, header: GgufHeader) -> EngineRenderer:
        tokenizer = EngineTokenizer(self._engine.socket, read_markers(Path(spec.location)))
        mark = self._engine.image_mark() if self._engine.sees_images else ""
        renderer = PromptRenderer(
            ChatTemplate(header.chat_template, bos_token=header.bos_token, eos_token=header.eos_token),
            tokenizer,
            added_bos=header.bos_token if header.adds_bos else "",
            model_name=spec.name,
            has_native_tools=self._dialect.has_native_tools,
            sees_images=bool(mark),
            image_mark=mark,
        )
        return EngineRenderer(renderer, tokenizer, self._engine, mark)

    def _capabilities(self) -> tuple[Capability, ...]:
        grammar = self._dialect.grammar
        can: dict[Capability, bool] = {
            "thinking": grammar.thinking is not None or grammar.style == "channels",
            "tools": bool(grammar.calls) or grammar.style == "channels",
            "structured_outputs": True,
            "images": self._engine.sees_images,
        }
        return tuple(name for name, is_there in can.items() if is_there)

    def _sequence(self, request: GenerationRequest, inbox: Inbox[Chunk | None]) -> Sequence:
        """On the text thread."""
        prompt, prompt_ending = self._renderer.render(request)
        grammar = self._dialect.grammar.answering(request, prompt_ending)
        constraint = plan(request, grammar)
        turn_stop = () if request.text else self._renderer.turn_stop
        parser = OutputParser(grammar, stop=request.stop + turn_stop)
        return Sequence(
            str(next(self._ids)),
            prompt,
            parser=parser,
            phases=_phases(request, grammar, constraint),
            guard=RepetitionGuard(self._settings.generation, request.messages),
            limit=self._limit(request, prompt),
            inbox=inbox,
            sampling=merge(self._sampling, request.sampling),
            bound=self._bound(constraint) if constraint is not None else None,
            turn_stop=frozenset(turn_stop) - frozenset(request.stop),
            stop_tokens=frozenset(request.stop_tokens),
            logit_bias=request.logit_bias,
            specials=self._specials,
            num_logprobs=request.num_logprobs,
        )

    def _bound(self, constraint: Constraint) -> Bound:
        """Raises `InvalidRequest` where the grammar is too large: llama.cpp would go on without it."""
        matcher = self._byte_matchers.matcher(to_lark(constraint))
        return Bound(to_lark(constraint, self._markers), Follower(matcher))

    def _limit(self, request: GenerationRequest, prompt: EnginePrompt) -> Limit:
        context, num_prompt = self._limits.context_tokens, len(prompt.tokens)
        if num_prompt >= context:
            raise ContextOverflow(prompt_tokens=num_prompt, limit_tokens=context - 1)
        room = context - num_prompt
        is_asked = request.max_tokens is not None and request.max_tokens <= room
        return Limit(min(room, request.max_tokens or room), "length" if is_asked else "context_full")

    async def _run(self, sequence: Sequence) -> AsyncGenerator[GenerationEvent, None]:
        """Run an admitted sequence until it is finished or has stepped back."""
        tokens = await self._tokens(sequence)
        sequence.sit(await self._seats.take(tokens, lambda: self._pool.reserved_tokens))
        while not sequence.is_stepping_back:  # as it may be asked while it waits for its slot
            sequence.begin_run()
            loop, run = asyncio.get_running_loop(), sequence.run(tokens)
            sequence.thread = loop.run_in_executor(self._engine_threads, self._complete, sequence, run)
            while not sequence.is_run_over:
                for event in sequence.take(await sequence.inbox.get_all()):
                    yield event
                if sequence.failure is not None:
                    raise sequence.failure
                if sequence.finished is not None:
                    return
                self._keep_books(sequence)
            await sequence.thread
            if not sequence.is_turning:
                break
            tokens = await self._tokens(sequence)
        if not sequence.is_stepping_back:
            raise BackendFailure("llama.cpp stopped in the middle of an answer")
        self._step_back(sequence)

    async def _tokens(self, sequence: Sequence) -> list[int]:
        """All that the engine must have read before the sequence goes on."""
        if not sequence.said.text:
            return list(sequence.prompt.tokens)
        return await self._text.render(lambda: sequence.tokens(self._renderer.encode))

    def _keep_books(self, sequence: Sequence) -> None:
        if sequence.has_just_read and sequence.slot is not None:
            self._seats.has_read(sequence.slot, *sequence.reading)
        sequences = self._sequences
        if victim := self._pool.grow(
            sequence.id, sequence.held_tokens, is_pinned=lambda other: sequences[other].is_pinned
        ):
            sequences[victim].is_stepping_back = True

    def _step_back(self, sequence: Sequence) -> None:
        if sequence.is_pinned:  # no grammar can be taken up in the middle
            raise Overloaded("other answers needed the memory of this one, which must obey a schema", 2.0)
        sequence.step_back()
        self._rise(sequence)
        self._pool.step_back(sequence.id, sequence.held_tokens)
        self._admit()

    def _complete(self, sequence: Sequence, run: Run) -> None:
        """On an engine thread."""
        try:
            self._engine.complete(run, sequence.on_chunk)
        finally:
            sequence.inbox.put(None)

    def _admit(self) -> None:
        for sequence_id in () if self._is_closed else self._pool.admit():
            self._sequences[sequence_id].admitted.set()

    def _abandon(self, sequence: Sequence) -> None:
        """Nobody reads this sequence any more: its seat is free as soon as the engine has let go."""
        sequence.is_cancelled = True
        if sequence.thread is None or sequence.thread.done() or sequence.is_let_go:
            self._leave(sequence)
        else:
            sequence.thread.add_done_callback(lambda _: self._leave(sequence))

    def _leave(self, sequence: Sequence) -> None:
        self._rise(sequence)
        self._pool.leave(sequence.id)
        del self._sequences[sequence.id]
        self._admit()

    def _rise(self, sequence: Sequence) -> None:
        """Leave the slot, with what it holds for whoever comes next."""
        if sequence.slot is not None:
            self._seats.leave(sequence.slot, sequence.engine_tokens)
        sequence.slot = None


def _phases(request: GenerationRequest, grammar: OutputGrammar, constraint: Constraint | None) -> Phases:
    thinking = request.thinking
    return Phases(
        grammar,
        is_thinking_wanted=thinking is not None and thinking.mode != "disabled",
        budget_tokens=thinking.budget_tokens if thinking is not None and thinking.mode == "enabled" else None,
        is_bound=constraint is not None,
        triggers=constraint.triggers if constraint is not None else (),
    )


def _sizes(spec: ModelSpec, settings: Settings) -> sizing.Sizes:
    """Sizes for this machine as it is now."""
    guard = MemoryGuard(settings.memory, read_own_memory)
    guard.look()
    spare_bytes = spare(spec, settings, guard.spare_bytes(is_safe=False))
    return sizing.choose(spec, settings, available_bytes=guard.reading.available_bytes or 0, spare_bytes=spare_bytes)
