"""Claude Code's surroundings: what it is started with, as values, and the folder it keeps its things in.

The user's own settings are neither read nor changed. Starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pensieve.launch.environment import Endpoint, scrubbed, without_proxy
from pensieve.launch.folder import prepare_folder
from pensieve.launch.plan import ModelFacts, Plan
from pensieve.messages import Json

SCRUBBED_PREFIXES = ("ANTHROPIC_", "CLAUDE")
SCRUBBED_NAMES = frozenset(
    {
        "API_FORCE_IDLE_TIMEOUT",
        "API_TIMEOUT_MS",
        "DISABLE_AUTO_COMPACT",
        "DISABLE_COMPACT",
        "DISABLE_PROMPT_CACHING",
        "ENABLE_TOOL_SEARCH",
        "MAX_THINKING_TOKENS",
    }
)
REDUCED_TOOLS = "--tools=Bash,Edit,Read,Write"
FIXED: Mapping[str, str] = {
    # With this the settings of a project, which anybody may have written, cannot change address, key or model.
    "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    "CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_FEEDBACK_COMMAND": "1",
    "DISABLE_TELEMETRY": "1",
    # Both change with every session or request, and what was read before could not be used again.
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "off",
    # A prompt may take minutes to read here; the server's pings say that it is alive.
    "API_TIMEOUT_MS": "3600000",
    "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "1800000",
    "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1800000",
}
MODEL_VARIABLES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
DEFAULT_BASH_CHARACTERS = 30_000
DEFAULT_FILE_TOKENS = 25_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_NOTE = ".claude.json"


def claude_name(model: str) -> str:
    """The model's name as Claude Code can carry it in its variables."""
    return model if _PLAIN_NAME.fullmatch(model) else "local-model"


def claude_variables(endpoint: Endpoint, facts: ModelFacts, plan: Plan, folder: Path) -> dict[str, str]:
    """What Claude Code is told, and nothing of what it was told before."""
    name = claude_name(facts.name)
    told = {
        **FIXED,
        **dict.fromkeys(MODEL_VARIABLES, name),
        "ANTHROPIC_BASE_URL": endpoint.url,
        "ANTHROPIC_AUTH_TOKEN": endpoint.key,
        **claude_places(folder),
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(plan.window_tokens),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(plan.output_tokens),
        # Otherwise what the system says stands after the first question, and no other session can use it again.
        "CLAUDE_CODE_MODEL_CAPABILITIES": f"{name}=-mid_conv_system",
        # One result must not fill the room that is left.
        "BASH_MAX_OUTPUT_LENGTH": str(min(DEFAULT_BASH_CHARACTERS, 2 * plan.room_tokens)),
        "CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS": str(min(DEFAULT_FILE_TOKENS, plan.room_tokens // 2)),
        "MAX_MCP_OUTPUT_TOKENS": str(min(DEFAULT_FILE_TOKENS, plan.room_tokens // 2)),
    }
    return told | _tools(plan) | ({} if facts.thinks else {"CLAUDE_CODE_DISABLE_THINKING": "1"})


def claude_places(folder: Path) -> dict[str, str]:
    """What leads Claude Code to its folder."""
    return {"CLAUDE_CONFIG_DIR": str(folder)}


def claude_environment(inherited: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: the user's, without what speaks of other servers, with what is told."""
    return without_proxy({**scrubbed(inherited, SCRUBBED_PREFIXES, SCRUBBED_NAMES), **told})


def claude_arguments(plan: Plan, given: Sequence[str]) -> list[str]:
    """The user's arguments, untouched; the shorter list of tools stands before them unless they choose tools."""
    chooses = any(word == "--tools" or word.startswith("--tools=") for word in given)
    return [REDUCED_TOOLS, *given] if plan.tools == "reduced" and not chooses else list(given)


def prepare_claude_folder(folder: Path) -> None:
    """Make the folder, and answer in it what Claude Code asks at its first start; raises `UsageError`."""
    prepare_folder("Claude Code", folder, _answered)


def _tools(plan: Plan) -> dict[str, str]:
    match plan.tools:
        case "all":
            return {}
        case "reduced":
            shorter = ("AUTO_MEMORY", "BUNDLED_SKILLS", "GIT_INSTRUCTIONS")
            return {f"CLAUDE_CODE_DISABLE_{name}": "1" for name in shorter}
        case "bare":
            return {"CLAUDE_CODE_SIMPLE": "1"}


def _answered(folder: Path) -> dict[str, bytes]:
    """Its note, with the questions of the first start answered, where they are not."""
    known = _read(folder / _NOTE)
    if known.get("hasCompletedOnboarding") is True:
        return {}
    return {_NOTE: msgspec.json.encode(known | {"hasCompletedOnboarding": True})}


def _read(note: Path) -> dict[str, Json]:
    """What the note says; nothing where it is missing or is no note, which Claude Code would put right itself."""
    try:
        return msgspec.json.decode(note.read_bytes(), type=dict[str, Json])
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        return {}
