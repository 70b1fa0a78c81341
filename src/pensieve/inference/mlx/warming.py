"""First use of a kernel compiles it on a GPU, for seconds: here the load does what first requests would."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from pensieve.inference.mlx.runner import Caches, Runner
from pensieve.inference.mlx.sampler import RowSampler
from pensieve.sampling.params import DEFAULTS, SamplingParams, merge

ROWS = 4
STEPS = 2
TOKEN = 1


def warm_up(runner: Runner, make_caches: Callable[[], Caches], *, prompt_tokens: int, vocabulary_size: int) -> None:
    """Read prompts in two pieces, one of them as long as they come, and decode one row, then more, in every way."""
    for row in range(ROWS if runner.is_batchable else 1):
        caches = make_caches()
        num_tokens = prompt_tokens if row == 0 else prompt_tokens // 8 + 1
        runner.read(caches, [TOKEN] * num_tokens)
        sampler = _sampler(is_greedy=row % 2 == 0, vocabulary_size=vocabulary_size)
        first = runner.read_last(str(row), sampler, caches, [TOKEN, TOKEN])
        runner.join(str(row), sampler, caches, [*([TOKEN] * (num_tokens + 2)), first.token])
        for _ in range(STEPS):
            runner.step()
    runner.leave(["0"])
    runner.step()
    runner.clear()
    mx.synchronize()
    mx.clear_cache()


def _sampler(*, is_greedy: bool, vocabulary_size: int) -> RowSampler:
    params = merge(DEFAULTS, SamplingParams(temperature=0.0 if is_greedy else 1.0, seed=0))
    return RowSampler(params, [], vocabulary_size=vocabulary_size)
