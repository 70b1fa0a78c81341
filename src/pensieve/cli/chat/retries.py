"""Whether a failed answer is worth a second try by itself: a decision from the error alone. Knows no backend."""

from __future__ import annotations

from pensieve.errors import ConnectionLost, Overloaded, PensieveError, ServerUnreachable, WorkerCrashed

RESTART_SECONDS = 3.0
"""What a server that restarts is given."""
PATIENCE_SECONDS = 30.0
"""Who is told to come again later than this is not kept waiting in silence."""


def problem_of(error: PensieveError) -> str:
    """What went wrong, in words that do not ask for what happens by itself."""
    match error:
        case WorkerCrashed(_, model, exit_status):
            return f"the worker of {model} ended ({exit_status})"
        case ConnectionLost():
            return "the connection to the server broke off"
        case ServerUnreachable():
            return "the server is not there"
        case Overloaded(problem):
            return problem
        case _:
            return str(error)


def retry_delay_seconds(error: PensieveError) -> float | None:
    """How long to wait before the one retry; None: it would not help."""
    match error:
        case WorkerCrashed():
            return 0.0
        case ConnectionLost() | ServerUnreachable():
            return RESTART_SECONDS
        case Overloaded() if error.retry_after_seconds <= PATIENCE_SECONDS:
            return error.retry_after_seconds
        case _:
            return None
