"""Finds the server that agents use, or starts one that outlives the terminal: detached, with a log of its own.

Several terminals share one server; a lock lets one of them start it. Knows no agent.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import msgspec

from pensieve.config.settings import Folders, ServerSettings
from pensieve.errors import PensieveError, ServerUnreachable, UsageError
from pensieve.inference.server_client import PATIENCE, Patience, RunningServer, Tell, fetch, find_server, wake
from pensieve.launch.plan import ModelFacts

START_SECONDS = 60.0
"""The front process listens within a second or two, and loads no model before it is asked."""
LOOK_SECONDS = 0.05
WORTH_TELLING_SECONDS = 0.5
LOG_BYTES = 4 * 2**20
"""A longer log is begun anew when a server starts."""
LAST_WORDS = 4000


class Wanted(msgspec.Struct, frozen=True):
    """The server that is asked for."""

    model: str
    is_chosen: bool = False
    """Whether the user named the model; otherwise the one that a running server has will do."""
    location: str = ""
    """Where the chosen model's weights lie, absolute and without links."""
    port: int = 7777
    is_port_chosen: bool = False
    load_seconds: float = 600.0


class _Model(msgspec.Struct):
    id: str
    max_input_tokens: int
    max_tokens: int
    capabilities: dict[str, object] = {}


class _Models(msgspec.Struct):
    data: list[_Model]


class Servers:
    """This user's server, found or started."""

    def __init__(
        self,
        folders: Folders,
        settings: ServerSettings,
        environ: Mapping[str, str],
        tell: Tell,
        patience: Patience = PATIENCE,
    ) -> None:
        self._folders = folders
        self._settings = settings
        self._environ = environ
        self._tell = tell
        self._patience = patience

    @property
    def log_file(self) -> Path:
        """What servers that were started here wrote."""
        return self._folders.state / "server.log"

    def find_or_start(self, wanted: Wanted) -> RunningServer:
        """A server that listens; raises `UsageError` with why there is none."""
        return self._found(wanted) or self._start_alone(wanted)

    def start_again(self, wanted: Wanted, died: RunningServer) -> RunningServer:
        """A server at the address where the one that died was; raises `UsageError` where it cannot be had again."""
        port = urlsplit(died.url).port or 0
        # The terminal is the agent's meanwhile: nothing is said on it.
        quiet = Servers(self._folders, self._settings, self._environ, lambda _: None, self._patience)
        again = quiet.find_or_start(msgspec.structs.replace(wanted, port=port, is_port_chosen=True))
        if again.url != died.url:
            raise UsageError(f"another server runs at {again.url} meanwhile: leave the agent and start it again")
        return again

    def facts(self, server: RunningServer, wanted: Wanted) -> ModelFacts:
        """The model, once it is loaded, as the server describes it then; raises what hinders it."""
        _patiently(
            lambda: wake(server, server.model, wanted.load_seconds),
            lambda seconds: self._tell(f"loading {server.model}, {seconds:.0f} s"),
        )
        models = msgspec.json.decode(fetch(server.url, "/v1/models", server.api_key), type=_Models).data
        found = next((model for model in models if model.id == server.model), None) or models[0]
        thinking = msgspec.convert(found.capabilities.get("thinking", {}), dict[str, object])
        thinks = thinking.get("supported") is True
        return ModelFacts(found.id, found.max_input_tokens, found.max_tokens, thinks)

    def _found(self, wanted: Wanted) -> RunningServer | None:
        server = find_server(self._folders, self._tell, self._patience)
        if server is not None and wanted.is_chosen and wanted.location != server.location:
            raise UsageError(
                f"the server at {server.url} runs {server.model}, and two models may be too large for memory: "
                f"stop it (process {server.pid}) to use {wanted.model}, or leave the choice of a model out"
            )
        return server

    def _start_alone(self, wanted: Wanted) -> RunningServer:
        with self._only_one():
            return self._found(wanted) or self._start(wanted)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """One terminal at a time: the others find what it started."""
        with self._opened_lock() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._tell("another terminal starts the server")
                    time.sleep(LOOK_SECONDS)
            yield

    def _opened_lock(self) -> BinaryIO:
        path = self._folders.state / "server.lock"
        try:
            return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b")
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written ({error.strerror}): make it yours again, or set PENSIEVE_HOME to a folder"
                " you can write to"
            ) from error

    def _start(self, wanted: Wanted) -> RunningServer:
        port = wanted.port
        if not wanted.is_port_chosen and is_taken(self._settings.host, port):
            self._tell(f"port {port} is taken by another program, so the server takes any free one")
            port = 0
        with self._opened_log() as log:
            begin = log.tell()
            process = subprocess.Popen(  # noqa: S603 - our own program
                list(_serve_command(wanted, port)),
                env={**self._environ, "PENSIEVE_API_KEY": self._settings.api_key or secrets.token_urlsafe(32)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._listening(process, begin)

    @contextmanager
    def _opened_log(self) -> Iterator[BinaryIO]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self.log_file, flags, 0o600), "ab") as log:
                if log.tell() > LOG_BYTES:
                    log.truncate(0)
                    log.seek(0)
                yield log
        except OSError as error:
            problem = f"the server's log {self.log_file} cannot be written: {error.strerror}"
            raise UsageError(problem) from error

    def _listening(self, process: subprocess.Popen[bytes], log_begin: int) -> RunningServer:
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if process.poll() is not None:
                raise UsageError(f"the server did not start: {self._last_words(log_begin)}")
            server = find_server(self._folders)
            if server is not None and server.pid == process.pid:
                return server
            self._tell("starting the server")
            time.sleep(LOOK_SECONDS)
        process.terminate()
        raise ServerUnreachable(f"the server said nothing for {START_SECONDS:.0f} s: {self.log_file} may tell why")

    def _last_words(self, log_begin: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(log_begin)
            lines = log.read()[-LAST_WORDS:].decode("utf-8", "replace").splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return said[-1] if said else f"{self.log_file} may tell why"


def _serve_command(wanted: Wanted, port: int) -> Iterator[str]:
    # -P: nothing of the folder we are called in, which may be anybody's project, is imported.
    yield from (sys.executable, "-P", "-m", "pensieve", "serve", "--until-unused", "--port", str(port))
    yield from ("--model", wanted.model)


def is_taken(host: str, port: int) -> bool:
    """Whether nobody else can listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _patiently(work: Callable[[], None], tell: Callable[[float], None]) -> None:
    """Do the work on a thread of its own, saying how long it takes; raises what it raised."""
    raised: list[PensieveError] = []

    def run() -> None:
        try:
            work()
        except PensieveError as error:
            raised.append(error)

    # A daemon, so that Ctrl-C ends the waiting at once.
    thread = threading.Thread(target=run, name="wake", daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(WORTH_TELLING_SECONDS)
    while thread.is_alive():
        tell(time.monotonic() - began)
        thread.join(0.2)
    if raised:
        raise raised[0]
