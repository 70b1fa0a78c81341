"""How much context a model is loaded with: one rule for every engine, and for plans before anything is loaded."""

from __future__ import annotations

from pensieve.config.settings import ModelSettings
from pensieve.models.spec import ModelSpec

MAX_DEFAULT_CONTEXT_TOKENS = 32_768
"""Larger contexts are asked for, since their cache is paid for at load."""


def context_tokens(spec: ModelSpec, settings: ModelSettings) -> int:
    """What the user asked for, at most what the model was trained for."""
    trained = spec.context_tokens or MAX_DEFAULT_CONTEXT_TOKENS
    return min(settings.context_tokens or MAX_DEFAULT_CONTEXT_TOKENS, trained)
