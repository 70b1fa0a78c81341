"""`pensieve chat` on real terminals and in real pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
CTRL_C, CTRL_D = "\x03", "\x04"
COMMAND = (sys.executable, "-m", "pensieve", "chat")


def piped(*lines: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a chat with these lines as its standard input."""
    text = "".join(f"{line}\n" for line in lines)
    ended = subprocess.run(COMMAND, input=text, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.usefixtures("served_home")
def test_a_conversation_on_a_terminal(terminal: Start) -> None:
    """A greeting, a prompt, the answer as it was typed, the next prompt, and Ctrl-D leaves."""
    chat = terminal("chat")
    greeting = chat.expect("> ")
    assert "scripted, server http://127.0.0.1:" in greeting
    assert "Ctrl-D leaves" in greeting
    chat.type("the capital?\r")
    assert chat.expect("> ") == "the capital?\r\nThe capital of France is Paris.\r\n> "
    chat.type(CTRL_D)
    assert chat.end() == 0


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(terminal: Start) -> None:
    """What was said so far stays, and the next question is answered."""
    chat = terminal("chat")
    chat.expect("> ")
    chat.type("slow\r")
    chat.expect("early")
    chat.type(CTRL_C)
    assert "(stopped)" in chat.expect("> ")
    chat.type("the capital?\r")
    chat.expect("Paris.")
    chat.type("/exit\r")
    assert chat.end() == 0


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_before_the_first_word_keeps_the_question(terminal: Start) -> None:
    """It can be sent again."""
    chat = terminal("chat")
    chat.expect("> ")
    chat.type("silent\r")
    chat.expect("Hm.")
    chat.type(CTRL_C)
    assert "/retry asks again" in chat.expect("> ")


@pytest.mark.usefixtures("served_home")
def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Start) -> None:
    """Half a question is thrown away, with a hint how to leave."""
    chat = terminal("chat")
    chat.expect("> ")
    chat.type("slow half a question")
    chat.expect("half a question")
    chat.type(CTRL_C)
    assert "Ctrl-D or /exit leaves" in chat.expect("> ")
    chat.type("the capital?\r")
    assert chat.expect("> ").endswith("Paris.\r\n> ")


@pytest.mark.usefixtures("served_home")
def test_the_line_can_be_edited_and_called_back(terminal: Start) -> None:
    """Arrow keys move and remember, as in any shell."""
    chat = terminal("chat")
    chat.expect("> ")
    chat.type("he capital?\x01t\r")
    chat.expect("Paris.\r\n> ")
    chat.type("\x1b[A\r")
    chat.expect("Paris.\r\n> ")


@pytest.mark.usefixtures("served_home")
def test_an_answer_that_fails_can_be_asked_for_again(terminal: Start) -> None:
    """The error is one line, and the conversation goes on."""
    chat = terminal("chat")
    chat.expect("> ")
    chat.type("break\r")
    assert "error: it broke (/retry asks again)" in chat.expect("> ")
    chat.type("/retry\r")
    assert "half\r\n" in chat.expect("error: it broke")


@pytest.mark.usefixtures("served_home")
def test_the_chat_ends_in_order_when_it_is_terminated(terminal: Start) -> None:
    """The terminal is put right on the way out."""
    chat = terminal("chat")
    chat.expect("> ")
    chat.process.send_signal(signal.SIGTERM)
    assert chat.end() == 143
    assert "Traceback" not in chat.drawn


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
def test_a_real_model_is_loaded_first_and_answers(starter_home: Path, terminal: Start) -> None:
    """In a worker of its own; Ctrl-C in the terminal stops an answer and leaves the worker alive."""
    chat = terminal("chat", "--temperature", "0")
    greeting = chat.expect("> ")
    assert "Loading smollm2-135m ..." in greeting, starter_home
    assert "own worker" in greeting
    chat.type("Write a very long story.\r")
    chat.expect(" the ")
    chat.type(CTRL_C)
    assert "(stopped)" in chat.expect("> ")
    chat.type("/clear\r")
    chat.expect("> ")
    chat.type("What is the capital of France? Answer in one sentence.\r")
    assert "Paris" in chat.expect("> ")
    chat.type(CTRL_D)
    assert chat.end() == 0
