"""`pensieve ask` as people and scripts use it: real processes, pipes and signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-m", "pensieve", "ask")
Ended = subprocess.CompletedProcess[str]


def ask(*words: str, piped: str = "") -> Ended:
    """The command's end, with these words and this standard input."""
    return subprocess.run(
        [*COMMAND, *words], input=piped, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def told(ended: Ended) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.usefixtures("served_home")
def test_the_answer_alone_goes_to_standard_output() -> None:
    """A pipe gets the answer, a line end, and nothing else."""
    assert told(ask("the", "capital?")) == (0, "The capital of France is Paris.\n", "")


@pytest.mark.usefixtures("served_home")
def test_piped_text_follows_the_words_after_a_blank_line() -> None:
    """As in `git diff | pensieve ask "Review this"`."""
    assert ask("one", "line", piped="first piped\nlast piped\n").stdout == "Both arrived.\n"


@pytest.mark.parametrize("words", [(), ("-",)])
@pytest.mark.usefixtures("served_home")
def test_piped_text_alone_is_the_question(words: tuple[str, ...]) -> None:
    """With or without the dash."""
    assert ask(*words, piped="only piped\n").stdout == "The pipe arrived.\n"


@pytest.mark.parametrize("words", [(), ("",), ("-",), (" ", " ")])
@pytest.mark.usefixtures("served_home")
def test_an_empty_question_is_misuse(words: tuple[str, ...]) -> None:
    """Nothing is sent anywhere."""
    status, answer, problem = told(ask(*words, piped=" \n"))
    assert (status, answer) == (2, "")
    assert problem.startswith("error: there is nothing to ask")
    assert problem.count("\n") == 1


@pytest.mark.usefixtures("served_home")
def test_a_pipe_that_stays_open_is_told_and_waited_for() -> None:
    """Else the command would look as if it hung."""
    command = [*COMMAND, "capital"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"still reading standard input" in process.stderr.readline()
        process.stdin.close()
        assert process.stdout.read() == b"The capital of France is Paris.\n"


@pytest.mark.usefixtures("served_home")
def test_an_endless_pipe_is_refused() -> None:
    """The memory is not filled with it."""
    with Path("/dev/zero").open("rb") as zeros:
        ended = subprocess.run(COMMAND, stdin=zeros, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"longer than" in ended.stderr


@pytest.mark.usefixtures("served_home")
def test_json_tells_answer_usage_speed_and_source() -> None:
    """One object on one line, in ASCII."""
    ended = ask("think", "--system", "Be brief.", "--json")
    found = json.loads(ended.stdout)
    assert ended.stdout.isascii()
    assert found.pop("speed").keys() == {
        "time_to_first_token_seconds",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "total_seconds",
    }
    assert found.pop("source").startswith("server http://127.0.0.1:")
    assert found == {
        "model": "scripted",
        "answer": "Thought.",
        "thinking": "Let me see.",
        "stop_reason": "stop",
        "usage": {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 4},
    }


@pytest.mark.usefixtures("served_home")
def test_the_answer_can_be_printed_whole() -> None:
    """The same answer, without streaming."""
    assert told(ask("capital", "--no-streaming")) == (0, "The capital of France is Paris.\n", "")


@pytest.mark.usefixtures("served_home")
def test_an_answer_that_was_cut_off_says_so() -> None:
    """On standard error, also when nobody watches."""
    status, answer, note = told(ask("capital", "--max-tokens", "2"))
    assert (status, answer) == (0, "The capital\n")
    assert "cut off after 2 tokens" in note
    assert "--max-tokens" in note


@pytest.mark.usefixtures("served_home")
def test_what_a_model_says_cannot_steer_a_terminal() -> None:
    """Escape sequences, bells and text direction are taken out; words stay."""
    answer = ask("escape").stdout
    assert answer.splitlines()[-1] == "end"
    assert not set(answer) & set("\x1b\x9b\x07\r\u202e")


@pytest.mark.usefixtures("served_home")
def test_thinking_stays_out_of_a_pipe() -> None:
    """A pipe wants the answer."""
    assert ask("think").stdout == "Thought.\n"


@pytest.mark.usefixtures("served_home")
def test_thinking_is_dimmed_on_a_terminal(terminal: Callable[..., Any]) -> None:
    """It begins dim, and the answer comes plain on a line of its own."""
    asked = terminal("ask", "think")
    assert asked.end() == 0
    assert asked.drawn == "\x1b[2mLet me see.\x1b[0m\r\nThought.\r\n"


@pytest.mark.usefixtures("served_home")
def test_an_answer_that_breaks_off_keeps_what_came_and_fails() -> None:
    """Half an answer, a line end, one line of error, status 1."""
    status, answer, problem = told(ask("break"))
    assert (status, answer) == (1, "half\n")
    assert problem == "error: it broke\n"


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_keeps_what_came_and_ends_with_130() -> None:
    """No traceback, and a line end after the half answer."""
    command = [*COMMAND, "slow"]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"early"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"\n"
        assert process.stderr.read() == b""
    assert process.returncode == 130


@pytest.mark.usefixtures("served_home")
def test_a_reader_that_has_enough_ends_it_without_noise() -> None:
    """As in `pensieve ask ... | head -c 1`."""
    command = [*COMMAND, "long"]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"a"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("flag", "value"), [("--temperature", "9"), ("--top-p", "x"), ("--max-tokens", "0"), ("--seed", "-1")]
)
@pytest.mark.usefixtures("served_home")
def test_a_flag_that_is_wrong_is_named(flag: str, value: str) -> None:
    """Before anything is asked."""
    ended = ask("capital", flag, value)
    assert ended.stdout == ""
    assert ended.returncode == 2
    assert flag.strip("-") in ended.stderr


@pytest.mark.usefixtures("served_home")
def test_bytes_that_are_no_text_are_replaced() -> None:
    """On the command line and in the pipe."""
    command: list[str | bytes] = [*COMMAND, b"capital \xff"]
    ended = subprocess.run(command, input=b"\xfe", capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"The capital of France is Paris.\n")


@pytest.mark.usefixtures("pensieve_home")
def test_a_model_that_is_not_here_names_the_command_that_fetches_it() -> None:
    """The way out is in the sentence."""
    status, answer, problem = told(ask("capital", "--model", "starter"))
    assert (status, answer) == (1, "")
    assert "`pensieve pull smollm2-135m`" in problem


@pytest.mark.usefixtures("served_home")
def test_a_server_with_another_model_is_not_asked() -> None:
    """The model that was named, or none."""
    status, answer, problem = told(ask("capital", "--model", "smollm2-135m"))
    assert (status, answer) == (1, "")
    assert "smollm2-135m" in problem


def test_the_command_starts_without_what_it_may_not_need() -> None:
    """No HTTP client, no server and no engine before the question is known."""
    program = "import sys, pensieve.cli.ask; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert not {"httpx", "starlette", "uvicorn", "xllamacpp", "jinja2", "rich"} & set(ended.stdout.split())


@pytest.mark.model
def test_a_real_model_knows_the_capital_of_france(starter_home: Path) -> None:
    """From the question to a worker of its own and back."""
    question = "What is the capital of France? Answer in one sentence."
    status, answer, problem = told(ask(question, "--temperature", "0"))
    assert (status, problem) == (0, ""), starter_home
    assert "Paris" in answer
