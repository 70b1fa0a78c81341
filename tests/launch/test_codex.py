"""Codex's surroundings, as values, and its folder."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pensieve.errors import UsageError
from pensieve.launch.codex import (
    PROMPTS,
    codex_arguments,
    codex_environment,
    codex_options,
    prepare_codex_folder,
)
from pensieve.launch.environment import Endpoint
from pensieve.launch.plan import ModelFacts, PromptPlan

ENDPOINT = Endpoint("http://127.0.0.1:7777", "a-key")
SMALL, LARGE = ModelFacts("small", 8_192, 8_192), ModelFacts('a"b\\c', 32_768, 4_096)


@pytest.mark.parametrize(
    ("facts", "plan", "compacts_at"),
    [
        (SMALL, PromptPlan(8_192, 1_024, True), 7_168),
        (LARGE, PromptPlan(32_768, 4_096, False), 28_672),
        (ModelFacts("m", 1_000_000, 1_000_000), PromptPlan(1_000_000, 32_000, False), 968_000),
    ],
)
def test_the_context_chooses_the_prompt_and_when_to_compact(
    facts: ModelFacts, plan: PromptPlan, compacts_at: int
) -> None:
    """What is left out is said."""
    assert PROMPTS.plan(facts) == plan
    assert plan.compacts_at_tokens == compacts_at
    assert ("8,192" in PROMPTS.note(plan)) is plan.is_reduced


def test_a_context_that_carries_nothing_is_refused_with_both_numbers() -> None:
    """And with what to do."""
    with pytest.raises(UsageError, match=r"m has a context of 4,096 .* needs 5,715 or more: take another model"):
        PROMPTS.plan(ModelFacts("m", 4_096, 4_096))


@pytest.mark.parametrize("facts", [SMALL, LARGE])
def test_the_words_before_the_users_are_settings_that_codex_can_read(facts: ModelFacts) -> None:
    """Each is a name and a value of TOML; the user's own follow, untouched."""
    options = codex_options(ENDPOINT, facts, PROMPTS.plan(facts), Path("/private"))
    words = codex_arguments(options, ["exec", "--", "-x", "two words"])
    assert words[-4:] == ["exec", "--", "-x", "two words"]
    assert words[:-4:2] == ["-c"] * len(options)
    told = {
        name: tomllib.loads(f"value = {value}")["value"] for name, _, value in (w.partition("=") for w in words[1:-4:2])
    }
    assert told == options
    assert told["model_providers.pensieve.base_url"] == "http://127.0.0.1:7777/v1"
    assert (told["model"], told["check_for_update_on_startup"], told["analytics.enabled"]) == (facts.name, False, False)
    assert ("model_instructions_file" in told) is (facts is SMALL)
    assert "a-key" not in str(words)  # others see a process's words


def test_what_speaks_of_other_servers_is_not_inherited() -> None:
    """Nor our own key; the folder is a private one, and the key stands in a variable."""
    inherited = {"OPENAI_API_KEY": "x", "CODEX_HOME": "/mine", "PENSIEVE_API_KEY": "secret", "PATH": "/bin"}
    made = codex_environment(inherited, ENDPOINT, Path("/private"))
    assert made == {"PATH": "/bin", "CODEX_HOME": "/private", "PENSIEVE_TERMINAL_KEY": "a-key"}


def test_the_folder_is_the_owners_and_holds_the_short_instructions(tmp_path: Path) -> None:
    """What Codex notes there itself stays."""
    folder = tmp_path / "agents" / "codex"
    prepare_codex_folder(folder)
    (folder / "config.toml").write_text("mine = true")
    prepare_codex_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "coding agent" in (folder / "instructions.md").read_text()
    assert (folder / "config.toml").read_text() == "mine = true"
