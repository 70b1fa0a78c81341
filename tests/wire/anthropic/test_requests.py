"""Requests of the Messages API become our values, or say what is wrong and where."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking, ToolChoice
from pensieve.messages import Message, TextPart, ThinkingPart, ToolResultPart, say
from pensieve.wire.anthropic.manner import Manner
from pensieve.wire.anthropic.requests import decode_count_request, decode_request, encode_request
from pensieve.wire.anthropic.signature import sealed
from wire.strategies import PROPERTY, json_values, requests

TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
BILLING = "x-anthropic-billing-header: version=1; more=2;"
COUNTDOWN = "<total_tokens>1000 tokens left</total_tokens>"


def body(*, without: str = "", **fields: Any) -> bytes:
    """A request that is in order but for `fields`."""
    whole = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]} | fields
    whole.pop(without, None)
    return json.dumps(whole).encode()


def decoded(*, without: str = "", **fields: Any) -> GenerationRequest:
    """The request of such a body."""
    return decode_request(body(without=without, **fields), request_id="req_1").request


def refusal(content: bytes) -> str:
    """What is said about a body that is refused."""
    with pytest.raises(InvalidRequest) as refused:
        decode_request(content, request_id="req_1")
    return str(refused.value)


def described(*blocks: Any) -> str:
    """What is said about a user message of these blocks."""
    return refusal(body(messages=[{"role": "user", "content": list(blocks)}]))


@PROPERTY
@given(requests(), st.booleans())
def test_what_is_encoded_is_decoded_to_the_same_request(request_: GenerationRequest, is_stream: bool) -> None:
    """The two directions are inverse for everything the wire can carry."""
    sent = json.dumps(encode_request(request_, is_stream=is_stream)).encode()
    back = decode_request(sent, request_id="req_1")
    assert (back.request, back.is_stream, back.unknown_fields, back.forced) == (request_, is_stream, (), None)


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


@PROPERTY
@given(st.binary(max_size=40))
def test_bytes_that_are_no_request_are_refused(noise: bytes) -> None:
    """Noise is `InvalidRequest`, nothing else."""
    assert refusal(noise)


def test_ids_and_streaming_come_from_the_caller_and_the_body() -> None:
    """The request id and affinity key are the server's to give, `stream` is the client's."""
    read = decode_request(body(stream=True), request_id="req_7", affinity_key="session")
    assert (read.request.id, read.request.affinity_key, read.is_stream) == ("req_7", "session", True)


def test_text_content_equals_a_list_of_one_block() -> None:
    """Clients switch between both from turn to turn; the prompt must not change with it."""
    blocks = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    assert decoded(messages=[{"role": "user", "content": blocks}]).messages == decoded().messages


def test_the_system_text_leads_and_later_system_messages_stay_in_place() -> None:
    """Top-level instructions come first; those in the middle of the conversation stay there."""
    turns = [{"role": "user", "content": "a"}, {"role": "system", "content": [{"type": "text", "text": "b"}]}]
    read = decoded(system=[{"type": "text", "text": "s"}, {"type": "text", "text": "t"}], messages=turns)
    assert read.messages == (Message("system", (TextPart("s"), TextPart("t"))), say("user", "a"), say("system", "b"))


@pytest.mark.parametrize("volatile", [BILLING, f"{BILLING}\n", COUNTDOWN, f"\n{COUNTDOWN}\n"])
def test_volatile_system_blocks_never_reach_a_prompt(volatile: str) -> None:
    """They change from turn to turn and would spoil the cached prefix; a message of nothing else disappears."""
    turns = [{"role": "user", "content": "hi"}, {"role": "system", "content": volatile}]
    blocks = [{"type": "text", "text": volatile}, {"type": "text", "text": "s"}]
    assert decoded(system=blocks, messages=turns).messages == (say("system", "s"), say("user", "hi"))


@pytest.mark.parametrize("text", [f"{BILLING}\nBe brief.", f"Be brief.\n{COUNTDOWN}", f"{COUNTDOWN}\nBe brief."])
def test_volatile_lines_leave_the_rest_of_a_block_standing(text: str) -> None:
    """Proxies join blocks: the instructions in it must not be lost with the line."""
    assert decoded(system=text).messages[0].text.strip() == "Be brief."


@pytest.mark.parametrize("text", [f"Note: {COUNTDOWN}", f"{COUNTDOWN} and more", f"see {BILLING}"])
def test_system_text_that_only_mentions_a_volatile_line_is_kept(text: str) -> None:
    """Only a whole line is dropped."""
    assert decoded(system=text).messages[0] == say("system", text)


@pytest.mark.parametrize("empty", ["", [], [{"type": "text", "text": ""}]])
def test_an_empty_system_message_leaves_no_trace(empty: object) -> None:
    """As at the top, so in the middle of a conversation."""
    turns = [{"role": "user", "content": "hi"}, {"role": "system", "content": empty}]
    assert decoded(messages=turns).messages == (say("user", "hi"),)


def test_messages_keep_the_place_they_were_sent_at() -> None:
    """Diagnostics name it, whatever was dropped before; the top-level text has none."""
    turns = [{"role": "user", "content": "a"}, {"role": "system", "content": BILLING}, {"role": "user", "content": "b"}]
    assert decode_request(body(system="s", messages=turns), request_id="r").positions == (-1, 0, 2)


def test_a_users_countdown_is_kept() -> None:
    """What a user says is never dropped."""
    assert decoded(messages=[{"role": "user", "content": COUNTDOWN}]).messages == (say("user", COUNTDOWN),)


@pytest.mark.parametrize("empty", ["", [], None, [{"type": "text", "text": ""}]])
def test_an_empty_system_text_is_none(empty: object) -> None:
    """It must not replace a template's own default instructions."""
    assert decoded(system=empty).messages == (say("user", "hi"),)


@pytest.mark.parametrize("text", [BILLING, "Be brief.", ""])
def test_a_conversation_of_only_system_messages_is_refused(text: str) -> None:
    """Instructions alone, kept or dropped, leave nothing to answer."""
    said = refusal(body(messages=[{"role": "system", "content": text}], system="s"))
    assert said == "messages: there is nothing to answer: add a user message"


@pytest.mark.parametrize("empty", ["", [], [{"type": "text", "text": ""}], [{"type": "text", "text": ""}] * 2])
def test_an_empty_user_message_is_refused_where_it_stands(empty: object) -> None:
    """The place is counted in the messages that were sent, dropped ones included."""
    turns = [{"role": "system", "content": BILLING}, {"role": "user", "content": "hi"}]
    said = refusal(body(messages=[*turns, {"role": "user", "content": empty}]))
    assert said == "messages.2.content: must not be empty"


def test_an_empty_text_beside_something_is_no_empty_message() -> None:
    """One block with content is enough."""
    result = {"type": "tool_result", "tool_use_id": "c"}
    [read] = decoded(messages=[{"role": "user", "content": [{"type": "text", "text": ""}, result]}]).messages
    assert read.parts == (TextPart(""), ToolResultPart("c", ()))


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_assistant_message_may_end_the_conversation(empty: object) -> None:
    """Clients prefill an answer with nothing yet in it."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": empty}]
    last = decoded(messages=turns).messages[-1]
    assert (last.role, last.text) == ("assistant", "")


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "adaptive", "display": "omitted"}, Thinking("adaptive", is_shown=False)),
        ({"type": "adaptive", "display": "updates"}, Thinking("adaptive")),
        ({"type": "enabled", "budget_tokens": 31999}, Thinking("enabled", 31999)),
        ({"type": "disabled"}, Thinking("disabled")),
        ({"type": "between_tools"}, Thinking("adaptive")),
        (None, None),
    ],
)
def test_thinking_is_read(thinking: object, expected: Thinking | None) -> None:
    """All three ways of thinking, with budget and display."""
    assert decoded(thinking=thinking).thinking == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ToolChoice()),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("any", is_parallel_allowed=False)),
        ({"type": "tool", "name": "look"}, ToolChoice("tool", "look")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "auto", "disable_parallel_tool_use": None}, ToolChoice()),
    ],
)
def test_the_tool_choice_is_read(choice: object, expected: ToolChoice) -> None:
    """All four modes."""
    assert decoded(tools=[TOOL], tool_choice=choice).tool_choice == expected


def test_both_ways_of_asking_for_a_schema_are_the_same() -> None:
    """The current field and the older one."""
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    current = decoded(output_config={"format": wanted, "effort": "high"})
    assert current.output_schema == decoded(output_format=wanted).output_schema == {"type": "object"}


def test_sampling_fields_are_read_and_ours_beside_them() -> None:
    """Unset fields stay unset."""
    sampling = decoded(temperature=1, top_k=5, min_p=0.1, seed=3).sampling
    assert (sampling.temperature, sampling.top_k, sampling.min_p, sampling.seed) == (1.0, 5, 0.1, 3)
    assert sampling.top_p is None


def test_a_huge_max_tokens_is_accepted() -> None:
    """Clients send 128,000 and more without knowing the model: the backend clamps."""
    assert decoded(max_tokens=10_000_000).max_tokens == 10_000_000


def test_counting_needs_no_max_tokens() -> None:
    """The count endpoint takes the same body without it."""
    counted = decode_count_request(body(without="max_tokens"), request_id="req_1")
    assert counted.request == decoded(max_tokens=None)


def test_fields_that_nobody_knows_are_named_without_their_positions() -> None:
    """They are accepted, and named once, so that the log shows what had no effect."""
    blocks = [{"type": "text", "text": "a", "odd": 1}, {"type": "text", "text": "b", "odd": 2}]
    sent = body(new=1, messages=[{"role": "user", "content": blocks}], tools=[TOOL | {"x y\x1b": 1}])
    unknown = decode_request(sent, request_id="req_1").unknown_fields
    assert unknown == ("messages.content.odd", "new", "tools.'x y\\x1b'")


def test_what_real_clients_send_is_known() -> None:
    """No field of the big agents is logged as unknown."""
    known: dict[str, Any] = {
        "metadata": {"user_id": "{}"},
        "context_management": {"edits": []},
        "output_config": {"effort": "high", "task_budget": {"type": "tokens", "total": 1}},
        "thinking": {"type": "adaptive", "display": "updates", "block_binding": None},
        "diagnostics": {"previous_message_id": None},
    }
    sent = body(tools=[TOOL | {"defer_loading": True}], betas=["x"], service_tier="auto", container="c", **known)
    assert decode_request(sent, request_id="req_1").unknown_fields == ()


def test_the_manner_of_the_answer_is_read() -> None:
    """What is hidden, what is told in addition, and which answer to compare with."""
    plain = decode_request(body(), request_id="r").manner
    asked = body(
        thinking={"type": "adaptive", "display": "omitted"},
        context_management={"edits": []},
        diagnostics={"previous_message_id": "msg_1"},
    )
    assert plain == Manner()
    assert decode_request(asked, request_id="r").manner == Manner(
        is_thinking_shown=False, is_context_managed=True, is_diagnosed=True, previous_message_id="msg_1"
    )


def test_hidden_thinking_comes_back_from_its_signature() -> None:
    """A client that hid it echoes an empty block; one that showed it echoes our mark, which is no signature."""
    blocks = [
        {"type": "thinking", "thinking": "", "signature": sealed("hm")},
        {"type": "thinking", "thinking": "so", "signature": "pensieve"},
        {"type": "thinking", "thinking": "far", "signature": None},
        {"type": "thinking", "thinking": "", "signature": "theirs"},
    ]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": blocks}]
    thoughts = (ThinkingPart("hm"), ThinkingPart("so"), ThinkingPart("far"), ThinkingPart("", "theirs"))
    assert decoded(messages=turns).messages[-1].parts == thoughts


def test_many_unknown_fields_are_bounded() -> None:
    """A body of nothing but unknown fields cannot fill the log."""
    odd: dict[str, Any] = {f"field_{at}": 1 for at in range(1000)}
    kinds = [{"type": f"kind_{at}"} for at in range(1000)]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": kinds}]
    for sent in (body(**odd), body(messages=turns), body(tools=kinds)):
        assert len(decode_request(sent, request_id="req_1").unknown_fields) == 32


def test_a_message_thread_is_refused_with_the_reason_that_sdks_understand() -> None:
    """Ignoring it would lose the conversation; with this reason the SDK sends the whole history."""
    with pytest.raises(InvalidRequest) as refused:
        decode_request(body(thread={"type": "create"}), request_id="req_1")
    assert (refused.value.path, refused.value.reason) == ("thread", "thread_unsupported_request")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (body(without="messages"), "messages: field is missing"),
        (body(messages=[]), "messages: must not be empty"),
        (body(messages="hi"), "messages: expected array, got str"),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages.0.role: 'tool' is not supported here"),
        (body(messages=[{"content": "x"}]), "messages.0.role: field is missing"),
        (body(messages=[{"role": "user"}]), "messages.0.content: field is missing"),
        (body(messages=[{"role": "user", "content": 5}]), "messages.0.content: expected str | array, got int"),
        (body(model=""), "model: must not be empty"),
        (body(model=None), "model: expected str, got null"),
        (body(without="max_tokens"), "max_tokens: field is missing"),
        (body(max_tokens=0), "max_tokens: expected int >= 1"),
        (body(max_tokens=-1), "max_tokens: expected int >= 1"),
        (body(max_tokens="9"), "max_tokens: expected int, got str"),
        (body(max_tokens=True), "max_tokens: expected int, got bool"),
        (body(temperature=9), "temperature: 9.0 is out of range: 0 to 5"),
        (body(stop_sequences=["a", ""]), "stop_sequences.1: must not be empty"),
        (body(stop_sequences=["a"] * 65), "stop_sequences: expected array of length <= 64"),
        (body(stop_sequences=["a" * 1001]), "stop_sequences.0: expected str of length <= 1000"),
        (body(system=[{"type": "image"}]), "system.0.type: 'image' is not supported here"),
        (body(thinking={"type": "sideways"}), "thinking.type: 'sideways' is not supported here"),
        (body(thinking={"type": "enabled", "budget_tokens": 0}), "thinking.budget_tokens: expected int >= 1"),
        (body(tools=[{"name": "a"}]), "tools.0.input_schema: field is missing"),
        (body(tools=[{"input_schema": {}}]), "tools.0.name: field is missing"),
        (body(tools=[TOOL, TOOL]), "tools.1.name: tool names must be unique"),
        (body(tool_choice={"type": "any"}), "tool_choice: there are no tools to choose from"),
        (body(tools=[TOOL], tool_choice={"type": "tool", "name": "b"}), "tool_choice.name: it names none of the tools"),
        (body(tools=[TOOL], tool_choice={"type": "tool"}), "tool_choice.name: field is missing"),
        (body(tools=[TOOL], tool_choice={}), "tool_choice.type: field is missing"),
        (
            body(mcp_servers=[{"url": "x"}]),
            "mcp_servers: MCP servers are not supported: connect them in the client",
        ),
        (
            body(output_config={"format": {"type": "xml", "schema": {}}}),
            "output_config.format.type: 'xml' is not supported here",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_path(sent: bytes, said: str) -> None:
    """The sentence says where and what."""
    assert refusal(sent) == said
