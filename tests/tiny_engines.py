"""The real MLX engine over tiny models: a machine built by hand, and listeners that wait for what sequences say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from pensieve.inference import admission
from pensieve.inference.mlx.engine import Engine
from pensieve.inference.mlx.prefix_store import PrefixStore
from pensieve.inference.mlx.probe import measure_shape
from pensieve.inference.mlx.room import Machine
from pensieve.inference.mlx.runner import Runner
from pensieve.inference.mlx.sequence import Began, Ended, Failed, Item, Read, Spoke, Task
from pensieve.sampling.params import SamplingParams, merge

GREEDY = SamplingParams(temperature=0.0)
MIB = 2**20
PLENTY_BYTES = 2**40
PATIENCE_SECONDS = 60.0
ONE_STEP_TOKENS = 1000

NO_SCRATCH = admission.Transient(
    query_heads=0, head_dim=0, hidden=0, intermediate=0, vocabulary=0, element_bytes=4, is_fused=True
)
"""A model whose steps cost nothing, so that tests can count caches alone."""

Wrapper = Callable[[Any], Any]


def plain(model: Any) -> Any:
    """The model as it is."""
    return model


class Wrapped:
    """A model with something between it and the engine; looks like the model otherwise."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        """Logits [B, L, V]."""
        logits: mx.array = self.model(tokens, cache=cache)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Gate:
    """Stands before a model: while it is shut each step waits to be let through."""

    def __init__(self) -> None:
        self.is_shut = False
        self._waiting = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)

    def __call__(self, model: Any) -> Wrapped:
        """The model behind the gate."""
        gate = self

        class Gated(Wrapped):
            def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
                gate.enter()
                return super().__call__(tokens, cache)

        return Gated(model)

    def enter(self) -> None:
        """The model's side."""
        if self.is_shut:
            self._waiting.release()
            assert self._passes.acquire(timeout=PATIENCE_SECONDS), "nobody opened the gate"

    def wait(self) -> None:
        """Return once a step waits at the gate."""
        assert self._waiting.acquire(timeout=PATIENCE_SECONDS), "no step came"

    def let(self, num_steps: int) -> None:
        """Let so many steps through, and return once the next one waits; call it while one waits."""
        for _ in range(num_steps):
            self._passes.release()
            self.wait()

    def open(self) -> None:
        """Let everything through; call it while a step waits."""
        self.is_shut = False
        self._passes.release()


class Listener:
    """Takes a sequence's items on the engine thread; a test waits for them on its own."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._changed = threading.Condition()

    def __call__(self, item: Item, is_urgent: bool) -> None:
        """The engine's side."""
        del is_urgent
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def wait_until(self, is_enough: Callable[[list[Item]], bool]) -> None:
        """Return once the items so far are enough."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_enough(self.items), PATIENCE_SECONDS), f"only {self.items[-3:]}"

    def wait_for(self, kind: type[Item], count: int = 1) -> None:
        """Return once so many items of this kind have come."""
        self.wait_until(lambda items: sum(isinstance(item, kind) for item in items) >= count)

    def end(self) -> Ended | Failed:
        """The last item, once it has come."""
        self.wait_until(lambda items: any(isinstance(item, Ended | Failed) for item in items))
        last = self.items[-1]
        assert isinstance(last, Ended | Failed)
        return last

    @property
    def num_ends(self) -> int:
        """How often the sequence was said to be over."""
        return sum(isinstance(item, Ended | Failed) for item in self.items)

    @property
    def tokens(self) -> list[int]:
        """What it said, once it has ended."""
        self.end()
        return [item.token for item in self.items if isinstance(item, Spoke)]

    @property
    def cached_tokens(self) -> int:
        """Tokens of its prompt that were not read."""
        self.wait_for(Began)
        return next(item.cached_tokens for item in self.items if isinstance(item, Began))

    @property
    def read_tokens(self) -> list[int]:
        """How far its prompt had come after each piece."""
        return [item.num_tokens for item in self.items if isinstance(item, Read)]


class TinyEngine:
    """An engine with a tiny model; `wrapper` stands between the two."""

    def __init__(self, folder: Path, wrapper: Wrapper = plain, *, max_rows: int = 8, queue_limit: int = 64) -> None:
        self.folder, self.wrapper = folder, wrapper
        self.engine = Engine(max_rows=max_rows, queue_limit=queue_limit)
        self.limit_bytes = PLENTY_BYTES
        self.chunk_tokens = 64
        self.cache_budget_bytes = 64 * MIB
        self.make_caches: Callable[[Any], list[Any]] = make_prompt_cache
        self._num_tasks = 0

    @property
    def machine(self) -> Machine:
        """The engine's own, which drops it on its thread when it ends: arrays that outlive it may abort the exit."""
        return self.engine._machine

    def start(self) -> None:
        """Build the machine on the engine's thread."""
        self.engine.start(self._build)

    def ask(self, prompt: list[int], max_tokens: int = 12, sampling: SamplingParams = GREEDY, **fields: Any) -> Asked:
        """Submit a task; what comes of it."""
        self._num_tasks += 1
        task = Task(
            id=fields.pop("id", f"task {self._num_tasks}"),
            prompt=prompt,
            sampling=merge(GREEDY, sampling),
            max_tokens=max_tokens,
            reason_at_max="length",
            stop_tokens=frozenset(fields.pop("stop_tokens", ())),
            **fields,
        )
        asked = Asked(self.engine, task)
        self.engine.submit(task, asked)
        return asked

    def settle(self) -> None:
        """Return once nothing is waiting, read or decoded; the books must balance then."""
        until = time.monotonic() + PATIENCE_SECONDS
        scheduler = self.engine._scheduler
        while not scheduler.is_idle or self.engine._sequences or self.machine.runner.row_ids:
            assert time.monotonic() < until, "the engine never came to rest"
            time.sleep(0.001)
        scheduler.check_integrity()

    def _available_bytes(self) -> int:
        """What is left of the limit beside all caches: those of prompts being read, of running answers, and stored."""
        sequences, runner = tuple(self.engine._sequences.values()), self.machine.runner
        live = [cache for sequence in sequences for cache in sequence.caches] + runner._caches
        held: int = self.machine.store.num_bytes + sum(cache.nbytes for cache in live)
        return self.limit_bytes - held

    def _build(self) -> Machine:
        model, _ = load_model(self.folder)

        def new_caches() -> list[Any]:
            return self.make_caches(model)

        return Machine(
            runner=Runner(self.wrapper(model), new_caches),
            store=PrefixStore(new_caches, fingerprint="tiny", budget_bytes=self.cache_budget_bytes),
            shape=measure_shape(model, new_caches),
            transient=NO_SCRATCH,
            vocabulary_size=model.args.vocab_size,
            chunk_tokens=self.chunk_tokens,
            available_bytes=self._available_bytes,
            reserve_bytes=0,
        )


class Asked(Listener):
    """A task in the engine, and what it has said."""

    def __init__(self, engine: Engine, task: Task) -> None:
        super().__init__()
        self.task = task
        self._engine = engine

    def cancel(self) -> None:
        """Nobody listens any more."""
        self._engine.cancel(self.task.id)


@contextmanager
def running(folder: Path, wrapper: Wrapper = plain, **options: Any) -> Iterator[TinyEngine]:
    """A started engine that is stopped at the end; options that are no arguments are set before the start."""
    arguments = {name: options.pop(name) for name in ("max_rows", "queue_limit") if name in options}
    tiny = TinyEngine(folder, wrapper, **arguments)
    for name, value in options.items():
        setattr(tiny, name, value)
    tiny.start()
    try:
        yield tiny
    finally:
        if isinstance(wrapper, Gate):
            wrapper.open()
        tiny.engine.stop()


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    """Tokens that differ from the first on for every seed."""
    return [3 + (seed * 37 + place * (seed + 5)) % 90 for place in range(num_tokens)]


def greedy_alone(model: Any, prompt: list[int], num_tokens: int) -> list[int]:
    """The best continuation by the bare model: the prompt in as few steps as can be, then token by token."""
    caches, answer = make_prompt_cache(model), list[int]()
    pieces = [prompt[start : start + ONE_STEP_TOKENS] for start in range(0, len(prompt), ONE_STEP_TOKENS)]
    for tokens in pieces[:-1]:
        model(mx.array([tokens]), cache=caches)
        mx.eval([cache.state for cache in caches])
    tokens = pieces[-1]
    while len(answer) < num_tokens:
        best: Any = mx.argmax(model(mx.array([tokens]), cache=caches)[0, -1]).tolist()
        tokens = [int(best)]
        answer += tokens
    return answer
