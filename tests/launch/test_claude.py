"""Claude Code's surroundings, as values, and its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pensieve.errors import UsageError
from pensieve.launch.claude import (
    MODEL_VARIABLES,
    claude_arguments,
    claude_environment,
    claude_name,
    claude_variables,
    prepare_claude_folder,
)
from pensieve.launch.environment import Endpoint
from pensieve.launch.plan import ModelFacts, Plan

ENDPOINT = Endpoint("http://127.0.0.1:7777", "a-key")
BARE, REDUCED, ALL = (Plan(8_192, 1_024, "bare"), Plan(16_384, 2_048, "reduced"), Plan(32_768, 4_096, "all"))
FACTS = ModelFacts("small", 8_192, 8_192)


def told(facts: ModelFacts = FACTS, plan: Plan = BARE) -> dict[str, str]:
    """What it is told of a model."""
    return claude_variables(ENDPOINT, facts, plan, Path("/private"))


def test_address_key_folder_models_and_limits_are_told() -> None:
    """Every name of a model is the local one's, the sub-agents' too."""
    variables = told()
    assert variables["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:7777"
    assert variables["ANTHROPIC_AUTH_TOKEN"] == "a-key"
    assert variables["CLAUDE_CONFIG_DIR"] == "/private"
    assert {variables[name] for name in MODEL_VARIABLES} == {"small"}
    assert variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "16384"
    assert variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "1024"


@pytest.mark.parametrize(
    ("plan", "thinks", "name", "value"),
    [
        (BARE, False, "CLAUDE_CODE_SIMPLE", "1"),
        (ALL, False, "CLAUDE_CODE_SIMPLE", None),
        (REDUCED, False, "CLAUDE_CODE_DISABLE_BUNDLED_SKILLS", "1"),
        (ALL, False, "CLAUDE_CODE_DISABLE_THINKING", "1"),
        (ALL, True, "CLAUDE_CODE_DISABLE_THINKING", None),
        (BARE, False, "BASH_MAX_OUTPUT_LENGTH", "5736"),
        (ALL, False, "CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS", "5836"),
    ],
)
def test_the_plan_and_the_model_decide_the_rest(plan: Plan, thinks: bool, name: str, value: str | None) -> None:
    """Tools, thinking, and how long one result may be."""
    assert told(ModelFacts("m", 1, 1, thinks), plan).get(name) == value


def test_what_speaks_of_other_servers_is_not_inherited() -> None:
    """Nor our own key; everything else is, and a proxy is passed by for this machine."""
    inherited = {
        "ANTHROPIC_API_KEY": "x",
        "ANTHROPIC_CUSTOM_HEADERS": "a: b",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDECODE": "1",
        "DISABLE_AUTO_COMPACT": "1",
        "PENSIEVE_API_KEY": "secret",
        "HTTPS_PROXY": "http://proxy.example",
        "no_proxy": "intern.example",
        "PATH": "/bin",
    }
    made = claude_environment(inherited, told())
    assert made.keys() - told().keys() == {"HTTPS_PROXY", "NO_PROXY", "no_proxy", "PATH"}
    assert made["NO_PROXY"] == "intern.example,127.0.0.1,localhost,::1"
    assert made["ANTHROPIC_AUTH_TOKEN"] == "a-key"


@pytest.mark.parametrize(
    ("model", "name"), [("qwen3-4b", "qwen3-4b"), ("a/b:c.d", "a/b:c.d"), ("a=b,c", "local-model")]
)
def test_a_name_that_its_variables_cannot_carry_becomes_a_plain_one(model: str, name: str) -> None:
    """The server answers to any."""
    assert claude_name(model) == name


def test_arguments_are_the_users() -> None:
    """The shorter list of tools stands before them, and gives way to theirs."""
    given = ["--print", "--", "-x", "two words"]
    assert claude_arguments(BARE, given) == given
    assert claude_arguments(ALL, given) == given
    assert claude_arguments(REDUCED, given) == ["--tools=Bash,Edit,Read,Write", *given]
    assert claude_arguments(REDUCED, ["--tools", "Read"]) == ["--tools", "Read"]


def test_the_folder_is_the_owners_and_answers_the_first_questions(tmp_path: Path) -> None:
    """What Claude Code noted there itself stays."""
    folder = tmp_path / "agents" / "claude"
    prepare_claude_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    note = folder / ".claude.json"
    note.write_text(json.dumps({"userID": "u", "hasCompletedOnboarding": False}))
    prepare_claude_folder(folder)
    assert json.loads(note.read_text()) == {"userID": "u", "hasCompletedOnboarding": True}
    assert [each.name for each in folder.iterdir()] == [".claude.json"]


def test_a_folder_that_cannot_be_made_is_named_with_a_way_out(tmp_path: Path) -> None:
    """A file in its place, here."""
    (tmp_path / "agents").write_text("")
    with pytest.raises(UsageError, match=r"agents/claude cannot be used .*PENSIEVE_HOME"):
        prepare_claude_folder(tmp_path / "agents" / "claude")
