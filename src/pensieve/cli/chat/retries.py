"""Whether a failed answer is worth a second try by itself: a decision from the error alone. Knows no backend."""

from __future__ import annotations

from pensieve.errors import ConnectionLost, Overloaded, PensieveError, ServerUnreachable, WorkerCrashed

RESTART_SECONDS = 3.0
"""What a server that restarts is given."""
PATIENCE_SECONDS = 30.0
"""Who is told to come again later than this is not kept waiting in silence."""


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
