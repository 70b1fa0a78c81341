"""Errors in the API's envelope, and back to what they were."""

from __future__ import annotations

import json

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
    WorkerCrashed,
)
from pensieve.wire.anthropic.responses import decode_error, encode_error, error_type

TYPED: list[tuple[PensieveError, str]] = [
    (InvalidRequest("field is missing", path="messages.0.role"), "invalid_request_error"),
    (InvalidRequest("the body is empty"), "invalid_request_error"),
    (ContextOverflow(prompt_tokens=9000, limit_tokens=8192), "invalid_request_error"),
    (Unauthorized(), "authentication_error"),
    (Forbidden("this origin is not allowed"), "permission_error"),
    (NotFound("/v2"), "not_found_error"),
    (ModelNotFound("smol", nearest="smollm"), "not_found_error"),
    (ModelNotFound("smol"), "not_found_error"),
    (MethodNotAllowed("PUT", "GET, HEAD"), "not_found_error"),
    (RequestTooLarge(1024), "request_too_large"),
    (Overloaded("the queue is full", 3.0), "overloaded_error"),
    (BackendFailure("it broke"), "api_error"),
]


@pytest.mark.parametrize(("error", "name"), TYPED)
def test_an_error_comes_back_as_it_was(error: PensieveError, name: str) -> None:
    """Kind, facts and sentence survive the envelope, as a dictionary and as bytes."""
    body = encode_error(error, "req_1")
    assert (body["error"]["type"], error_type(error)) == (name, name)
    for sent in (body, json.dumps(body).encode()):
        back = decode_error(error.status, sent)
        assert (type(back), back.facts(), str(back)) == (type(error), error.facts(), str(error))


def test_the_envelope_is_the_apis() -> None:
    """Type, message and request id, nothing else."""
    assert encode_error(NotFound("/v2"), "req_1") == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "not found: /v2"},
        "request_id": "req_1",
    }


def test_a_refused_thread_carries_the_details_that_sdks_read() -> None:
    """With these the SDK falls back to sending the whole conversation."""
    refused = InvalidRequest("not here", path="thread", reason="thread_unsupported_request")
    details = encode_error(refused, "req_1")["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_a_crashed_worker_is_an_api_error_and_in_a_stream_a_reason_to_try_again() -> None:
    """A whole answer has a header for that; in a stream an `api_error` would be asked again at once, and unstreamed."""
    crashed, broken = WorkerCrashed(model="m"), BackendFailure("it broke")
    assert (error_type(crashed), error_type(crashed, is_streamed=True)) == ("api_error", "overloaded_error")
    assert error_type(broken, is_streamed=True) == "api_error"


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("invalid_request_error", f"prompt is too long: {'9' * 5_000} tokens > 8 maximum", InvalidRequest),
        ("request_too_large", f"the body is larger than {'9' * 5_000} bytes", RequestTooLarge),
        ("overloaded_error", f"full; try again in {'9' * 5_000} s", Overloaded),
    ],
)
def test_a_number_longer_than_any_is_only_text(kind: str, message: str, expected: type[PensieveError]) -> None:
    """Python refuses to read it, and nobody could wait so long."""
    error = decode_error(500, {"error": {"type": kind, "message": message}})
    assert type(error) is expected
    assert not isinstance(error, Overloaded) or error.retry_after_seconds < 60


@pytest.mark.timeout(20)
def test_a_message_that_is_made_to_be_slow_is_read_at_once() -> None:
    """A server may say anything, up to a megabyte of it."""
    message = "the worker of " + " ended (" * 60_000
    assert type(decode_error(529, {"error": {"type": "overloaded_error", "message": message}})) is Overloaded


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, InvalidRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (413, RequestTooLarge),
        (429, Overloaded),
        (529, Overloaded),
        (502, BackendFailure),
    ],
)
@pytest.mark.parametrize("body", [b"<html>no</html>", b"", b"\xff", b"[]", b"[" * 100_000, {}, {"error": {"type": 5}}])
def test_a_foreign_body_leaves_the_status_to_decide(
    body: bytes | dict[str, object], status: int, expected: type[PensieveError]
) -> None:
    """A proxy's page, or nothing at all, still becomes one of our errors."""
    error = decode_error(status, body)
    assert type(error) is expected
    assert str(error)


def test_the_type_decides_before_the_status() -> None:
    """Inside a stream there is no status of its own."""
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    error = decode_error(500, body)
    assert isinstance(error, Overloaded)
    assert error.problem == "slow down"
