"""How large and in what form a request's body may come. Keeps nothing beyond the limit."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.config.settings import ServerSettings
from pensieve.errors import InvalidRequest, RequestTooLarge
from pensieve.server.ledger import record_of


class BodyLimit:
    """Refuses a body that is too large: by its announced length, else as soon as it has grown over the limit.

    What a client still sends after the refusal is read and dropped by the HTTP server, so that the client gets to
    read the answer instead of a reset connection.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app = app
        self._limit_bytes = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._check_headers(scope)
        num_bytes = 0

        async def receive_within_limit() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._limit_bytes:
                raise RequestTooLarge(self._limit_bytes)
            return message

        await self.app(scope, receive_within_limit, send)

    def _check_headers(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidRequest("compressed bodies are not read here: send it plain", path="content-encoding")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit_bytes:
            if headers.get("expect"):
                # The body was never asked for and may not come: the next bytes could not be told from it.
                record_of(scope).response_headers.append((b"connection", b"close"))
            raise RequestTooLarge(self._limit_bytes)
