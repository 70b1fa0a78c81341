"""The error tree: every error says what to do, and survives the way through a frame."""

from __future__ import annotations

import pytest

from pensieve import errors
from pensieve.errors import BackendFailure, ContextOverflow, InvalidRequest, Overloaded, PensieveError, WorkerCrashed

EXAMPLES: list[PensieveError] = [
    InvalidRequest("expected str", "messages.0.role", "because"),
    ContextOverflow(prompt_tokens=41000, limit_tokens=32768),
    errors.Unauthorized(),
    errors.Unauthorized(is_expired=True),
    errors.Forbidden("not here"),
    errors.ModelNotFound("lama", nearest="llama"),
    errors.RequestTooLarge(1000),
    Overloaded("busy", 2.5),
    errors.MemoryShort("0.9 GB are left", 5.0),
    errors.LoadFailed("cut short", "m"),
    WorkerCrashed(model="m", exit_status="killed by SIGKILL"),
    errors.WorkerFailed(model="m", num_crashes=3, retry_after_seconds=12.5),
    errors.CrashingRequest(model="m"),
    errors.ConfigurationError("no", "server.port", "the environment"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.code)
def test_an_error_is_rebuilt_from_its_facts(error: PensieveError) -> None:
    """Code and facts are all that crosses the worker's socket."""
    again = errors.rebuild(error.code, error.facts())
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.facts() == error.facts()


def test_an_overflow_is_worded_as_clients_parse_it() -> None:
    """Coding agents read both numbers out of this sentence and compact."""
    error = ContextOverflow(prompt_tokens=41000, limit_tokens=32768)
    assert str(error) == "prompt is too long: 41000 tokens > 32768 maximum"


def test_an_error_of_another_version_is_still_an_error() -> None:
    """An unknown code does not hide what happened."""
    error = errors.rebuild("NotYetInvented", {"a": 1})
    assert isinstance(error, BackendFailure)
    assert "NotYetInvented" in str(error)
