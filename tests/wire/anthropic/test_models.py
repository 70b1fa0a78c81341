"""The list of models in the API's shape."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from pensieve.wire.anthropic.models import encode_model, encode_models


def model(name: str = "m", *capabilities: str) -> dict[str, Any]:
    """A model with these capabilities."""
    return encode_model(
        name,
        created_at_seconds=1_700_000_000.9,
        context_tokens=8192,
        max_output_tokens=4096,
        capabilities=capabilities,
    )


def test_the_sdk_takes_a_model() -> None:
    """The official SDK's own type accepts it strictly and reads the limits."""
    info = anthropic.types.ModelInfo.model_validate_json(json.dumps(model("m", "thinking")), strict=True)
    assert (info.id, info.display_name, info.max_input_tokens, info.max_tokens) == ("m", "m", 8192, 4096)
    assert info.created_at.isoformat() == "2023-11-14T22:13:20+00:00"
    assert info.capabilities is not None
    assert info.capabilities.thinking.types.enabled.supported


def test_capabilities_say_only_what_the_model_can() -> None:
    """A plain text model has neither images nor thinking."""
    plain, seeing = model()["capabilities"], model("m", "images")["capabilities"]
    assert (plain["image_input"]["supported"], seeing["image_input"]["supported"]) == (False, True)
    assert not plain["thinking"]["supported"]
    assert not plain["thinking"]["types"]["adaptive"]["supported"]
    assert (plain["pdf_input"]["supported"], plain["structured_outputs"]["supported"]) == (True, False)
    able = model("m", "tools", "structured_outputs")["capabilities"]
    assert (able["tools"]["supported"], able["structured_outputs"]["supported"]) == (True, True)


def test_the_list_names_its_first_and_last() -> None:
    """One page holds all models."""
    page = encode_models([model("a"), model("b")])
    assert [entry["id"] for entry in page["data"]] == ["a", "b"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "a", "b")


def test_the_list_may_be_empty() -> None:
    """No model yet is not an error."""
    assert encode_models([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
