"""The ASGI application: routes, and the guards around them in their order. Binds no socket."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pensieve.config.settings import ServerSettings
from pensieve.errors import MethodNotAllowed, NotFound
from pensieve.inference.router import Router
from pensieve.server.answers import Answers
from pensieve.server.batches.answers import BatchAnswers
from pensieve.server.batches.queue import BatchQueue
from pensieve.server.batches.routes import batch_routes
from pensieve.server.body import BodyLimit
from pensieve.server.cache_log import CacheLog
from pensieve.server.embeddings import Embeddings
from pensieve.server.endpoints import Cache, CountTokens, Hello, Models, OneModel, OpenApi, Shared
from pensieve.server.guards import HostGuard, KeyGuard, OriginGuard
from pensieve.server.ledger import Ledger
from pensieve.server.media import Fetches, FetchesNothing, MediaLoader
from pensieve.server.middleware import ErrorResponses, RequestLog
from pensieve.server.operations import Health, Metrics, Reset
from pensieve.server.remote_media import RemoteMedia
from pensieve.server.terminal_keys import TerminalKeys
from pensieve.wire.anthropic.requests import decode_request
from pensieve.wire.openai import chat, completions
from pensieve.wire.openai.responses.requests import decode_request as decode_responses_request


def create_app(
    router: Router,
    settings: ServerSettings,
    *,
    version: str,
    fetcher: Fetches | None = None,
    keys: TerminalKeys | None = None,
    batches: Path | None = None,
) -> Starlette:
    """The application over a router; its ledger is `app.state.ledger`. `fetcher` stands in for the settings' own.

    `batches` is the file that Message Batches are kept in; without one there are none. `keys` are those that terminals
    hold, accepted beside the settings' own.
    """
    ledger = Ledger()
    fetcher = fetcher or (RemoteMedia() if settings.allow_image_urls == "on" else FetchesNothing())
    cache_log = CacheLog(keeps_text=settings.keep_prompt_text == "on")
    shared = Shared(router, settings, ledger, MediaLoader(fetcher), cache_log, version)
    queue = None if batches is None else BatchQueue(batches, router, ledger, BatchAnswers(shared))
    responses_tokens = CountTokens(shared, decode_responses_request, object="response.input_tokens")
    app = Starlette(
        routes=[
            Route("/v1/messages", Answers(shared, decode_request), methods=["POST"]),
            Route("/v1/responses", Answers(shared, decode_responses_request), methods=["POST"]),
            Route("/v1/responses/input_tokens", responses_tokens, methods=["POST"]),
            Route("/v1/messages/count_tokens", CountTokens(shared), methods=["POST"]),
            Route("/v1/chat/completions", Answers(shared, chat.decode_request), methods=["POST"]),
            Route("/v1/embeddings", Embeddings(shared), methods=["POST"]),
            Route("/v1/completions", Answers(shared, completions.decode_request), methods=["POST"]),
            *batch_routes(queue),
            Route("/v1/models", Models(shared), methods=["GET"]),
            Route("/v1/models/{id:path}", OneModel(shared), methods=["GET"]),
            Route("/v1/pensieve/cache", Cache(shared), methods=["GET"]),
            Route("/health", Health(shared), methods=["GET"]),
            Route("/metrics", Metrics(shared), methods=["GET"]),
            Route("/reset", Reset(shared), methods=["POST"]),
            Route("/openapi.json", OpenApi(shared), methods=["GET"]),
            Route("/", Hello(shared), methods=["GET"]),
            Route("/api/hello", Hello(shared), methods=["GET"]),
        ],
        middleware=[
            Middleware(RequestLog, ledger),
            Middleware(ErrorResponses),
            Middleware(HostGuard, settings),
            Middleware(OriginGuard, settings),
            Middleware(KeyGuard, settings, keys),
            Middleware(BodyLimit, settings),
        ],
        exception_handlers={HTTPException: _raise_ours},
    )
    app.router.redirect_slashes = False
    app.state.ledger = ledger
    app.state.batches = queue
    return app


async def _raise_ours(request: Request, refused: Exception) -> Response:
    """Say what Starlette's routing found in the words of our own errors."""
    assert isinstance(refused, HTTPException)
    if refused.status_code == MethodNotAllowed.status:
        allowed = (refused.headers or {}).get("Allow", "")
        raise MethodNotAllowed(request.method, allowed) from refused
    raise NotFound(request.url.path[:200]) from refused
