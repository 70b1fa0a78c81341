"""opencode's surroundings, as values, and its folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pensieve.errors import UsageError
from pensieve.launch.environment import Endpoint
from pensieve.launch.opencode import (
    PROMPTS,
    opencode_environment,
    opencode_variables,
    prepare_opencode_folder,
)
from pensieve.launch.plan import ModelFacts, PromptPlan

ENDPOINT = Endpoint("http://127.0.0.1:7777", "a-key")
SMALL, LARGE = ModelFacts("a/small", 8_192, 8_192), ModelFacts("large", 32_768, 8_192, True)


@pytest.mark.parametrize(
    ("facts", "plan"), [(SMALL, PromptPlan(8_192, 1_024, True)), (LARGE, PromptPlan(32_768, 4_096, False))]
)
def test_the_context_chooses_prompt_and_limits(facts: ModelFacts, plan: PromptPlan) -> None:
    """What is left out is said."""
    assert PROMPTS.plan(facts) == plan
    assert ("8,192" in PROMPTS.note(plan)) is plan.is_reduced


def test_a_context_that_carries_nothing_is_refused_with_both_numbers() -> None:
    """And with what to do."""
    with pytest.raises(UsageError, match=r"m has a context of 4,096 .* needs 8,000 or more: take another model"):
        PROMPTS.plan(ModelFacts("m", 4_096, 4_096))


@pytest.mark.parametrize("facts", [SMALL, LARGE])
def test_one_provider_and_one_model_are_told(facts: ModelFacts) -> None:
    """The only ones that are used, for titles too; a small context leaves tools out."""
    told = opencode_variables(ENDPOINT, facts, PROMPTS.plan(facts))
    config = json.loads(told["OPENCODE_CONFIG_CONTENT"])
    assert config["enabled_providers"] == list(config["provider"]) == ["pensieve"]
    assert config["model"] == config["small_model"] == f"pensieve/{facts.name}"
    provider = config["provider"]["pensieve"]
    assert provider["options"]["baseURL"] == "http://127.0.0.1:7777/v1"
    assert provider["models"][facts.name]["limit"]["context"] == facts.context_tokens
    assert ("tools" in config) is (facts is SMALL)
    assert told["PENSIEVE_TERMINAL_KEY"] == "a-key"
    assert told["OPENCODE_DISABLE_AUTOUPDATE"] == "1"


def test_what_speaks_of_other_servers_is_not_inherited() -> None:
    """And all four places are private ones."""
    inherited = {"OPENCODE_CONFIG": "x", "XDG_DATA_HOME": "/mine", "PENSIEVE_API_KEY": "secret", "PATH": "/bin"}
    made = opencode_environment(inherited, {"TOLD": "1"}, Path("/private"))
    places = {f"XDG_{name}_HOME": f"/private/xdg_{name.lower()}_home" for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    assert made == {"PATH": "/bin", "TOLD": "1", **places}


def test_programs_that_it_runs_find_all_else_that_the_user_keeps(tmp_path: Path) -> None:
    """But opencode's own folders are left alone; what has gone since is no longer shown."""
    own, folder = tmp_path / "own", tmp_path / "private"
    for name in ("git", "opencode", "gone"):
        (own / name).mkdir(parents=True)
    (own / "git" / "config").write_text("[user]")
    prepare_opencode_folder(folder, {"XDG_CONFIG_HOME": str(own)}, tmp_path / "home")
    (own / "gone").rmdir()
    prepare_opencode_folder(folder, {"XDG_CONFIG_HOME": str(own)}, tmp_path / "home")
    shown = folder / "xdg_config_home"
    assert [each.name for each in shown.iterdir()] == ["git"]
    assert (shown / "git" / "config").read_text() == "[user]"
    assert (folder.stat().st_mode & 0o777, shown.stat().st_mode & 0o777) == (0o700, 0o700)


def test_started_from_within_itself_it_keeps_its_folders(tmp_path: Path) -> None:
    """There the user's places are our own."""
    folder = tmp_path / "private"
    prepare_opencode_folder(folder, {}, tmp_path / "home")
    environ = opencode_environment({}, {}, folder)
    (folder / "xdg_data_home" / "opencode").mkdir()
    prepare_opencode_folder(folder, environ, tmp_path / "home")
    assert [each.name for each in (folder / "xdg_data_home").iterdir()] == ["opencode"]
