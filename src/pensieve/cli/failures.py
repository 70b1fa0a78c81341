"""How a command tells that it failed: one line on standard error. Knows no command.

A traceback is for us, not for users: it is shown only when PENSIEVE_DEBUG is 1.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from types import TracebackType

import click

from pensieve.cli.text import one_line
from pensieve.errors import PensieveError, UsageError

BUG_STATUS = 1
INTERRUPTED_STATUS = 130


def say(error: PensieveError) -> None:
    """Print the error as one line on standard error, after its traceback if PENSIEVE_DEBUG is 1."""
    if wants_traceback():
        click.echo("".join(traceback.format_exception(error)), err=True)
    say_problem(str(error))


def say_problem(problem: str) -> None:
    """Print `error: ...` as one line on standard error."""
    click.echo(f"error: {one_line(problem)}", err=True)


def say_warning(warning: str) -> None:
    """Print `warning: ...` as one line on standard error."""
    click.echo(f"warning: {one_line(warning)}", err=True)


def exit_status(error: PensieveError) -> int:
    """The exit status of a command that ended with this error."""
    return error.exit_status if isinstance(error, UsageError) else 1


def wants_traceback() -> bool:
    """Whether the person asked for tracebacks."""
    return os.environ.get("PENSIEVE_DEBUG") == "1"


def install_hooks() -> None:
    """Make every exception nobody expected, in any thread, end in one line instead of a traceback."""
    sys.excepthook = _say_bug
    threading.excepthook = _say_bug_of_thread


def _say_bug_of_thread(told: threading.ExceptHookArgs) -> None:
    if not issubclass(told.exc_type, SystemExit):
        _say_bug(told.exc_type, told.exc_value, told.exc_traceback)


def _say_bug(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if wants_traceback():
        traceback.print_exception(kind, error, trace)
    if issubclass(kind, KeyboardInterrupt):
        return
    what = f"{kind.__name__}: {error}" if str(error or "") else kind.__name__
    say_problem(f"{what} (a bug in Pensieve: please report it; PENSIEVE_DEBUG=1 shows the traceback)")
