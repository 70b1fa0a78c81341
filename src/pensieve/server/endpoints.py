"""The routes: each reads a request, asks the router, and answers. Translating is the wire's work."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.config.settings import ServerSettings
from pensieve.errors import InvalidRequest, ModelNotFound
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.router import Router
from pensieve.messages import Json
from pensieve.models.spec import ModelSpec
from pensieve.server.cache_log import CacheLog, Watch
from pensieve.server.envelope import send_json
from pensieve.server.feed import Feed
from pensieve.server.ledger import Ledger, record_of
from pensieve.server.media import MediaLoader, num_addresses
from pensieve.server.openapi import describe
from pensieve.server.prompt_marks import PromptMarks, mark_prompt
from pensieve.server.streaming import send_stream, send_unavailable, send_whole
from pensieve.wire.anthropic.models import encode_model, encode_models
from pensieve.wire.anthropic.requests import DecodedRequest, decode_count_request, decode_request
from pensieve.wire.anthropic.responses import EventEncoder

LARGE_BODY_BYTES = 256 * 1024
"""Decoding a body of this size takes about a millisecond; larger ones are decoded beside the event loop."""
SESSION_HEADERS = ("x-claude-code-session-id", "x-session-id")
AGENT_HEADER = "x-claude-code-agent-id"
"""Helpers of one session have prompts of their own."""


class Shared(NamedTuple):
    """What the routes share."""

    router: Router
    settings: ServerSettings
    ledger: Ledger
    media: MediaLoader
    cache_log: CacheLog
    version: str


class Endpoint:
    """What every route needs; each subclass is one ASGI application."""

    def __init__(self, shared: Shared) -> None:
        self.router = shared.router
        self.settings = shared.settings
        self.ledger = shared.ledger
        self.media = shared.media
        self.cache_log = shared.cache_log
        self.version = shared.version

    async def loaded(self, decoded: DecodedRequest) -> GenerationRequest:
        """The request with what it names by address."""
        if not num_addresses(decoded.request):
            return decoded.request
        limits = await self.router.limits(decoded.request.model)
        return await self.media.load(decoded.request, sees_images="images" in limits.capabilities)


class Messages(Endpoint):
    """`POST /v1/messages`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, streamed or whole; a client that leaves ends the work."""
        record = record_of(scope)
        request = Request(scope, receive)
        session = _session(request)
        body = await request.body()
        decoded = await _decoded(
            body, lambda: decode_request(body, request_id=record.id, affinity_key=session), self.ledger
        )
        record.model = self.router.resolve(decoded.request.model).name
        message_id = f"msg_{uuid.uuid4().hex[:24]}"
        if decoded.forced is not None:
            await send_unavailable(decoded.forced, message_id, record, send, is_stream=decoded.is_stream)
            return
        marks = await self._marks(decoded, record.model, len(body))
        watch = record.observer = Watch(self.cache_log, marks, record.id, message_id, session)
        manner = decoded.manner
        encoder = EventEncoder(
            message_id,
            record.model,
            request_id=record.id,
            manner=manner,
            diagnose=lambda _started: watch.diagnostics(manner.previous_message_id),
        )
        async with Feed(self._answer(decoded), receive, record, self.ledger, self.settings.ping_seconds) as feed:
            if decoded.is_stream:
                await send_stream(feed, encoder, record, send)
            else:
                await send_whole(feed, encoder, send)

    async def _answer(self, decoded: DecodedRequest) -> AsyncGenerator[GenerationEvent, None]:
        with _as_sent(decoded):
            request = await self.loaded(decoded)
            async with aclosing(self.router.generate(request)) as events:
                async for event in events:
                    yield event

    async def _marks(self, decoded: DecodedRequest, model: str, body_bytes: int) -> PromptMarks:
        def mark() -> PromptMarks:
            keeps_text = self.settings.keep_prompt_text == "on"
            return mark_prompt(decoded.request, decoded.positions, model=model, keeps_text=keeps_text)

        return mark() if body_bytes < LARGE_BODY_BYTES else await asyncio.to_thread(mark)


class CountTokens(Endpoint):
    """`POST /v1/messages/count_tokens`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the tokens of the prompt that the request renders to."""
        record = record_of(scope)
        body = await Request(scope, receive).body()
        decoded = await _decoded(body, lambda: decode_count_request(body, request_id=record.id), self.ledger)
        record.model = self.router.resolve(decoded.request.model).name
        with _as_sent(decoded):
            num_tokens = await self.router.count_tokens(await self.loaded(decoded))
        await send_json(send, {"input_tokens": num_tokens})


class Cache(Endpoint):
    """`GET /v1/pensieve/cache`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say what the prefix cache did for the last requests; `text=1` adds the words around the first differences."""
        with_text = Request(scope, receive).query_params.get("text") == "1"
        report = self.cache_log.report(with_text=with_text)
        await send_json(send, msgspec.to_builtins(report))


class Models(Endpoint):
    """`GET /v1/models`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """List the models that answer; one page holds them all, so that paging parameters change nothing."""
        del scope, receive
        await send_json(send, encode_models([await _model(self.router, spec) for spec in self.router.specs]))


class OneModel(Endpoint):
    """`GET /v1/models/{id}`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describe the model that answers for a name; agents ask for their built-in names too."""
        del receive
        name = scope["path_params"]["id"]
        known = [spec.name for spec in self.router.specs]
        if name not in known and not name.startswith("claude-"):
            raise ModelNotFound(name[:200], nearest=known[0])
        await send_json(send, await _model(self.router, self.router.resolve(name)))


class Hello(Endpoint):
    """`GET /` and `/api/hello`, which agents ask for to see whether anybody is there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the product and where to go on."""
        del scope, receive
        content = {"name": "pensieve", "version": self.version, "api": "/v1/messages", "health": "/health"}
        await send_json(send, content)


class OpenApi(Endpoint):
    """`GET /openapi.json`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describe this API to programs."""
        del scope, receive
        await send_json(send, await asyncio.to_thread(describe, self.version))


@contextmanager
def _as_sent(decoded: DecodedRequest) -> Iterator[None]:
    """Refusals name places as the client counts them."""
    try:
        yield
    except InvalidRequest as refused:
        raise dataclasses.replace(refused, path=decoded.sent_path(refused.path)) from refused


def _session(request: Request) -> str:
    session = next((value for name in SESSION_HEADERS if (value := request.headers.get(name))), "")
    agent = request.headers.get(AGENT_HEADER, "")
    return f"{session}/{agent}"[:200] if agent else session[:200]


async def _decoded(body: bytes, decode: Callable[[], DecodedRequest], ledger: Ledger) -> DecodedRequest:
    decoded = decode() if len(body) < LARGE_BODY_BYTES else await asyncio.to_thread(decode)
    ledger.note_unknown_fields(decoded.unknown_fields)
    return decoded


async def _model(router: Router, spec: ModelSpec) -> dict[str, Json]:
    limits = await router.limits(spec.name)
    return encode_model(
        spec.name,
        display_name=spec.name,
        created_at_seconds=spec.created_seconds,
        context_tokens=limits.context_tokens,
        max_output_tokens=limits.max_output_tokens,
        capabilities=limits.capabilities,
    )
