"""`pensieve chat` on real terminals and in real pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from window import Window

Start = Callable[..., Any]
Open = Callable[..., Window]
CTRL_C, CTRL_D = "\x03", "\x04"
COMMAND = (sys.executable, "-m", "pensieve", "chat")


def piped(*lines: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a chat with these lines as its standard input."""
    text = "".join(f"{line}\n" for line in lines)
    ended = subprocess.run(COMMAND, input=text, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.usefixtures("served_home")
def test_a_conversation_on_a_terminal(window: Open) -> None:
    """A greeting, the question as it was typed, the answer, the next prompt, and Ctrl-D leaves."""
    chat = window("chat", columns=100)
    chat.expect_prompt()
    chat.type("the capital?\r")
    chat.expect("Paris.")
    greeting, *rest = chat.expect_prompt().split("\n")
    assert greeting.startswith("scripted, server http://127.0.0.1:")
    assert rest[:3] == ["> the capital?", "The capital of France is Paris.", ">"]
    chat.type(CTRL_D)
    assert chat.end() == 0


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(window: Open) -> None:
    """What was said so far stays, and the next question is answered."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("slow\r")
    chat.expect("early")
    chat.type(CTRL_C)
    assert "early\n(stopped)" in chat.expect("(stopped)")
    chat.expect_prompt()
    chat.type("the capital?\r")
    chat.expect("Paris.")
    chat.expect_prompt()
    chat.type("/exit\r")
    assert chat.end() == 0


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_before_the_first_word_keeps_the_question(window: Open) -> None:
    """It can be sent again."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("silent\r")
    chat.expect("s, about 1 token")
    chat.type(CTRL_C)
    chat.expect("/retry asks again")


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_at_the_prompt_clears_the_line(window: Open) -> None:
    """Half a question is put aside, an arrow key away; at an empty prompt there is a hint how to leave."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("half a question")
    chat.expect("half a question")
    chat.type(CTRL_C)
    chat.expect_prompt()
    chat.type(CTRL_C)
    chat.expect("Ctrl-D or /exit leaves")
    chat.type("\x1b[A")
    chat.expect("> half a question")


@pytest.mark.usefixtures("served_home")
def test_the_line_can_be_edited_and_called_back(window: Open) -> None:
    """Arrow keys move and remember, as in any shell."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("he capital?\x01t\r")
    chat.expect("Paris.")
    chat.expect_prompt()
    chat.type("\x1b[A\r")
    chat.expect("Paris.", times=2)


@pytest.mark.usefixtures("served_home")
def test_an_answer_that_fails_can_be_asked_for_again(window: Open) -> None:
    """The error is one line, and the conversation goes on."""
    chat = window("chat")
    chat.expect_prompt()
    chat.type("break\r")
    chat.expect("error: it broke (/retry asks again)")
    chat.expect_prompt()
    chat.type("/retry\r")
    assert chat.expect("error: it broke", times=2).count("half") == 2


@pytest.mark.usefixtures("served_home")
def test_the_chat_ends_in_order_when_it_is_terminated(window: Open) -> None:
    """The terminal is put right on the way out."""
    chat = window("chat")
    chat.expect_prompt()
    before = termios.tcgetattr(chat.terminal)
    chat.process.send_signal(signal.SIGTERM)
    assert chat.end() == 143
    assert "Traceback" not in chat.transcript
    assert not before[3] & termios.ECHO
    assert termios.tcgetattr(chat.terminal)[3] & termios.ECHO


@pytest.mark.usefixtures("pensieve_home")
def test_a_missing_model_is_offered_and_may_be_declined(terminal: Start) -> None:
    """Nothing is fetched without a yes."""
    chat = terminal("chat")
    chat.expect("smollm2-135m is not here yet. Fetch it now? [y/N]: ")
    chat.type("\r")
    chat.expect("`pensieve pull smollm2-135m`")
    assert chat.end() == 1


@pytest.mark.usefixtures("pensieve_home")
def test_a_missing_model_is_not_offered_to_a_pipe() -> None:
    """Nobody is there to say yes."""
    status, answers, problem = piped("hello")
    assert (status, answers) == (1, "")
    assert "`pensieve pull smollm2-135m`" in problem


@pytest.mark.usefixtures("served_home")
def test_each_line_of_a_pipe_is_a_question() -> None:
    """Answers alone go to standard output; empty lines are no questions."""
    assert piped("the capital?", "", "  ", "second") == (0, "The capital of France is Paris.\nIt went on.\n", "")


@pytest.mark.usefixtures("served_home")
def test_a_pipe_goes_on_after_an_error_and_tells_it_at_the_end() -> None:
    """The exit status says that not all questions were answered."""
    assert piped("break", "second") == (1, "half\nIt went on.\n", "error: it broke\n")


@pytest.mark.usefixtures("served_home")
def test_commands_are_listed_and_a_wrong_one_is_named() -> None:
    """They draw nothing on standard output."""
    status, answers, notes = piped("/help", "/nonsense", "/clear", "/quit", "second")
    assert (status, answers) == (0, "")
    assert all(word in notes for word in ("/clear", "/retry", "/exit", "Ctrl-D"))
    assert "there is no command /nonsense" in notes


@pytest.mark.usefixtures("served_home")
def test_a_question_may_begin_with_a_slash() -> None:
    """Only a lone word after the slash is a command."""
    assert piped("/etc/fstab: what is the capital in it?")[1] == "The capital of France is Paris.\n"


@pytest.mark.usefixtures("served_home")
def test_bytes_that_are_no_text_do_not_end_a_conversation() -> None:
    """They are replaced, and the line is asked."""
    ended = subprocess.run(COMMAND, input=b"\xff the capital?\nsecond\n", capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"The capital of France is Paris.\nIt went on.\n")


@pytest.mark.usefixtures("served_home")
def test_a_long_conversation_forgets_its_beginning() -> None:
    """With one note, and the question is answered."""
    status, answers, notes = piped("many words", "many words", "many words", "many words")
    assert status == 0
    assert answers.splitlines()[-1].split() == ["word"] * 20
    assert notes.count("left it") == 1


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_ends_a_chat_in_a_pipe() -> None:
    """As any other program in a pipe."""
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"slow\n")
        process.stdin.flush()
        assert process.stdout.read(5) == b"early"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"\n"
        assert process.stderr.read() == b""
    assert process.returncode == 130


@pytest.mark.model
def test_a_real_model_is_loaded_while_the_question_is_typed(starter_home: Path, window: Open) -> None:
    """In a worker of its own; Ctrl-C stops an answer and leaves the worker alive."""
    chat = window("chat", "--temperature", "0", columns=100)
    assert "own worker" in chat.expect_prompt(), starter_home
    chat.type("Write a very long story.\r")
    chat.expect("tokens/s · Ctrl-C stops")
    chat.type(CTRL_C)
    chat.expect("(stopped)")
    chat.expect_prompt()
    chat.type("/clear\r")
    chat.expect("a new conversation")
    chat.type("What is the capital of France? Answer in one sentence.\r")
    chat.expect("Paris")
    chat.expect_prompt()
    chat.type(CTRL_D)
    assert chat.end() == 0
