"""Items of the Responses API, as they stand in JSON, and their readiness for it: what every client leaves out or adds.

Structs and plain JSON only: `contents` and `turns` say what they mean. Ids of items are read and never used.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.messages import Json
from pensieve.wire.openai.answers import ChosenBody

NonEmpty = Annotated[str, Meta(min_length=1)]
PASSED_OVER = "pensieve_passed_over"
"""The kind of item that stands where one was taken out: what another server did, and only it could read."""


class Piece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What every piece of content may carry."""

    prompt_cache_breakpoint: Json = None


class InputText(Piece, frozen=True, kw_only=True, tag="input_text"):
    """Text that a user, a developer or a tool says."""

    text: str


class OutputText(Piece, frozen=True, kw_only=True, tag="output_text"):
    """Text that the model said."""

    text: str
    annotations: Json = None
    logprobs: tuple[ChosenBody, ...] | None = None


class PlainText(Piece, frozen=True, kw_only=True, tag="text"):
    """Text, as clients of Chat Completions write it."""

    text: str


class Refusal(Piece, frozen=True, kw_only=True, tag="refusal"):
    """Text in which a model declined."""

    refusal: str


class InputImage(Piece, frozen=True, kw_only=True, tag="input_image"):
    """An image: a `data:` URL, or an address."""

    image_url: NonEmpty | None = None
    file_id: Json = None
    detail: Json = None


class InputFile(Piece, frozen=True, kw_only=True, tag="input_file"):
    """A document: its bytes as a `data:` URL or plain base64, or an address."""

    file_data: NonEmpty | None = None
    file_url: NonEmpty | None = None
    filename: str | None = None
    file_id: Json = None
    detail: Json = None


Content = InputText | OutputText | PlainText | Refusal | InputImage | InputFile


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What every item may carry; none of it reaches a prompt."""

    id: Json = None
    status: Json = None
    phase: Json = None
    caller: Json = None
    created_by: Json = None


class MessageItem(Item, frozen=True, kw_only=True, tag="message"):
    """What one side says."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | tuple[Content, ...]


class Thought(msgspec.Struct, frozen=True):
    """A piece of a reasoning item."""

    type: Literal["summary_text", "reasoning_text", "text"]
    text: str


class ReasoningItem(Item, frozen=True, kw_only=True, tag="reasoning"):
    """What the model thought: told as a summary or as it is, and once more in a form that is echoed unread."""

    summary: tuple[Thought, ...] | None = None
    content: tuple[Thought, ...] | None = None
    encrypted_content: str | None = None


class CallItem(Item, frozen=True, kw_only=True, tag="function_call"):
    """A call of a tool; the arguments are JSON as text."""

    call_id: NonEmpty
    name: NonEmpty
    arguments: str
    namespace: str | None = None


class CustomCallItem(Item, frozen=True, kw_only=True, tag="custom_tool_call"):
    """A call of a tool that takes text."""

    call_id: NonEmpty
    name: NonEmpty
    input: str
    namespace: str | None = None


class OutputItem(Item, frozen=True, kw_only=True, tag="function_call_output"):
    """What a tool gave back."""

    call_id: NonEmpty
    output: str | tuple[Content, ...]


class CustomOutputItem(Item, frozen=True, kw_only=True, tag="custom_tool_call_output"):
    """What a tool that takes text gave back."""

    call_id: NonEmpty
    output: str | tuple[Content, ...]


class PassedOverItem(Item, frozen=True, kw_only=True, tag=PASSED_OVER):
    """Something stood here that only another server could read."""


AnyItem = MessageItem | ReasoningItem | CallItem | CustomCallItem | OutputItem | CustomOutputItem | PassedOverItem
_KNOWN = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "custom_tool_call",
        "function_call_output",
        "custom_tool_call_output",
    }
)


def settle(items: list[Json]) -> tuple[str, ...]:
    """Make a request's items ready for their structs, in place; gives the kinds that were passed over."""
    unknown: dict[str, None] = {}
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if kind is None and "role" in item:
            items[at] = {"type": "message", **{name: value for name, value in item.items() if name != "type"}}
        elif kind == "item_reference":
            raise InvalidRequest(
                "answers are not kept here: send the item itself", path=f"input.{at}", reason="item_not_found"
            )
        elif isinstance(kind, str) and kind not in _KNOWN:
            unknown[kind[:64]] = None
            items[at] = {"type": PASSED_OVER}
    return tuple(unknown)
