"""The command line's root: names the commands and turns every way to fail into one line and an exit status.

Imports no command: each is loaded when it is used.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from pensieve import __version__
from pensieve.cli.failures import INTERRUPTED_STATUS, exit_status, install_hooks, say, say_problem
from pensieve.cli.lazy import Entry, LazyGroup
from pensieve.errors import PensieveError

COMMANDS = {
    "chat": Entry("pensieve.cli.chat.command:chat", "Talk with a model in the terminal (what no command does)."),
    "ask": Entry("pensieve.cli.ask:ask", "Ask one question and print the answer."),
    "batch": Entry("pensieve.cli.batch:batch", "Answer every line of a file, into another file."),
    "serve": Entry("pensieve.cli.serve:serve", "Answer coding agents and other programs over HTTP."),
    "pull": Entry("pensieve.cli.pull:pull", "Fetch a model onto this machine."),
    "models": Entry("pensieve.cli.models:models", "List, convert or remove the models on this machine."),
    "prompts": Entry("pensieve.cli.prompts:prompts", "List, show and make presets for conversations."),
    "claude": Entry("pensieve.cli.agents:claude_command", "Run Claude Code in this terminal on a local model."),
    "codex": Entry("pensieve.cli.agents:codex_command", "Run Codex in this terminal on a local model."),
    "opencode": Entry("pensieve.cli.agents:opencode_command", "Run opencode in this terminal on a local model."),
    "history": Entry("pensieve.cli.history:history", "Find, read, export, import and delete conversations."),
    "setup": Entry("pensieve.cli.setup:setup", "Change an agent's own settings to use the server here; undo it."),
    "env": Entry("pensieve.cli.setup:env", "Print what a shell exports to reach the server here."),
    "doctor": Entry("pensieve.cli.doctor:doctor", "Show what this machine can run, and what is wrong."),
    "reset": Entry("pensieve.cli.reset:reset", "Let the server try again what failed too often."),
    "config": Entry("pensieve.cli.config:config", "Show the settings and where each one came from."),
}


@click.group(cls=LazyGroup, entries=COMMANDS, default="chat", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pensieve %(version)s")
def pensieve() -> None:
    """Run language models on your own machine.

    Without a command, a chat opens.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, `sys.argv`'s by default, and return its exit status."""
    install_hooks()
    _never_fail_to_print()
    try:
        status = pensieve.main(argv, prog_name="pensieve", standalone_mode=False)
        print(end="", flush=True)
    except PensieveError as error:
        say(error)
        return exit_status(error)
    except click.ClickException as error:
        return _say_misuse(error)
    except click.Abort as error:
        return _say_abort(error)
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except BrokenPipeError:
        return _leave_broken_pipe()
    return status if isinstance(status, int) else 0


def _say_misuse(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" (`{context.command_path} --help` tells more)" if context else ""
    say_problem(error.format_message() + hint)
    return error.exit_code


def _say_abort(error: click.Abort) -> int:
    if isinstance(error.__context__, EOFError):
        if error.__cause__ is None:
            click.echo(err=True)  # a prompt of click's leaves its line open
        say_problem("the input ended before an answer was given")
        return 1
    return INTERRUPTED_STATUS


def _leave_broken_pipe() -> int:
    # Whoever read our output is gone; without this, Python complains once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _never_fail_to_print() -> None:
    """Show what the terminal's encoding lacks as a question mark, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
