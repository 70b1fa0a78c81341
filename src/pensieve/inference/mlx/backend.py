"""MLX as a `Backend`: render -> tokens -> engine -> parse -> events. Runs inside a worker process.

One text thread renders and tokenizes, one engine thread owns every array, and the event loop speaks.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from pensieve.config.settings import Settings
from pensieve.errors import ContextOverflow, LoadFailed
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.backend import CacheFigures, Limits
from pensieve.inference.delivery import Bell, Inbox
from pensieve.inference.mlx.courses import Courses
from pensieve.inference.mlx.engine import Engine
from pensieve.inference.mlx.machine import Built, build
from pensieve.inference.mlx.reply import Reply
from pensieve.inference.mlx.room import Machine
from pensieve.inference.mlx.sequence import Item, Task
from pensieve.inference.mlx.steering import Steering
from pensieve.inference.parsing.families import dialect_for
from pensieve.inference.parsing.grammar import OutputGrammar
from pensieve.inference.parsing.parser import OutputParser
from pensieve.inference.render_thread import RenderThread
from pensieve.inference.repetition import RepetitionGuard
from pensieve.inference.sampling_defaults import sampling_defaults
from pensieve.models.spec import Capability, ModelSpec
from pensieve.prompts.prompt import Prompt, PromptRenderer
from pensieve.prompts.template import ChatTemplate
from pensieve.sampling.params import merge


class MlxBackend:
    """A `Backend` over one loaded folder of safetensors."""

    def __init__(self, spec: ModelSpec, settings: Settings, state_folder: Path | None = None) -> None:
        """Load the model. Blocks for seconds to minutes; raises `LoadFailed`."""
        self._engine = Engine(max_rows=settings.mlx.parallel, queue_limit=settings.worker.queue_limit)
        self._loaded, fitting_tokens, description = self._start(spec, settings, state_folder)
        self._tokenizer = self._loaded.tokenizer
        template = ChatTemplate(
            self._loaded.chat_template, bos_token=self._tokenizer.bos_token, eos_token=self._tokenizer.eos_token
        )
        added_bos = self._tokenizer.bos_token if self._tokenizer.adds_bos else ""
        dialect = dialect_for(self._loaded.chat_template, spec.architecture)
        self._renderer = PromptRenderer(
            template,
            self._tokenizer,
            added_bos=added_bos,
            model_name=spec.name,
            has_native_tools=dialect.has_native_tools,
        )
        self._grammar = dialect.grammar
        context = min(settings.model.context_tokens or sys.maxsize, self._loaded.context_tokens, fitting_tokens)
        can: tuple[Capability, ...] = ("tools", "structured_outputs")
        if dialect.grammar.thinking is not None or dialect.grammar.style == "channels":
            can = ("thinking", *can)
        self._limits = Limits(spec.name, context, context, can, engine=description)
        self._generation = settings.generation
        self._sampling = sampling_defaults(settings.generation)
        self._courses = Courses(self._tokenizer, self._loaded.vocabulary_size, sorted(self._loaded.eos_ids))
        self._text = RenderThread(queue_limit=settings.worker.queue_limit)
        self._ids = itertools.count(1)
        self._bell: Bell | None = None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Backend.generate`."""
        prompt, grammar, steering = await self._text.render(lambda: self._prepared(request))
        reply, task = self._reply(request, prompt, grammar), self._task(request, prompt.tokens, steering)
        self._bell = self._bell or Bell(asyncio.get_running_loop())
        inbox: Inbox[Item] = Inbox(self._bell)
        self._engine.submit(task, lambda item, is_urgent: inbox.put(item, is_urgent=is_urgent))
        try:
            while reply.finished is None:
                for event in reply.take(await inbox.get_all()):
                    yield event
                if reply.failure is not None:
                    raise reply.failure
                if reply.has_stopped:
                    self._engine.cancel(task.id)
        finally:
            self._engine.cancel(task.id)

    async def count_tokens(self, request: GenerationRequest) -> int:
        """See `Backend.count_tokens`."""
        return len(await self._text.render(lambda: self._renderer.render(request)))

    async def limits(self) -> Limits:
        """See `Backend.limits`."""
        return self._limits

    @property
    def cached(self) -> CacheFigures:
        """See `Caching`."""
        return self._engine.cached

    @property
    def growth_bytes(self) -> int:
        """See `Relievable`: the cache of prompts fills."""
        return self._engine.cache_budget_bytes

    def relieve(self, *, cache_share: float, is_frugal: bool) -> None:
        """See `Relievable`."""
        self._engine.relieve(cache_share=cache_share, is_frugal=is_frugal)

    async def aclose(self) -> None:
        """End what runs and wait for the engine thread."""
        await asyncio.to_thread(self._engine.stop)
        await asyncio.to_thread(self._text.close)

    def _start(self, spec: ModelSpec, settings: Settings, state_folder: Path | None) -> Built:
        """Start the engine; what comes back holds no arrays."""
        kept: list[Built] = []

        def make() -> Machine:
            machine, built = build(spec, settings, state_folder)
            kept.append(built)
            return machine

        try:
            self._engine.start(make)
        except (RuntimeError, MemoryError) as error:
            what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            advice = "if memory is short, close other programs or take a smaller or quantized model"
            raise LoadFailed(f"MLX failed while it was loaded ({what}): {advice}", spec.name) from error
        return kept[0]

    def _prepared(self, request: GenerationRequest) -> tuple[Prompt, OutputGrammar, Steering | None]:
        """The prompt, how the answer to it is read, and what it may be; on the text thread."""
        prompt = self._renderer.prompt(request)
        grammar = self._grammar.answering(request, prompt.ending)
        return prompt, grammar, self._courses.steering(request, grammar)

    def _task(self, request: GenerationRequest, prompt: list[int], steering: Steering | None) -> Task:
        context = self._limits.context_tokens
        if len(prompt) >= context:
            raise ContextOverflow(prompt_tokens=len(prompt), limit_tokens=context - 1)
        room = context - len(prompt)
        return Task(
            id=str(next(self._ids)),
            prompt=prompt,
            sampling=merge(self._sampling, request.sampling),
            max_tokens=min(room, request.max_tokens or room),
            reason_at_max="length" if request.max_tokens and request.max_tokens <= room else "context_full",
            stop_tokens=self._loaded.eos_ids.union(request.stop_tokens),
            logit_bias=request.logit_bias,
            num_logprobs=request.num_logprobs,
            steering=steering,
        )

    def _reply(self, request: GenerationRequest, prompt: Prompt, grammar: OutputGrammar) -> Reply:
        turn_stop = () if request.text else self._renderer.stop
        return Reply(
            len(prompt.tokens),
            OutputParser(grammar, stop=request.stop + turn_stop),
            self._tokenizer,
            turn_stop=frozenset(turn_stop) - frozenset(request.stop),
            guard=RepetitionGuard(self._generation, request.messages),
        )
