"""Codex's surroundings: what it is started with, as values, and the folder it keeps its things in.

The user's own configuration is neither read nor changed. Starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pensieve.launch.environment import TERMINAL_KEY, Endpoint, scrubbed, without_proxy
from pensieve.launch.folder import prepare_folder
from pensieve.launch.plan import ModelFacts, PromptPlan, Prompts
from pensieve.messages import Json

SCRUBBED_PREFIXES = ("OPENAI_", "CODEX_")
PROMPTS = Prompts("Codex", 11_500, 2_000)
"""Measured: about 9,700 and 1,400, with everything and reduced."""
INSTRUCTIONS_FILE = "instructions.md"
INSTRUCTIONS = """You are a coding agent in the user's folder. Look with commands before you answer, change files with \
commands, and check what you changed. Say at the end, in a sentence or two, what you did.
"""
FIXED: Mapping[str, Json] = {
    "model_provider": "pensieve",
    "check_for_update_on_startup": False,
    "analytics.enabled": False,
    "feedback.enabled": False,
    "otel.exporter": "none",
    # They ask other machines: a search engine, and lists of what can be installed.
    "web_search": "disabled",
    "features.plugins": False,
    "features.apps": False,
}
REDUCED: Mapping[str, Json] = {
    "features.multi_agent": False,
    "features.goals": False,
    "include_permissions_instructions": False,
    "include_environment_context": False,
    "include_apps_instructions": False,
}


def codex_options(endpoint: Endpoint, facts: ModelFacts, plan: PromptPlan, folder: Path) -> dict[str, Json]:
    """What Codex is told, by the names of its settings."""
    provider = "model_providers.pensieve"
    told: dict[str, Json] = {
        **FIXED,
        "model": facts.name,
        "model_context_window": plan.context_tokens,
        "model_auto_compact_token_limit": plan.compacts_at_tokens,
        f"{provider}.name": "Pensieve",
        f"{provider}.base_url": f"{endpoint.url}/v1",
        f"{provider}.wire_api": "responses",
        f"{provider}.env_key": TERMINAL_KEY,
        # A prompt may take minutes to read here; the server's pings say that it is alive.
        f"{provider}.stream_idle_timeout_ms": 1_800_000,
    }
    short: dict[str, Json] = {**REDUCED, "model_instructions_file": str(folder / INSTRUCTIONS_FILE)}
    return told | (short if plan.is_reduced else {})


def codex_arguments(options: Mapping[str, Json], given: Sequence[str]) -> list[str]:
    """What it is told, and behind it the user's words, untouched: a `-c` among those has the last word."""
    return [word for name, value in options.items() for word in ("-c", f"{name}={_toml(value)}")] + list(given)


def codex_environment(inherited: Mapping[str, str], endpoint: Endpoint, folder: Path) -> dict[str, str]:
    """The environment of the process: the user's, without what speaks of other servers, with folder and key."""
    kept = scrubbed(inherited, SCRUBBED_PREFIXES, ())
    return without_proxy({**kept, **codex_places(folder), TERMINAL_KEY: endpoint.key})


def codex_places(folder: Path) -> dict[str, str]:
    """What leads Codex to its folder."""
    return {"CODEX_HOME": str(folder)}


def prepare_codex_folder(folder: Path) -> None:
    """Make the folder, with our own short instructions in it; raises `UsageError`."""
    prepare_folder("Codex", folder, lambda _: {INSTRUCTIONS_FILE: INSTRUCTIONS.encode()})


def _toml(value: Json) -> str:
    # What JSON and TOML write alike: text, numbers and truth.
    return json.dumps(value, ensure_ascii=False)
