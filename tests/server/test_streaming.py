"""When a stream opens, pings, breaks off and ends; and that a client which leaves ends the work."""

from __future__ import annotations

import asyncio
import logging
import re

import httpx
import msgspec
import pytest

from live_server import Live, body, frames, names, serving
from pensieve.generation import PromptProgress, Started, TextDelta
from pensieve.inference.script import Call, Delay, Fail, Progress, Say, Script, Think, Turn
from pensieve.server.streaming import OPENING_SECONDS, Reading
from pensieve.wire.sse import encode_event

FOREVER = 3600
LATE = OPENING_SECONDS * 2


def script(*steps: object, **changes: object) -> Script:
    """One turn of these steps."""
    return Script(turns=(Turn(steps=steps, **changes),))  # type: ignore[arg-type]


def without_what_varies(stream: bytes) -> bytes:
    """The same without the answer's id, and without pings, whose number is the clock's."""
    return re.sub(rb"msg_[0-9a-f]{24}", b"ID", stream.replace(encode_event("ping", {"type": "ping"}), b""))


async def test_a_stream_that_starts_at_once_begins_with_its_start(live: Live) -> None:
    """No ping comes before it is needed."""
    response = await live.ask(stream=True)
    assert names(response)[0] == "message_start"
    assert response.headers["cache-control"] == "no-cache"


async def test_a_queued_stream_opens_with_a_ping_and_pings_until_it_starts() -> None:
    """Clients that hear nothing give up and ask again, so that the work is done twice."""
    async with serving(script(Say("one"), delay_before_start_seconds=LATE), ping_seconds=0.05) as live:
        heard = names(await live.ask(stream=True))
    before = heard[: heard.index("message_start")]
    assert set(before) == {"ping"}
    assert len(before) >= 2


async def test_pings_fill_prefill_and_gaps_between_words() -> None:
    """Progress is not written, so it does not count as a sign of life."""
    prefill = [step for _ in range(20) for step in (Progress(1), Delay(0.01))]
    async with serving(script(*prefill, Say("one"), Delay(0.2), Say(" two")), ping_seconds=0.05) as live:
        heard = names(await live.ask(stream=True))
    first, second = (at for at, name in enumerate(heard) if name == "content_block_delta")
    assert heard[: heard.index("content_block_start")].count("ping") >= 2
    assert "ping" in heard[first:second]


READING = (Progress(5), Delay(0.02), *(step for _ in range(20) for step in (Progress(6), Delay(0.02))), Say("one"))
PROMPT_TOKENS = 16_000


async def test_a_client_that_asks_hears_how_far_its_prompt_is_read() -> None:
    """By comments, seldom enough; without them the stream is byte for byte everybody's, pings of course included."""
    async with serving(script(*READING, prompt_tokens=PROMPT_TOKENS), ping_seconds=0.05) as live:
        asked = {"json": body(stream=True), "headers": {"x-pensieve-progress": "1"}}
        heard = (await live.client.post("/v1/messages", **asked)).content  # type: ignore[arg-type]
        plain = (await live.ask(stream=True)).content
    comments = re.findall(rb"^: .*\n\n", heard, re.MULTILINE)
    assert comments[0] == b": prefill 5/16000\n\n"
    assert set(comments[1:]) == {b": prefill 6/16000\n\n"}
    assert len(comments) < READING.count(Progress(6))
    assert b": " not in plain.replace(b"event: ", b"").replace(b"data: ", b"")
    assert without_what_varies(re.sub(rb"^: .*\n\n", b"", heard, flags=re.MULTILINE)) == without_what_varies(plain)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("asked", ["0", "yes", ""])
async def test_nobody_else_hears_of_it(path: str, asked: str) -> None:
    """Only `1` asks; what is not asked for is not sent."""
    async with serving(script(Progress(1), Delay(0.01), Say("one"))) as live:
        heard = await live.client.post(path, json=body(stream=True), headers={"x-pensieve-progress": asked})
    assert b"prefill" not in heard.content
    assert b"one" in heard.content


def test_comments_are_at_least_a_quarter_of_a_second_apart() -> None:
    """The last word of a batch of events counts, and only while the prompt is still being read."""
    now = [0.0]
    reading = Reading(lambda: now[0])
    assert reading.comment([Started(9, 0), PromptProgress(1, 9), PromptProgress(2, 9)]) == b": prefill 2/9\n\n"
    now[0] = 0.2
    assert reading.comment([PromptProgress(3, 9)]) == b""
    now[0] = 0.25
    assert reading.comment([]) == reading.comment([PromptProgress(4, 9), TextDelta("a")]) == b""
    assert reading.comment([PromptProgress(4, 9)]) == b": prefill 4/9\n\n"


async def test_words_without_gaps_need_no_pings(live: Live) -> None:
    """Only the one that is part of every answer's opening."""
    assert names(await live.ask(stream=True)).count("ping") == 1


async def test_pings_fill_thinking_that_is_not_shown_and_arguments_that_take_long() -> None:
    """What is not written is no sign of life, however much the model says."""
    thinking = Turn(steps=(Think("so " * 20), Say("x")), chunk_delay_seconds=0.01, contains="think")
    calling = Turn(steps=(Call("look", {"at": "x" * 40}),), chunk_delay_seconds=0.15, contains="call")
    hidden = {"type": "adaptive", "display": "omitted"}
    async with serving(Script(turns=(thinking, calling)), ping_seconds=0.05) as live:
        silent = names(await live.ask("think", stream=True, thinking=hidden))
        slow = names(await live.ask("call", stream=True))
    start = silent.index("content_block_start")
    assert silent[start + 1 : start + 3] == ["ping", "ping"]
    assert "ping" in slow[slow.index("content_block_delta") : slow.index("content_block_stop")]


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (Fail("Overloaded", {"problem": "busy"}), "overloaded_error"),
        (Fail("WorkerCrashed", {"model": "m", "exit_status": "signal 9"}), "overloaded_error"),
        (Fail("BackendFailure", {"problem": "broken"}), "api_error"),
        (Fail("ContextOverflow", {"prompt_tokens": 9, "limit_tokens": 8}), "invalid_request_error"),
    ],
)
async def test_an_error_after_the_start_is_the_last_frame(fail: Fail, kind: str) -> None:
    """What was said before it arrives, and no stop pretends that the answer is whole."""
    async with serving(script(Say("one two"), fail)) as live:
        response = await live.ask(stream=True)
        counts = live.ledger.counts()
    error = msgspec.json.decode(frames(response)[-1].data)
    assert (names(response)[-1], error["error"]["type"]) == ("error", kind)
    assert error["request_id"] == response.headers["request-id"]
    assert names(response).count("content_block_delta") == 2
    assert (counts["failed"], counts["completed"]) == (1, 0)


async def test_a_late_refusal_is_an_error_frame() -> None:
    """The status was sent with the first ping."""
    refusal = Fail("Overloaded", {"problem": "busy"})
    async with serving(script(refusal, delay_before_start_seconds=LATE)) as live:
        response = await live.ask(stream=True)
    assert response.status_code == 200
    assert (names(response)[0], names(response)[-1]) == ("ping", "error")


async def test_a_whole_answer_that_fails_has_the_status_of_its_error() -> None:
    """Nothing was sent before."""
    async with serving(script(Say("one"), Fail("Overloaded", {"problem": "busy"}))) as live:
        assert (await live.ask()).status_code == 503


QUEUED = script(Say("one"), delay_before_start_seconds=FOREVER)
PREFILLING = script(Progress(1), Delay(FOREVER))
DECODING = script(Say("one two three"), Delay(FOREVER))
CALLING = script(Call("Read", {"path": "/x"}), Delay(FOREVER))
THINKING = script(Think("hm"), Delay(FOREVER))


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("slow", [QUEUED, PREFILLING, DECODING, CALLING, THINKING])
async def test_a_client_that_leaves_ends_the_work(
    slow: Script, is_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In the queue, in prefill and while words come; streamed or not. Nobody is to blame."""
    async with serving(slow) as live:
        asking = asyncio.create_task(live.ask(stream=is_stream))
        await live.backend.until(running=1)
        asking.cancel()
        await live.backend.until(cancelled=1)
        await live.settled()
    assert live.ledger.counts()["disconnected"] == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_leaves_an_open_stream_ends_the_work() -> None:
    """After it has read the first words."""
    async with serving(DECODING) as live, live.client.stream("POST", "/v1/messages", json=body(stream=True)) as answer:
        assert b"message_start" in await anext(answer.aiter_bytes())
        await answer.aclose()
        await live.backend.until(cancelled=1)


async def test_a_client_that_has_read_all_does_not_count_as_gone(live: Live) -> None:
    """Though its connection closes right after."""
    async with httpx.AsyncClient(base_url=live.url, trust_env=False) as client:
        await client.post("/v1/messages", json=body(stream=True))
    await live.settled()
    assert live.ledger.counts()["completed"] == 1


async def test_many_requests_at_once_do_not_mix() -> None:
    """Each gets the answer to its own words."""
    turns = tuple(Turn(steps=(Say(f"answer {n} " * 50),), contains=f"question {n}!") for n in range(8))
    async with serving(Script(turns=turns)) as live:
        asked = [live.ask(f"question {n}!", stream=bool(n % 2)) for n in range(8)]
        said = [response.text for response in await asyncio.gather(*asked)]
    for n, text in enumerate(said):
        assert f" {n}" in text
        assert not any(f"answer {other}" in text for other in range(8) if other != n)


async def test_stopping_ends_streams_with_an_error_that_can_be_retried() -> None:
    """An answer under way gets its last frame instead of a cut connection."""
    async with serving(DECODING) as live, live.client.stream("POST", "/v1/messages", json=body(stream=True)) as answer:
        chunks = answer.aiter_bytes()
        heard = await anext(chunks)
        live.server.should_exit = True
        heard += b"".join([chunk async for chunk in chunks])
    assert heard.rstrip().splitlines()[-2] == b"event: error"
    assert b"overloaded_error" in heard
    assert live.backend.counts.cancelled == 1


async def test_health_says_that_the_server_is_stopping(live: Live) -> None:
    """So that nobody sends new work."""
    live.ledger.is_stopping = True
    health = (await live.client.get("/health")).json()
    assert (health["status"], health["memory"]["accepting_requests"]) == ("stopping", False)


async def test_a_backend_that_breaks_the_contract_is_an_error_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug's words may quote a prompt: neither the client nor the log gets them."""
    async with serving(DECODING) as live:
        live.backend.script = None  # type: ignore[assignment]
        response = await live.ask("a secret prompt")
    assert response.status_code == 500
    assert "internal error" in response.json()["error"]["message"]
    assert "AttributeError" in caplog.text
    assert "secret" not in caplog.text + response.text
    assert "NoneType" not in caplog.text + response.text
