"""An agent's program on this machine: where it is, which version, and how to get it. Knows no server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pensieve.errors import UsageError

VERSION_SECONDS = 20.0
_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)\b")


class Agent(msgspec.Struct, frozen=True):
    """One agent that can be started: its program, and the versions that are known to work."""

    name: str
    command: str
    package: str
    oldest: tuple[int, int, int]
    """Versions before this one lack what is needed to keep them to this machine."""
    tested: tuple[int, int, int]


CLAUDE = Agent("Claude Code", "claude", "@anthropic-ai/claude-code", (2, 1, 197), (2, 1, 330))
CODEX = Agent("Codex", "codex", "@openai/codex", (0, 150, 0), (0, 169, 0))
OPENCODE = Agent("opencode", "opencode", "opencode-ai", (1, 10, 0), (1, 18, 33))


def find_program(agent: Agent, environ: Mapping[str, str]) -> Path:
    """The program on the user's path; raises `UsageError` with how to install it."""
    found = shutil.which(agent.command, path=environ.get("PATH"))
    if found is None:
        raise UsageError(
            f"{agent.name} is not installed: no `{agent.command}` is on your PATH. "
            f"`npm install -g {agent.package}` installs it (node 20 or newer); then run this again"
        )
    return Path(found)


def version_of(program: Path, environ: Mapping[str, str]) -> tuple[int, int, int] | None:
    """The version that the program tells, None where it tells none in time; raises `UsageError` if it cannot run."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own program
            [program, "--version"],
            check=False,
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
            env=dict(environ),
        )
    except OSError as error:
        raise UsageError(
            f"{program} cannot be run: {error.strerror}. Its installation is not whole: install it again, together with"
            " its package's install scripts, which npm's --ignore-scripts leaves out"
        ) from error
    except (subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    found = _VERSION.search(done.stdout)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def version_note(agent: Agent, version: tuple[int, int, int] | None) -> str:
    """What a user should know of the version; "" where there is nothing to say."""
    tested = ".".join(map(str, agent.tested))
    if version is None:
        return f"`{agent.command} --version` told no version; {tested} was tested"
    if version < agent.oldest:
        here = ".".join(map(str, version))
        return (
            f"{agent.name} {here} is outdated: it may ask other hosts, misjudge the context, or fail. Tested was"
            f" {tested}: `npm install -g {agent.package}@latest` brings a newer one"
        )
    return ""
