"""`pensieve claude`: an agent in this terminal, on this machine's model. Wires together what `launch` decides."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.text import one_line
from pensieve.config.sources import LoadedSettings
from pensieve.launch import claude, selftest
from pensieve.launch.environment import Endpoint
from pensieve.launch.plan import ModelFacts, note_of, plan_claude
from pensieve.launch.program import CLAUDE, Agent, find_program, version_note, version_of
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


class Progress:
    """Says on standard error what is going on: in one changing line on a terminal, else once for each thing."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said = ""

    def tell(self, phrase: str) -> None:
        """Show the phrase, if it is a new one."""
        what = phrase if self._is_terminal else phrase.partition(",")[0]
        if what == self._said:
            return
        self._said = what
        click.echo(
            f"\r\x1b[Kpensieve: {one_line(what)}" if self._is_terminal else f"pensieve: {what}", err=True, nl=False
        )
        if not self._is_terminal:
            click.echo(err=True)

    def end(self) -> None:
        """Clear the line for whoever writes next."""
        if self._is_terminal and self._said:
            click.echo("\r\x1b[K", err=True, nl=False)
        self._said = ""

    def note(self, sentence: str) -> None:
        """Say something that should stay to be read."""
        self.end()
        if sentence:
            click.echo(f"pensieve: {one_line(sentence)}", err=True)


@click.command("claude", cls=AgentCommand)
@click.option("--local-model", metavar="NAME", help="The model that answers: a name, or the path of a file or folder.")
@click.option("--keep-server", is_flag=True, help="Let the server run on when the last terminal has left.")
@click.option("--self-test", is_flag=True, help="Prove that your own settings and all other machines are left alone.")
def claude_command(local_model: str | None, *, keep_server: bool, self_test: bool, words: tuple[str, ...]) -> int:
    """Run Claude Code in this terminal on a model of this machine.

    Everything behind these options goes to Claude Code as it is. Other terminals, and your own settings of Claude Code,
    stay as they are.
    """
    loaded, progress = load_settings({"model.name": local_model}), Progress()
    program = _checked_program(CLAUDE, progress)
    folder = loaded.folders.data / "agents" / "claude"
    claude.prepare_claude_folder(folder)
    if self_test:
        return prove_claude(program, folder)
    servers, wanted = open_servers(loaded, progress)
    with take_seat(servers, wanted, loaded.folders, "claude", keeps_server=keep_server) as seat:
        plan = plan_claude(seat.facts)
        progress.note(note_of(plan))
        told = claude.claude_variables(seat.endpoint, seat.facts, plan, folder)
        command = [str(program), *claude.claude_arguments(plan, words)]
        return run_beside(seat, servers, wanted, progress, command, claude.claude_environment(os.environ, told))


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


def _checked_program(agent: Agent, progress: Progress) -> Path:
    program = find_program(agent, os.environ)
    progress.note(version_note(agent, version_of(program, os.environ)))
    return program
