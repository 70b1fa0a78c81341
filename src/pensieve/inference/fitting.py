"""Whether a model may be loaded now, in this process's view of the machine: a verdict with advice, as an error.

Knows which memory a model goes to; asks no engine.
"""

from __future__ import annotations

import sys
from typing import Literal

from pensieve.config.settings import Settings
from pensieve.devices import darwin
from pensieve.devices.cuda import read_devices
from pensieve.devices.levels import reserve_bytes
from pensieve.errors import LoadFailed, MemoryShort, PensieveError
from pensieve.inference.builds import llamacpp_has_cuda, mlx_has_cuda
from pensieve.inference.context import context_tokens
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.prediction import SMALLEST_CONTEXT_TOKENS, Fits, TooBig, judge, predict
from pensieve.models.catalog import CATALOG
from pensieve.models.spec import ModelSpec

Fit = Literal["fits", "tight", "too big", "unknown"]

RETRY_SECONDS = 30.0


def why_not(spec: ModelSpec, settings: Settings, guard: MemoryGuard) -> PensieveError | None:
    """Why the model must not be loaded now; None if it may, or if nobody can tell.

    `MemoryShort` where it would fit with other programs ended, `LoadFailed` where it never will.
    """
    total_bytes = guard.reading.total_bytes
    spare_bytes = None if spec.weight_bytes == 0 else spare(spec, settings, guard.spare_bytes(is_safe=False))
    if spare_bytes is None or total_bytes is None:
        return None
    prediction, wanted = predict(spec), context_tokens(spec, settings.model)
    is_fixed = settings.model.context_tokens is not None
    verdict = judge(prediction, spare_bytes, wanted_tokens=wanted, is_fixed=is_fixed)
    if not isinstance(verdict, TooBig):
        return None
    most_bytes = spare(spec, settings, guard.most_bytes, at_best=True) or 0
    at_best = judge(prediction, most_bytes, wanted_tokens=wanted, is_fixed=is_fixed)
    if not isinstance(at_best, TooBig):
        return MemoryShort(f"{spec.name} cannot be loaded now: {verdict.problem}: end other programs", RETRY_SECONDS)
    return LoadFailed(f"{verdict.problem}: {advice(spec, verdict, spare_bytes)}", spec.name)


def fit_of(spec: ModelSpec, settings: Settings, guard: MemoryGuard) -> Fit:
    """In a word; `tight` where it takes less context, or other programs ended."""
    total_bytes = guard.reading.total_bytes
    spare_bytes = spare(spec, settings, guard.spare_bytes(is_safe=False))
    if not spec.weight_bytes or spare_bytes is None or total_bytes is None:
        return "unknown"
    prediction, wanted = predict(spec), context_tokens(spec, settings.model)
    now = judge(prediction, spare_bytes, wanted_tokens=wanted, is_fixed=False)
    if isinstance(now, Fits):
        return "tight" if now.problem else "fits"
    most_bytes = spare(spec, settings, guard.most_bytes, at_best=True) or 0
    at_best = judge(prediction, most_bytes, wanted_tokens=wanted, is_fixed=False)
    return "too big" if isinstance(at_best, TooBig) else "tight"


def spare(spec: ModelSpec, settings: Settings, host_bytes: int | None, *, at_best: bool = False) -> int | None:
    """The memory that this model goes to, of what the host can spare: a Mac's part for its GPU, or cards as well.

    `at_best`: with nothing else on the cards. Cards keep a reserve by the same rule as the host.
    """
    if host_bytes is None:
        return None
    if sys.platform == "darwin":  # pragma: no cover - no such machine runs our tests
        total = darwin.total_bytes()
        return host_bytes if total is None else min(host_bytes, darwin.wired_limit_bytes(total))
    uses_cards = settings.mlx.device != "cpu" if spec.format == "mlx" else settings.llamacpp.gpu_layers != 0
    cards = [
        max(0, (card.total_bytes if at_best else card.free_bytes) - reserve_bytes(settings.memory, card.total_bytes))
        for card in (read_devices() if uses_cards else ())
    ]
    if not cards or not (mlx_has_cuda() if spec.format == "mlx" else llamacpp_has_cuda()):
        return host_bytes
    # MLX computes on one card; llama.cpp shares a model between cards and the host.
    return max(cards) if spec.format == "mlx" else host_bytes + sum(cards)


def advice(spec: ModelSpec, verdict: TooBig, spare_bytes: int) -> str:
    """What would fit instead, most like what was asked for first."""
    if verdict.most_tokens:
        return f"set model.context_tokens to {verdict.most_tokens} at most"
    smaller = _largest_known(spec, spare_bytes)
    tips = [f"take {smaller}, which fits"] if smaller else []
    if spec.weight_bytes and predict(spec).fixed_bytes - spec.weight_bytes < spare_bytes:
        share = (spare_bytes - predict(spec).fixed_bytes + spec.weight_bytes) / spec.weight_bytes
        tips += [f"a quantization with {share:.0%} of its size"] if share >= 0.3 else []
    return ", or ".join(tips) or "end other programs, or take a smaller model"


def _largest_known(spec: ModelSpec, spare_bytes: int) -> str:
    """The largest model of the catalog that fits, or an empty text."""
    fitting = [
        planned
        for planned in (known.planned() for known in CATALOG)
        if planned.name != spec.name and predict(planned).at(SMALLEST_CONTEXT_TOKENS) <= spare_bytes
    ]
    return max(fitting, key=lambda planned: planned.weight_bytes).name if fitting else ""
