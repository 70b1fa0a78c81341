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

_OVERFLOW = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
_PATH_AND_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z0-9_*]+)*): (.+)", re.DOTALL)
_MODEL = re.compile(r"model: (\S+)(?: is not here: (?:did you mean (\S+)\? )?.*)?", re.DOTALL)
_METHOD = re.compile(r"(\S+) is not allowed here: use (.+)", re.DOTALL)
_RETRY = re.compile(r"(.*); try again in (\d+) s", re.DOTALL)
_CRASH = re.compile(r"the worker of (.+) ended \((.*?)\); it restarts by itself: .*", re.DOTALL)
_BYTES = re.compile(r"larger than (\d+) bytes")


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
    if crash := _CRASH.fullmatch(message):
        return WorkerCrashed(model=crash[1], exit_status=crash[2])
    found = _RETRY.fullmatch(message)
    return Overloaded(found[1], float(found[2])) if found else Overloaded(message)
