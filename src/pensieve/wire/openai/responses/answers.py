"""Whole answers of the Responses API, and the words that streams share with them: status, usage and their reasons.

Pure, both directions. Knows no frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from pensieve.errors import BackendFailure, InvalidRequest, PensieveError
from pensieve.generation import Answer, FinishReason, Usage
from pensieve.messages import Json, Message, Part, ToolCallPart
from pensieve.wire.body import check
from pensieve.wire.openai.errors import encode_error
from pensieve.wire.openai.responses.items import AnyItem, CallItem, CustomCallItem, settle
from pensieve.wire.openai.responses.turns import decode_items

INCOMPLETE: dict[FinishReason, str] = {
    "length": "max_output_tokens",
    "context_full": "max_output_tokens",
    "refusal": "content_filter",
    "repetition": "content_filter",
}
"""The API has two words for an answer that is not whole; with any other reason it is complete."""
_REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "refusal"}


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


class ResponseBody(msgspec.Struct, frozen=True):
    """An answer, whole or as far as it came, as it stands in JSON."""

    status: Literal["completed", "incomplete", "failed", "in_progress", "queued", "cancelled"] = "completed"
    output: tuple[AnyItem, ...] = ()
    usage: UsageBody | None = None
    incomplete_details: IncompleteDetails | None = None
    error: dict[str, Json] | None = None


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


def encode_end(reason: FinishReason) -> dict[str, Json]:
    """The fields that say how an answer ended."""
    if reason not in INCOMPLETE:
        return {"status": "completed"}
    return {"status": "incomplete", "incomplete_details": {"reason": INCOMPLETE[reason]}}


def decode_end(body: ResponseBody, *, has_calls: bool) -> FinishReason:
    """Our reason for how an answer ended; an unknown one is `BackendFailure`."""
    if body.status == "completed":
        return "tool_calls" if has_calls else "stop"
    word = "" if body.incomplete_details is None else body.incomplete_details.reason or ""
    reason = _REASONS.get(word)
    if body.status != "incomplete" or reason is None:
        raise BackendFailure(f"the server ended its answer as {body.status} ({word[:100]})")
    return reason


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
    reason = decode_end(wire, has_calls=any(isinstance(part, ToolCallPart) for part in parts))
    return Answer(Message("assistant", parts), reason, decode_usage(wire.usage))


def _said(items: Iterable[AnyItem]) -> tuple[Part, ...]:
    # A call that was cut has no whole arguments.
    whole = (
        item for item in items if not (isinstance(item, CallItem | CustomCallItem) and item.status == "incomplete")
    )
    return tuple(part for placed in decode_items(whole) for part in placed.message.parts)
