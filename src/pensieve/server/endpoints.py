"""The routes: each reads a request, asks the router, and answers. Translating is the wire's work."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.config.settings import ServerSettings
from pensieve.errors import InvalidRequest, ModelNotFound
from pensieve.generation import GenerationRequest
from pensieve.inference.router import Router
from pensieve.messages import Json
from pensieve.models.spec import ModelSpec
from pensieve.server.cache_log import CacheLog
from pensieve.server.dialect import is_openai
from pensieve.server.envelope import send_json
from pensieve.server.ledger import Ledger, record_of
from pensieve.server.media import MediaLoader, num_addresses
from pensieve.server.openapi import describe
from pensieve.wire.anthropic import models as anthropic
from pensieve.wire.anthropic.requests import decode_count_request
from pensieve.wire.exchange import Decode, Exchange
from pensieve.wire.openai import models as openai

LARGE_BODY_BYTES = 256 * 1024
"""Decoding a body of this size takes about a millisecond; larger ones are decoded beside the event loop."""
SESSION_HEADERS = ("x-claude-code-session-id", "x-session-id")
BUILT_IN_NAMES = ("claude-", "gpt-", "o1", "o3", "o4", "codex-")
"""Agents know models by such names, and ask about them."""
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

    async def loaded(self, request: GenerationRequest) -> GenerationRequest:
        """The request with what it names by address."""
        if not num_addresses(request):
            return request
        limits = await self.router.limits(request.model)
        return await self.media.load(request, sees_images="images" in limits.capabilities)


class CountTokens(Endpoint):
    """`POST /v1/messages/count_tokens`, and what other APIs have for it."""

    def __init__(self, shared: Shared, decode: Decode = decode_count_request, **told: Json) -> None:
        """`told` stands beside the count."""
        super().__init__(shared)
        self._decode = decode
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the tokens of the prompt that the request renders to."""
        record = record_of(scope)
        body = await Request(scope, receive).body()
        exchange = await decoded(body, lambda: self._decode(body, request_id=record.id), self.ledger)
        record.model = (await self.router.choose(exchange.request.model)).name
        with as_sent(exchange):
            num_tokens = await self.router.count_tokens(await self.loaded(exchange.request))
        await send_json(send, {"input_tokens": num_tokens, **self._told})


class Cache(Endpoint):
    """`GET /v1/pensieve/cache`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say what the prefix cache did for the last requests; `text=1` adds the words around the first differences."""
        with_text = Request(scope, receive).query_params.get("text") == "1"
        report = self.cache_log.report(with_text=with_text)
        await send_json(send, msgspec.to_builtins(report))


class Models(Endpoint):
    """`GET /v1/models`, in the shape that the client's API has."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """List the models that answer; one page holds them all, so that paging parameters change nothing."""
        del receive
        await self.router.refresh()
        models = [await _model(self.router, spec, scope) for spec in self.router.specs]
        await send_json(send, openai.encode_models(models) if is_openai(scope) else anthropic.encode_models(models))


class OneModel(Endpoint):
    """`GET /v1/models/{id}`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describe the model that answers for a name; agents ask for their built-in names too."""
        del receive
        name = scope["path_params"]["id"]
        spec = await self.router.choose(name)
        known = [spec.name for spec in self.router.specs]
        if name not in known and not name.startswith(BUILT_IN_NAMES):
            raise ModelNotFound(name[:200], nearest=known[0])
        await send_json(send, await _model(self.router, spec, scope))


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
def as_sent(exchange: Exchange) -> Iterator[None]:
    """Refusals name places as the client counts them."""
    try:
        yield
    except InvalidRequest as refused:
        raise dataclasses.replace(refused, path=exchange.sent_path(refused.path)) from refused


def session_of(request: Request) -> str:
    """What the headers say of the session that the request belongs to; "" if nothing."""
    session = next((value for name in SESSION_HEADERS if (value := request.headers.get(name))), "")
    agent = request.headers.get(AGENT_HEADER, "")
    return f"{session}/{agent}"[:200] if agent else session[:200]


async def decoded(body: bytes, decode: Callable[[], Exchange], ledger: Ledger) -> Exchange:
    """The request in a body, read where its size allows; what nobody knows in it is noted."""
    exchange = decode() if len(body) < LARGE_BODY_BYTES else await asyncio.to_thread(decode)
    ledger.note_unknown_fields(exchange.unknown_fields)
    return exchange


async def _model(router: Router, spec: ModelSpec, scope: Scope) -> dict[str, Json]:
    limits = await router.limits(spec.name)
    encode = openai.encode_model if is_openai(scope) else anthropic.encode_model
    return encode(
        spec.name,
        created_at_seconds=spec.created_seconds,
        context_tokens=limits.context_tokens,
        max_output_tokens=limits.max_output_tokens,
        capabilities=limits.capabilities,
        is_resident=router.is_resident(spec.name),
    )
