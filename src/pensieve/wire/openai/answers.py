"""Whole answers of Chat Completions, and the words that streams share with them: usage, endings, probabilities.

Pure, both directions. Knows no frames. `stop_reason` is an addition that other local servers make too: the stop string,
or which of our endings stands behind one of the API's.
"""

from __future__ import annotations

import msgspec

from pensieve.errors import BackendFailure, InvalidRequest
from pensieve.generation import Answer, FinishReason, TokenLogprob, Usage
from pensieve.messages import Json, Message, Part, TextPart, ThinkingPart, ToolCallPart
from pensieve.wire.body import check
from pensieve.wire.openai.turns import ToolCallBody, decode_calls, encode_call

FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "stop_string": "stop",
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "refusal": "content_filter",
    "repetition": "content_filter",
}
_PLAIN: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
}
_TOLD_APART: tuple[FinishReason, ...] = ("context_full", "repetition")


class CachedTokens(msgspec.Struct, frozen=True):
    """Which part of the prompt was not read anew."""

    cached_tokens: int | None = None


class UsageBody(msgspec.Struct, frozen=True):
    """Token counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: CachedTokens | None = None


class TokenBody(msgspec.Struct, frozen=True):
    """A token and how likely it was; the id is our own addition."""

    token: str
    logprob: float
    id: int = -1
    bytes: Json = None


class ChosenBody(msgspec.Struct, frozen=True):
    """A token of the answer, and what else could have stood there."""

    token: str
    logprob: float
    id: int = -1
    bytes: Json = None
    top_logprobs: tuple[TokenBody, ...] = ()


class LogprobsBody(msgspec.Struct, frozen=True):
    """Of the tokens of some text."""

    content: tuple[ChosenBody, ...] | None = None


class MessageBody(msgspec.Struct, frozen=True):
    """What the model said."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCallBody, ...] | None = None


class ChoiceBody(msgspec.Struct, frozen=True):
    """One answer."""

    message: MessageBody
    finish_reason: str | None = None
    stop_reason: Json = None
    logprobs: LogprobsBody | None = None


class AnswerBody(msgspec.Struct, frozen=True):
    """All answers to a request, as they stand in JSON."""

    choices: tuple[ChoiceBody, ...]
    usage: UsageBody | None = None


def encode_usage(usage: Usage) -> dict[str, Json]:
    """Our usage in the API's fields."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def decode_usage(usage: UsageBody | None) -> Usage:
    """The API's fields as our usage; what is left out counts 0."""
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    return Usage(usage.prompt_tokens, (details.cached_tokens or 0) if details else 0, usage.completion_tokens)


def encode_ending(reason: FinishReason, stop_string: str | None) -> dict[str, Json]:
    """The fields that say why an answer ended."""
    fields: dict[str, Json] = {"finish_reason": FINISH_REASONS[reason]}
    told = stop_string if reason == "stop_string" else reason if reason in _TOLD_APART else None
    return fields if told is None else fields | {"stop_reason": told}


def decode_ending(finish_reason: str, stop_reason: Json = None) -> tuple[FinishReason, str | None]:
    """Our reason and the stop string; an unknown word is `BackendFailure`."""
    reason = _PLAIN.get(finish_reason)
    if reason is None:
        raise BackendFailure(f"the server ended its answer with an unknown finish_reason: {finish_reason[:100]!r}")
    if isinstance(stop_reason, str):
        if reason == "stop":
            return "stop_string", stop_reason
        if stop_reason in _TOLD_APART and FINISH_REASONS[stop_reason] == finish_reason:
            return stop_reason, None
    return reason, None


def encode_logprobs(logprobs: tuple[TokenLogprob, ...]) -> dict[str, Json]:
    """Tokens with their probabilities."""
    chosen = [
        _token(each.token, each.text, each.logprob) | {"top_logprobs": [_token(*other) for other in each.alternatives]}
        for each in logprobs
    ]
    return {"content": chosen, "refusal": None}


def decode_logprobs(body: LogprobsBody | None) -> tuple[TokenLogprob, ...]:
    """The same tokens."""
    return tuple(
        TokenLogprob(
            each.id,
            each.token,
            each.logprob,
            tuple((other.id, other.token, other.logprob) for other in each.top_logprobs),
        )
        for each in (body.content if body else None) or ()
    )


def encode_answer(answer: Answer, *, answer_id: str, model: str, created_seconds: int, shows: Shown) -> dict[str, Json]:
    """The JSON body of an answer that is not streamed."""
    answers = (answer, *answer.others)
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": created_seconds,
        "model": model,
        "choices": [_choice(each, at, shows) for at, each in enumerate(answers)],
        "usage": encode_usage(answer.usage),
    }


class Shown(msgspec.Struct, frozen=True):
    """What a client wants to be told beside the text."""

    thinking: bool = True
    logprobs: bool = False


def decode_answer(body: dict[str, Json]) -> Answer:
    """The answer in a JSON body; a body of another shape is `BackendFailure`."""
    try:
        wire = check(body, AnswerBody)
    except InvalidRequest as error:
        raise BackendFailure(f"the server's answer is not as the API has it: {error}") from error
    if not wire.choices:
        raise BackendFailure("the server's answer is empty")
    usage = decode_usage(wire.usage)
    first, *others = [_decode_choice(choice, usage) for choice in wire.choices]
    return msgspec.structs.replace(first, others=tuple(others))


def _decode_choice(choice: ChoiceBody, usage: Usage) -> Answer:
    said = choice.message
    thinking, text = said.reasoning_content or said.reasoning, said.content or said.refusal
    parts: list[Part] = [ThinkingPart(thinking)] if thinking else []
    parts += [TextPart(text)] if text else []
    parts += decode_calls(said.tool_calls or ())
    reason, stop_string = decode_ending(choice.finish_reason or "stop", choice.stop_reason)
    return Answer(Message("assistant", tuple(parts)), reason, usage, stop_string, decode_logprobs(choice.logprobs))


def _choice(answer: Answer, index: int, shows: Shown) -> dict[str, Json]:
    parts = answer.message.parts
    thinking = "".join(part.text for part in parts if isinstance(part, ThinkingPart)) if shows.thinking else ""
    calls = [msgspec.to_builtins(encode_call(part)) for part in parts if isinstance(part, ToolCallPart)]
    text = answer.message.text
    message: dict[str, Json] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if thinking:
        message |= {"reasoning_content": thinking, "reasoning": thinking}
    if calls:
        message["tool_calls"] = calls
    logprobs = encode_logprobs(answer.logprobs) if shows.logprobs else None
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        **encode_ending(answer.reason, answer.stop_string),
    }


def _token(token: int, text: str, logprob: float) -> dict[str, Json]:
    return {"token": text, "id": token, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}
