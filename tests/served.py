"""`pensieve` as users start it: commands and servers in processes of their own, and what their answers say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic

MLX_NAME = "smollm2-135m-mlx"
"""The starter model, converted for MLX."""


@contextmanager
def serve(home: Path, *words: str, secret: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`pensieve serve` with these words and settings; its log has no traceback, and not the secret of the prompts."""
    # A file takes any length of log; a pipe that nobody reads fills up, and then the server waits.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        subprocess.Popen(
            command("serve", "--port", "0", *words),
            env=variables(home) | settings,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:  # a test that fails here would wait for the server's end for ever
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        log.seek(0)
        logged = log.read()
        assert "Traceback" not in logged
        assert secret not in logged, "prompt text is not for logs"


def url_of(server: subprocess.Popen[str]) -> str:
    """Where it listens, from the line it prints; read once."""
    assert server.stdout is not None
    return next(word for word in server.stdout.readline().split() if word.startswith("http"))


def run(home: Path, *words: str) -> str:
    """What a command of ours prints in that home."""
    done = subprocess.run(
        command(*words),
        check=True,
        env=variables(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return done.stdout


def command(*words: str) -> list[str]:
    """One of our commands as a process is started with it."""
    return [sys.executable, "-m", "pensieve", *words]


def variables(home: Path) -> dict[str, str]:
    """The environment with that home, and nothing of the developer's own settings."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PENSIEVE_")}
    return others | {"PENSIEVE_HOME": str(home)}


def worker_of(server: subprocess.Popen[str]) -> int:
    """The process id of the server's worker."""
    return int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()[0])


def text_of(message: anthropic.types.Message) -> str:
    """The text of an answer that has nothing else."""
    (block,) = message.content
    assert block.type == "text"
    return block.text
