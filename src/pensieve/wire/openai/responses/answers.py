"""Whole answers of the Responses API, and the words that streams share with them: status, usage and their reasons.

Pure, both directions. Knows no frames. `stop_reason` is our addition, as in Chat Completions: the stop string, or which
of our endings stands behind one of the API's.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pensieve.errors import BackendFailure, InvalidRequest, PensieveError
from pensieve.generation import Answer, FinishReason, Usage
from pensieve.messages import Json, Message, Part, ToolCallPart
from pensieve.wire.body import check
from pensieve.wire.openai.answers import ChosenBody, LogprobsBody, decode_logprobs
from pensieve.wire.openai.errors import encode_error
from pensieve.wire.openai.responses.items import AnyItem, CallItem, CustomCallItem, MessageItem, OutputText, settle
from pensieve.wire.openai.responses.turns import decode_items

INCOMPLETE: dict[FinishReason, str] = {
    "length": "max_output_tokens",
    "context_full": "max_output_tokens",
    "refusal": "content_filter",
    "repetition": "content_filter",
}
"""The API has two words for an answer that is not whole; with any other reason it is complete."""
_REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "refusal"}
_TOLD_APART: tuple[FinishReason, ...] = ("context_full", "repetition")


class InputDetails(msgspec.Struct, frozen=True):
    """What part of the prompt was read from the cache."""

    cached_tokens: int = 0


class UsageBody(msgspec.Struct, frozen=True):
    """Token counts; the input is the whole prompt."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: InputDetails | None = None


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why an answer is not whole."""

    reason: str | None = None


class EndBody(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer ended, or how it stands."""

    status: str = "completed"
    usage: UsageBody | None = None
    incomplete_details: IncompleteDetails | None = None
    stop_reason: str | None = None
    error: Json = None


class ResponseBody(EndBody, frozen=True, kw_only=True):
    """An answer, whole or as far as it came, as it stands in JSON."""

    output: tuple[AnyItem, ...] = ()


def encode_usage(usage: Usage) -> dict[str, Json]:
    """Our usage in the API's fields. How many of the tokens were thinking is not counted."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def decode_usage(usage: UsageBody | None) -> Usage:
    """The API's fields as our usage; a field that is left out counts 0."""
    if usage is None:
        return Usage()
    details = usage.input_tokens_details or InputDetails()
    return Usage(usage.input_tokens, details.cached_tokens, usage.output_tokens)


def encode_end(reason: FinishReason, stop_string: str | None) -> dict[str, Json]:
    """The fields that say how an answer ended."""
    told = stop_string if reason == "stop_string" else reason if reason in _TOLD_APART else None
    fields: dict[str, Json] = {"stop_reason": told}
    if reason not in INCOMPLETE:
        return fields | {"status": "completed"}
    return fields | {"status": "incomplete", "incomplete_details": {"reason": INCOMPLETE[reason]}}


def decode_end(body: EndBody, *, has_calls: bool) -> tuple[FinishReason, str | None]:
    """How an answer ended, and the stop string; an unknown word is `BackendFailure`."""
    if body.status == "completed":
        if body.stop_reason is not None:
            return "stop_string", body.stop_reason
        return ("tool_calls" if has_calls else "stop"), None
    word = "" if body.incomplete_details is None else body.incomplete_details.reason or ""
    reason = _REASONS.get(word)
    if body.status != "incomplete" or reason is None:
        raise BackendFailure(f"the server ended its answer as {body.status[:100]} ({word[:100]})")
    return next((each for each in _TOLD_APART if each == body.stop_reason and INCOMPLETE[each] == word), reason), None


def encode_failure(error: PensieveError) -> dict[str, Json]:
    """The fields of an answer that failed."""
    told = encode_error(error, "")["error"]
    return {"status": "failed", "error": {"code": told["code"] or "server_error", "message": told["message"]}}


def encode_response(
    response_id: str, model: str, created_seconds: int, echoed: dict[str, Json], **fields: Json
) -> dict[str, Json]:
    """A response with those fields; nothing of it is kept, whatever was asked."""
    fixed = {
        "id": response_id,
        "object": "response",
        "created_at": created_seconds,
        "model": model,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "error": None,
        "incomplete_details": None,
        "previous_response_id": None,
        "background": False,
        "store": False,
        "truncation": "disabled",
    }
    return echoed | fixed | fields


def decode_answer(body: dict[str, Json]) -> Answer:
    """The answer in a JSON body; a body of another shape is `BackendFailure`."""
    output = list(body.get("output") or ())
    try:
        settle(output)
        wire = check(body | {"output": output}, ResponseBody)
    except InvalidRequest as error:
        raise BackendFailure(f"the server's answer is not as the API has it: {error}") from error
    parts = _said(wire.output)
    reason, stop_string = decode_end(wire, has_calls=any(isinstance(part, ToolCallPart) for part in parts))
    logprobs = decode_logprobs(LogprobsBody(_chosen(wire.output)))
    return Answer(Message("assistant", parts), reason, decode_usage(wire.usage), stop_string, logprobs)


def _chosen(items: Iterable[AnyItem]) -> tuple[ChosenBody, ...]:
    messages = (item for item in items if isinstance(item, MessageItem) and not isinstance(item.content, str))
    texts = (piece for item in messages for piece in item.content if isinstance(piece, OutputText))
    return tuple(chosen for text in texts for chosen in text.logprobs or ())


def _said(items: Iterable[AnyItem]) -> tuple[Part, ...]:
    # A call that was cut has no whole arguments.
    whole = (
        item for item in items if not (isinstance(item, CallItem | CustomCallItem) and item.status == "incomplete")
    )
    return tuple(part for placed in decode_items(whole) for part in placed.message.parts)
