"""Every error a user or client can meet, in one tree: the facts, the HTTP status hint, and what to do next.

PensieveError
├── InvalidRequest             400  the caller must change the request
│   └── ContextOverflow             ... because the prompt is longer than the context
├── Unauthorized               401  the key is missing or wrong
├── Forbidden                  403  host or origin not allowed
├── NotFound                   404  no such route
│   ├── ModelNotFound               no such model
│   └── ConversationNotFound        no such conversation, or turn of one
├── MethodNotAllowed           405  the route exists, with another method
├── RequestTooLarge            413  the body is over the limit
├── Overloaded                 503  try again later
│   └── MemoryShort                 ... because the machine is short of memory
├── BackendFailure             500  our side failed
│   ├── ConnectionLost              the server broke off in the middle
│   ├── LoadFailed                  a model file could not be loaded
│   ├── WorkerCrashed               the worker process died under the request
│   ├── WorkerFailed                it died again and again, and is left alone for now
│   └── CrashingRequest             the worker died twice under this very request
└── UsageError                 ---  command line and set-up; never sent to a client
    ├── ConfigurationError          a setting is wrong
    ├── DownloadFailed              a model could not be fetched
    ├── DiskFull                    a file could not be written
    ├── HistoryUnusable             the file of conversations is damaged, newer, locked or not ours
    ├── ImportFailed                a file of conversations could not be understood
    ├── AddressUnavailable          the port is taken or the host not allowed
    └── ServerUnreachable           no Pensieve answers at that address

Knows nothing of HTTP frameworks, engines or terminals. Errors cross the worker's socket as `code` plus `facts()`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

Fact = str | int | float | bool | None
Facts = dict[str, Fact]


@dataclass(eq=False)
class PensieveError(Exception):
    """Base of the tree: `str(error)` is one sentence for a person, with the next step in it."""

    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    @property
    def code(self) -> str:
        """The stable name of this kind of error: its class name."""
        return type(self).__name__

    def facts(self) -> Facts:
        """The error's fields, enough to build it again with `rebuild`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclass(eq=False)
class InvalidRequest(PensieveError):
    """The request cannot be served as it is; `path` is the offending field, dotted (`messages.0.role`)."""

    problem: str
    path: str = ""
    reason: str = ""
    """Machine-readable reason where clients know one (`thread_unsupported_request`)."""

    status: ClassVar[int] = 400

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


@dataclass(eq=False)
class ContextOverflow(InvalidRequest):
    """The prompt alone is longer than the context. Clients parse both numbers out of this sentence."""

    problem: str = ""
    prompt_tokens: int = 0
    limit_tokens: int = 0

    def __str__(self) -> str:
        return f"prompt is too long: {self.prompt_tokens} tokens > {self.limit_tokens} maximum"


@dataclass(eq=False)
class Unauthorized(PensieveError):
    """No key, or a wrong one; `is_expired`: one that a terminal held, which has left."""

    is_expired: bool = False

    status: ClassVar[int] = 401

    def __str__(self) -> str:
        if self.is_expired:
            return "this key was for one terminal, which has left: start the agent again from `pensieve`"
        return (
            "invalid x-api-key: send the key the server was started with as x-api-key or Authorization: Bearer;"
            " on the server's machine `pensieve env` prints one for a terminal"
        )


@dataclass(eq=False)
class Forbidden(PensieveError):
    """The Host or Origin header names a place this server does not serve."""

    problem: str

    status: ClassVar[int] = 403

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False)
class NotFound(PensieveError):
    """No such route or thing."""

    what: str

    status: ClassVar[int] = 404

    def __str__(self) -> str:
        return f"not found: {self.what}"


@dataclass(eq=False)
class ModelNotFound(NotFound):
    """No model of that name is known or on disk; `nearest` is a name that may have been meant."""

    nearest: str = ""
    is_known: bool = False
    """`pull` fetches it by this name."""

    def __str__(self) -> str:
        if self.is_known:
            return f"model: {self.what} is not here: `pensieve pull {self.what}` fetches it"
        hint = f"did you mean {self.nearest}? " if self.nearest else ""
        return (
            f"model: {self.what} is not here: {hint}`pensieve models list` shows what is,"
            " and the names that `pensieve pull` knows; of others it wants owner/repo"
        )


@dataclass(eq=False)
class ConversationNotFound(NotFound):
    """No such conversation, or turn of one; it may have been deleted by another program."""

    def __str__(self) -> str:
        return f"{self.what} is not here: `pensieve history list` shows what is"


@dataclass(eq=False)
class MethodNotAllowed(PensieveError):
    """The route exists, but not for this HTTP method."""

    method: str
    allowed: str

    status: ClassVar[int] = 405

    def __str__(self) -> str:
        return f"{self.method} is not allowed here: use {self.allowed}"


@dataclass(eq=False)
class RequestTooLarge(PensieveError):
    """The body is larger than the server accepts."""

    limit_bytes: int

    status: ClassVar[int] = 413

    def __str__(self) -> str:
        return f"request body is larger than {self.limit_bytes} bytes: send less, or raise server.max_body_bytes"


@dataclass(eq=False)
class Overloaded(PensieveError):
    """There is no room for this request now; the same request can succeed after `retry_after_seconds`."""

    problem: str
    retry_after_seconds: float = 1.0
    is_about_queue: bool = True
    """Other answers must end first: the server then puts its own measure in place of the engine's guess."""

    status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"{self.problem}; try again in {self.retry_after_seconds:.0f} s"


@dataclass(eq=False)
class MemoryShort(Overloaded):
    """The machine is short of memory: how soon places free up here says nothing about when that ends."""

    is_about_queue: bool = False


@dataclass(eq=False)
class BackendFailure(PensieveError):
    """The engine failed on a request that was in order."""

    problem: str

    status: ClassVar[int] = 500

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False)
class ConnectionLost(BackendFailure):
    """The server's answer broke off; it may have ended, or be starting again."""

    retryable: ClassVar[bool] = True


@dataclass(eq=False)
class LoadFailed(BackendFailure):
    """A model could not be loaded."""

    model: str = ""

    def __str__(self) -> str:
        return f"model {self.model} could not be loaded: {self.problem}"


@dataclass(eq=False)
class WorkerCrashed(BackendFailure):
    """The worker process ended while the request was running; the next request starts a new one."""

    problem: str = ""
    model: str = ""
    exit_status: str = ""

    retryable: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"the worker of {self.model} ended ({self.exit_status}); it restarts by itself: send the request again"


@dataclass(eq=False)
class WorkerFailed(BackendFailure):
    """The worker process died several times in a row without an answer between."""

    problem: str = ""
    model: str = ""
    num_crashes: int = 0
    retry_after_seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"the worker of {self.model} ended {self.num_crashes} times in a row without an answer between,"
            f" so it is left alone; `pensieve reset` starts it again now, a request in {self.retry_after_seconds:.0f} s"
            " does too, and the server's log has its last words"
        )


@dataclass(eq=False)
class CrashingRequest(BackendFailure):
    """The worker died each time that this request was running; it is not tried again for a while."""

    problem: str = ""
    model: str = ""

    def __str__(self) -> str:
        return (
            f"the worker of {self.model} ended twice while this very request was running, so it is not tried again:"
            " change the request, or say `pensieve reset` once the cause is gone"
        )


@dataclass(eq=False)
class UsageError(PensieveError):
    """Something the person at the command line must change; ends the command with exit status 2."""

    problem: str

    exit_status: ClassVar[int] = 2

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False)
class ConfigurationError(UsageError):
    """A setting is wrong: `source` says where the value came from."""

    key: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.key} (from {self.source}): {self.problem}" if self.key else self.problem


@dataclass(eq=False)
class DownloadFailed(UsageError):
    """A model could not be fetched or did not arrive whole."""

    exit_status: ClassVar[int] = 1


@dataclass(eq=False)
class DiskFull(UsageError):
    """There is no room on the disk; `needed_bytes` and `available_bytes` where they are known, else 0."""

    needed_bytes: int = 0
    available_bytes: int = 0

    exit_status: ClassVar[int] = 1


@dataclass(eq=False)
class HistoryUnusable(UsageError):
    """The file of conversations cannot be used; it is left as it is."""

    exit_status: ClassVar[int] = 1


@dataclass(eq=False)
class ImportFailed(UsageError):
    """A file of conversations could not be understood; nothing of it was taken."""

    exit_status: ClassVar[int] = 1


@dataclass(eq=False)
class AddressUnavailable(UsageError):
    """The server cannot listen where it was asked to."""


@dataclass(eq=False)
class ServerUnreachable(UsageError):
    """No Pensieve server answers at the address."""

    exit_status: ClassVar[int] = 1


def _family(root: type[PensieveError]) -> dict[str, type[PensieveError]]:
    members = {root.__name__: root}
    for child in root.__subclasses__():
        members |= _family(child)
    return members


def rebuild(code: str, facts: Facts) -> PensieveError:
    """The error that `error.code` and `error.facts()` came from; an unknown code is a `BackendFailure`."""
    kind = _family(PensieveError).get(code)
    if kind is None:
        return BackendFailure(f"{code}: {facts}")
    return kind(**facts)
