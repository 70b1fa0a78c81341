"""Errors in the envelope of the Messages API, and back. Knows no HTTP library."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from pensieve.errors import (
    BackendFailure,
    ContextOverflow,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    Overloaded,
    PensieveError,
    RequestTooLarge,
    Unauthorized,
)
from pensieve.messages import Json

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
_OVERFLOW = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
_PATH_AND_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z0-9_*]+)*): (.+)", re.DOTALL)
_MODEL = re.compile(r"model: (\S+)(?: is not here: (?:did you mean (\S+)\? )?.*)?", re.DOTALL)
_METHOD = re.compile(r"(\S+) is not allowed here: use (.+)", re.DOTALL)
_RETRY = re.compile(r"(.*); try again in (\d+) s", re.DOTALL)
_BYTES = re.compile(r"larger than (\d+) bytes")


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


def _read_invalid(message: str) -> PensieveError:
    if overflow := _OVERFLOW.search(message):
        return ContextOverflow(prompt_tokens=int(overflow[1]), limit_tokens=int(overflow[2]))
    if found := _PATH_AND_PROBLEM.fullmatch(message):
        return InvalidRequest(found[2], path=found[1])
    return InvalidRequest(message)


def _read_unauthorized(message: str) -> PensieveError:
    del message
    return Unauthorized()


def _read_not_found(message: str) -> PensieveError:
    if model := _MODEL.fullmatch(message):
        return ModelNotFound(model[1], nearest=model[2] or "")
    if method := _METHOD.fullmatch(message):
        return MethodNotAllowed(method[1], method[2])
    return NotFound(message.removeprefix("not found: "))


def _read_too_large(message: str) -> PensieveError:
    limit = _BYTES.search(message)
    return RequestTooLarge(int(limit[1]) if limit else 0)


def _read_overloaded(message: str) -> PensieveError:
    found = _RETRY.fullmatch(message)
    return Overloaded(found[1], float(found[2])) if found else Overloaded(message)


_READERS: dict[str, Callable[[str], PensieveError]] = {
    "invalid_request_error": _read_invalid,
    "authentication_error": _read_unauthorized,
    "permission_error": Forbidden,
    "not_found_error": _read_not_found,
    "request_too_large": _read_too_large,
    "overloaded_error": _read_overloaded,
    "rate_limit_error": _read_overloaded,
}
