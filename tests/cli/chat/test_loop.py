"""The loop's thread, and the signals of the main thread beside it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pensieve.cli.chat.loop import LoopThread, Stream

WAITING = """
import readline, signal, threading
from pensieve.cli.chat.loop import LoopThread

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


class Interruption:
    """Ctrl-C at one certain line of the loop's own code, in the main thread."""

    def __init__(self, place: int) -> None:
        self.left = place

    def __enter__(self) -> Interruption:
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """See `sys.settrace`."""
        if event == "line" and Path(frame.f_code.co_filename).name in {"loop.py", "signals.py"}:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGINT)
        return self.trace


def run(loop: LoopThread, ended: list[str]) -> None:
    """A coroutine."""
    coroutine = brief(ended)
    try:
        loop.run(coroutine)
    finally:
        coroutine.close()


def stream(loop: LoopThread, ended: list[str]) -> None:
    """A generator."""
    with loop.stream(briefly(ended)) as items:
        assert list(items)


async def brief(ended: list[str]) -> None:
    """Say that it has begun and, however it ends, that it has ended."""
    ended.append("begun")
    try:
        await asyncio.sleep(0.002)
    finally:
        await asyncio.sleep(0)
        ended.append("ended")


async def briefly(ended: list[str]) -> AsyncGenerator[None, None]:
    """The same as a generator."""
    await brief(ended)
    yield


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


@pytest.mark.parametrize("act", [run, stream])
def test_ctrl_c_at_any_moment_leaves_nothing_running(act: Callable[[LoopThread, list[str]], None]) -> None:
    """Wherever it comes, what has begun has ended when the main thread goes on."""
    with LoopThread() as loop:
        for place in itertools.count(1):
            ended = list[str]()
            with suppress(KeyboardInterrupt), Interruption(place) as interruption:
                act(loop, ended)
            assert ended in ([], ["begun", "ended"]), place
            if interruption.left > 0:
                break
        assert place > 10
        assert loop.run(in_thread())


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


def taken(
    items: AbstractContextManager[Stream[int]], got: list[int], done: list[str], *, is_interrupted: bool = False
) -> None:
    """Take all that comes; Ctrl-C is pressed in the first moment in which nothing does."""
    with items as stream:
        try:
            for batch in stream:
                got += batch
                if is_interrupted and not batch:
                    os.kill(os.getpid(), signal.SIGINT)
                    done.append("whole")
        finally:
            stream.end()
            got += stream.rest()


def test_a_stream_gives_all_items_in_order() -> None:
    """And raises what the generator raises, after what came before."""
    ended, got = list[str](), list[int]()
    with LoopThread() as loop, pytest.raises(ValueError, match="broken"):
        taken(loop.stream(counting(ended, 3)), got, ended)
    assert (got, ended) == ([0, 1, 2, 3], ["closed"])


def test_ctrl_c_ends_a_stream_and_loses_nothing_of_it() -> None:
    """What is being done with its items is done whole, and the generator is closed before anything else happens."""
    ended, got, done = list[str](), list[int](), list[str]()
    with LoopThread() as loop, pytest.raises(KeyboardInterrupt):
        taken(loop.stream(counting(ended)), got, done, is_interrupted=True)
    assert (got, ended, set(done)) == ([0, 1, 2, 3, 4], ["closed"], {"whole"})
