"""The list of models in the shape of the Messages API. Takes plain values: knows no model file and no backend."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from pensieve.messages import Json

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_CONTEXT_EDITS = ("clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112")


def encode_model(
    model_id: str,
    *,
    created_at_seconds: float,
    context_tokens: int,
    max_output_tokens: int,
    capabilities: Collection[str] = (),
    is_resident: bool = False,
) -> dict[str, Json]:
    """One model; `created_at_seconds` counts from 1970 (0: not known), capabilities are `ModelSpec`'s words."""
    return {
        "type": "model",
        "id": model_id,
        "display_name": model_id,
        "created_at": datetime.fromtimestamp(int(created_at_seconds), UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "max_input_tokens": context_tokens,
        "max_tokens": max_output_tokens,
        "capabilities": _encode_capabilities(capabilities),
        # Our own: whether it is in memory now.
        "resident": is_resident,
    }


def encode_models(models: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """A page with all the models that `encode_model` made."""
    return {
        "data": list(models),
        "has_more": False,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }


def _encode_capabilities(capabilities: Collection[str]) -> dict[str, Json]:
    no = {"supported": False}
    thinking = {"supported": "thinking" in capabilities}
    return {
        "batch": {"supported": True},
        "citations": no,
        "code_execution": no,
        "context_management": {"supported": False, **dict.fromkeys(_CONTEXT_EDITS, no)},
        "effort": {"supported": False, **dict.fromkeys(_EFFORTS, no)},
        "image_input": {"supported": "images" in capabilities},
        # The text of a PDF, which every model can read.
        "pdf_input": {"supported": True},
        "server_tools": {"supported": False, "code_execution": no, "web_search": no},
        "structured_outputs": {"supported": "structured_outputs" in capabilities},
        "thinking": {
            **thinking,
            "types": {"adaptive": thinking, "between_tools": no, "disabled": {"supported": True}, "enabled": thinking},
        },
        # Our own: the API has no word for tools, because all its models have them.
        "tools": {"supported": "tools" in capabilities},
    }
