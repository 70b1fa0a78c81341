"""OpenAI's embeddings: texts in, vectors out. Knows no server and no backend."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.messages import Json
from pensieve.wire.body import check, parse_object, unknown_fields

MAX_TEXTS = 2_048


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole body. The fields typed `Json` are known and change nothing here."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | Annotated[tuple[Json, ...], Meta(max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: Json = None


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """Texts to be embedded, and how the vectors are wanted."""

    model: str
    texts: tuple[str, ...]
    is_base64: bool
    num_dimensions: int | None
    unknown_fields: tuple[str, ...]


def decode_request(body: bytes) -> EmbeddingRequest:
    """The request in the body of `POST /v1/embeddings`; raises `InvalidRequest` with the path of what is wrong."""
    raw = parse_object(body)
    wire = check(raw, EmbeddingBody)
    texts = (wire.input,) if isinstance(wire.input, str) else wire.input
    if not texts:
        raise InvalidRequest("must not be empty", path="input")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidRequest("token ids are not read here: send text", path=f"input.{at}")
        if not text.strip():
            raise InvalidRequest("must not be empty", path=f"input.{at}")
    return EmbeddingRequest(
        wire.model, texts, wire.encoding_format == "base64", wire.dimensions, unknown_fields(raw, wire)
    )


def encode_answer(
    vectors: Sequence[bytes], *, model: str, prompt_tokens: int, request: EmbeddingRequest
) -> dict[str, Json]:
    """The answer; each vector is 32-bit floats, the lowest byte first. Raises `InvalidRequest` for another size."""
    num_dimensions = len(vectors[0]) // 4
    if request.num_dimensions not in (None, num_dimensions):
        # A part of a vector only means something where a model was trained for that.
        raise InvalidRequest(f"{model} gives vectors of {num_dimensions} numbers: leave it out", path="dimensions")
    encode = _base64 if request.is_base64 else _floats
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": at, "embedding": encode(each)} for at, each in enumerate(vectors)],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
