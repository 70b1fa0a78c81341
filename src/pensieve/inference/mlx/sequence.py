"""One request inside the engine: what it was given, what it has produced, and where its time went.

What crosses to the event loop are the items below: frozen, plain numbers.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from pensieve.errors import PensieveError
from pensieve.generation import FinishReason, Timings
from pensieve.inference.clock import Clock
from pensieve.inference.mlx.runner import Probabilities
from pensieve.inference.mlx.sampler import RowSampler
from pensieve.inference.mlx.steering import Steering
from pensieve.sampling.params import SamplingParams


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is asked to do. `sampling` has no unset field but, perhaps, the seed."""

    id: str
    prompt: list[int]
    sampling: SamplingParams
    max_tokens: int
    reason_at_max: FinishReason
    stop_tokens: frozenset[int]
    logit_bias: dict[int, float] = {}
    num_logprobs: int | None = None
    steering: Steering | None = None
    """Handed over with the task: from then on the engine thread's."""


class Began(msgspec.Struct, frozen=True):
    """The sequence left the queue; `cached_tokens` of its prompt need no reading."""

    cached_tokens: int


class Read(msgspec.Struct, frozen=True):
    """So much of the prompt is in the cache."""

    num_tokens: int


class Spoke(msgspec.Struct, frozen=True):
    """The next token of the answer."""

    token: int
    probabilities: Probabilities | None = None


class Ended(msgspec.Struct, frozen=True):
    """The last item of a sequence that went well."""

    reason: FinishReason
    timings: Timings


class Failed(msgspec.Struct, frozen=True):
    """The last item of a sequence that did not."""

    error: PensieveError


Item = Began | Read | Spoke | Ended | Failed
Sink = Callable[[Item, bool], Any]
"""Takes an item and whether it is urgent; called on the engine thread."""


class Sequence:
    """The engine's side of a request. It may step back, waiting again with what it has said as part of its prompt."""

    def __init__(self, task: Task, sink: Sink) -> None:
        self.task = task
        self.sampling = task.sampling
        if self.sampling.seed is None:
            self.sampling = msgspec.structs.replace(self.sampling, seed=secrets.randbits(32))
        self.outputs: list[int] = []
        self.caches: list[Any] = []
        self.num_read = 0
        self.sampler: RowSampler
        """Made when its first token is due; keeps what has been said since."""
        self.chunk_tokens = 0
        self.needed_bytes = 0
        self.num_failures = 0
        """Steps of decoding that failed since the last that went well."""
        self._sink = sink
        self._clock = Clock()
        self._flows = False

    @property
    def id(self) -> str:
        """The task's."""
        return self.task.id

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far."""
        return self.task.prompt + self.outputs

    @property
    def num_tokens(self) -> int:
        """Of prompt and answer so far, without copying them."""
        return len(self.task.prompt) + len(self.outputs)

    @property
    def num_unread(self) -> int:
        """Tokens that are not in its caches yet."""
        return self.num_tokens - self.num_read

    @property
    def is_full(self) -> bool:
        """It may say no more."""
        return len(self.outputs) >= self.task.max_tokens

    def new_sampler(self, vocabulary_size: int) -> RowSampler:
        """How its next token is chosen, after all it has said."""
        if self.task.steering is not None:
            self.task.steering.restore(self.outputs)
        self.sampler = RowSampler(
            self.sampling,
            self.task.prompt,
            self.outputs,
            vocabulary_size=vocabulary_size,
            logit_bias=self.task.logit_bias,
            num_logprobs=self.task.num_logprobs,
            steering=self.task.steering,
        )
        return self.sampler

    def begin(self, cached_tokens: int) -> None:
        """It was admitted, perhaps not for the first time."""
        self.num_read = cached_tokens
        if not self._clock.has_begun:
            self._clock.begin()
            self._sink(Began(cached_tokens), True)

    def read(self, num_tokens: int) -> None:
        """So many more tokens of it are in its caches."""
        self.num_read += num_tokens
        if not self.outputs:
            self._sink(Read(self.num_read), True)

    def speak(self, token: int, probabilities: Probabilities | None) -> None:
        """It made a token. The first is urgent; what follows is paced."""
        self.outputs.append(token)
        self._clock.speak()
        self._sink(Spoke(token, probabilities), not self._flows)
        self._flows = True

    def end(self, reason: FinishReason, *, peak_memory_bytes: int) -> None:
        """It is done."""
        self._sink(Ended(reason, self._clock.timings(peak_memory_bytes=peak_memory_bytes)), True)

    def fail(self, error: PensieveError) -> None:
        """It cannot go on."""
        self._sink(Failed(error), True)

    def step_back(self) -> None:
        """Let go of what it holds; all it has said stays."""
        self.caches = []
        self.num_read = 0
