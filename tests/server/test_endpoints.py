"""What the routes answer, right or wrong."""

from __future__ import annotations

import logging
import re
from typing import Any

import anthropic
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live_server import Live, body, frames, names, serving
from pensieve.inference.script import Call, Fail, Say, Script, Think, Turn
from pensieve.messages import TextPart, ThinkingPart

VERSION = {"anthropic-version": "2023-06-01"}
"""Which every client of the Messages API sends."""


async def test_an_answer_comes_whole(live: Live) -> None:
    """In the shape of the Messages API, under the resident model's real name, query string or not."""
    response = await live.client.post("/v1/messages?beta=true", json=body("hello there", model="claude-opus-5-5"))
    answer = response.json()
    assert response.status_code == 200
    assert answer["content"] == [{"type": "text", "text": "one two three"}]
    assert (answer["model"], answer["stop_reason"]) == ("scripted", "end_turn")
    assert answer["usage"]["input_tokens"] == 2
    assert re.fullmatch(r"req_[0-9a-f]{24}", response.headers["request-id"])


async def test_an_answer_comes_as_a_stream() -> None:
    """All kinds of blocks, each opened and closed, between a start and a stop."""
    steps = (Think("hm"), Say("hello you"), Call("Read", {"path": "/x"}))
    async with serving(Script(turns=(Turn(steps=steps),))) as live:
        response = await live.ask(stream=True)
    assert (names(response)[0], names(response)[-2:]) == ("message_start", ["message_delta", "message_stop"])
    starts = [msgspec.json.decode(frame.data) for frame in frames(response) if frame.event == "content_block_start"]
    assert [start["content_block"]["type"] for start in starts] == ["thinking", "text", "tool_use"]
    assert names(response).count("content_block_stop") == 3


async def test_tokens_are_counted_without_max_tokens(live: Live) -> None:
    """Counting takes no turn and starts no answer."""
    counted = {name: value for name, value in body("one two three four").items() if name != "max_tokens"}
    response = await live.client.post("/v1/messages/count_tokens?beta=true", json=counted)
    assert response.json() == {"input_tokens": 4}
    assert live.backend.counts.accepted == 0


async def test_models_are_listed_and_described(live: Live) -> None:
    """With the limits that clients plan by; claude names are described by who answers for them."""
    listed = (await live.client.get("/v1/models?limit=1000", headers=VERSION)).json()
    assert [model["id"] for model in listed["data"]] == ["scripted"]
    assert (listed["has_more"], listed["first_id"]) == (False, "scripted")
    for name in ("scripted", "claude-sonnet-5-5"):
        one = (await live.client.get(f"/v1/models/{name}", headers=VERSION)).json()
        assert (one["id"], one["max_input_tokens"], one["max_tokens"]) == ("scripted", 32_768, 4_096)


@pytest.mark.parametrize(("headers", "is_anthropic"), [({}, False), ({"x-api-key": "k"}, True), (VERSION, True)])
async def test_models_and_their_errors_come_in_the_shape_of_the_clients_api(
    live: Live, headers: dict[str, str], is_anthropic: bool
) -> None:
    """The path is the same, so that a header decides."""
    listed = (await live.client.get("/v1/models", headers=headers)).json()
    missing = (await live.client.get("/v1/models/none", headers=headers)).json()
    assert (listed["data"][0].get("object"), listed.get("object")) == (
        (None, None) if is_anthropic else ("model", "list")
    )
    assert missing.get("type") == ("error" if is_anthropic else None)
    assert is_anthropic or (missing["error"]["code"], missing["error"]["param"]) == ("model_not_found", "model")


async def test_health_tells_how_the_server_is(live: Live) -> None:
    """Memory and counts, and nothing that names a path or a prompt."""
    await live.ask("a secret prompt")
    response = await live.client.get("/health")
    health = response.json()
    assert health["status"] == "healthy"
    assert set(health["memory"]) == {"status", "available_gb", "accepting_requests"}
    assert health["model"] == {"name": "scripted", "state": "ready", "context_tokens": 32_768, "engine": "script"}
    assert health["requests"] == {"received": 2, "completed": 1, "failed": 0, "disconnected": 0, "running": 1}
    assert "secret" not in response.text
    assert "/" not in response.text


@pytest.mark.parametrize("path", ["/", "/api/hello", "/health"])
async def test_probes_are_answered_with_an_empty_body(live: Live, path: str) -> None:
    """Agents look with HEAD whether anybody is there."""
    response = await live.client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert (await live.client.get(path)).json()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nope", 404, "not_found_error"),
        ("GET", "/v1/messages/", 404, "not_found_error"),
        ("GET", "/v1/models/none", 404, "not_found_error"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "not_found_error"),
        ("PUT", "/v1/messages", 405, "not_found_error"),
        ("GET", "/v1/messages/count_tokens", 405, "not_found_error"),
        ("OPTIONS", "/v1/messages", 405, "not_found_error"),
        ("POST", "/health", 405, "not_found_error"),
    ],
)
async def test_a_wrong_route_or_method_is_an_envelope(
    live: Live, method: str, path: str, status: int, kind: str
) -> None:
    """With the same request id in header and body, and no invitation to try again."""
    response = await live.client.request(method, path, headers=VERSION)
    answer = response.json()
    assert (response.status_code, answer["error"]["type"]) == (status, kind)
    assert answer["request_id"] == response.headers["request-id"]
    assert response.headers["x-should-retry"] == "false"
    assert ("allow" in response.headers) == (status == 405)


BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", ""),
    (b"not json", ""),
    (b"\xff\xfe", ""),
    (b"[]", ""),
    (b"{" * 100_000, ""),
    (msgspec.json.encode(body(messages=[])), "messages"),
    (msgspec.json.encode(body(messages="hello")), "messages"),
    (msgspec.json.encode(body(messages=[{"role": "wizard", "content": "x"}])), "messages.0"),
    (
        msgspec.json.encode(body(messages=[{"role": "user", "content": [{"type": "text", "text": 1}]}])),
        "content.0.text",
    ),
    (msgspec.json.encode(body(messages=[{"role": "user", "content": [{"type": "hologram"}]}])), "content.0"),
    (msgspec.json.encode(body(max_tokens=0)), "max_tokens"),
    (msgspec.json.encode(body(max_tokens="many")), "max_tokens"),
    (msgspec.json.encode(body(temperature=99)), "temperature"),
]


@pytest.mark.parametrize(("content", "path"), BAD_BODIES)
async def test_a_bad_body_is_refused_with_the_path_of_the_mistake(live: Live, content: bytes, path: str) -> None:
    """As an invalid_request_error that a client does not repeat, and nothing reaches the backend."""
    response = await live.client.post("/v1/messages", content=content)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert path in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert live.backend.counts.accepted == 0


async def test_an_enormous_max_tokens_is_clamped(live: Live) -> None:
    """Clients ask for all that their own models could give."""
    assert (await live.ask(max_tokens=10_000_000)).json()["stop_reason"] == "end_turn"


async def test_message_threads_are_refused_in_the_words_sdks_know(live: Live) -> None:
    """They then send the whole conversation instead."""
    response = await live.ask(thread={"type": "create"})
    details = response.json()["error"]["details"]
    assert response.status_code == 400
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


async def test_a_forced_server_tool_is_answered_without_a_model(live: Live) -> None:
    """Agents ask for a web search in a request of its own: it is unavailable, and their session goes on."""
    response = await live.ask(tools=[SEARCH], tool_choice={"type": "tool", "name": "web_search"})
    use, result, text = response.json()["content"]
    assert (response.status_code, use["type"], text["type"]) == (200, "server_tool_use", "text")
    assert result["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    assert result["tool_use_id"] == use["id"]
    assert live.backend.counts.accepted == 0


async def test_a_forced_server_tool_is_answered_as_a_stream_too(live: Live) -> None:
    """Whole, from start to stop."""
    response = await live.ask(tools=[SEARCH], tool_choice={"type": "any"}, stream=True)
    starts = [msgspec.json.decode(frame.data) for frame in frames(response) if frame.event == "content_block_start"]
    kinds = [start["content_block"]["type"] for start in starts]
    assert kinds == ["server_tool_use", "web_search_tool_result", "text"]
    assert (names(response)[0], names(response)[-1]) == ("message_start", "message_stop")


async def test_a_server_tool_that_is_not_forced_is_not_offered(live: Live) -> None:
    """The model never hears of it."""
    assert (await live.ask(tools=[SEARCH])).json()["content"] == [{"type": "text", "text": "one two three"}]
    assert live.backend.requests[-1].tools == ()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_hidden_thinking_is_whole_again_in_the_next_turn(is_stream: bool) -> None:
    """The client sees an empty block and echoes it: the model goes on from what it thought."""
    hidden = {"type": "adaptive", "display": "omitted"}
    async with (
        serving(Script(turns=(Turn(steps=(Think("hm, so"), Say("yes"))),))) as live,
        anthropic.AsyncAnthropic(base_url=live.url, api_key="any") as client,
    ):
        asked: dict[str, Any] = {"model": "any", "max_tokens": 99, "thinking": hidden}
        turns: list[Any] = [{"role": "user", "content": "well?"}]
        if is_stream:
            async with client.messages.stream(**asked, messages=turns) as stream:
                answer = await stream.get_final_message()
        else:
            answer = await client.messages.create(**asked, messages=turns)
        assert [getattr(block, "thinking", "") for block in answer.content] == ["", ""]
        again = [*turns, answer.to_param(), {"role": "user", "content": "go on"}]
        await client.messages.create(**asked, messages=again)
    assert live.backend.requests[-1].messages[1].parts == (ThinkingPart("hm, so"), TextPart("yes"))


async def test_helpers_of_a_session_have_a_key_of_their_own(live: Live) -> None:
    """Their prompts are others than the session's."""
    for headers in ({}, {"x-claude-code-agent-id": "a1"}):
        own = {"x-claude-code-session-id": "s1"} | headers
        await live.client.post("/v1/messages", json=body(), headers=own)
    assert [request.affinity_key for request in live.backend.requests] == ["s1", "s1/a1"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_prompt_over_the_context_keeps_its_status(is_stream: bool) -> None:
    """Agents read both numbers out of the sentence and compact."""
    async with serving(Script(turns=(Turn(),), context_tokens=3)) as live:
        response = await live.ask("one two three four", stream=is_stream)
    assert response.status_code == 400
    assert "prompt is too long: 4 tokens > 3 maximum" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fail", "status", "kind", "headers"),
    [
        (Fail("Overloaded", {"problem": "busy", "retry_after_seconds": 2.2}), 503, "overloaded_error", ("true", "3")),
        (Fail("Overloaded", {"problem": "busy", "retry_after_seconds": 0.0}), 503, "overloaded_error", ("true", "1")),
        (Fail("WorkerCrashed", {"model": "m", "exit_status": "signal 9"}), 500, "api_error", ("true", "1")),
        (Fail("BackendFailure", {"problem": "broken"}), 500, "api_error", ("false", None)),
    ],
)
async def test_a_failure_says_whether_to_try_again(
    fail: Fail, status: int, kind: str, headers: tuple[str, str | None]
) -> None:
    """Retryable errors name a time, final ones say so."""
    async with serving(Script(turns=(Turn(steps=(fail,)),))) as live:
        response = await live.ask()
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert (response.headers["x-should-retry"], response.headers.get("retry-after")) == headers


async def test_a_full_server_says_when_a_place_frees_up_by_its_own_measure() -> None:
    """Not by the engine's guess, once an answer has ended; a time that is known for another reason stands."""
    facts: dict[str, Any] = {"problem": "busy", "retry_after_seconds": 50.0}
    busy = Turn(steps=(Fail("Overloaded", facts),), contains="busy")
    reloading = Turn(steps=(Fail("Overloaded", facts | {"is_about_queue": False}),), contains="reload")
    async with serving(Script(turns=(busy, reloading, Turn(steps=(Say("x"),))))) as live:
        guessed = await live.ask("busy")
        await live.ask()
        measured, known = await live.ask("busy"), await live.ask("reload")
    assert [each.headers["retry-after"] for each in (guessed, measured, known)] == ["50", "1", "50"]


async def test_unknown_fields_are_logged_once_by_name(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """Their values may be anything and stay out of the log, as do prompts and line breaks in names."""
    caplog.set_level(logging.INFO, "pensieve.server")
    for _ in range(2):
        await live.ask("a secret prompt", **{"frobnicate\n": "a secret value"})
    assert caplog.text.count("frobnicate") == 1
    assert "secret" not in caplog.text


async def test_each_request_is_one_line_of_the_log(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """With its tokens, and without its query string; a path cannot begin a line of its own."""
    caplog.set_level(logging.INFO, "pensieve.server")
    await live.client.post("/v1/messages?secret=1", json=body())
    await live.client.get("/a%0Ab")
    first, second = (record.getMessage() for record in caplog.records if record.name == "pensieve.server")
    assert re.fullmatch(r"POST /v1/messages 200 \d+ms model=scripted prompt=2 cached=0 out=3 req_[0-9a-f]{24}", first)
    assert second.startswith("GET /a?b 404 ")


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "stream", "stop_sequences"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), content=st.none() | st.binary(max_size=100))
async def test_no_body_makes_the_server_fail(live: Live, changes: dict[str, Any], content: bytes | None) -> None:
    """Whatever is sent is answered or refused; it is never our failure."""
    raw = msgspec.json.encode(body(**changes)) if content is None else content
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        response = await live.client.post(path, content=raw)
        assert response.status_code in (200, 400)
