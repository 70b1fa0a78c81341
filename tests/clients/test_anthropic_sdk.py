"""The official Python SDK, as it is, against a real server over a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from live_server import Live, serving
from pensieve.inference.script import Call, Delay, Fail, Progress, Say, Script, Think, Turn

KEY = "s3cret-key"
ANSWER = Script(turns=(Turn(steps=(Think("hm hm", "SIG"), Say("hello you"), Call("Read", {"path": "/x"}))),))
ASKED: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 1_000,
    "messages": [{"role": "user", "content": "hello there"}],
}


def client_of(live: Live, key: str = KEY, max_retries: int = 0) -> anthropic.AsyncAnthropic:
    """A client as its users make it; it sends the key as Bearer and a newer version header."""
    return anthropic.AsyncAnthropic(base_url=live.url, api_key=key, max_retries=max_retries)


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A server with a key, that answers with all kinds of blocks."""
    async with serving(ANSWER, api_key=KEY) as started:
        yield started


def check_answer(message: anthropic.types.Message) -> None:
    """The answer of the script, in the SDK's own types."""
    thinking, text, call = (block.to_dict() for block in message.content)
    assert thinking == {"type": "thinking", "thinking": "hm hm", "signature": "SIG"}
    assert (text["type"], text["text"]) == ("text", "hello you")
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "Read", {"path": "/x"})
    assert (message.model, message.stop_reason) == ("scripted", "tool_use")
    assert message.usage.input_tokens == 2


async def test_a_message_is_created(live: Live) -> None:
    """Without streaming."""
    async with client_of(live) as client:
        check_answer(await client.messages.create(**ASKED))


async def test_the_streams_accumulator_takes_every_event(live: Live) -> None:
    """It warns of what it does not know, and a warning fails a test here."""
    async with client_of(live) as client, client.messages.stream(**ASKED) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        check_answer(await stream.get_final_message())
    assert text == "hello you"


async def test_a_stream_with_comments_on_the_prompts_reading_is_read_as_before() -> None:
    """The SDK asks for them here, and passes them over; a warning would fail this test."""
    steps = (Progress(1), Delay(0.01), *ANSWER.turns[0].steps)
    async with serving(Script(turns=(Turn(steps=steps),)), api_key=KEY) as live, client_of(live) as client:
        wish = {"x-pensieve-progress": "1"}
        async with client.messages.with_streaming_response.create(**ASKED, stream=True, extra_headers=wish) as raw:
            assert b": prefill 1/2\n\n" in b"".join([chunk async for chunk in raw.iter_bytes()])
        async with client.messages.stream(**ASKED, extra_headers=wish) as stream:
            heard = [event.type async for event in stream]
            check_answer(await stream.get_final_message())
        async with client.messages.stream(**ASKED) as stream:
            assert [event.type async for event in stream] == heard


async def test_raw_events_come_in_order(live: Live) -> None:
    """With `stream=True` and no accumulator."""
    async with client_of(live) as client:
        kinds = [event.type async for event in await client.messages.create(**ASKED, stream=True)]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])


def test_the_synchronous_client_works_too() -> None:
    """From another thread, while the server runs in its loop."""

    async def scene() -> None:
        async with serving(ANSWER) as live:
            with anthropic.Anthropic(base_url=live.url, api_key="dummy", max_retries=0) as client:
                check_answer(await asyncio.to_thread(lambda: client.messages.create(**ASKED)))

    asyncio.run(scene())


async def test_tokens_and_models(live: Live) -> None:
    """The SDK's own types hold our answers."""
    async with client_of(live) as client:
        counted = await client.messages.count_tokens(model="any", messages=ASKED["messages"])
        models = [model async for model in client.models.list()]
        one = await client.models.retrieve("claude-opus-5-5")
    assert counted.input_tokens == 2
    assert [model.id for model in models] == [one.id] == ["scripted"]
    assert one.max_input_tokens == 32_768


async def test_eight_requests_at_once_all_answer(live: Live) -> None:
    """Half of them streamed."""
    async with client_of(live) as client:

        async def streamed() -> anthropic.types.Message:
            async with client.messages.stream(**ASKED) as stream:
                return await stream.get_final_message()

        asked = [client.messages.create(**ASKED) if n % 2 else streamed() for n in range(8)]
        for message in await asyncio.gather(*asked):
            check_answer(message)


BROKEN = Fail("BackendFailure", {"problem": "broken"})


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (Script(turns=(Turn(),), context_tokens=1), anthropic.BadRequestError, "prompt is too long: 2 tokens > 1 max"),
        (Script(turns=(Turn(steps=(BROKEN,)),)), anthropic.InternalServerError, "broken"),
        (Script(turns=(Turn(steps=(Say("one"), BROKEN)),)), anthropic.APIStatusError, "broken"),
    ],
)
async def test_errors_are_the_sdks_own(script: Script, error: type[Exception], words: str) -> None:
    """Before the stream opens by status, after it by frame."""
    async with serving(script) as live, client_of(live) as client:
        with pytest.raises(error, match=words):
            await _read(client)


async def _read(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ASKED) as stream:
        await stream.get_final_message()


async def test_a_wrong_key_fails_at_once(live: Live) -> None:
    """One request, however many retries the client would make."""
    async with client_of(live, "wrong", max_retries=5) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**ASKED)
    assert live.ledger.counts()["received"] == 1


async def test_an_overloaded_server_is_asked_again() -> None:
    """After the time it names, without the user noticing."""
    busy = Fail("Overloaded", {"problem": "busy", "retry_after_seconds": 0.0})
    script = Script(turns=(Turn(steps=(busy,)), Turn(steps=(Say("here I am"),))))
    async with serving(script) as live, client_of(live, max_retries=2) as client:
        message = await client.messages.create(**ASKED)
    assert message.content[0].to_dict()["text"] == "here I am"
    assert live.backend.counts.failed == 1


async def test_leaving_a_stream_ends_the_work() -> None:
    """Closing it after the first words frees the slot."""
    script = Script(turns=(Turn(steps=(Say("one two"), Delay(3600))),))
    async with serving(script) as live, client_of(live) as client:
        async with client.messages.stream(**ASKED) as stream:
            await anext(stream.text_stream)
        await live.backend.until(cancelled=1)
