"""`pensieve claude|codex|opencode`: an agent in this terminal, on this machine's model, as `launch` decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.progress import Progress
from pensieve.cli.text import one_line
from pensieve.config.sources import LoadedSettings
from pensieve.launch import claude, codex, opencode, selftest
from pensieve.launch.environment import Endpoint
from pensieve.launch.plan import ModelFacts, note_of, plan_claude
from pensieve.launch.program import CLAUDE, CODEX, OPENCODE, Agent, find_program, version_note, version_of
from pensieve.launch.seat import Seat, take_seat
from pensieve.launch.server import Servers, Wanted
from pensieve.launch.session import ServerWatch, run_in_foreground
from pensieve.models.registry import Registry


class AgentCommand(click.Command):
    """A command whose own options stand first; from the first other word on, all words are the agent's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read our own options, and leave the rest as it is, `--` and `--help` included."""
        own, rest = split_words(args, self._own(ctx))
        super().parse_args(ctx, own)
        ctx.params["words"] = tuple(rest)
        return []

    def _own(self, ctx: click.Context) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option):
                found |= dict.fromkeys(parameter.opts, not parameter.is_flag)
        return found


def split_words(words: Sequence[str], own: dict[str, bool]) -> tuple[list[str], list[str]]:
    """Our own options at the beginning, and the rest; `own` says of each option whether a value follows it."""
    end = 0
    while end < len(words):
        name, has_value, _ = words[end].partition("=")
        if name not in own:
            break
        end += 2 if own[name] and not has_value else 1
    return list(words[:end]), list(words[end:])


class Start(msgspec.Struct, frozen=True):
    """How an agent is started beside a seat: its words and environment, and what the user should know of them."""

    words: list[str]
    environment: dict[str, str]
    note: str = ""


Dress = Callable[[Seat, Path, Sequence[str]], Start]
"""Takes the seat, the agent's folder and the user's words."""


def own_options(command: Callable[..., int]) -> Callable[..., int]:
    """What every agent's command has of its own."""
    keep = click.option("--keep-server", is_flag=True, help="Let the server run on when the last terminal has left.")
    model = click.option(
        "--local-model", metavar="NAME", help="The model that answers: a name, or the path of a file or folder."
    )
    return model(keep(command))


@click.command("claude", cls=AgentCommand)
@own_options
@click.option("--self-test", is_flag=True, help="Prove that your own settings and all other machines are left alone.")
def claude_command(local_model: str | None, *, keep_server: bool, self_test: bool, words: tuple[str, ...]) -> int:
    """Run Claude Code in this terminal on a model of this machine.

    Everything behind these options goes to Claude Code as it is. Other terminals, and your own settings of Claude Code,
    stay as they are.
    """
    desk = open_desk(CLAUDE, local_model, keeps_server=keep_server)
    claude.prepare_claude_folder(desk.folder)
    desk.check_version(claude.claude_places(desk.folder))
    return prove_claude(desk.program, desk.folder) if self_test else run_agent(desk, words, _dress_claude)


@click.command("codex", cls=AgentCommand)
@own_options
def codex_command(local_model: str | None, *, keep_server: bool, words: tuple[str, ...]) -> int:
    """Run Codex in this terminal on a model of this machine.

    Everything behind these options goes to Codex as it is. Other terminals, and your own settings of Codex, stay as
    they are.
    """
    desk = open_desk(CODEX, local_model, keeps_server=keep_server)
    codex.prepare_codex_folder(desk.folder)
    desk.check_version(codex.codex_places(desk.folder))
    return run_agent(desk, words, _dress_codex)


@click.command("opencode", cls=AgentCommand)
@own_options
def opencode_command(local_model: str | None, *, keep_server: bool, words: tuple[str, ...]) -> int:
    """Run opencode in this terminal on a model of this machine.

    Everything behind these options goes to opencode as it is. Other terminals, and your own settings of opencode, stay
    as they are.
    """
    desk = open_desk(OPENCODE, local_model, keeps_server=keep_server)
    opencode.prepare_opencode_folder(desk.folder, os.environ, Path.home())
    desk.check_version(opencode.opencode_places(desk.folder))
    return run_agent(desk, words, _dress_opencode)


def _dress_claude(seat: Seat, folder: Path, words: Sequence[str]) -> Start:
    plan = plan_claude(seat.facts)
    told = claude.claude_variables(seat.endpoint, seat.facts, plan, folder)
    return Start(claude.claude_arguments(plan, words), claude.claude_environment(os.environ, told), note_of(plan))


def _dress_codex(seat: Seat, folder: Path, words: Sequence[str]) -> Start:
    plan = codex.PROMPTS.plan(seat.facts)
    options = codex.codex_options(seat.endpoint, seat.facts, plan, folder)
    environment = codex.codex_environment(os.environ, seat.endpoint, folder)
    return Start(codex.codex_arguments(options, words), environment, codex.PROMPTS.note(plan))


def _dress_opencode(seat: Seat, folder: Path, words: Sequence[str]) -> Start:
    plan = opencode.PROMPTS.plan(seat.facts)
    told = opencode.opencode_variables(seat.endpoint, seat.facts, plan)
    environment = opencode.opencode_environment(os.environ, told, folder)
    return Start(list(words), environment, opencode.PROMPTS.note(plan))


class AgentDesk(msgspec.Struct, frozen=True):
    """What is known before a server is asked: the agent's program, and the user's settings."""

    agent: Agent
    program: Path
    loaded: LoadedSettings
    progress: Progress
    keeps_server: bool

    @property
    def folder(self) -> Path:
        """Where the agent keeps its things when it is started here."""
        return self.loaded.folders.data / "agents" / self.agent.command

    def check_version(self, places: Mapping[str, str]) -> None:
        """Say what the user should know of the program's version; it is asked with its folder in place of theirs."""
        version = version_of(self.program, {**os.environ, **places})
        self.progress.note(version_note(self.agent, version))


def open_desk(agent: Agent, local_model: str | None, *, keeps_server: bool) -> AgentDesk:
    """The agent's program on this machine; raises `UsageError` where it is not installed."""
    program = find_program(agent, os.environ)
    return AgentDesk(agent, program, load_settings({"model.name": local_model}), Progress(), keeps_server)


def run_agent(desk: AgentDesk, words: Sequence[str], dress: Dress) -> int:
    """Start or find the server, run the agent beside it, and give back its exit status."""
    servers, wanted = open_servers(desk.loaded, desk.progress)
    folders = desk.loaded.folders
    taking = take_seat(servers, wanted, folders, desk.agent.command, keeps_server=desk.keeps_server)
    with desk.progress, taking as seat:
        start = dress(seat, desk.folder, words)
        desk.progress.note(start.note)
        command = [str(desk.program), *start.words]
        return run_beside(seat, servers, wanted, desk.progress, command, start.environment)


def prove_claude(program: Path, folder: Path) -> int:
    """Print what the self-test saw; 0 if everything was proven."""
    facts = ModelFacts("scripted", 32_768, 4_096)
    plan = plan_claude(facts)

    def command(endpoint: Endpoint) -> tuple[list[str], dict[str, str]]:
        told = claude.claude_variables(endpoint, facts, plan, folder)
        words = claude.claude_arguments(plan, ["--print", selftest.QUESTION])
        return [str(program), *words], claude.claude_environment(os.environ, told)

    proof = selftest.prove(command, Path.home())
    for is_proven, sentence in selftest.sentences(proof):
        click.echo(f"{'proven' if is_proven else 'FAILED'}: {one_line(sentence)}")
    return 0 if proof.holds else 1


def open_servers(loaded: LoadedSettings, progress: Progress) -> tuple[Servers, Wanted]:
    """What finds or starts the server of these settings; raises `ModelNotFound` before anything is started."""
    settings = loaded.settings
    spec_name = settings.model.name
    wanted = Wanted(
        spec_name,
        is_chosen=loaded.origins["model.name"].layer != "default",
        port=settings.server.port,
        is_port_chosen=loaded.origins["server.port"].layer != "default",
        load_seconds=settings.worker.load_timeout_seconds,
    )
    if wanted.is_chosen:
        spec = Registry(loaded.folders.models).find(spec_name)
        wanted = msgspec.structs.replace(wanted, location=str(Path(spec.location).resolve()))
    return Servers(loaded.folders, settings.server, os.environ, progress.tell), wanted


def run_beside(
    seat: Seat, servers: Servers, wanted: Wanted, progress: Progress, command: list[str], environment: dict[str, str]
) -> int:
    """Run the agent while its server is kept up; its exit status."""
    progress.end()
    with ServerWatch(seat.server, lambda: servers.start_again(wanted, seat.server)) as watch:
        status = run_in_foreground(command, environment)
    for sentence in watch.notes:
        progress.note(sentence)
    return status
