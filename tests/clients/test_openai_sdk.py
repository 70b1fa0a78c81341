"""The official `openai` SDK against a real server: what its users see of answers, models and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from live_server import Live, serving
from pensieve.generation import GenerationEvent, GenerationRequest, TextDelta
from pensieve.inference.script import Call, Delay, Fail, Say, Script, Think, Turn
from pensieve.inference.scripted import ScriptedBackend
from pensieve.messages import Message, TextPart, ThinkingPart, ToolCallPart, ToolResultPart, say

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


class City(BaseModel):
    """What an answer is read as."""

    name: str


TURNS = (
    Turn(steps=(Say('{"name": "Rome"}'),), contains="as an object"),
    Turn(steps=(Call("look", {"at": "a"}, "call_a"), Call("look", {"at": "b"}, "call_b")), contains="look twice"),
    Turn(steps=(Fail("Overloaded", {"problem": "busy", "retry_after_seconds": 0.0}),), contains="busy", times=1),
    Turn(steps=(Say("one"), Fail("BackendFailure", {"problem": "it broke"})), contains="break"),
    Turn(steps=(Delay(0.4), Say("late")), contains="slow"),
    Turn(steps=(Think("hm"), Say("one two three"))),
)


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A server that plays the turns above."""
    async with serving(Script(turns=TURNS, context_tokens=1_000)) as started:
        yield started


@pytest.fixture
async def client(live: Live) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as its users make it."""
    async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as made:
        yield made


async def test_an_answer_comes_whole(client: AsyncOpenAI) -> None:
    """With its thinking, its counts, and the resident model's real name."""
    raw = await client.chat.completions.with_raw_response.create(model="gpt-9", messages=ASKED)
    answer = raw.parse()
    message: Any = answer.choices[0].message
    assert (message.content, message.reasoning_content, answer.choices[0].finish_reason) == (
        "one two three",
        "hm",
        "stop",
    )
    assert answer.usage is not None
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("scripted", 2, 6)
    assert raw.request_id == raw.headers["request-id"]


async def test_an_answer_comes_as_a_stream(client: AsyncOpenAI) -> None:
    """Put together by the SDK; counts come last, where they were asked for."""
    asked: Any = {"model": "any", "messages": ASKED, "stream_options": {"include_usage": True}}
    async with client.chat.completions.stream(**asked) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "one two three"
    assert final.usage is not None
    assert final.usage.completion_tokens == 4


class Held(ScriptedBackend):
    """Says nothing before it may."""

    def __init__(self) -> None:
        super().__init__(Script.saying("late"))
        self.may_speak = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """It has started, and then it waits."""
        async with aclosing(super().generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    await self.may_speak.wait()
                yield event


async def test_signs_of_life_disturb_nobody() -> None:
    """They are comments that come for as long as nothing is said, and the SDK passes them over."""
    body: Any = {"model": "any", "messages": ASKED, "stream": True}
    backend, sent = Held(), b""
    async with (
        serving(instead=backend, ping_seconds=0.01) as live,
        live.client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        async for piece in response.aiter_bytes():
            sent += piece
            if sent.count(b": still working\n\n") >= 3:
                backend.may_speak.set()
    replay = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=dict(response.headers), content=sent))
    async with httpx2.AsyncClient(transport=replay) as http, AsyncOpenAI(api_key="any", http_client=http) as client:
        stream = await client.chat.completions.create(**body)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["", "late", None]


async def test_an_answer_is_parsed(client: AsyncOpenAI, live: Live) -> None:
    """The SDK makes a schema of a class and an object of the answer."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Rome as an object"}]
    answer = await client.chat.completions.parse(model="any", messages=messages, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rome")
    assert live.backend.requests[-1].output_schema["properties"] == {"name": {"title": "Name", "type": "string"}}


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tools_are_called_and_their_results_come_back(client: AsyncOpenAI, live: Live, is_stream: bool) -> None:
    """Two at once, with the conversation as the model needs it."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "look twice"}]
    asked: Any = {"model": "any", "messages": messages, "tools": [LOOK]}
    if is_stream:
        async with client.chat.completions.stream(**asked) as stream:
            said: Any = (await stream.get_final_completion()).choices[0].message
    else:
        said = (await client.chat.completions.create(**asked)).choices[0].message
    assert [json.loads(call.function.arguments) for call in said.tool_calls] == [{"at": "a"}, {"at": "b"}]
    results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "seen"} for call in said.tool_calls]
    await client.chat.completions.create(model="any", messages=[*messages, said.to_dict(), *results], tools=[LOOK])
    calls = (ToolCallPart("call_a", "look", {"at": "a"}), ToolCallPart("call_b", "look", {"at": "b"}))
    seen = (TextPart("seen"),)
    assert live.backend.requests[-1].messages == (
        say("user", "look twice"),
        Message("assistant", calls),
        *(Message("user", (ToolResultPart(call.id, seen),)) for call in calls),
    )


async def test_thinking_that_is_echoed_comes_back(client: AsyncOpenAI, live: Live) -> None:
    """The model goes on from what it thought."""
    said = (await client.chat.completions.create(model="any", messages=ASKED)).choices[0].message
    await client.chat.completions.create(model="any", messages=[*ASKED, said.to_dict(), *ASKED])  # type: ignore[list-item]
    assert live.backend.requests[-1].messages[1].parts == (ThinkingPart("hm"), TextPart("one two three"))


async def test_several_answers_come_together(client: AsyncOpenAI, live: Live) -> None:
    """Each a choice, of one prompt that counts once, with a seed of its own."""
    answer = await client.chat.completions.create(model="any", messages=ASKED, n=3, seed=5)
    assert [choice.message.content for choice in answer.choices] == ["one two three"] * 3
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)
    assert [request.sampling.seed for request in live.backend.requests] == [5, 6, 7]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_text_is_gone_on_from(client: AsyncOpenAI, live: Live, is_stream: bool) -> None:
    """In the oldest form: no roles, no thinking."""
    asked: Any = {"model": "any", "prompt": "once upon", "stream": is_stream}
    answer: Any = await client.completions.create(**asked)
    texts = [chunk.choices[0].text async for chunk in answer] if is_stream else [answer.choices[0].text]
    assert "".join(texts) == "one two three"
    assert (live.backend.requests[-1].text, live.backend.requests[-1].messages) == ("once upon", ())


async def test_models_are_listed_and_described(client: AsyncOpenAI) -> None:
    """By the name they have, and by names that agents were built with."""
    assert [model.id async for model in client.models.list()] == ["scripted"]
    assert (await client.models.retrieve("gpt-5")).id == "scripted"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("no-such-model")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


async def test_a_prompt_that_is_too_long_has_the_code_that_clients_know(client: AsyncOpenAI) -> None:
    """Agents compact their history when they read it."""
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 1_001}]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="any", messages=long, stream=True)
    assert refused.value.code == "context_length_exceeded"
    assert "1001 tokens > 1000 maximum" in refused.value.message


async def test_a_mistake_names_its_place(client: AsyncOpenAI) -> None:
    """In the field that the API has for it."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="any", messages=ASKED, temperature=9)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")


async def test_a_full_server_is_asked_again(client: AsyncOpenAI) -> None:
    """The SDK retries by itself, when it is told to; otherwise its users see a code."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "busy?"}]
    with pytest.raises(openai.InternalServerError) as full:
        await client.chat.completions.create(model="any", messages=messages)
    assert (full.value.code, full.value.status_code) == ("server_overloaded", 503)
    answer = await client.with_options(max_retries=2).chat.completions.create(model="any", messages=messages)
    assert answer.choices[0].message.content == "one two three"


async def test_a_stream_that_breaks_is_an_error(client: AsyncOpenAI) -> None:
    """What was said before it arrives."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "break"}]
    stream = await client.chat.completions.create(model="any", messages=messages, stream=True)
    texts = (chunk.choices[0].delta.content async for chunk in stream)
    assert [await anext(texts), await anext(texts)] == ["", "one"]
    with pytest.raises(openai.APIError, match="it broke"):
        await anext(texts)


async def test_a_wrong_key_is_told_as_one() -> None:
    """And is not tried again."""
    async with (
        serving(Script(turns=TURNS), api_key="right") as live,
        AsyncOpenAI(base_url=f"{live.url}/v1", api_key="wrong") as client,
    ):
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.chat.completions.create(model="any", messages=ASKED)
    assert refused.value.code == "invalid_api_key"
    assert live.ledger.counts()["received"] == 1


async def test_sessions_are_told_apart_by_the_clients_key(client: AsyncOpenAI, live: Live) -> None:
    """A header says it best, then the key, then the user."""
    asked: Any = {"model": "any", "messages": ASKED, "user": "ann"}
    await client.chat.completions.create(**asked)
    await client.chat.completions.create(**asked, prompt_cache_key="k")
    await client.chat.completions.create(**asked, prompt_cache_key="k", extra_headers={"x-session-id": "s"})
    assert [request.affinity_key for request in live.backend.requests] == ["ann", "k", "s"]


async def test_a_client_that_leaves_ends_the_work(client: AsyncOpenAI, live: Live) -> None:
    """As everywhere: it is the same path."""
    stream = await client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "slow"}], stream=True
    )
    await stream.close()
    await live.settled()
    assert live.ledger.counts()["disconnected"] == 1
