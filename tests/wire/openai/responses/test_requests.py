"""Requests of the Responses API become our values, or say what is wrong and where."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking
from pensieve.messages import Message, TextPart, ThinkingPart, ToolCallPart, ToolResultPart, say
from pensieve.wire.anthropic.signature import sealed
from pensieve.wire.openai.responses.requests import DecodedRequest, decode_request, encode_request
from wire.responses_strategies import requests
from wire.strategies import PROPERTY, json_values


def body(**fields: Any) -> bytes:
    """A request that is in order but for `fields`."""
    return json.dumps({"model": "m", "input": "hi"} | fields).encode()


def decoded(**fields: Any) -> DecodedRequest:
    """Such a request, read."""
    return decode_request(body(**fields), request_id="req_1", affinity_key="header")


def messages(*items: Any) -> tuple[Message, ...]:
    """The messages of a request with these items."""
    return decoded(input=list(items)).request.messages


def refusal(**fields: Any) -> InvalidRequest:
    """What is said about such a request, which is refused."""
    with pytest.raises(InvalidRequest) as refused:
        decoded(**fields)
    return refused.value


@PROPERTY
@given(requests(), st.booleans())
def test_what_is_encoded_is_decoded_to_the_same_request(request_: GenerationRequest, is_stream: bool) -> None:
    """The two directions are inverse for everything the format can say."""
    sent = json.dumps(encode_request(request_, is_stream=is_stream)).encode()
    back = decode_request(sent, request_id="req_1")
    assert (back.request, back.is_stream, back.unknown_fields) == (request_, is_stream, ())


@PROPERTY
@given(requests(), json_values, st.data())
def test_a_body_with_one_wrong_value_is_refused_or_read_but_never_crashes(
    request_: GenerationRequest, wrong: object, data: st.DataObject
) -> None:
    """Whatever value stands anywhere, the only error is `InvalidRequest`."""
    node: Any = encode_request(request_, is_stream=False)
    sent = node
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not (isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans())):
            break
        node = node[key]
    node[key] = wrong
    with suppress(InvalidRequest):
        decode_request(json.dumps(sent).encode(), request_id="req_1")


def test_a_plain_question_is_one_user_message_under_its_instructions() -> None:
    """Both as strings, as the SDK's shortest call has them."""
    request = decoded(instructions="Be brief.").request
    assert request.messages == (say("system", "Be brief."), say("user", "hi"))


def test_ids_and_metadata_reach_no_prompt() -> None:
    """Two sessions of an agent differ in nothing else, and share what was read."""
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    plain = decoded(input=items).request
    named = decoded(
        input=[items[0] | {"id": "msg_1", "status": "completed"}], client_metadata={"turn": "1"}, metadata={"a": "b"}
    )
    assert named.request == plain
    assert named.unknown_fields == ()


def test_developers_speak_as_the_system() -> None:
    """In the place where they stand."""
    said = messages({"role": "developer", "content": "Rules."}, {"role": "user", "content": "hi"})
    assert said == (say("system", "Rules."), say("user", "hi"))


def test_a_turn_of_the_model_is_one_message_and_its_results_another() -> None:
    """Thinking, words and two calls; then what the tools gave back."""
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": 1}'}
    said = messages(
        {"role": "user", "content": "go"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "content": None},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        call,
        call | {"call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "up"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "down"}]},
    )
    called = (ToolCallPart("c1", "look", {"at": 1}), ToolCallPart("c2", "look", {"at": 1}))
    given_back = (ToolResultPart("c1", (TextPart("up"),)), ToolResultPart("c2", (TextPart("down"),)))
    assert said[1] == Message("assistant", (ThinkingPart("hm"), TextPart("I look."), *called))
    assert said[2] == Message("user", given_back)


def test_sealed_thinking_comes_back_without_its_words() -> None:
    """A client that keeps only the sealed form gives the model all that it thought."""
    item = {"type": "reasoning", "summary": [], "encrypted_content": sealed("deep thought")}
    assert messages({"role": "user", "content": "x"}, item)[1] == Message("assistant", (ThinkingPart("deep thought"),))


def test_arguments_that_are_no_object_stay_as_text() -> None:
    """A refusal would stay in the conversation and end it."""
    item = {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"cut": "in the mid'}
    (part,) = messages({"role": "user", "content": "x"}, item)[1].parts
    assert part == ToolCallPart("c", "look", {"unreadable_arguments": '{"cut": "in the mid'})


def test_what_only_another_server_can_read_is_passed_over_and_named() -> None:
    """So that a conversation which began elsewhere goes on here."""
    items = [{"role": "user", "content": "x"}, {"type": "web_search_call", "id": "ws_1", "status": "completed"}]
    read = decoded(input=items, tools=[{"type": "web_search", "external_web_access": True}])
    assert read.request.messages == (say("user", "x"),)
    assert set(read.unknown_fields) >= {"input.type=web_search_call", "tools.type=web_search"}


@pytest.mark.parametrize(
    ("fields", "path", "reason"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
        ({"conversation": "conv_1"}, "conversation", ""),
        ({"background": True}, "background", ""),
        ({"prompt": {"id": "p"}}, "prompt", ""),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0", "item_not_found"),
        ({"input": ""}, "input", ""),
        ({"input": [{"role": "developer", "content": "x"}]}, "input", ""),
        ({"input": [{"role": "user", "content": ""}]}, "input.0.content", ""),
        ({"max_output_tokens": 0}, "max_output_tokens", ""),
        ({"temperature": 9}, "temperature", ""),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", ""),
    ],
)
def test_what_cannot_be_served_is_refused_where_it_stands(fields: dict[str, Any], path: str, reason: str) -> None:
    """With the code that clients know, where there is one."""
    refused = refusal(**fields)
    assert (refused.path, refused.reason) == (path, reason)


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (None, None),
        ({"summary": "auto"}, Thinking("adaptive")),
        ({"effort": "none"}, Thinking("disabled")),
        ({"effort": "low"}, Thinking("enabled", 1_024)),
        ({"effort": "xhigh"}, Thinking("enabled", None)),
    ],
)
def test_effort_says_how_long_to_think(reasoning: Any, thinking: Thinking | None) -> None:
    """Unasked, a model does not; asked without a word, it does as it likes."""
    assert decoded(reasoning=reasoning).request.thinking == thinking


def test_the_cache_key_is_the_session_and_a_header_stands_in_for_it() -> None:
    """Requests of one key share a prefix best."""
    assert decoded(prompt_cache_key="k" * 300).request.affinity_key == "k" * 200
    assert decoded().request.affinity_key == "header"


def test_any_object_is_a_schema_of_its_own() -> None:
    """What `json_object` asks for."""
    assert decoded(text={"format": {"type": "json_object"}}).request.output_schema == {"type": "object"}
    assert decoded(text={"format": {"type": "text"}}).request.output_schema is None


def test_a_place_in_our_request_is_told_as_the_client_counts() -> None:
    """Messages of several items name the very item."""
    read = decoded(
        instructions="x",
        input=[
            {"type": "web_search_call"},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
            {"role": "assistant", "content": "b"},
        ],
    )
    places = [read.sent_path(f"messages.{place}") for place in ("0.content.0", "1.content.0", "2.content.1", "9.x")]
    assert places == ["instructions", "input.1.content.0", "input.3.content.0", "messages.9.x"]
    assert read.positions == (-1, 1, 2)
