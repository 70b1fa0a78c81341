"""Errors in OpenAI's envelope, and back."""

from __future__ import annotations

import msgspec
import pytest

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
from pensieve.wire.openai.errors import decode_error, encode_error

ERRORS = [
    (InvalidRequest("no"), None),
    (InvalidRequest("must not be empty", path="messages.0.content"), None),
    (InvalidRequest("no", path="thread", reason="thread_unsupported_request"), "thread_unsupported_request"),
    (ContextOverflow(prompt_tokens=9, limit_tokens=8), "context_length_exceeded"),
    (Unauthorized(), "invalid_api_key"),
    (Forbidden("no"), None),
    (NotFound("/v2"), None),
    (ModelNotFound("gpt-9", nearest="gpt-8"), "model_not_found"),
    (MethodNotAllowed("PUT", "POST"), None),
    (RequestTooLarge(5), None),
    (Overloaded("busy", 4.0), "server_overloaded"),
    (BackendFailure("broken"), None),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_survives_its_envelope(error: PensieveError, code: str | None) -> None:
    """With the code that clients decide by, and all its facts."""
    body = encode_error(error, "req_1")
    assert body["error"]["code"] == code
    read = decode_error(error.status, msgspec.json.encode(body))
    assert (type(read), read.facts()) == (type(error), error.facts())


def test_an_error_in_a_stream_needs_no_status() -> None:
    """Its type and code say enough."""
    for error in (InvalidRequest("no"), ContextOverflow(prompt_tokens=9, limit_tokens=8), Overloaded("busy")):
        assert type(decode_error(0, encode_error(error, ""))) is type(error)


def test_an_overflow_has_the_words_that_clients_look_for() -> None:
    """Both numbers, in the words of both APIs."""
    message = encode_error(ContextOverflow(prompt_tokens=9, limit_tokens=8), "")["error"]["message"]
    assert message == "prompt is too long: 9 tokens > 8 maximum (the maximum context length is 8 tokens)"


def test_what_is_no_envelope_is_told_by_its_status() -> None:
    """Proxies answer in HTML."""
    assert isinstance(decode_error(429, b"<html>slow down"), Overloaded)
    assert "<html>" in str(decode_error(502, b"<html>bad gateway"))
