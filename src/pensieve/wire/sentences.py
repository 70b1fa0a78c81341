"""Errors read back from the sentences that `errors.py` makes of them: what an envelope does not say, its message does.

Knows no envelope.
"""

from __future__ import annotations

import re

from pensieve.errors import (
    ContextOverflow,
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

# Digits are bounded: Python refuses to read a number of thousands of them.
_OVERFLOW = re.compile(r"prompt is too long: (\d{1,12}) tokens > (\d{1,12}) maximum")
_PATH_AND_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z0-9_*]+)*): (.+)", re.DOTALL)
_MODEL = re.compile(r"model: (\S+)(?: is not here: (?:did you mean (\S+)\? )?.*)?", re.DOTALL)
_METHOD = re.compile(r"(\S+) is not allowed here: use (.+)", re.DOTALL)
_RETRY = re.compile(r"(.*); try again in (\d{1,9}) s", re.DOTALL)
_WORKER = "the worker of "
_BYTES = re.compile(r"larger than (\d{1,18}) bytes")


def read_invalid(message: str) -> PensieveError:
    """A request that was refused."""
    if overflow := _OVERFLOW.search(message):
        return ContextOverflow(prompt_tokens=int(overflow[1]), limit_tokens=int(overflow[2]))
    if found := _PATH_AND_PROBLEM.fullmatch(message):
        return InvalidRequest(found[2], path=found[1])
    return InvalidRequest(message)


def read_unauthorized(message: str) -> PensieveError:
    """A key that was refused."""
    del message
    return Unauthorized()


def read_not_found(message: str) -> PensieveError:
    """A model, route or method that is not there."""
    if model := _MODEL.fullmatch(message):
        return ModelNotFound(model[1], nearest=model[2] or "")
    if method := _METHOD.fullmatch(message):
        return MethodNotAllowed(method[1], method[2])
    return NotFound(message.removeprefix("not found: "))


def read_too_large(message: str) -> PensieveError:
    """A body that was too large."""
    limit = _BYTES.search(message)
    return RequestTooLarge(int(limit[1]) if limit else 0)


def read_overloaded(message: str) -> PensieveError:
    """A server that had no room, or in a stream whose worker ended: both are worth another try."""
    if (crash := _crash(message)) is not None:
        return crash
    found = _RETRY.fullmatch(message)
    return Overloaded(found[1], float(found[2])) if found else Overloaded(message)


def _crash(message: str) -> WorkerCrashed | None:
    """No pattern: with two texts of any length in it, a long message could be tried in too many ways."""
    told, is_crash, _ = message.partition("); it restarts by itself: ")
    model, has_status, exit_status = told.removeprefix(_WORKER).rpartition(" ended (")
    if not (told.startswith(_WORKER) and is_crash and has_status):
        return None
    return WorkerCrashed(model=model, exit_status=exit_status)
