"""Codex, as its users run it, against a server without a way out: whole tool loops, and a server that is busy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from coding_agents import BUSY, Place, agent_command, call, place, say, write_script

pytestmark = pytest.mark.clients

RULES = "You mend files in this folder with the tools you have. Say in one sentence what you did.\n"
QUIET = (
    *("--disable", "multi_agent", "--disable", "goals", "--disable", "plugins", "--disable", "apps"),
    *("-c", 'web_search="disabled"', "-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false"),
)
SMALL = (
    *QUIET,
    *("-c", "include_permissions_instructions=false", "-c", "include_environment_context=false"),
    *("-c", "include_apps_instructions=false", "-c", "model_context_window=8192"),
)
REUSE_BAR = 0.98
LOOP: tuple[dict[str, Any], ...] = (
    {
        "contains": "Mend the greeting",
        "steps": [
            {"type": "thinking", "text": "I look at both files first."},
            say("I look."),
            call("exec_command", cmd="cat greeting.txt"),
            call("exec_command", cmd="cat check.sh"),
        ],
    },
    {"contains": "helo", "steps": [call("exec_command", cmd="sed -i s/helo/hello/ greeting.txt && echo mended it")]},
    {"contains": "mended it", "steps": [call("exec_command", cmd="sh check.sh")]},
    {"contains": "check passed", "times": 2, "steps": [BUSY]},
    {"contains": "check passed", "steps": [say("The greeting is mended and checked.")]},
    {"steps": [say("no scene for that")]},
)


def codex(at: Place, question: str, *options: str, resumed: bool = False) -> str:
    """What Codex says at the end; `resumed`: of the conversation it had last."""
    (at.home / ".codex").mkdir(exist_ok=True)
    provider = {"name": "local", "base_url": f"{at.url}/v1", "env_key": "LOCAL_KEY"}
    told = [
        word for key, value in provider.items() for word in ("-c", f"model_providers.local.{key}={json.dumps(value)}")
    ]
    fixed = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-m", "local-model"]
    words = [agent_command("codex"), "exec", *fixed, "-c", "model_provider=local", *told, *options]
    return at.run(*words, *(["resume", "--last"] if resumed else []), question, LOCAL_KEY="dummy").strip()


def write_files(work: Path) -> None:
    """A greeting with a slip, and a check that finds it."""
    (work / "greeting.txt").write_text("helo world\n")
    (work / "check.sh").write_text('grep -q "^hello world$" greeting.txt && echo "check passed"\n')


@pytest.mark.parametrize("options", [(), SMALL], ids=["all its tools", "a small prompt"])
def test_codex_reads_edits_and_runs(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Two calls at once, an edit, a run, two refusals for want of room, and a last word."""
    script = write_script(tmp_path / "script.json", *LOOP)
    with place(tmp_path, "--script", str(script)) as at:
        write_files(at.work)
        assert codex(at, "Mend the greeting, please.", *options).endswith("The greeting is mended and checked.")
        lines = at.fetch("/v1/pensieve/cache")["requests"]
    assert (at.work / "greeting.txt").read_text() == "hello world\n"
    assert len(lines) == 4
    # Each turn begins with all that the turn before it was, whatever ids and dates stand beside it.
    assert [line["reason"] for line in lines] == ["evicted"] * 3 + ["new"]  # a script keeps no cache
    assert not any(line.get("difference") for line in lines)


@pytest.mark.parametrize("context_tokens", [32_768, 8_192], ids=["all its tools", "a small prompt"])
def test_codex_that_is_launched_does_the_same(tmp_path: Path, context_tokens: int) -> None:
    """By `pensieve codex exec`, and without a trace in the user's home."""
    program = Path(agent_command("codex"))
    script = write_script(tmp_path / "script.json", *LOOP, context_tokens=context_tokens)
    with place(tmp_path, "--script", str(script)) as at:
        write_files(at.work)
        began = time.monotonic()
        fixed = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
        said = at.launch(program, "codex", "exec", *fixed, "Mend the greeting, please.")
        sizes = [line["prompt_tokens"] for line in at.fetch("/v1/pensieve/cache")["requests"]]
    print(f"Codex, {context_tokens:,} tokens: {time.monotonic() - began:.1f} s, prompts of {sizes} words")
    assert said.strip().endswith("The greeting is mended and checked.")
    assert (at.work / "greeting.txt").read_text() == "hello world\n"
    assert (len(sizes), list(at.home.iterdir())) == (4, [])


@pytest.mark.model
def test_codex_second_turn_reuses_what_the_first_one_read(tmp_path: Path, starter_model: Path) -> None:
    """On the starter model, by the server's own figures."""
    rules = tmp_path / "rules.md"
    rules.write_text(RULES)
    options = (*SMALL, "-c", f"model_instructions_file={json.dumps(str(rules))}")
    settings = {"PENSIEVE_CONTEXT_TOKENS": "8192", "PENSIEVE_TEMPERATURE": "0", "home": str(starter_model.parents[3])}
    with place(tmp_path, "--model", "smollm2-135m", **settings) as at:
        assert codex(at, "Say hello.", *options)
        assert codex(at, "Say goodbye.", *options, resumed=True)
        second, first = at.fetch("/v1/pensieve/cache")["requests"][:2]
    share = second["reused_tokens"] / second["reusable_tokens"]
    print(f"Codex, second turn: {second['reused_tokens']} of {second['reusable_tokens']} tokens reused ({share:.1%})")
    assert second["compared_with"] == first["request_id"]
    assert second["reusable_tokens"] >= first["prompt_tokens"]
    assert share >= REUSE_BAR
