"""A scripted server as users start it, in a process of its own, that commands find by its run file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def answering(contains: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A turn of a script for questions with these words."""
    return {"contains": contains, "steps": steps, **more}


def saying(text: str) -> dict[str, Any]:
    """A step of text."""
    return {"type": "text", "text": text}


@contextmanager
def serving(script: dict[str, Any], home: Path) -> Iterator[bytes]:
    """Plays the script until the end; gives what stands in the run file."""
    (home / "script.json").write_text(json.dumps(script))
    environ = os.environ | {"PENSIEVE_HOME": str(home)}
    command = [sys.executable, "-m", "pensieve", "serve", "--script", "script.json", "--port", "0"]
    with subprocess.Popen(command, env=environ, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        assert server.stdout.readline(), "the server did not start"
        yield (home / "state" / "server.json").read_bytes()
        server.terminate()


def put_run_file(home: Path, content: bytes) -> None:
    """Let commands of this home find that server, as they find one of their own."""
    state = home / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    run_file = state / "server.json"
    run_file.touch(mode=0o600)
    run_file.write_bytes(content)
