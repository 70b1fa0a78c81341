"""Whole answers of the Messages API, and the words that streams share with them: usage and stop reasons.

Pure, both directions. Knows no frames.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.errors import BackendFailure, InvalidRequest
from pensieve.generation import Answer, FinishReason, Usage
from pensieve.messages import Json, Message, Part, ThinkingPart
from pensieve.wire.anthropic.blocks import AssistantBlock, decode_part, encode_part
from pensieve.wire.anthropic.body import check

UNSIGNED = "pensieve"
"""Stands where a signature must: clients want it not empty, and echo it."""

STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_string": "stop_sequence",
    "tool_calls": "tool_use",
    "context_full": "model_context_window_exceeded",
    "refusal": "refusal",
    "repetition": "end_turn",
}
_FINISH_REASONS: dict[str, FinishReason] = {
    **{word: reason for reason, word in STOP_REASONS.items() if reason != "repetition"},
    "pause_turn": "stop",
}


class UsageBody(msgspec.Struct, frozen=True):
    """Token counts; the prompt is the sum of the three input fields."""

    input_tokens: int | None = None
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class AnswerBody(msgspec.Struct, frozen=True):
    """A whole answer, as it stands in JSON."""

    type: Literal["message"]
    role: Literal["assistant"]
    content: tuple[AssistantBlock, ...]
    stop_reason: str
    usage: UsageBody
    stop_sequence: str | None = None


def encode_usage(usage: Usage) -> dict[str, int]:
    """Our usage in the API's fields; nothing is ever charged for creating a cache."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
    }


def decode_usage(usage: UsageBody) -> Usage:
    """The API's fields as our usage; a field that is left out counts 0."""
    cached = usage.cache_read_input_tokens or 0
    prompt = (usage.input_tokens or 0) + (usage.cache_creation_input_tokens or 0) + cached
    return Usage(prompt, cached, usage.output_tokens)


def decode_stop_reason(word: str) -> FinishReason:
    """Our reason for the API's word; an unknown word is `BackendFailure`."""
    reason = _FINISH_REASONS.get(word)
    if reason is None:
        raise BackendFailure(f"the server ended its answer with an unknown stop_reason: {word[:100]!r}")
    return reason


def encode_answer(answer: Answer, *, message_id: str, model: str) -> dict[str, Json]:
    """The JSON body of an answer that is not streamed."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [encode_content(part) for part in answer.message.parts],
        "stop_reason": STOP_REASONS[answer.reason],
        "stop_sequence": answer.stop_string,
        "usage": encode_usage(answer.usage),
    }


def decode_answer(body: dict[str, Json]) -> Answer:
    """The answer in a JSON body; a body of another shape is `BackendFailure`."""
    try:
        wire = check(body, AnswerBody)
    except InvalidRequest as error:
        raise BackendFailure(f"the server's answer is not as the API has it: {error}") from error
    parts = tuple(_unsigned(decode_part(block, f"content.{at}")) for at, block in enumerate(wire.content))
    reason = decode_stop_reason(wire.stop_reason)
    return Answer(Message("assistant", parts), reason, decode_usage(wire.usage), wire.stop_sequence)


def encode_content(part: Part) -> dict[str, Json]:
    """The part of an answer as a block of JSON; thinking always has a signature."""
    if isinstance(part, ThinkingPart) and not part.signature:
        part = ThinkingPart(part.text, UNSIGNED)
    block: dict[str, Json] = msgspec.to_builtins(encode_part(part))
    return block


def _unsigned(part: Part) -> Part:
    is_ours = isinstance(part, ThinkingPart) and part.signature == UNSIGNED
    return ThinkingPart(part.text) if is_ours and isinstance(part, ThinkingPart) else part
