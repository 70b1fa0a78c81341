"""The root of the command line: finding commands, and every way to fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import click
import pytest

from pensieve import __version__
from pensieve.cli.lazy import Entry, LazyGroup
from pensieve.cli.main import COMMANDS, main

PROBE = """
import sys, threading, click
from pensieve.cli import main as root
from pensieve.cli.lazy import Entry
from pensieve.errors import Overloaded, ServerUnreachable

@click.command()
def probe():
    BODY

root.COMMANDS["probe"] = Entry("__main__:probe", "")
sys.exit(root.main(["probe"]))
"""


def python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    command = [sys.executable, "-c", program]
    environ = os.environ | variables
    nothing = subprocess.DEVNULL
    return subprocess.run(
        command,
        env=environ,
        stdin=nothing,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
    )


def probe(body: str, **variables: str) -> tuple[int, str]:
    """Exit status and standard error of a command with that body."""
    ended = python(PROBE.replace("BODY", body), **variables)
    return ended.returncode, ended.stderr


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, for bug reports."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pensieve {__version__}\n"


def test_help_lists_every_command_and_imports_none() -> None:
    """Help is quick: no command, no engine, no HTTP library and no settings are loaded for it."""
    ended = python("import sys; from pensieve.cli.main import main; main(['--help']); print(*sys.modules)")
    assert all(f"\n  {name} " in ended.stdout for name in COMMANDS)
    loaded = set(ended.stdout.splitlines()[-1].split())
    heavy = {"httpx", "rich", "starlette", "uvicorn", "xllamacpp", "mlx", "pensieve.config.sources"}
    assert not loaded & {*heavy, *(entry.target.partition(":")[0] for entry in COMMANDS.values())}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists(name: str) -> None:
    """Each entry loads, and the command goes by the name it is listed under."""
    assert COMMANDS[name].load().name == name


@pytest.mark.parametrize(
    ("word", "hint"), [("sreve", "did you mean serve?"), ("zzz", "the commands are chat, ask, batch, serve,")]
)
def test_an_unknown_command_is_refused_with_a_hint(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest one, or all of them."""
    assert main([word]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: no command '{word}': {hint}")
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It says where help is."""
    assert main(["config", "show", "--jsn"]) == 2
    told = capsys.readouterr().err
    assert told == "error: No such option '--jsn'. Did you mean '--json'? (`pensieve config show --help` tells more)\n"


@click.command()
@click.option("--model", default="none")
def echo(model: str) -> None:
    """Say the model."""
    click.echo(f"chatting with {model}")


@pytest.mark.parametrize(
    ("arguments", "model"), [([], "none"), (["--model", "m"], "m"), (["echo", "--model", "m"], "m")]
)
def test_without_a_command_the_default_one_runs(
    arguments: list[str], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options may stand alone too."""
    group = LazyGroup(name="root", entries={"echo": Entry(f"{__name__}:echo", "")}, default="echo")
    group.main(arguments, standalone_mode=False)
    assert capsys.readouterr().out == f"chatting with {model}\n"


def test_the_default_command_is_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that only it can have is refused in its name."""
    assert main(["--no-such-option"]) == 2
    assert "`pensieve chat --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("pass", 0, ""),
        ("return 3", 3, ""),
        ("click.get_current_context().exit(4)", 4, ""),
        ("raise ServerUnreachable('nobody\\nis\\x1b[2J there')", 1, "error: nobody is[2J there\n"),
        ("raise Overloaded('no room', 2)", 1, "error: no room; try again in 2 s\n"),
        ("raise click.UsageError('not so')", 2, "error: not so (`pensieve probe --help` tells more)\n"),
        ("raise KeyboardInterrupt", 130, "\n"),
        ("raise click.Abort", 130, ""),
        ("input()", 1, "\nerror: the input ended before an answer was given\n"),
        ("raise BrokenPipeError", 1, ""),
    ],
)
def test_every_way_to_end_has_a_status_and_at_most_a_line(body: str, status: int, told: str) -> None:
    """What we expect is told in one line; what the person did is not told back to them."""
    assert probe(body) == (status, told)


THREAD = "threading.Thread(target=lambda: 1 / 0).start()"


@pytest.mark.parametrize(("body", "status"), [("1 / 0", 1), (THREAD, 0)])
def test_a_bug_is_one_line_that_says_so(body: str, status: int) -> None:
    """In any thread: the error's name, whose fault it is, and how to see more."""
    what = "error: ZeroDivisionError: division by zero"
    whose = "(a bug in Pensieve: please report it; PENSIEVE_DEBUG=1 shows the traceback)"
    assert probe(body) == (status, f"{what} {whose}\n")


@pytest.mark.parametrize("body", ["1 / 0", "raise ServerUnreachable('nobody')", THREAD])
def test_debugging_shows_the_traceback_before_the_line(body: str) -> None:
    """For those who asked."""
    told = probe(body, PENSIEVE_DEBUG="1")[1]
    assert told.startswith("Traceback (most recent call last)")
    assert told.splitlines()[-1].startswith("error: ")


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    """As in `pensieve models list | head -1`."""
    program = PROBE.replace("BODY", "[click.echo('line ' * 1000) for _ in range(100)]")
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr is not None
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait(60) == 1


def test_ctrl_c_ends_a_running_command_with_130() -> None:
    """The real signal, sent to a command that waits."""
    program = PROBE.replace("BODY", "print('ready', flush=True); threading.Event().wait()")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        assert (child.wait(60), child.communicate()[1].strip()) == (130, b"")


def test_a_terminal_without_unicode_is_no_failure() -> None:
    """What its encoding lacks is shown as a question mark."""
    ended = python(PROBE.replace("BODY", "click.echo('caf\\u00e9 \\u65e5')"), PYTHONIOENCODING="iso-8859-15:strict")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("?\n")
