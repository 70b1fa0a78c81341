"""Claude Code, through `pensieve claude`, against a scripted server without a way out: what a working day brings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coding_agents import BUSY, Place, agent_command, call, place, say, write_script

pytestmark = pytest.mark.agent

CONTEXT_TOKENS = 32_768
REUSE_BAR = 0.98
OVERFLOW = {
    "type": "fail",
    "error": "ContextOverflow",
    "facts": {"prompt_tokens": 41_000, "limit_tokens": CONTEXT_TOKENS},
}
BREAK = {"type": "fail", "error": "Overloaded", "facts": {"problem": "no more room", "retry_after_seconds": 0.1}}
DROP = {"type": "fail", "error": "BackendFailure", "facts": {"problem": "the engine stopped"}}
RELAY = """
import asyncio, sys
port, words, cut = int(sys.argv[1]), sys.argv[2].encode(), []
async def pipe(reader, writer, is_answer):
    seen = b""
    while chunk := await reader.read(65536):
        seen += chunk
        if is_answer and not cut and words in seen:
            cut.append(1)
            print("cut", flush=True)
            break
        writer.write(chunk)
        await writer.drain()
    writer.transport.abort() if is_answer else writer.close()
async def serve(reader, writer):
    theirs, ours = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(pipe(reader, ours, False), pipe(theirs, writer, True), return_exceptions=True)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
SUMMARY = "<summary>compacted-notes: the context was filled</summary>"
THINK = {"type": "thinking", "text": "One step after the other.", "signature": ""}


def run_shell(words: str) -> dict[str, Any]:
    """A step that runs a command."""
    return call("Bash", command=words, description="As asked")


def scenes(work: Path) -> tuple[dict[str, Any], ...]:
    """What the stand-in for a model answers, each scene by words of its question."""
    greeting = str(work / "greeting.txt")
    return (
        {
            "contains": "Mend the greeting",
            "steps": [THINK, say("I look."), call("Read", file_path=greeting), run_shell("echo both-$((40 + 2))")],
        },
        {
            # Both results in one message.
            "pattern": "(?s)helo world.*both-42|both-42.*helo world",
            "steps": [THINK, call("Edit", file_path=greeting, old_string="helo", new_string="hello")],
        },
        {"pattern": "greeting.txt has been updated", "steps": [run_shell("sh check.sh")]},
        {"contains": "check passed", "times": 2, "steps": [BUSY]},
        {"contains": "check passed", "steps": [THINK, say("The greeting is mended and checked.")]},
        {"contains": "Are you busy", "times": 2, "steps": [BUSY]},
        {"contains": "Are you busy", "steps": [say("Not any more.")]},
        {"contains": "Begin and break", "times": 1, "steps": [say("Half of a "), BREAK]},
        {"contains": "Begin and break", "steps": [say("A whole sentence.")]},
        {"contains": "Begin and fail", "times": 1, "steps": [say("Half of a "), DROP]},
        {"contains": "Begin and fail", "steps": [say("Whole after all.")]},
        {"contains": "Fill the context", "times": 1, "steps": [run_shell("echo filled-$((6 * 7))")]},
        {"contains": "filled-42", "after_tool_result": True, "times": 1, "steps": [OVERFLOW]},
        {"contains": "compacted-notes", "steps": [say("I went on after compaction.")]},
        {"pattern": r"(?is)filled-42.*\bsummary\b", "steps": [say(SUMMARY)]},
        # Of a longer conversation the last turns are kept beside the summary.
        {"contains": "filled-42", "steps": [say("I went on after compaction.")]},
        {
            "contains": "Send a helper",
            "steps": [
                call("Agent", description="Find it", prompt="Search for the word zebra.", subagent_type="Explore"),
                run_shell("echo meanwhile-$((70 + 7))"),
            ],
        },
        {"contains": "Search for the word zebra", "steps": [run_shell("echo stripes-$((8 + 1))")]},
        {"contains": "stripes-9", "steps": [{"type": "delay", "seconds": 0.5}, say("helper-found-9")]},
        {"contains": "helper-found-9", "steps": [say("Helper and shell are both done.")]},
        {"contains": "meanwhile-77", "steps": [say("The shell is done, and the helper is at it.")]},
        # In line: what is asked in words of Claude Code's own, which is a summary of the conversation.
        {"steps": [say(SUMMARY)]},
    )


Claude = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with the scenes."""
    folder = tmp_path_factory.mktemp("claude")
    script = write_script(folder / "script.json", *scenes(folder / "work"), context_tokens=CONTEXT_TOKENS)
    with place(folder, "--script", str(script)) as at:
        yield at


@pytest.fixture(scope="module")
def program() -> Path:
    """Claude Code."""
    return Path(agent_command("claude-code"))


@pytest.fixture(scope="module")
def claude(at: Place, program: Path) -> Claude:
    """Asks Claude Code one question; its own report of the answer."""
    return lambda question: ask(at, program, question, unit="words")


def ask(at: Place, program: Path, question: str, *words: str, unit: str = "tokens") -> dict[str, Any]:
    """What `pensieve claude --print` reports; time and size of the prompt are printed."""
    began = time.monotonic()
    fixed = ["--dangerously-skip-permissions", "--output-format", "json", *words]
    # As root, it would not go without permissions.
    printed = at.launch(program, "claude", "--print", question, *fixed, IS_SANDBOX="1")
    report: dict[str, Any] = json.loads(printed)
    size = at.fetch("/v1/pensieve/cache")["requests"][0]["prompt_tokens"]
    print(f"Claude Code, {question!r}: {time.monotonic() - began:.1f} s, last prompt {size:,} {unit}")
    return report


def test_it_reads_edits_and_runs(at: Place, claude: Claude) -> None:
    """A whole tool loop: two calls at once, thinking, a busy server, and a connection that is cut in the middle.

    A relay stands before the server and cuts the first answer after its first words.
    """
    (at.work / "greeting.txt").write_text("helo world\n")
    (at.work / "check.sh").write_text('grep -q "^hello world$" greeting.txt && echo "check passed"\n')
    with relay(at, b"look"):
        report = claude("Mend the greeting, please.")
    assert (report["result"], report["num_turns"]) == ("The greeting is mended and checked.", 5)
    assert (at.work / "greeting.txt").read_text() == "hello world\n"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Fill the context now.", "I went on after compaction."),
        ("Send a helper out.", "Helper and shell are both done."),
        pytest.param("Begin and break off.", "A whole sentence.", marks=pytest.mark.clients),
        pytest.param("Begin and fail once.", "Whole after all.", marks=pytest.mark.clients),
    ],
    ids=["compaction", "helper", "overloaded in the middle", "failed in the middle"],
)
def test_it_goes_on(claude: Claude, question: str, answer: str) -> None:
    """Through a full context, with a helper beside, and after broken answers."""
    report = claude(question)
    assert (report["result"], report["is_error"]) == (answer, False)


@pytest.mark.clients
def test_a_small_context_is_not_compacted_before_it_is_full(tmp_path: Path, program: Path) -> None:
    """Three turns of few words, each read as it was asked, and then one that is refused as too long."""
    script = write_script(tmp_path / "script.json", *scenes(tmp_path / "work"), context_tokens=8_192)
    with place(tmp_path, "--script", str(script)) as at:
        for number in range(3):
            ask(at, program, "Are you busy?", *(["--continue"] if number else []), unit="words")
        # The first was turned away twice.
        assert len(at.fetch("/v1/pensieve/cache")["requests"]) == 3
        report = ask(at, program, "Fill the context now.", "--continue", unit="words")
    assert report["result"] == "I went on after compaction."


@pytest.fixture
def with_starter(tmp_path: Path, starter_model: Path) -> Path:
    """A folder in whose home the starter model has been pulled."""
    pulled = tmp_path / "pensieve" / "data" / "models" / starter_model.parent.name
    shutil.copytree(starter_model.parent, pulled, copy_function=os.symlink)
    return tmp_path


@pytest.mark.model
def test_the_starter_model_answers(with_starter: Path, program: Path) -> None:
    """With the smallest of prompts, in seconds on a busy machine too; what it says is its own."""
    with place(with_starter, "--model", "smollm2-135m", PENSIEVE_TEMPERATURE="0") as at:
        report = ask(at, program, "Hello in 5 words", "--system-prompt", "Answer in five words.", "--tools", "")
    assert (report["is_error"], bool(report["result"])) == (False, True)


@pytest.mark.clients
@pytest.mark.model
@pytest.mark.timeout(1_200)
def test_five_turns_on_the_starter_model_read_nothing_twice(with_starter: Path, program: Path) -> None:
    """A session that is continued four times, by the server's own figures."""
    questions = ["Hello in 5 words", "Say yes.", "Say no.", "Name a colour.", "Say goodbye."]
    with place(with_starter, "--model", "smollm2-135m") as at:
        for number, question in enumerate(questions):
            report = ask(at, program, question, *(["--continue"] if number else []))
            assert (report["is_error"], bool(report["result"])) == (False, True)
        requests = at.fetch("/v1/pensieve/cache")["requests"]
    continued = [request for request in requests if request.get("reusable_tokens")]
    reused, reusable = (sum(request[name] for request in continued) for name in ("reused_tokens", "reusable_tokens"))
    print(f"Claude Code, five turns: {reused:,} of {reusable:,} reusable tokens reused ({reused / reusable:.2%})")
    assert (len(continued), reused / reusable >= REUSE_BAR) == (4, True)


@contextmanager
def relay(at: Place, cut_at: bytes) -> Iterator[None]:
    """A relay in the server's place, by its run file, that cuts the first answer in which that word comes."""
    note = at.work.parent / "pensieve" / "state" / "server.json"
    kept = note.read_bytes()
    words = at.net.command(sys.executable, "-c", RELAY, at.url.rpartition(":")[2], cut_at.decode())
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        note.write_text(json.dumps(json.loads(kept) | {"url": url}))
        try:
            yield
        finally:
            note.write_bytes(kept)
            process.terminate()
        assert process.stdout.read() == "cut\n"
