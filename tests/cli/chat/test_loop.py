"""The loop's thread, and the signals of the main thread beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from pensieve.cli.chat.loop import LoopThread, Stream

WAITING = """
import readline, signal, threading
from pensieve.cli.chat.loop import LoopThread, Stream

def interrupt():
    # Python is told in this thread, so that nothing breaks off the main thread's wait: as when it was not waiting yet.
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

with LoopThread():
    threading.Timer(0.5, interrupt).start()
    try:
        input("waiting ")
    except KeyboardInterrupt:
        print("broken off")
"""


async def in_thread() -> int:
    """The thread a coroutine runs in."""
    return threading.get_ident()


async def slow(ended: list[str]) -> None:
    """Ctrl-C as it begins, then a wait for ever, and some tidying up."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ended.append("tidy")


def test_coroutines_run_beside_the_main_thread() -> None:
    """One after the other on the same loop, and their results come back."""
    with LoopThread() as loop:
        first, second = loop.run(in_thread()), loop.run(in_thread())
    assert first == second != threading.get_ident()


def test_what_a_coroutine_raises_comes_out() -> None:
    """As if it had been called."""
    with LoopThread() as loop, pytest.raises(TimeoutError):
        loop.run(asyncio.wait_for(asyncio.sleep(3600), 0))


def test_ctrl_c_cancels_the_coroutine_and_waits_for_its_end() -> None:
    """The loop stays usable, and afterwards everything about signals is as it was."""
    before, ended = signal.getsignal(signal.SIGINT), list[str]()
    with LoopThread() as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.run(slow(ended))
        assert ended == ["tidy"]
        assert loop.run(in_thread())
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_breaks_no_wait_off_is_noticed_all_the_same(terminal: Callable[..., Any]) -> None:
    """Else Ctrl-C would now and then have no effect until the next key."""
    waiting = terminal("-c", WAITING, program=[sys.executable])
    waiting.expect("waiting ")
    waiting.expect("broken off")
    assert waiting.end() == 0


async def counting(ended: list[str], last: int | None = None) -> AsyncGenerator[int, None]:
    """Numbers up to the last one, and then a wait, or an error."""
    try:
        for number in range(5):
            yield number
            if number == last:
                raise ValueError("broken")
        if last is None:
            await asyncio.sleep(3600)
    finally:
        ended.append("closed")


def taken(stream: Stream[int], got: list[int], *, is_interrupted: bool = False) -> None:
    """Take all that comes; Ctrl-C is pressed in the first moment in which nothing does."""
    with stream:
        for batch in stream:
            got += batch
            if is_interrupted and not batch:
                os.kill(os.getpid(), signal.SIGINT)


def test_a_stream_gives_all_items_in_order() -> None:
    """And raises what the generator raises, after what came before."""
    ended, got = list[str](), list[int]()
    with LoopThread() as loop, pytest.raises(ValueError, match="broken"):
        taken(loop.stream(counting(ended, 3)), got)
    assert (got, ended) == ([0, 1, 2, 3], ["closed"])


def test_ctrl_c_ends_a_stream_and_loses_nothing_of_it() -> None:
    """The generator is closed before anything else happens."""
    ended, got = list[str](), list[int]()
    with LoopThread() as loop:
        stream = loop.stream(counting(ended))
        with pytest.raises(KeyboardInterrupt):
            taken(stream, got, is_interrupted=True)
        assert ended == ["closed"]
        assert got + stream.rest() == [0, 1, 2, 3, 4]


def interrupted_while_held(loop: LoopThread, done: list[str]) -> None:
    """Ctrl-C in the middle of something."""
    with loop.held():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("whole")


def test_what_is_held_is_done_whole() -> None:
    """Ctrl-C comes after it."""
    done = list[str]()
    with LoopThread() as loop, pytest.raises(KeyboardInterrupt):
        interrupted_while_held(loop, done)
    assert done == ["whole"]
