"""opencode's surroundings: what it is started with, as values, and the folders it keeps its things in.

The user's own configuration is neither read nor changed. Starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pensieve.launch.environment import TERMINAL_KEY, Endpoint, scrubbed, without_proxy
from pensieve.launch.folder import prepare_folder, show_all_but
from pensieve.launch.plan import ModelFacts, PromptPlan, Prompts
from pensieve.messages import Json

SCRUBBED_PREFIXES = ("OPENCODE",)
PLACES: Mapping[str, str] = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_CACHE_HOME": ".cache",
}
"""Variable -> the place in a home that is meant without it. opencode has a folder of its own in each."""
PROMPTS = Prompts("opencode", 9_500, 4_000)
"""Measured: about 7,600 and 3,100, with everything and reduced."""
FIXED: Mapping[str, str] = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_SHARE": "1",
}
LEFT_OUT = ("task", "todowrite", "webfetch", "websearch", "skill", "question")
"""Tools that a short prompt does without."""
INSTRUCTIONS = """You are a coding agent in the user's folder. Look at files before you answer, change them with your \
tools, and check what you changed. Say at the end, in a sentence or two, what you did."""


def opencode_variables(endpoint: Endpoint, facts: ModelFacts, plan: PromptPlan) -> dict[str, str]:
    """What opencode is told, of whichever configuration it reads: this one is read last."""
    config = msgspec.json.encode(_config(endpoint, facts, plan)).decode()
    return {**FIXED, "OPENCODE_CONFIG_CONTENT": config, TERMINAL_KEY: endpoint.key}


def opencode_environment(inherited: Mapping[str, str], told: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment of the process: the user's, without what speaks of other servers, with what is told."""
    return without_proxy({**scrubbed(inherited, SCRUBBED_PREFIXES, ()), **told, **opencode_places(folder)})


def opencode_places(folder: Path) -> dict[str, str]:
    """What leads opencode to its folders."""
    return {name: str(folder / name.lower()) for name in PLACES}


def prepare_opencode_folder(folder: Path, environ: Mapping[str, str], home: Path) -> None:
    """Make its four folders; programs that it runs find all else that the user keeps there; raises `UsageError`."""

    def show(folder: Path) -> dict[str, bytes]:
        for name, usual in PLACES.items():
            show_all_but(Path(environ.get(name) or home / usual), folder / name.lower(), "opencode")
        return {}

    prepare_folder("opencode", folder, show)


def _config(endpoint: Endpoint, facts: ModelFacts, plan: PromptPlan) -> dict[str, Json]:
    model: dict[str, Json] = {
        "name": facts.name,
        "limit": {"context": plan.context_tokens, "output": plan.output_tokens},
        "tool_call": True,
        "reasoning": facts.thinks,
    }
    provider: dict[str, Json] = {
        "name": "Pensieve",
        "npm": "@ai-sdk/anthropic",
        "options": {"baseURL": f"{endpoint.url}/v1", "apiKey": f"{{env:{TERMINAL_KEY}}}", "timeout": False},
        "models": {facts.name: model},
    }
    name = f"pensieve/{facts.name}"
    config: dict[str, Json] = {
        "provider": {"pensieve": provider},
        "enabled_providers": ["pensieve"],
        "model": name,
        "small_model": name,
        "autoupdate": False,
        "share": "disabled",
    }
    return config | (_reduced() if plan.is_reduced else {})


def _reduced() -> dict[str, Json]:
    return {"tools": dict.fromkeys(LEFT_OUT, False), "agent": {"build": {"prompt": INSTRUCTIONS}}}
