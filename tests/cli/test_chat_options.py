"""Options of `pensieve chat`, and `pensieve` alone, in real pipes against a scripted server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pensieve.cli.chat.command import unwritten
from pensieve.cli.context import load_settings
from pensieve.cli.main import main
from pensieve.conversation.choices import Choices
from pensieve.conversation.store import ConversationStore
from pensieve.sampling.params import SamplingParams

Printed = Callable[..., tuple[int, str, str]]


def said(*words: str, typed: str = "") -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `pensieve` with these words and this standard input."""
    command = (sys.executable, "-m", "pensieve", *words)
    ended = subprocess.run(command, input=typed, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def printed(
    pensieve_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Printed]:
    """`pensieve chat --print` in this process, with nothing on standard input."""
    (pensieve_home / "nothing").touch()

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["chat", "--print", *words])
        return (status, *capfd.readouterr())

    with (pensieve_home / "nothing").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield run


@pytest.mark.usefixtures("served_home")
def test_without_a_command_a_chat_opens() -> None:
    """Its options too."""
    assert said(typed="the capital?\n") == (0, "The capital of France is Paris.\n", "")
    status, answers, notes = said("--verbose", "--no-streaming", "the capital?")
    assert (status, answers) == (0, "The capital of France is Paris.\n")
    assert "2 prompt tokens, 0 of them cached, 6 answer tokens" in notes


@pytest.mark.usefixtures("served_home")
def test_print_answers_one_question_for_scripts() -> None:
    """Words and standard input are one question, whatever it begins with; nothing else is printed."""
    assert said("chat", "--print", "one line", typed="first piped\nlast piped") == (0, "Both arrived.\n", "")
    assert said("chat", "--print", typed="/help me: the capital?\n") == (0, "The capital of France is Paris.\n", "")
    assert said("chat", "--print", "break") == (1, "half\n", "error: it broke\n")


def test_a_conversation_is_gone_on_with(served_home: Path, printed: Printed) -> None:
    """The last one, or one by its number."""
    assert printed("the capital?")[0] == 0
    assert printed("--continue", "second") == (0, "It went on.\n", "")
    assert printed("only piped")[0] == 0
    assert printed("--resume", "1", "think")[:2] == (0, "Thought.\n")
    with ConversationStore(served_home / "data" / "conversations.db") as store:
        kept = {each.id: each.num_turns for each in store.list()}
    assert kept == {1: 3, 2: 1}
    assert "going on with 1: the capital? (3 turns)" in said("chat", "--resume", "1")[2]


def test_a_chat_without_its_file_goes_on_and_says_so(served_home: Path) -> None:
    """Nothing that is typed is lost to a disk that cannot be written or a file that is damaged."""
    path = served_home / "data" / "conversations.db"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"not a database at all")
    status, answers, notes = said("chat", typed="the capital?\n/save kept\n/list\n")
    assert (status, answers) == (0, "The capital of France is Paris.\n")
    assert "is damaged" in notes
    assert "nothing of this chat is kept: /save FILE" in notes
    assert "wrote kept.json" in notes
    assert (served_home / "kept.json").is_file()
    assert path.read_bytes() == b"not a database at all"
    assert "is damaged" in said("chat", "--continue")[2]


@pytest.mark.usefixtures("served_home", "printed")
@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (("--print",), 2, "there is nothing to ask"),
        (("--continue",), 2, "there is no conversation to go on with"),
        (("--continue", "--resume", "1"), 2, "use one of them"),
        (("--resume", "99"), 1, "99"),
        (("--no-save", "--resume"), 2, "say --resume with a number"),
        (("--resume", "abc", "--print", "x"), 2, "'abc' is not a number"),
        (("--preset", "coder", "--system", "x"), 2, "use one of them"),
        (("--preset", "cder"), 2, "did you mean coder?"),
        (("--preset", "translator tongue=x"), 2, "has no variable tongue"),
        (("--temperature", "9"), 2, "temperature"),
        (("--connect", "http://127.0.0.1:9"), 1, "no server answers at http://127.0.0.1:9"),
        (("--quantization", "int4"), 2, "--quantization is for loading a model"),
    ],
)
def test_what_cannot_be_is_told(
    words: tuple[str, ...], status: int, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one line, and nothing is asked."""
    assert main(["chat", *words]) == status
    shown = capfd.readouterr()
    assert problem in shown.err
    assert shown.out == ""


def test_a_server_at_an_address_answers(served_home: Path, printed: Printed) -> None:
    """With the model it has; one that it lacks is refused."""
    url = json.loads((served_home / "state" / "server.json").read_text())["url"]
    (served_home / "state" / "server.json").unlink()
    assert printed("--connect", url, "the capital?") == (0, "The capital of France is Paris.\n", "")
    status, _, problem = printed("--connect", url, "--model", "other", "the capital?")
    assert status == 2
    assert "has no model other: it has scripted" in problem


def test_a_preset_speaks_first(served_home: Path, printed: Printed) -> None:
    """Filled in, and kept with the conversation."""
    assert printed("--preset", "translator language=Latin", "the capital?")[0] == 0
    with ConversationStore(served_home / "data" / "conversations.db") as store:
        assert "into Latin" in store.open(1).system
    assert printed("--continue", "--system", "Be kind.", "second")[0] == 0
    with ConversationStore(served_home / "data" / "conversations.db") as store:
        assert store.open(1).system == "Be kind."


def test_a_conversation_that_tells_the_model_nothing_stays_so(
    served_home: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the settings say by now is for new ones."""
    assert printed("the capital?")[0] == 0
    monkeypatch.setenv("PENSIEVE_SYSTEM", "Be kind.")
    assert printed("--continue", "second")[0] == 0
    assert printed("the capital?")[0] == 0
    with ConversationStore(served_home / "data" / "conversations.db") as store:
        assert [store.open(number).system for number in (1, 2)] == ["", "Be kind."]


def written(home: Path) -> bytes:
    """Everything that is in a home's files."""
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_nothing_of_a_private_chat_is_kept(served_home: Path, printed: Printed) -> None:
    """Neither by a script nor by a chat; what is saved is."""
    assert printed("--no-save", "the capital?") == (0, "The capital of France is Paris.\n", "")
    lines = "the capital?\n/list\n/open 7\n/info\n/stats\n/new\n/search capital\n"
    status, answers, notes = said("chat", "--private", typed=lines)
    assert (status, answers) == (1, "The capital of France is Paris.\n")
    assert "conversation 7 is not here" in notes
    assert notes.count("this chat is private") == 2
    assert "on disk" not in notes
    assert "the old one is here until you leave, /open 1 goes back to it" in notes
    assert not list(served_home.rglob("conversations.db*"))
    assert b"capital?" not in written(served_home)
    assert "wrote kept.json" in said("chat", "--no-save", typed="the capital?\n/save kept\n")[2]
    assert b"capital?" in (served_home / "kept.json").read_bytes()


def test_the_own_worker_of_a_private_chat_has_no_cache_on_the_disk() -> None:
    """What was said would be in it, under both engines; nothing else of the settings changes."""
    settings = load_settings({}).settings
    private = unwritten(load_settings({})).settings
    assert (settings.mlx.disk_cache_mib > 0, private.mlx.disk_cache_mib) == (True, 0)
    assert (settings.llamacpp.prompt_cache_mib > 0, private.llamacpp.prompt_cache_mib) == (True, 0)
    assert (settings.llamacpp.parallel > 1, private.llamacpp.parallel) == (True, 1)
    assert msgspec.structs.replace(private, mlx=settings.mlx, llamacpp=settings.llamacpp) == settings


def test_a_private_chat_goes_on_with_a_copy(served_home: Path, printed: Printed) -> None:
    """What is kept stays as it is."""
    assert printed("--no-save", "--continue", "second")[0] == 2
    assert printed("the capital?")[0] == 0
    assert printed("--no-save", "--continue", "second") == (0, "It went on.\n", "")
    notes = said("chat", "--private", "--resume", "1", typed="second\n/history\n")[2]
    assert "going on with a copy that is not kept: the capital? (1 turn)" in notes
    assert "> second" in notes
    with ConversationStore(served_home / "data" / "conversations.db") as store:
        assert [each.num_turns for each in store.list()] == [1]


def test_the_command_line_wins_over_what_a_conversation_chose(served_home: Path, printed: Printed) -> None:
    """What is not given there stays as it was chosen, and both are kept."""
    path = served_home / "data" / "conversations.db"
    assert printed("--preset", "translator", "--max-tokens", "30", "the capital?")[0] == 0
    with ConversationStore(path) as store:
        kept = store.open(1).choices
    assert kept == Choices(preset="translator", sampling=SamplingParams(temperature=0.2), max_tokens=30)
    assert printed("--continue", "--temperature", "0", "second")[0] == 0
    with ConversationStore(path) as store:
        assert store.open(1).choices == kept.with_value("temperature", 0.0)
    notes = said("chat", "--continue", "--max-tokens", "9")[2]
    assert "as chosen: preset translator, temperature 0; /params shows all\n" in notes


@pytest.mark.model
@pytest.mark.usefixtures("starter_home")
def test_a_real_model_goes_through_the_commands() -> None:
    """Counting, retrying, summarising and changing in its own worker; answers alone on standard output."""
    lines = (
        "What is the capital of France? Answer in one sentence.",
        "/tokens capital of France",
        "/retry",
        "/fork",
        "/set max_tokens 20",
        "/compact",
        "/info",
        "/model smollm2-135m",
    )
    status, answers, notes = said("--temperature", "0", typed="".join(f"{line}\n" for line in lines))
    assert status == 0, notes
    assert answers.splitlines()[:2] == ["The capital of France is Paris."] * 2
    for told in ("tokens\n", "another branch", "max_tokens is 20", "own worker", "smollm2-135m answers already"):
        assert told in notes
