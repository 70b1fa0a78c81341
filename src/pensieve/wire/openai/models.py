"""The list of models in OpenAI's shape. Takes plain values: knows no model file and no backend."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pensieve.messages import Json


def encode_model(
    model_id: str,
    *,
    created_at_seconds: float,
    context_tokens: int,
    max_output_tokens: int,
    capabilities: Collection[str] = (),
    is_resident: bool = False,
) -> dict[str, Json]:
    """One model; `created_at_seconds` counts from 1970 (0: not known), capabilities are `ModelSpec`'s words.

    The API has no field for the context's size: clients of other local servers look for these two. `resident`, whether
    the model is in memory now, is our own.
    """
    return {
        "id": model_id,
        "object": "model",
        "created": int(created_at_seconds),
        "owned_by": "pensieve",
        "max_model_len": context_tokens,
        "context_length": context_tokens,
        "max_output_tokens": max_output_tokens,
        "capabilities": sorted(capabilities),
        "resident": is_resident,
    }


def encode_models(models: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """The list of all the models that `encode_model` made."""
    return {"object": "list", "data": list(models)}
