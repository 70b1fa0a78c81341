"""`pensieve batch` as people run it: against a server, with a worker of its own, stopped and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-m", "pensieve", "batch")


def write(path: Path, *lines: Any) -> Path:
    """A file of these lines."""
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def run(source: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command's end."""
    command = [*COMMAND, str(source), "--out", str(out), *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)


def read(out: Path) -> list[dict[str, Any]]:
    """The lines of an output."""
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.usefixtures("served_home")
def test_every_line_has_its_answer_in_its_place(tmp_path: Path) -> None:
    """Bad ones too, and blank ones are none; errors are told by the exit status."""
    messages = [{"role": "user", "content": "which capital?"}]
    body = {"custom_id": "api", "params": {"messages": messages, "max_tokens": 9}}
    source = write(tmp_path / "in.jsonl", {"prompt": "capital"}, "not json\n", "\n", {"prompt": "break"}, body)
    ended = run(source, tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "has 4 lines, 2 of them errors" in ended.stderr
    assert [(line["line"], line["custom_id"], line["result"]["type"]) for line in found] == [
        (1, "1", "succeeded"),
        (2, "2", "errored"),
        (4, "4", "errored"),
        (5, "api", "succeeded"),
    ]
    assert found[0]["text"] == "The capital of France is Paris."


@pytest.mark.usefixtures("served_home")
def test_a_second_run_asks_nothing_again(tmp_path: Path) -> None:
    """But errors, if that is wanted; another input is refused."""
    source, out = write(tmp_path / "in.jsonl", {"prompt": "capital"}, {"prompt": "break"}), tmp_path / "out.jsonl"
    run(source, out)
    before = read(out)
    assert run(source, out, "--retry-errors").returncode == 1
    assert read(out)[0] == before[0]
    assert read(out)[1]["result"]["error"]["error"]["message"] == "it broke"
    write(source, {"prompt": "another"}, {"prompt": "break"})
    assert "line 1 has changed since" in run(source, out).stderr


@pytest.mark.usefixtures("served_home")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted or killed, no line is lost and none is answered twice."""
    prompts = [{"prompt": f"long {at}"} for at in range(8)]
    source, out = write(tmp_path / "in.jsonl", *prompts), tmp_path / "out.jsonl"
    with subprocess.Popen([*COMMAND, str(source), "--out", str(out)], stderr=subprocess.PIPE, text=True) as command:
        while not (out.exists() and out.read_bytes().count(b"\n")):
            time.sleep(0.02)
        command.send_signal(number)
        _, told = command.communicate(timeout=30)
    num_done = out.read_bytes().count(b"\n")
    assert 0 < num_done < 8
    assert (number == signal.SIGKILL) or f"stopped: {num_done} lines are done" in told
    assert run(source, out).returncode == 0
    assert [line["line"] for line in read(out)] == list(range(1, 9))


def test_misuse_is_said_before_anything_is_written(pensieve_home: Path) -> None:
    """A missing input, or one that would be written over."""
    source = write(pensieve_home / "in.jsonl", {"prompt": "x"})
    assert "cannot go into the file they answer" in run(source, source).stderr
    assert read(source) == [{"prompt": "x"}]


@pytest.mark.model
@pytest.mark.usefixtures("starter_home")
def test_a_worker_of_its_own_answers_many_at_once(tmp_path: Path) -> None:
    """With the starter model, through continuous batching."""
    prompts = [{"prompt": f"Count from {at}.", "max_tokens": 6} for at in range(6)]
    source, out = write(tmp_path / "in.jsonl", *prompts), tmp_path / "out.jsonl"
    ended = run(source, out, "--temperature", "0")
    assert (ended.returncode, len(read(out))) == (0, 6), ended.stderr
    assert all(line["result"]["message"]["usage"]["output_tokens"] <= 6 and line["text"] for line in read(out))
