"""Sizes the engine is loaded with, where the user did not fix them: plain rules from model and machine."""

from __future__ import annotations

import math
import os

import msgspec

from pensieve.config.settings import Settings
from pensieve.inference.context import context_tokens
from pensieve.inference.prediction import Fits, judge, predict
from pensieve.models.spec import ModelSpec

CPU_FLOPS_PER_THREAD = 45e9
"""Measured: SmolLM2-135M (2 FLOP a weight a token) prefills 340 tokens/s on 2 AVX-512 cores."""

STEP_SECONDS = 0.25
"""How long one prefill step may take on a CPU: a cancelled request holds its slot that long."""


class Sizes(msgspec.Struct, frozen=True):
    """What the engine is loaded with."""

    context_tokens: int
    pool_tokens: int
    batch_tokens: int
    num_slots: int
    num_threads: int
    cache_bytes: int = 0
    """Of the whole pool."""
    problem: str = ""
    """Why the context is shorter than it could be; empty where it is not."""


def choose(spec: ModelSpec, settings: Settings, *, available_bytes: int, spare_bytes: int | None = None) -> Sizes:
    """Sizes for this model on this machine; what the user set wins.

    A context that the user did not set is cut to what `spare_bytes` hold; None: they are not known.
    """
    wanted = settings.llamacpp
    context, problem = _context(spec, settings, spare_bytes)
    num_threads = wanted.threads or num_usable_cpus()
    pool = wanted.pool_tokens or pool_tokens(
        context,
        cache_bytes_per_token=spec.cache_bytes_per_token,
        available_bytes=available_bytes,
        num_slots=wanted.parallel,
    )
    return Sizes(
        context_tokens=context,
        pool_tokens=max(pool, context),
        batch_tokens=wanted.batch_tokens or batch_tokens(spec.parameters, num_threads),
        num_slots=wanted.parallel,
        num_threads=num_threads,
        cache_bytes=max(pool, context) * spec.cache_bytes_per_token + spec.cache_window_bytes,
        problem=problem,
    )


def _context(spec: ModelSpec, settings: Settings, spare_bytes: int | None) -> tuple[int, str]:
    wanted = context_tokens(spec, settings.model)
    if spare_bytes is None or settings.model.context_tokens is not None:
        return wanted, ""
    verdict = judge(predict(spec), spare_bytes, wanted_tokens=wanted, is_fixed=False)
    # What does not fit at all was refused before the worker was started; memory may have changed since.
    return (verdict.context_tokens, verdict.problem) if isinstance(verdict, Fits) else (wanted, "")


def num_usable_cpus() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batch_tokens(parameters: int, num_threads: int) -> int:
    """Prompt tokens a step: about `STEP_SECONDS` on a CPU, a power of two from 32 to 512."""
    tokens = STEP_SECONDS * CPU_FLOPS_PER_THREAD * num_threads / (2.0 * max(1, parameters))
    exponent = math.floor(math.log2(max(1.0, tokens)))
    return int(2 ** min(9, max(5, exponent)))


def pool_tokens(context: int, *, cache_bytes_per_token: int, available_bytes: int, num_slots: int) -> int:
    """Tokens of the shared cache: two whole contexts if a quarter of the free memory holds them; one at least."""
    affordable = available_bytes // 4 // max(1, cache_bytes_per_token)
    return max(context, min(context * min(2, num_slots), affordable))
