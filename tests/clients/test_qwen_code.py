"""qwen-code, as its users run it, against a server without a way out: a whole tool loop, and a server that is busy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coding_agents import BUSY, Place, agent_command, call, place, say, write_script

pytestmark = pytest.mark.clients

QUIET = {"privacy": {"usageStatisticsEnabled": False}, "memory": {"enableManagedAutoMemory": False}}


def loop(work: Path) -> tuple[dict[str, Any], ...]:
    """Two reads at once, an edit, a run, two refusals for want of room, and a last word."""
    greeting, check = str(work / "greeting.txt"), str(work / "check.sh")
    edit = {"file_path": greeting, "old_string": "helo", "new_string": "hello"}
    run = {"command": "sh check.sh", "description": "Check the greeting", "is_background": False}
    return (
        {
            "contains": "Mend the greeting",
            "steps": [say("I look."), call("read_file", file_path=check), call("read_file", file_path=greeting)],
        },
        {"contains": "helo world", "times": 1, "steps": [call("edit", **edit)]},
        {"contains": "check passed", "times": 2, "steps": [BUSY]},
        {"contains": "check passed", "steps": [say("The greeting is mended and checked.")]},
        {"after_tool_result": True, "times": 2, "steps": [call("run_shell_command", **run)]},
        {"steps": [say("no scene for that")]},
    )


def qwen(at: Place, question: str) -> str:
    """What qwen-code says at the end."""
    settings = at.home / ".qwen" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps(QUIET))
    words = [agent_command("qwen-code"), "--auth-type", "openai", "--yolo", "-p", question]
    return at.run(*words, OPENAI_API_KEY="dummy", OPENAI_BASE_URL=f"{at.url}/v1", OPENAI_MODEL="local-model")


def test_qwen_code_reads_edits_and_runs(tmp_path: Path) -> None:
    """To the end."""
    script = write_script(tmp_path / "script.json", *loop(tmp_path / "work"))
    with place(tmp_path, "--script", str(script)) as at:
        (at.work / "greeting.txt").write_text("helo world\n")
        (at.work / "check.sh").write_text('grep -q "^hello world$" greeting.txt && echo "check pas""sed"\n')
        said = qwen(at, "Mend the greeting, please.")
        lines = at.fetch("/v1/pensieve/cache")["requests"]
    assert said.strip().endswith("The greeting is mended and checked.")
    assert (at.work / "greeting.txt").read_text() == "hello world\n"
    # Each turn begins with all that the turn before it was.
    assert not any(line.get("difference") for line in lines)
