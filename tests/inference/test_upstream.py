"""The HTTP backend keeps the backend contract against our own server, and tells clearly what other servers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from pensieve.config.settings import Folders, ServerSettings
from pensieve.errors import (
    BackendFailure,
    ContextOverflow,
    ModelNotFound,
    Overloaded,
    ServerUnreachable,
    Unauthorized,
    UsageError,
)
from pensieve.generation import Answer, GenerationRequest, PromptProgress, Started, TextDelta, collect
from pensieve.inference.backend import Limits
from pensieve.inference.router import Router
from pensieve.inference.script import Call, Delay, Fail, Progress, Say, Script, Think, Turn
from pensieve.inference.scripted import ScriptedBackend
from pensieve.inference.upstream import UpstreamBackend
from pensieve.messages import TextPart, ThinkingPart, ToolCallPart, say
from pensieve.sampling.params import SamplingParams
from pensieve.server.address import bind, url_of
from pensieve.server.app import create_app
from pensieve.server.run import Server

REQUEST = GenerationRequest(
    id="req_1",
    model="any",
    messages=(say("system", "Be brief."), say("user", "hello there")),
    sampling=SamplingParams(temperature=0.5, top_k=3, min_p=0.1, repetition_penalty=1.1, seed=7),
    affinity_key="one-session",
)
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'


@pytest.fixture
def folders(pensieve_home: Path) -> Folders:
    """Empty folders."""
    return Folders(pensieve_home, pensieve_home, pensieve_home)


@asynccontextmanager
async def serving(
    script: Script, folders: Folders, api_key: str | None = None
) -> AsyncIterator[tuple[ScriptedBackend, str]]:
    """Our server over a scripted backend, in the test's own event loop: the backend and the address."""
    backend = ScriptedBackend(script)
    settings = ServerSettings(port=0, api_key=api_key)
    listener = await asyncio.to_thread(bind, settings, folders)
    listening = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_listening() -> None:
        loop.call_soon_threadsafe(listening.set)

    app = create_app(Router(script.spec, lambda _spec: backend), settings, version="0")
    server = Server(app, on_listening)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await listening.wait()
    try:
        yield backend, url_of(listener)
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def replying(*chunks: bytes, is_endless: bool = False) -> AsyncIterator[str]:
    """A server that answers every connection with these bytes and closes it, or repeats the last for ever."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.writelines(chunks)
        with suppress(ConnectionError):
            await writer.drain()
            while is_endless:
                writer.write(chunks[-1])
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def head(status: str, kind: str = "text/event-stream", *more: str) -> bytes:
    """The head of a response without a length, so that its body ends with the connection."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"content-type: {kind}", "connection: close", *more, "", "")).encode()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about; the test's own limit ends a vain wait."""
    while not condition():  # noqa: ASYNC110 - the counts are plain numbers
        await asyncio.sleep(0.01)


async def ask(url: str, request: GenerationRequest = REQUEST, api_key: str | None = None) -> Answer:
    """The whole answer of the server at `url`."""
    backend = UpstreamBackend(url, api_key)
    try:
        return await collect(backend.generate(request))
    finally:
        await backend.aclose()


async def failure(*chunks: bytes, is_endless: bool = False) -> Exception:
    """What asking a server that replies with these bytes raises."""
    async with replying(*chunks, is_endless=is_endless) as url:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - each test looks at the kind
            await ask(url)
    return raised.value


async def test_an_answer_arrives_through_the_wire_as_the_backend_gave_it(folders: Folders) -> None:
    """Thinking, text and tool calls, the reason and the usage all survive the way."""
    steps = (Think("hm", "SIG"), Say("I read it."), Call("Read", {"path": "/x"}, id="toolu_1"))
    script = Script(turns=(Turn(steps=steps, prompt_tokens=11, cached_tokens=4),))
    async with serving(script, folders) as (backend, url):
        answer = await ask(url)
    assert answer == await collect(backend.generate(REQUEST))
    expected = (ThinkingPart("hm", "SIG"), TextPart("I read it."), ToolCallPart("toolu_1", "Read", {"path": "/x"}))
    assert answer.message.parts == expected


async def test_the_request_arrives_as_it_was_asked(folders: Folders) -> None:
    """Messages, sampling, the missing token limit and the session's key reach the backend behind the server."""
    async with serving(Script.saying("yes"), folders) as (backend, url):
        await ask(url)
    arrived = backend.requests[0]
    assert arrived.messages == REQUEST.messages
    assert arrived.sampling == REQUEST.sampling
    assert arrived.max_tokens is None
    assert arrived.affinity_key == REQUEST.affinity_key


async def test_it_is_told_how_far_the_prompt_is_read(folders: Folders) -> None:
    """While the server reads it, and not only afterwards."""
    steps = (Progress(2_048), Delay(3600.0), Say("late"))
    async with serving(Script(turns=(Turn(steps=steps, prompt_tokens=16_000),)), folders) as (_, url):
        upstream = UpstreamBackend(url)
        async with aclosing(upstream.generate(REQUEST)) as events:
            assert [await anext(events), await anext(events)] == [Started(16_000, 0), PromptProgress(2_048, 16_000)]
        await upstream.aclose()


async def test_text_comes_while_the_answer_is_still_being_made(folders: Folders) -> None:
    """The first words are there although the rest is an hour away."""
    script = Script(turns=(Turn(steps=(Say("early"), Delay(3600.0), Say("late"))),))
    async with serving(script, folders) as (backend, url):
        upstream = UpstreamBackend(url)
        async with aclosing(upstream.generate(REQUEST)) as events:
            first = [await anext(events), await anext(events)]
        assert first == [Started(4, 0), TextDelta("early")]
        await upstream.aclose()
        await until(lambda: backend.counts.cancelled == 1)


@pytest.mark.parametrize(
    "error",
    [ContextOverflow(prompt_tokens=9, limit_tokens=8), Overloaded("no room", 3.0), ModelNotFound("x", nearest="y")],
    ids=lambda error: error.code,
)
async def test_a_refusal_arrives_as_the_error_it_was(error: BackendFailure, folders: Folders) -> None:
    """The caller meets the same error, with its facts, as in the server's own process."""
    script = Script(turns=(Turn(steps=(Fail(error.code, error.facts()),)),))
    async with serving(script, folders) as (_, url):
        with pytest.raises(type(error)) as raised:
            await ask(url)
    assert str(raised.value) == str(error)


async def test_the_key_opens_the_server_and_a_wrong_one_does_not(folders: Folders) -> None:
    """The key travels with each request."""
    async with serving(Script.saying("in"), folders, api_key="right") as (_, url):
        assert (await ask(url, api_key="right")).message.text == "in"
        with pytest.raises(Unauthorized):
            await ask(url, api_key="wrong")


async def test_tokens_are_counted_by_the_server(folders: Folders) -> None:
    """Counting needs no token limit, and gives what the server's backend counts."""
    async with serving(Script.saying("x"), folders) as (backend, url):
        upstream = UpstreamBackend(url)
        assert await upstream.count_tokens(REQUEST) == await backend.count_tokens(REQUEST) == 4
        await upstream.aclose()


@pytest.mark.parametrize("model", ["", "a/b?c"])
async def test_limits_are_those_of_the_named_model_or_the_first(model: str, folders: Folders) -> None:
    """A name with any characters is asked for as one name."""
    script = Script(
        turns=(Turn(),),
        model="a/b?c",
        context_tokens=512,
        max_output_tokens=99,
        capabilities=("thinking", "tools", "images"),
    )
    async with serving(script, folders) as (_, url):
        upstream = UpstreamBackend(url, model=model)
        assert await upstream.limits() == Limits("a/b?c", 512, 99, ("thinking", "tools", "images"))
        await upstream.aclose()
        await upstream.aclose()


async def test_where_nothing_listens_the_server_is_unreachable() -> None:
    """The sentence names the address and the command that starts a server."""
    async with replying() as url:
        pass
    with pytest.raises(ServerUnreachable, match="pensieve serve") as raised:
        await ask(url)
    assert url in str(raised.value)


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (head("200 OK"),),
        (head("200 OK"), b"event: ping\ndata: {}\n\n"),
        (head("200 OK", "text/event-stream", "content-length: 99"), b"event: ping"),
    ],
    ids=["no reply", "no frame", "only a ping", "short of its length"],
)
async def test_a_stream_that_breaks_off_is_a_failure_with_a_next_step(chunks: tuple[bytes, ...]) -> None:
    """Half an answer is never taken for a whole one."""
    error = await failure(*chunks)
    assert isinstance(error, BackendFailure)
    assert "send the request again" in str(error)


@pytest.mark.parametrize(
    "chunks",
    [
        (head("302 Found", "text/html", "location: http://192.0.2.1/"),),
        (head("200 OK", "text/html"), b"<html>"),
    ],
    ids=["a redirect", "a web page"],
)
async def test_what_is_no_pensieve_is_said_to_be_none(chunks: tuple[bytes, ...]) -> None:
    """A redirect is not followed, and a page is no stream."""
    error = await failure(*chunks)
    assert isinstance(error, BackendFailure)
    assert "check the address" in str(error)


async def test_the_time_to_wait_is_taken_from_the_header() -> None:
    """Other servers say it there and not in the message."""
    error = await failure(head("529 Busy", "application/json", "retry-after: 7"), OVERLOADED)
    assert isinstance(error, Overloaded)
    assert error.retry_after_seconds == 7.0


async def test_an_endless_error_body_is_cut_off() -> None:
    """A hostile server cannot fill the memory."""
    error = await failure(head("500 Oops", "text/plain"), b"x" * 2**16, is_endless=True)
    assert isinstance(error, BackendFailure)
    assert len(str(error)) < 1000


async def test_proxies_of_the_environment_see_nothing_of_this_machine(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loopback address is asked directly, whatever the environment says."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with serving(Script.saying("direct"), folders) as (_, url):
        assert (await ask(url)).message.text == "direct"


@pytest.mark.parametrize("url", ["", "127.0.0.1:7777", "ftp://host", "http://", "http://host:port", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """The sentence shows how one looks."""
    with pytest.raises(UsageError, match="http://127"):
        UpstreamBackend(url)
