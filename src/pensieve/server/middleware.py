"""What surrounds every request: its record and log line, and the one place where errors become responses.

Plain ASGI classes: wrapping responses any other way would hide a client's leaving from the streams inside.
"""

from __future__ import annotations

import traceback

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.errors import BackendFailure, PensieveError
from pensieve.server.dialect import error_encoder
from pensieve.server.envelope import send_error
from pensieve.server.ledger import RECORD, Ledger, RequestRecord, log, record_of


class RequestLog:
    """Gives each request its record and id, and logs it when it has ended."""

    def __init__(self, app: ASGIApp, ledger: Ledger) -> None:
        self.app = app
        self.ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = scope[RECORD] = RequestRecord(scope["method"], scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                ids = [(name, record.id.encode()) for name in (b"request-id", b"x-request-id")]
                own = [*ids, *record.response_headers]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        self.ledger.open()
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.ledger.close(record)


class ErrorResponses:
    """Turns what is raised inside into an error envelope; a traceback never leaves the process."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = record_of(scope)
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            record.is_disconnected = True
        except Exception as raised:  # noqa: BLE001 - the top of the server: nothing may pass
            error = as_error(raised, record.id)
            record.error_code = error.code
            # A response that has begun cannot change its status: returning now makes the server cut it off.
            if not record.status:
                await send_error(send, error, error_encoder(scope)(error, record.id))


def as_error(raised: BaseException, request_id: str) -> PensieveError:
    """The error itself, or, for a bug of ours, one that only says where to look; the place goes to the log."""
    if isinstance(raised, PensieveError):
        return raised
    # The message of a foreign exception may quote a prompt, so that only its kind and place are logged.
    place = "".join(traceback.format_tb(raised.__traceback__))
    log.error("%s failed with %s:\n%s", request_id, type(raised).__name__, place)
    return BackendFailure("internal error: the server's log tells more under this request's id")
