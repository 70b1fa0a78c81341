"""Embeddings: what is read and refused, and vectors in both forms."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from pensieve.errors import InvalidRequest
from pensieve.wire.openai.embeddings import EmbeddingRequest, decode_request, encode_answer
from wire.strategies import PROPERTY

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def read(**fields: Any) -> EmbeddingRequest:
    """A body, decoded."""
    return decode_request(msgspec.json.encode({"model": "m", "input": "x"} | fields))


def answer(vectors: list[list[float]], request: EmbeddingRequest) -> dict[str, Any]:
    """The answer with these vectors, as it travels."""
    packed = [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]
    body = encode_answer(packed, model="m", prompt_tokens=3, request=request)
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Any])


@PROPERTY
@given(st.lists(st.lists(floats, min_size=2, max_size=2), min_size=1, max_size=3))
def test_vectors_survive_as_numbers(vectors: list[list[float]]) -> None:
    """In the order of their texts; the SDK reads them."""
    made = CreateEmbeddingResponse.model_validate(answer(vectors, read(encoding_format="float")), strict=True)
    assert [each.embedding for each in made.data] == vectors
    assert (made.usage.prompt_tokens, made.data[-1].index) == (3, len(vectors) - 1)


def test_vectors_come_in_base64_for_those_who_ask() -> None:
    """Which is what the SDK does by itself."""
    made = answer([[1.0, -2.0]], read(encoding_format="base64"))
    assert made["data"][0]["embedding"] == "AACAPwAAAMA="


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"input": ""}, "input.0"),
        ({"input": []}, "input"),
        ({"input": ["a", " "]}, "input.1"),
        ({"input": [1, 2]}, "input.0"),
        ({"encoding_format": "xml"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
def test_a_mistake_is_refused_with_its_path(fields: dict[str, Any], path: str) -> None:
    """Before a model is asked."""
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.path == path


def test_another_size_is_refused_with_the_real_one() -> None:
    """A part of a vector means nothing."""
    assert answer([[1.0, 0.0]], read(dimensions=2))["data"]
    with pytest.raises(InvalidRequest, match="m gives vectors of 2 numbers"):
        answer([[1.0, 0.0]], read(dimensions=3))
