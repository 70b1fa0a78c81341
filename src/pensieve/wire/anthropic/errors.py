"""Errors in the envelope of the Messages API, and back. Knows no HTTP library."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pensieve.errors import BackendFailure, Forbidden, InvalidRequest, PensieveError
from pensieve.messages import Json
from pensieve.wire.sentences import read_invalid, read_not_found, read_overloaded, read_too_large, read_unauthorized

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    413: "request_too_large",
    429: "overloaded_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong."""

    type: str = ""
    message: str = ""


class Envelope(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: ErrorBody


def error_type(error: PensieveError, *, is_streamed: bool = False) -> str:
    """The API's name for this kind of error.

    Inside a stream the name is all that tells a client whether to try again: after an `api_error` some ask again at
    once, and for a whole answer; after an `overloaded_error` they wait a little and ask for a stream.
    """
    if is_streamed and error.retryable:
        return "overloaded_error"
    return _TYPES.get(error.status, "api_error")


def encode_error(error: PensieveError, request_id: str, *, is_streamed: bool = False) -> dict[str, Json]:
    """The JSON body of an error, or the data of the last event of a stream."""
    fields: dict[str, Json] = {"type": error_type(error, is_streamed=is_streamed), "message": str(error)}
    if isinstance(error, InvalidRequest) and error.reason:
        fields["details"] = {"error_code": error.reason, "unsupported": [error.path]}
    return {"type": "error", "error": fields, "request_id": request_id}


def decode_error(status: int, body: dict[str, Json] | bytes) -> PensieveError:
    """The error a server answered with; its type decides, or the HTTP status where the body says nothing."""
    try:
        raw = msgspec.json.decode(body) if isinstance(body, bytes) else body
        wire = msgspec.convert(raw, type=Envelope).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:200].decode("utf-8", "replace") if isinstance(body, bytes) else ""
        wire = ErrorBody(message=f"the server answered {status}: {text.strip()}".removesuffix(": "))
    read = _READERS.get(wire.type or _TYPES.get(status, ""), BackendFailure)
    return read(wire.message or f"the server answered {status}")


_READERS: dict[str, Callable[[str], PensieveError]] = {
    "invalid_request_error": read_invalid,
    "authentication_error": read_unauthorized,
    "permission_error": Forbidden,
    "not_found_error": read_not_found,
    "request_too_large": read_too_large,
    "overloaded_error": read_overloaded,
    "rate_limit_error": read_overloaded,
}
