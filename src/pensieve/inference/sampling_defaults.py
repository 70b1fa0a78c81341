"""How the next token is chosen where a request says nothing: the same for every engine."""

from __future__ import annotations

from pensieve.config.settings import GenerationSettings
from pensieve.sampling.params import DEFAULTS, SamplingParams, merge


def sampling_defaults(settings: GenerationSettings) -> SamplingParams:
    """The program's defaults with the user's settings over them; no field but the seed is unset."""
    wished = SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_p=settings.min_p,
        repetition_penalty=settings.repetition_penalty,
    )
    return merge(DEFAULTS, wished)
