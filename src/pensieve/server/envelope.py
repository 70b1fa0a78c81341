"""Responses of JSON, errors among them: body and headers. Knows what each kind of error means to a client's retry.

Knows no API.
"""

from __future__ import annotations

import math

import msgspec
from starlette.types import Send

from pensieve.errors import MethodNotAllowed, Overloaded, PensieveError, Unauthorized
from pensieve.messages import Json

Headers = list[tuple[bytes, bytes]]


async def send_json(send: Send, content: Json | msgspec.Raw, status: int = 200, headers: Headers | None = None) -> None:
    """Send a whole response with a JSON body; `Raw` is one already."""
    body = bytes(content) if isinstance(content, msgspec.Raw) else msgspec.json.encode(content)
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fixed + (headers or [])})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: PensieveError, content: Json) -> None:
    """Send an error with its status; `content` is its envelope."""
    await send_json(send, content, error.status, error_headers(error))


def error_headers(error: PensieveError) -> Headers:
    """What tells a client whether to try again; some retry even a wrong key unless they are told not to."""
    if error.retryable:
        seconds = error.retry_after_seconds if isinstance(error, Overloaded) else 1.0
        return [(b"x-should-retry", b"true"), (b"retry-after", str(max(1, math.ceil(seconds))).encode())]
    headers = [(b"x-should-retry", b"false")]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
