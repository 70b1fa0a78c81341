"""Errors in OpenAI's envelope, and back. Knows no HTTP library."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pensieve.errors import (
    BackendFailure,
    ContextOverflow,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PensieveError,
    Unauthorized,
)
from pensieve.messages import Json
from pensieve.wire.sentences import read_invalid, read_not_found, read_overloaded, read_too_large, read_unauthorized

_CODES: tuple[tuple[type[PensieveError], str], ...] = (
    (ContextOverflow, "context_length_exceeded"),
    (ModelNotFound, "model_not_found"),
    (Unauthorized, "invalid_api_key"),
    (Overloaded, "server_overloaded"),
)
"""What clients decide by: an agent compacts after the first, and comes again after the last."""
_STATUSES = {
    "context_length_exceeded": 400,
    "model_not_found": 404,
    "invalid_api_key": 401,
    "server_overloaded": 503,
    "rate_limit_exceeded": 503,
}


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong; servers leave out what they do not know."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class Envelope(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: ErrorBody


def error_code(error: PensieveError) -> str | None:
    """The API's code for this kind of error; None where it has none."""
    if isinstance(error, InvalidRequest) and error.reason:
        return error.reason
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)


def encode_error(error: PensieveError, request_id: str) -> dict[str, Json]:
    """The JSON body of an error, or the data of the last frame of a stream."""
    # An id of a request is a header in this API.
    del request_id
    message = str(error)
    if isinstance(error, ContextOverflow):
        message += f" (the maximum context length is {error.limit_tokens} tokens)"  # some clients look for these words
    path = error.path if isinstance(error, InvalidRequest) else ""
    fields: dict[str, Json] = {
        "message": message,
        "type": "server_error" if error.status >= 500 else "invalid_request_error",
        "param": "model" if isinstance(error, ModelNotFound) else path or None,
        "code": error_code(error),
    }
    return {"error": fields}


def decode_error(status: int, body: dict[str, Json] | bytes) -> PensieveError:
    """The error a server answered with: its code decides, or the HTTP status (0: there is none) where it has none."""
    try:
        raw = msgspec.json.decode(body) if isinstance(body, bytes) else body
        wire = msgspec.convert(raw, type=Envelope).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:200].decode("utf-8", "replace") if isinstance(body, bytes) else ""
        wire = ErrorBody(message=f"the server answered {status}: {text.strip()}".removesuffix(": "))
    otherwise = 400 if not status and wire.type == "invalid_request_error" else status
    read = _READERS.get(_STATUSES.get(str(wire.code), otherwise), BackendFailure)
    error = read(wire.message or f"the server answered {status}")
    if isinstance(error, InvalidRequest) and not isinstance(error, ContextOverflow):
        problem = str(error).removeprefix(f"{wire.param}: ") if wire.param else str(error)
        return InvalidRequest(problem, wire.param or "", str(wire.code or ""))
    return error


_READERS: dict[int, Callable[[str], PensieveError]] = {
    400: read_invalid,
    401: read_unauthorized,
    403: Forbidden,
    404: read_not_found,
    405: read_not_found,
    413: read_too_large,
    422: read_invalid,
    429: read_overloaded,
    503: read_overloaded,
    529: read_overloaded,
}
