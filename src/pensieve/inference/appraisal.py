"""What a model will need and what there is for it, read off this machine for `residency` to decide on."""

from __future__ import annotations

from pensieve.config.settings import Settings
from pensieve.inference.context import context_tokens
from pensieve.inference.fitting import spare
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.prediction import SMALLEST_CONTEXT_TOKENS, predict
from pensieve.inference.residency import Candidate
from pensieve.models.spec import ModelSpec


def appraise(spec: ModelSpec, settings: Settings) -> Candidate:
    """What the model needs, with its whole context and with the least; a script needs nothing."""
    if spec.format == "script":
        return Candidate(name=spec.name, wanted_bytes=0, smallest_bytes=0)
    if not spec.weight_bytes:
        return Candidate(name=spec.name, wanted_bytes=None, smallest_bytes=None)
    prediction, wanted = predict(spec), context_tokens(spec, settings.model)
    is_fixed = settings.model.context_tokens is not None
    smallest = wanted if is_fixed else min(wanted, SMALLEST_CONTEXT_TOKENS)
    return Candidate(name=spec.name, wanted_bytes=prediction.at(wanted), smallest_bytes=prediction.at(smallest))


def room_for(spec: ModelSpec, settings: Settings, guard: MemoryGuard) -> int | None:
    """Bytes that a model may take beside what is loaded; None where nobody can tell. May ask cards: not for loops."""
    guard.look()
    return spare(spec, settings, guard.spare_bytes(is_safe=False))


def uses_cards(spec: ModelSpec, settings: Settings) -> bool:
    """Whether the model lies in the memory of graphics cards, which no process's figures tell of."""
    return bool(spare(spec, settings, 0))


def most_bytes(guard: MemoryGuard) -> int | None:
    """What the machine could give if nothing else ran on it."""
    return guard.most_bytes
