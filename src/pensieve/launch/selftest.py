"""Proves, instead of promising, that an agent leaves the user's configuration and every other machine alone.

The agent asks one question of a scripted server, inside a network that has no way out where the system makes one;
elsewhere its own sockets are looked at while it runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pensieve.errors import BackendFailure
from pensieve.inference.server_client import RunningServer
from pensieve.launch.enclosure import Enclosure, enclosure
from pensieve.launch.environment import Endpoint
from pensieve.launch.fingerprint import Fingerprint, fingerprint
from pensieve.launch.sockets import remote_addresses

QUESTION = "Say what you are."
EXPECTED = "This is a scripted answer"
START_SECONDS = 60.0
AGENT_SECONDS = 120.0
LOOK_SECONDS = 0.01
Command = Callable[[Endpoint], tuple[Sequence[str], Mapping[str, str]]]
"""The agent's words and environment for the question, against a server at that address."""


class Proof(msgspec.Struct, frozen=True):
    """What was seen."""

    answer: str
    before: Fingerprint
    after: Fingerprint
    network: str
    """How it was looked at: `enclosed`, `sockets`, or `unseen`."""
    num_attempts: int = 0
    addresses: tuple[str, ...] = ()

    @property
    def is_answered(self) -> bool:
        """Whether the agent gave the scripted answer, so that all of it was at work."""
        return EXPECTED in self.answer

    @property
    def is_untouched(self) -> bool:
        """Whether the user's configuration is what it was."""
        return self.before == self.after

    @property
    def stayed(self) -> bool:
        """Whether nothing was seen to leave, and it was looked at."""
        return self.network != "unseen" and not self.num_attempts and not self.addresses

    @property
    def holds(self) -> bool:
        """Whether everything was proven."""
        return self.is_answered and self.is_untouched and self.stayed


def prove(command: Command, home: Path) -> Proof:
    """Let the agent answer, and look at what it does; raises `BackendFailure` where its server does not start."""
    before = fingerprint(home)
    with enclosure() as place, _scripted_server(place) as endpoint:
        attempts = place.num_attempts if place is not None else 0
        words, environment = command(endpoint)
        answer, addresses = _answer(words if place is None else place.command(words), environment)
        attempts = place.num_attempts - attempts if place is not None else 0
    network = "enclosed" if place is not None else "sockets" if Path("/proc/self/net/tcp").exists() else "unseen"
    return Proof(answer, before, fingerprint(home), network, attempts, tuple(sorted(addresses)))


def sentences(proof: Proof) -> Iterator[tuple[bool, str]]:
    """What was proven and what was not, in words."""
    said = (
        "answered from the server here" if proof.is_answered else f"gave no answer: {proof.answer[-300:] or 'nothing'}"
    )
    yield proof.is_answered, f"the agent {said}"
    files = f"{proof.before.num_files} files of your own configuration"
    untouched = "have the same contents and modes as before" if proof.is_untouched else "CHANGED while it ran"
    yield proof.is_untouched, f"{files} {untouched}"
    match proof.network:
        case "enclosed":
            what = f"it ran in a network without a way out, and tried {proof.num_attempts} times to reach one"
        case "sockets":
            seen = ", ".join(proof.addresses) or "none"
            what = f"its sockets were looked at all the time; addresses beyond this machine: {seen}"
        case _:
            what = "this system shows neither namespaces nor sockets, so where it connected to is NOT proven"
    yield proof.stayed, what


def _answer(words: Sequence[str], environment: Mapping[str, str]) -> tuple[str, set[str]]:
    """What the agent says, and each address it was seen to speak to."""
    addresses: set[str] = set()
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(  # noqa: S603 - the user's own program
            list(words), env=dict(environment), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        ) as process,
    ):
        give_up = time.monotonic() + AGENT_SECONDS
        while process.poll() is None:
            addresses |= remote_addresses(process.pid)
            time.sleep(LOOK_SECONDS)
            if time.monotonic() > give_up:
                process.kill()
        said.seek(0)
        return said.read().decode("utf-8", "replace").strip(), addresses


@contextmanager
def _scripted_server(place: Enclosure | None) -> Iterator[Endpoint]:
    """A server of the built-in script with a home of its own, in that network."""
    command = [sys.executable, "-P", "-m", "pensieve", "serve", "--port", "0", "--script", "demo"]
    with tempfile.TemporaryDirectory(prefix="pensieve-self-test-") as home:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PENSIEVE_")}
        process = subprocess.Popen(  # noqa: S603 - our own program
            command if place is None else place.command(command),
            env={**others, "PENSIEVE_HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Endpoint(_url(process, Path(home) / "state" / "server.json"), "self-test")
        finally:
            process.terminate()
            process.wait()


def _url(process: subprocess.Popen[bytes], run_file: Path) -> str:
    """Where the server listens, from its run file: from outside the network nobody can ask it."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        if run_file.exists():
            return msgspec.json.decode(run_file.read_bytes(), type=RunningServer).url
        time.sleep(LOOK_SECONDS)
    raise BackendFailure("the server for the self-test did not start: `pensieve serve --script demo` tells why")
