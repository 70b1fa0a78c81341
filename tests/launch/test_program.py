"""An agent's program: found, asked for its version, or how to get it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pensieve.errors import UsageError
from pensieve.launch.program import CLAUDE, CODEX, OPENCODE, Agent, find_program, version_note, version_of


def program(folder: Path, script: str) -> dict[str, str]:
    """An environment in whose path there is a `claude` that does this."""
    path = folder / "claude"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.defpath}"}


@pytest.mark.parametrize(
    ("agent", "package"), [(CLAUDE, "@anthropic-ai/claude-code"), (CODEX, "@openai/codex"), (OPENCODE, "opencode-ai")]
)
def test_a_program_that_is_missing_is_answered_with_how_to_get_it(tmp_path: Path, agent: Agent, package: str) -> None:
    """One sentence, with the command."""
    with pytest.raises(UsageError, match=f"npm install -g {package}`"):
        find_program(agent, {"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("script", "version", "note"),
    [
        ("echo '2.1.330 (Claude Code)'", (2, 1, 330), ""),
        ("echo '3.0.1 (Claude Code)'", (3, 0, 1), ""),
        ("echo '1.0.44 (Claude Code)'", (1, 0, 44), "1.0.44 is outdated"),
        ("exit 3", None, "told no version"),
    ],
)
def test_the_version_is_told_where_it_matters(
    tmp_path: Path, script: str, version: tuple[int, int, int] | None, note: str
) -> None:
    """An old one goes on, with a warning and the way to a newer one; newer ones than tested are not remarked upon."""
    environ = program(tmp_path, script)
    found = find_program(CLAUDE, environ)
    assert version_of(found, environ) == version
    said = version_note(CLAUDE, version)
    assert note in said if note else said == ""


def test_a_program_that_cannot_be_run_is_answered_with_what_to_do(tmp_path: Path) -> None:
    """As npm leaves it where install scripts are off: a file that is no program."""
    environ = program(tmp_path, "")
    (tmp_path / "claude").write_text("echo not installed\n")
    with pytest.raises(UsageError, match=r"cannot be run: Exec format error.*install it again"):
        version_of(find_program(CLAUDE, environ), environ)
