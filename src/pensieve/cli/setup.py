"""`pensieve setup claude-code` and `pensieve env`: a user's own settings, or shell, led to the server here."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from pensieve.cli.agents import open_servers
from pensieve.cli.context import load_settings
from pensieve.cli.progress import Progress
from pensieve.config.settings import ServerSettings
from pensieve.config.sources import LoadedSettings
from pensieve.devices.lifetimes import lifetime_of
from pensieve.errors import UsageError
from pensieve.launch import codex, opencode
from pensieve.launch.claude import claude_variables
from pensieve.launch.codex import codex_arguments, codex_options, prepare_codex_folder
from pensieve.launch.environment import TERMINAL_KEY, Endpoint
from pensieve.launch.global_settings import GlobalSettings
from pensieve.launch.opencode import opencode_variables
from pensieve.launch.plan import ModelFacts, plan_claude
from pensieve.launch.seat import mint, mint_for
from pensieve.launch.server import is_taken
from pensieve.server.terminal_keys import TerminalKeys

ONLY_PRIVATE = ("CLAUDE_CONFIG_DIR", "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST")
"""Said to an agent in its own terminal only: in the user's settings, their own folder is meant, and they decide."""


@click.group("setup")
def setup() -> None:
    """Change an agent's own settings, so that it uses the server here in every terminal."""


@setup.command("claude-code")
@click.option("--undo", is_flag=True, help="Take the change back.")
@click.option("--yes", is_flag=True, help="Change without asking.")
def setup_claude_code(*, undo: bool, yes: bool) -> None:
    """Let every Claude Code of this user speak to the server here: shown first, backed up, and undone with --undo."""
    loaded = load_settings()
    settings = GlobalSettings(_claude_settings(), loaded.folders.data / "agents" / "setup-claude-code.json")
    keys = TerminalKeys(loaded.folders.keys)
    if undo:
        note, is_whole = settings.undo()
        keys.revoke(note.key)
        how = "is byte for byte what it was" if is_whole else "was changed since, so only our variables were taken out"
        click.echo(f"{note.path} {how}.")
        return
    earlier = settings.noted_key
    with _unless_it_fails(keys, mint(keys, None, "setup claude-code")) as key:
        _change(settings, _shared_variables(*_running(loaded, key, is_lasting=True)), key, is_agreed=yes)
    keys.revoke(earlier)


@click.command("env")
@click.argument("client", type=click.Choice(["claude", "codex", "opencode", "openai"]), default="claude")
def env(client: str) -> None:
    """Print what a shell exports to reach the server here: eval "$(pensieve env)". The key ends with the terminal."""
    loaded = load_settings()
    keys, shell = TerminalKeys(loaded.folders.keys), os.getsid(0)
    # In a container the session may be led from outside.
    holder = shell if lifetime_of(shell) else os.getppid()
    with _unless_it_fails(keys, mint_for(keys, holder, f"env {client}")) as key:
        lines = _exports(client, loaded, key)
    for line in lines:
        click.echo(line)


@contextmanager
def _unless_it_fails(keys: TerminalKeys, key: str) -> Iterator[str]:
    """The key, which is good for nothing where what it was made for fails."""
    with ExitStack() as undone:
        undone.callback(keys.revoke, key)
        yield key
        undone.pop_all()


def _exports(client: str, loaded: LoadedSettings, key: str) -> list[str]:
    """What a shell evaluates, line by line."""
    endpoint, facts = _running(loaded, key)
    more: list[str] = []
    match client:
        case "claude":
            told = _shared_variables(endpoint, facts)
        case "opencode":
            told = opencode_variables(endpoint, facts, opencode.PROMPTS.plan(facts))
        case "codex":
            told = {TERMINAL_KEY: key}
            more = [_codex_function(loaded, endpoint, facts)]
        case _:
            told = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": key}
    return [f"export {name}={shlex.quote(value)}" for name, value in told.items()] + more


def _codex_function(loaded: LoadedSettings, endpoint: Endpoint, facts: ModelFacts) -> str:
    """A command of the shell's: Codex takes an address from its settings only, not from a variable."""
    folder = loaded.folders.data / "agents" / "codex"
    prepare_codex_folder(folder)
    options = codex_options(endpoint, facts, codex.PROMPTS.plan(facts), folder)
    return f'codex() {{ command codex {shlex.join(codex_arguments(options, ()))} "$@"; }}'


def _running(loaded: LoadedSettings, key: str, *, is_lasting: bool = False) -> tuple[Endpoint, ModelFacts]:
    """The running server, or the one that is started for the question, and what its model can.

    `is_lasting`: its address is written down, so that it must be the one of the settings and no free one: another
    program may have that one tomorrow, and would be sent prompts and key.
    """
    progress = Progress()
    servers, wanted = open_servers(loaded, progress)
    wanted = msgspec.structs.replace(wanted, is_port_chosen=wanted.is_port_chosen or is_lasting)
    if is_lasting and not wanted.port:
        raise UsageError("server.port is 0, any free port, and an address that is written down must last: choose one")
    with progress:
        server = servers.find_or_start(wanted)
        facts = servers.facts(server, wanted)
    return Endpoint(_lasting(server.url, loaded.settings.server) if is_lasting else server.url, key), facts


def _lasting(url: str, settings: ServerSettings) -> str:
    """The address with the settings' port, where a server will be tomorrow; says so where this one has another.

    Raises `UsageError` where that port is another program's.
    """
    parts, port = urlsplit(url), settings.port
    if parts.port == port:
        return url
    if is_taken(settings.host, port):
        raise UsageError(
            f"port {port} of your settings is taken by another program, which would be sent prompts and the key: set "
            f"server.port to a free one, or `PENSIEVE_PORT={parts.port} pensieve setup claude-code` writes the port of "
            "the server that runs now"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    lasting = f"{parts.scheme}://{host}:{port}"
    click.echo(
        f"The server that runs now listens at {url}; your settings say port {port}, so {lasting} is written. "
        f"A server is there once this one is stopped and `pensieve serve` is started; "
        f"`PENSIEVE_PORT={parts.port} pensieve setup claude-code` writes the other.",
        err=True,
    )
    return lasting


def _shared_variables(endpoint: Endpoint, facts: ModelFacts) -> dict[str, str]:
    told = claude_variables(endpoint, facts, plan_claude(facts), Path())
    return {name: value for name, value in told.items() if name not in ONLY_PRIVATE}


def _change(settings: GlobalSettings, variables: dict[str, str], key: str, *, is_agreed: bool) -> None:
    before, after = settings.planned(variables)
    now, then = ((content or b"").decode("utf-8", "replace").splitlines() for content in (before, after))
    click.echo(f"{settings.path}:")
    for line in difflib.unified_diff(now, then, "now", "then", lineterm="", n=1):
        click.echo("  " + line.replace(key, f"{key[:20]}..."))
    if not is_agreed:
        click.confirm("Change it?", abort=True)
    backup = settings.change(variables, key)
    kept = f"The file as it was: {backup}. " if backup else ""
    click.echo(f"{kept}`pensieve serve` must run for it; `pensieve setup claude-code --undo` takes it back.")


def _claude_settings() -> Path:
    folder = os.environ.get("CLAUDE_CONFIG_DIR")
    return (Path(folder) if folder else Path.home() / ".claude") / "settings.json"
