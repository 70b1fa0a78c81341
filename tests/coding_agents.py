"""Coding agents as the tests run them: a server and an agent in a network of their own, where only loopback is up.

Where the machine lets no process have such a network, they share the test's, and the agent is only told not to look
out. Agents are what `make clients` installed; a test without its agent is skipped, and says why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pensieve.messages import Json
from served import command, variables

REPOSITORY = Path(__file__).parent.parent
AGENT_SECONDS = 240
_FETCH = """import sys, urllib.request
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=60).read().decode())"""
_HOLD = "ip link set lo up && echo up && exec sleep 3600"


class Net(NamedTuple):
    """How a command is started in the network; no words: it is the test's own."""

    prefix: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        """The command in that network."""
        return [*self.prefix, *words]


class Place(NamedTuple):
    """Where an agent works: its network, the server's address in it, and the folders that are its own."""

    net: Net
    url: str
    home: Path
    work: Path

    def fetch(self, path: str) -> Json:
        """What the server answers to `GET path`."""
        fetched = subprocess.run(
            self.net.command(sys.executable, "-c", _FETCH, self.url + path),
            check=True,
            capture_output=True,
            text=True,
            timeout=90,
        )
        return json.loads(fetched.stdout)

    def run(self, *words: str, **settings: str) -> str:
        """What an agent says; it gets these settings and nothing of the developer's own."""
        done = subprocess.run(
            self.net.command(*words),
            check=False,
            cwd=self.work,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "TERM": "xterm", **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=AGENT_SECONDS,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3_000:]
        return done.stdout

    def launch(self, program: Path, *words: str, **settings: str) -> str:
        """What an agent says that our own command starts, with that program as the user's own."""
        found = {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "PENSIEVE_HOME": str(self.work.parent / "pensieve"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        return self.run(*command(*words), **found, **settings)


def agent_command(name: str) -> str:
    """The agent's command, if `make clients` installed it; else the test is skipped."""
    listed = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "clients.py"), name],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if listed.returncode != 0:
        pytest.skip(listed.stdout.strip())
    return listed.stdout.strip().partition(": ")[2]


@contextmanager
def network() -> Iterator[Net]:
    """A network where only loopback is up, for as long as the block lasts."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None or shutil.which("ip") is None:
        yield Net()
        return
    words = ["unshare", "-n", "sh", "-c", _HOLD]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        is_up = holder.stdout.readline() == b"up\n"
        try:
            yield Net(("nsenter", "-t", str(holder.pid), "-n")) if is_up else Net()
        finally:
            holder.kill()


@contextmanager
def place(folder: Path, *serve: str, **settings: str) -> Iterator[Place]:
    """A server started with these words, and room for an agent beside it."""
    home, work = folder / "agent", folder / "work"
    home.mkdir(parents=True)
    work.mkdir()
    words = command("serve", "--port", "0", *serve)
    environment = variables(Path(settings.pop("home", folder / "pensieve"))) | settings
    with (
        network() as net,
        (folder / "server.log").open("w") as log,
        subprocess.Popen(net.command(*words), env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        try:
            yield Place(net, url, home, work)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    assert "Traceback" not in (folder / "server.log").read_text()


def write_script(path: Path, *turns: dict[str, Any], **more: Any) -> Path:
    """A script of these turns as a file."""
    path.write_text(json.dumps({"turns": turns, "capabilities": ["thinking", "tools"], **more}))
    return path


def call(name: str, **arguments: Json) -> dict[str, Json]:
    """A step that calls a tool."""
    return {"type": "tool_call", "name": name, "arguments": arguments}


def say(text: str) -> dict[str, Json]:
    """A step that says something."""
    return {"type": "text", "text": text}


BUSY: dict[str, Any] = {
    "type": "fail",
    "error": "Overloaded",
    "facts": {"problem": "no room", "retry_after_seconds": 1},
}
"""A step that turns the request away for now."""
