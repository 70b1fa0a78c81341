"""opencode, through `pensieve opencode`, against a server without a way out: a whole tool loop, and a busy server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coding_agents import BUSY, agent_command, call, place, say, write_script

pytestmark = pytest.mark.clients


def loop(work: Path) -> tuple[dict[str, Any], ...]:
    """Two reads at once, an edit, a run, two refusals for want of room, and a last word; and a title beside them."""
    greeting, check = str(work / "greeting.txt"), str(work / "check.sh")
    edit = {"filePath": greeting, "oldString": "helo", "newString": "hello"}
    run = {"command": "sh check.sh", "description": "Check the greeting"}
    return (
        {"contains": "check passed", "times": 2, "steps": [BUSY]},
        {"contains": "check passed", "steps": [say("The greeting is mended and checked.")]},
        {"contains": "helo world", "times": 1, "steps": [call("edit", **edit)]},
        {"after_tool_result": True, "times": 1, "steps": [call("bash", **run)]},
        {
            "contains": "Mend the greeting",
            "steps": [say("I look."), call("read", filePath=check), call("read", filePath=greeting)],
        },
        {"steps": [say("A greeting")]},
    )


@pytest.mark.parametrize("context_tokens", [32_768, 8_192], ids=["all its tools", "a small prompt"])
def test_opencode_reads_edits_and_runs(tmp_path: Path, context_tokens: int) -> None:
    """To the end, and without a trace in the user's home."""
    program = Path(agent_command("opencode"))
    script = write_script(tmp_path / "script.json", *loop(tmp_path / "work"), context_tokens=context_tokens)
    with place(tmp_path, "--script", str(script)) as at:
        (at.work / "greeting.txt").write_text("helo world\n")
        (at.work / "check.sh").write_text('grep -q "^hello world$" greeting.txt && echo "check pas""sed"\n')
        began = time.monotonic()
        said = at.launch(program, "opencode", "run", "Mend the greeting, please.")
        lines = at.fetch("/v1/pensieve/cache")["requests"]
    sizes = [line["prompt_tokens"] for line in lines]
    print(f"opencode, {context_tokens:,} tokens: {time.monotonic() - began:.1f} s, prompts of {sizes} words")
    assert said.strip().endswith("The greeting is mended and checked.")
    assert (at.work / "greeting.txt").read_text() == "hello world\n"
    assert list(at.home.iterdir()) == []
