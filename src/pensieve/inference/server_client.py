"""Finds the Pensieve server of this user that runs now: run file, process, health. Starts and stops nothing."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from pensieve.config.settings import Folders
from pensieve.errors import ServerUnreachable
from pensieve.wire.anthropic.errors import decode_error

RESET_SECONDS = 3.0
ANSWER_SECONDS = 10.0
API_VERSION = "2023-06-01"
MAX_RUN_FILE_BYTES = 64 * 1024


class RunningServer(msgspec.Struct, frozen=True):
    """A server that answers; `model` is the resident one."""

    url: str
    model: str
    pid: Annotated[int, msgspec.Meta(ge=1)]
    api_key: str | None = None
    location: str = ""
    """Where the model's weights lie, absolute and without links; empty for a script."""

    def __repr__(self) -> str:
        return f"RunningServer({self.url}, {self.model}, pid {self.pid})"  # the key stays out of logs


Tell = Callable[[str], None]
"""Takes one phrase that says what is going on; called again and again while it goes on."""


class Patience(msgspec.Struct, frozen=True):
    """For how many seconds a server is waited for that takes connections and says nothing."""

    first_seconds: float = 3.0
    """A refused connection is told at once; only a server on a busy machine, or a stranger, takes longer."""
    again_seconds: float = 10.0
    whole_seconds: float = 60.0


PATIENCE = Patience()
AT_ONCE = Patience(whole_seconds=0.0)
"""A server that says nothing at first is an error: where a person can try again in a moment."""


class _Health(msgspec.Struct):
    status: str


class _Reset(msgspec.Struct):
    state: str


def find_server(folders: Folders, tell: Tell | None = None, patience: Patience = PATIENCE) -> RunningServer | None:
    """The running server, or None; a run file that is stale, strange or not ours alone counts as none.

    One that takes connections and is slow to answer is there, and busy: with `tell` it is asked again and again, said
    in between, and raised as `ServerUnreachable` when patience ends. Without, it counts as none.
    """
    server = recorded_server(folders)
    began, seconds = time.monotonic(), patience.first_seconds
    while server is not None and _is_alive(server.pid):
        answered = _answers(server.url, seconds)
        if answered is not None or tell is None:
            return server if answered else None
        _wait_on(server, time.monotonic() - began, tell, patience)
        seconds = patience.again_seconds
    return None


def require_server(folders: Folders, patience: Patience = AT_ONCE) -> RunningServer:
    """The running server; raises `ServerUnreachable` where there is none, and where it is there and says nothing."""
    server = find_server(folders, lambda _: None, patience)
    if server is None:
        raise ServerUnreachable("no Pensieve server of yours is running: `pensieve serve` starts one")
    return server


def recorded_server(folders: Folders) -> RunningServer | None:
    """The server that the run file names, whether it is there or not."""
    content = _read_owned(folders.run_file)
    try:
        return None if content is None else msgspec.json.decode(content, type=RunningServer)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def fetch(url: str, path: str, api_key: str | None = None) -> bytes:
    """What the server at `url` answers to a GET of `path`; its refusals are raised as what they are."""
    import httpx  # noqa: PLC0415 - slow to import, and most commands fetch nothing

    headers = {"anthropic-version": API_VERSION} | ({} if api_key is None else {"x-api-key": api_key})
    try:
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=ANSWER_SECONDS) as client:
            response = client.get(f"{url}{path}", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(f"no server answers at {url}: start one with `pensieve serve`") from error
    if not response.is_success:
        raise decode_error(response.status_code, response.content)
    return response.content


def wake(server: RunningServer, model: str, wait_seconds: float) -> None:
    """Have the model loaded, by counting the tokens of a word; what hinders it is raised as what it is."""
    import httpx  # noqa: PLC0415 - as above

    headers = {"anthropic-version": API_VERSION} | ({"x-api-key": server.api_key} if server.api_key else {})
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    try:
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=wait_seconds) as client:
            response = client.post(f"{server.url}/v1/messages/count_tokens", headers=headers, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(f"the server at {server.url} went away while it loaded {model}") from error
    if not response.is_success:
        raise decode_error(response.status_code, response.content)


def reset_server(server: RunningServer) -> str:
    """Let that server try again what failed too often; the model's state. Raises `ServerUnreachable`."""
    import httpx  # noqa: PLC0415 - as below

    headers = {"x-api-key": server.api_key} if server.api_key else {}
    try:
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=RESET_SECONDS) as client:
            response = client.post(f"{server.url}/reset", headers=headers)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=_Reset).state
    except (httpx.HTTPError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ServerUnreachable(f"{server.url} did not take the command: look at its log") from error


def _wait_on(server: RunningServer, waited_seconds: float, tell: Tell, patience: Patience) -> None:
    """Nobody starts a second one beside one that is busy: on a machine that is short of memory both would be slow."""
    if waited_seconds >= patience.whole_seconds:
        raise ServerUnreachable(
            f"the server at {server.url} takes connections and does not answer: the machine may be short of memory."
            f" Try again when it is not, or stop the server (process {server.pid})"
        )
    tell(f"the server at {server.url} is busy, {waited_seconds:.0f} s")


def _read_owned(path: Path) -> bytes | None:
    """The content of a plain file that only this user can read or write; None for anything else."""
    try:
        # Non-blocking, because opening a pipe somebody put there would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        return file.read(MAX_RUN_FILE_BYTES) if is_ours else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):  # gone, another user's since, or no process id at all
        return False
    return True


def _answers(url: str, timeout_seconds: float) -> bool | None:
    """Whether a server of ours answers there; None where somebody takes the connection and says nothing in time."""
    import httpx  # noqa: PLC0415 - slow to import, and most commands find no run file

    try:
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=timeout_seconds) as client:
            response = client.get(f"{url}/health")
        return response.is_success and bool(msgspec.json.decode(response.content, type=_Health).status)
    except httpx.TimeoutException:
        return None
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, msgspec.ValidationError):
        return False
