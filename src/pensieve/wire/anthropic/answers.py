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
from pensieve.wire.anthropic.foreign import SPOKEN
from pensieve.wire.anthropic.manner import PLAIN, Manner
from pensieve.wire.anthropic.signature import MARK, sealed
from pensieve.wire.body import check

REPETITION = "The server stopped this answer because it went on repeating itself."
"""The API has no word for it: it is told as a refusal, with this explanation."""
STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_string": "stop_sequence",
    "tool_calls": "tool_use",
    "context_full": "model_context_window_exceeded",
    "refusal": "refusal",
    "repetition": "refusal",
}
_FINISH_REASONS: dict[str, FinishReason] = {
    **{word: reason for reason, word in STOP_REASONS.items() if reason != "repetition"},
    "pause_turn": "stop",
    "compaction": "stop",
}


class StopDetails(msgspec.Struct, frozen=True):
    """More about a refusal."""

    explanation: str | None = None


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
    stop_details: StopDetails | None = None


def encode_usage(usage: Usage) -> dict[str, int]:
    """Our usage in the API's fields, which add up to the prompt: what was read from the cache, and what was computed.

    Whether what was computed is then kept is decided later and elsewhere, so that nothing counts as cache creation.
    """
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


def encode_stop(reason: FinishReason, stop_string: str | None) -> dict[str, Json]:
    """The fields that say why an answer ended; the details are there only where there is something to tell."""
    fields: dict[str, Json] = {"stop_reason": STOP_REASONS[reason], "stop_sequence": stop_string}
    if reason == "repetition":
        fields["stop_details"] = {"type": "refusal", "category": None, "explanation": REPETITION}
    return fields


def decode_stop_reason(word: str, details: StopDetails | None = None) -> FinishReason:
    """Our reason for the API's word; an unknown word is `BackendFailure`."""
    if word == "refusal" and details is not None and details.explanation == REPETITION:
        return "repetition"
    reason = _FINISH_REASONS.get(word)
    if reason is None:
        raise BackendFailure(f"the server ended its answer with an unknown stop_reason: {word[:100]!r}")
    return reason


def encode_answer(
    answer: Answer, *, message_id: str, model: str, manner: Manner = PLAIN, diagnostics: Json = None
) -> dict[str, Json]:
    """The JSON body of an answer that is not streamed."""
    body = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [encode_content(part, manner) for part in answer.message.parts],
        **encode_stop(answer.reason, answer.stop_string),
        "usage": encode_usage(answer.usage),
    }
    return body | encode_extras(manner) | ({"diagnostics": diagnostics} if manner.is_diagnosed else {})


def encode_extras(manner: Manner) -> dict[str, Json]:
    """What stands beside the end of an answer because the client asked for it."""
    return {"context_management": {"applied_edits": []}} if manner.is_context_managed else {}


def decode_answer(body: dict[str, Json]) -> Answer:
    """The answer in a JSON body; a body of another shape is `BackendFailure`."""
    try:
        wire = check(body | {"content": _spoken(body.get("content"))}, AnswerBody)
    except InvalidRequest as error:
        raise BackendFailure(f"the server's answer is not as the API has it: {error}") from error
    parts = tuple(_unsigned(decode_part(block, f"content.{at}")) for at, block in enumerate(wire.content))
    reason = decode_stop_reason(wire.stop_reason, wire.stop_details)
    return Answer(Message("assistant", parts), reason, decode_usage(wire.usage), wire.stop_sequence)


def encode_content(part: Part, manner: Manner) -> dict[str, Json]:
    """The part of an answer as a block of JSON; thinking always has a signature."""
    if isinstance(part, ThinkingPart):
        shown = part.text if manner.is_thinking_shown else ""
        part = ThinkingPart(shown, part.signature or (MARK if shown else sealed(part.text)))
    block: dict[str, Json] = msgspec.to_builtins(encode_part(part))
    return block


def _spoken(content: Json) -> Json:
    """The content without blocks of kinds that are not known, which a stream's reader passes over too."""
    if not isinstance(content, list):
        return content
    kinds = [block.get("type") if isinstance(block, dict) else None for block in content]
    return [block for block, kind in zip(content, kinds, strict=True) if not isinstance(kind, str) or kind in SPOKEN]


def _unsigned(part: Part) -> Part:
    return ThinkingPart(part.text) if isinstance(part, ThinkingPart) and part.signature == MARK else part
