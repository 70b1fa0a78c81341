"""Requests of Chat Completions: what is read of them, what is refused, and that ours survive the way there and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking, ToolChoice
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
    say,
)
from pensieve.wire.openai.chat import ChatExchange, decode_request, encode_request
from wire.strategies import PROPERTY, requests

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SPEC = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def read(*messages: Any, **fields: Any) -> ChatExchange:
    """A body with these messages, decoded."""
    body = {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hi"}]} | fields
    return decode_request(msgspec.json.encode(body), request_id="req_1")


def sayable(request: GenerationRequest) -> GenerationRequest:
    """What the format can say of a request."""
    messages = [each for message in request.messages for each in _sayable_message(message)]
    return msgspec.structs.replace(request, messages=tuple(messages))


def _sayable_message(message: Message) -> list[Message]:
    if message.role == "assistant":
        thinking = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
        texts = [part for part in message.parts if isinstance(part, TextPart)]
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        texts = [] if texts == [TextPart("")] else texts
        return [Message("assistant", (*([ThinkingPart(thinking)] if thinking else []), *texts, *calls))]
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    others = tuple(_sayable_part(part) for part in message.parts if part not in results)
    if message.role == "user":
        others = tuple(part for part in others if part != TextPart(""))
    apart = [Message("user", (ToolResultPart(each.call_id, _sayable_result(each)),)) for each in results]
    return [*apart, Message(message.role, others)] if others or not results else apart


def _sayable_result(result: ToolResultPart) -> Any:
    parts = tuple(_sayable_part(part) for part in result.parts)
    return () if parts == (TextPart(""),) else parts


def _sayable_part(part: Part) -> Part:
    match part:
        case DocumentPart(url=url) if url:
            return TextPart(f"[document at {url}]")
        case DocumentPart(media_type, data, _, title):
            return DocumentPart(media_type, data, title=title)
        case ImagePart() | TextPart():
            return part
        case _:
            return TextPart(f"[tool {part.name} is available]")  # type: ignore[union-attr]


@PROPERTY
@given(requests(), st.booleans(), st.none() | st.integers(0, 20), st.integers(1, 16))
def test_our_requests_survive_the_wire(request: GenerationRequest, is_stream: bool, top: int | None, num: int) -> None:
    """All that the format can say: encoded and decoded, they are the same."""
    request = sayable(
        msgspec.structs.replace(
            request, num_logprobs=top, num_answers=num, logit_bias={7: -2.5}, stop_tokens=(3,), affinity_key="s"
        )
    )
    body = encode_request(request, is_stream=is_stream)
    decoded = decode_request(msgspec.json.encode(body), request_id="req_1")
    assert decoded.request == request
    assert (decoded.is_stream, decoded.unknown_fields) == (is_stream, ())


def test_roles_become_ours() -> None:
    """Both names for instructions, and results of tools, which are the user's turn."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
    messages = read(
        {"role": "developer", "content": "be kind"},
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
    ).request.messages
    assert messages[:3] == (say("system", "be kind"), say("system", "be brief"), say("user", "hi"))
    assert messages[3] == Message("assistant", (ThinkingPart("hm"), ToolCallPart("c1", "look", {"at": 1})))
    assert messages[4] == Message("user", (ToolResultPart("c1", (TextPart("seen"),)),))


def test_ids_and_metadata_do_not_reach_the_prompt() -> None:
    """Two sessions with the same words have the same prompt."""
    plain = read({"role": "user", "content": "hi"})
    odd = read({"role": "user", "content": "hi", "id": "item_1"}, metadata={"a": "b"}, user="ann", store=False)
    assert odd.request == msgspec.structs.replace(plain.request, affinity_key="ann")
    assert odd.unknown_fields == ("messages.id",)


def test_images_and_files_come_as_data() -> None:
    """A picture, an address and a text."""
    parts = [
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "file", "file": {"file_data": "data:text/markdown;base64,aGk=", "filename": "a.md"}},
    ]
    (message,) = read({"role": "user", "content": parts}).request.messages
    assert message.parts[0] == ImagePart("image/png", b"\x89PNG\r\n\x1a\n")
    assert message.parts[1:] == (ImagePart(url="https://x/y.png"), DocumentPart("text/plain", b"hi", title="a.md"))


@pytest.mark.parametrize(
    "part", [{"type": "file", "file": {"file_id": "f1"}}, {"type": "input_audio", "input_audio": {}}]
)
def test_what_cannot_be_read_is_refused_when_it_is_new(part: dict[str, Any]) -> None:
    """In the history it is a note: a refusal there would end the conversation."""
    with pytest.raises(InvalidRequest) as refused:
        read({"role": "user", "content": [part]})
    assert refused.value.path == "messages.0.content.0"
    later = read({"role": "user", "content": [part]}, {"role": "user", "content": "and?"}).request
    assert "could not be read" in later.messages[0].text


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"reasoning_effort": "none"}, Thinking("disabled")),
        ({"reasoning_effort": "low"}, Thinking("enabled", 1_024)),
        ({"reasoning_effort": "high"}, Thinking("enabled")),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Thinking("disabled")),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}, "reasoning_effort": "none"}, Thinking("enabled", 9)),
        ({"include_reasoning": False}, None),
        ({}, None),
    ],
)
def test_thinking_is_asked_for_in_several_ways(fields: dict[str, Any], wanted: Thinking | None) -> None:
    """The clearest one counts."""
    assert read(**fields).request.thinking == wanted


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ({"type": "function", "function": {"name": "look"}}, ToolChoice("tool", "look")),
    ],
)
def test_tool_choices(choice: Any, wanted: ToolChoice) -> None:
    """Each form there is."""
    assert read(tools=[SPEC], tool_choice=choice).request.tool_choice == wanted


def test_only_allowed_tools_are_offered() -> None:
    """Others, and those that would run elsewhere, are left out; the latter are named."""
    other = {"type": "function", "function": {"name": "touch", "strict": True, "description": "d"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "touch"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    decoded = read(tools=[SPEC, other, {"type": "web_search"}], tool_choice=choice, parallel_tool_calls=False)
    assert decoded.request.tools == (ToolSpec("touch", {"type": "object", "properties": {}}, "d", is_strict=True),)
    assert decoded.request.tool_choice == ToolChoice("any", "", is_parallel_allowed=False)
    assert decoded.unknown_fields == ("tools.type=web_search",)


def test_limits_and_shapes() -> None:
    """The newer name of the limit counts, one stop string may stand alone, an object may be any."""
    request = read(
        max_tokens=5, max_completion_tokens=7, stop="x", seed=-1, top_k=-1, response_format={"type": "json_object"}
    ).request
    assert (request.max_tokens, request.stop, request.sampling.seed, request.sampling.top_k) == (
        7,
        ("x",),
        2**32 - 2,
        0,
    )
    assert request.output_schema == {"type": "object"}


@pytest.mark.parametrize("written", ["{oops", "[1]", f'{{"at":{"9" * 40}}}', f'{{"at":{"[" * 300}1{"]" * 300}}}'])
def test_arguments_that_are_no_json_or_cannot_travel_are_kept_as_text(written: str) -> None:
    """Models write such things, and a conversation must not end with them."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": written}}
    messages = read({"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}).request.messages
    assert messages[1].parts == (ToolCallPart("c1", "look", {"arguments": written}),)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]}, "url"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [SPEC, SPEC]}, "tools.1.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [SPEC], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (
            {"tools": [SPEC], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 30: 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"temperature": 9}, "temperature"),
        ({"n": 99}, "n"),
    ],
)
def test_a_mistake_is_refused_with_its_path(fields: dict[str, Any], path: str) -> None:
    """In the client's own words for it."""
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert path in refused.value.path


def test_refusals_of_the_engine_name_the_clients_places() -> None:
    """Schemas and tools stand elsewhere in this API."""
    exchange = read()
    assert exchange.sent_path("tools.2.input_schema.properties") == "tools.2.function.parameters.properties"
    assert exchange.sent_path("output_config.format.schema.$ref") == "response_format.json_schema.schema.$ref"
