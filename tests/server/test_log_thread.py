"""A log that nobody reads: it stops nobody, and says what it dropped."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from pensieve.server.log_thread import LogThread
from served import command, url_of, variables

PIPE_BYTES = 4096
"""The smallest a pipe can be."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """One that is full after a page; its reading and its writing end."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reading, writing
    for end in (reading, writing):
        os.close(end)


def say(lines: LogThread, words: str) -> None:
    """Log it, as the logging of the standard library does."""
    lines.handle(logging.makeLogRecord({"msg": words}))


def read_all(end: int, until: bytes) -> str:
    """What comes out of a pipe, up to these words."""
    found = b""
    while until not in found:
        found += os.read(end, PIPE_BYTES)
    return found.decode()


def test_what_is_logged_comes_out_in_order(pipe: tuple[int, int]) -> None:
    """Whole lines, whatever letters they hold; nothing is lost at the end."""
    lines = LogThread(pipe[1])
    for words in ("one", "zwei \N{SNOWMAN}", "three \ud800"):
        say(lines, words)
    lines.close()
    assert read_all(pipe[0], b"ud800\n") == "one\nzwei \N{SNOWMAN}\nthree \\ud800\n"
    assert lines.num_dropped == 0


def test_a_full_pipe_stops_nobody_and_is_told_of_once_it_is_read(pipe: tuple[int, int]) -> None:
    """More than fits into pipe and queue is dropped, oldest lines kept; then the log goes on."""
    with closing(LogThread(pipe[1], most_lines=10)) as lines:
        for number in range(500):
            say(lines, f"line {number} {'x' * 90}")
        assert 400 < lines.num_dropped <= 490
        told = ""
        while sum(int(number) for number in re.findall(r"WARNING (\d+) lines of this log were dropped", told)) < (
            lines.num_dropped
        ):
            told += read_all(pipe[0], b"\n")
        assert told.startswith("line 0 x")
        say(lines, "and on")
        assert read_all(pipe[0], b"and on\n").endswith("and on\n")


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_pipe_whose_reader_has_gone_is_no_error(is_blocking: bool) -> None:
    """What cannot be written is counted."""
    reading, writing = os.pipe()
    os.set_blocking(writing, is_blocking)
    os.close(reading)
    lines = LogThread(writing)
    say(lines, "into the void")
    lines.close()
    os.close(writing)
    assert lines.num_dropped == 1


def test_a_server_whose_log_nobody_reads_answers_on(pensieve_home: Path) -> None:
    """Far more requests than its pipe holds lines of; it stops by itself, too."""
    words = command("serve", "--script", "demo", "--port", "0")
    with subprocess.Popen(
        words, env=variables(pensieve_home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        fcntl.fcntl(server.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with httpx.Client(base_url=url_of(server), trust_env=False, timeout=20) as client:
            for _ in range(150):
                assert client.get("/v1/models").status_code == 200
        server.terminate()
        assert server.wait(timeout=20) == 0
