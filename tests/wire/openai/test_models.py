"""The list of models in OpenAI's shape, as its SDK reads it."""

from __future__ import annotations

import openai

from pensieve.wire.openai.models import encode_model, encode_models


def test_the_sdk_reads_the_list() -> None:
    """With every field that its type has, and the context's size under the names that clients look for."""
    made = encode_model("m", created_at_seconds=1_700_000_000.9, context_tokens=8192, max_output_tokens=4096)
    model = openai.types.Model.model_validate(made, strict=True)
    assert (model.id, model.created, model.owned_by) == ("m", 1_700_000_000, "pensieve")
    assert made["max_model_len"] == made["context_length"] == 8192
    assert encode_models([made]) == {"object": "list", "data": [made]}
