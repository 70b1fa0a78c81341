"""From engine threads to the loop: nothing is lost, nothing urgent waits, and the rest comes in few deliveries."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from pensieve.errors import BackendFailure
from pensieve.generation import Finished, GenerationEvent, PromptProgress, Started, TextDelta, Usage
from pensieve.inference.delivery import Bell, Inbox
from pensieve.inference.llamacpp.engine import Chunk
from pensieve.inference.llamacpp.sequence import Sequence
from pensieve.sampling.params import SamplingParams


def sequence(*, stop: tuple[str, ...] = (), turn_stop: tuple[str, ...] = (), max_tokens: int = 10) -> Sequence:
    """A sequence of three prompt tokens."""
    return Sequence(
        "1",
        [1, 2, 3],
        sampling=SamplingParams(),
        max_tokens=max_tokens,
        reason_at_max="length",
        stop=stop,
        turn_stop=turn_stop,
        inbox=Inbox(Bell(asyncio.get_running_loop())),
    )


def untimed(events: list[GenerationEvent]) -> list[GenerationEvent]:
    """The events without their measures."""
    return [msgspec.structs.replace(event, timings=None) if isinstance(event, Finished) else event for event in events]


class UrgencyInbox(Inbox[Chunk | None]):
    """Remembers which chunks were urgent."""

    def __init__(self, bell: Bell) -> None:
        super().__init__(bell)
        self.urgent: list[bool] = []

    def put(self, chunk: Chunk | None, *, is_urgent: bool = True) -> None:
        """Note it."""
        self.urgent.append(is_urgent)
        super().put(chunk, is_urgent=is_urgent)


async def test_chunks_of_many_threads_all_arrive_in_order() -> None:
    """Urgent or not, whatever the threads do to each other."""
    bell = Bell(asyncio.get_running_loop())
    inboxes: list[Inbox[Chunk | None]] = [Inbox(bell) for _ in range(4)]

    def produce(inbox: Inbox[Chunk | None]) -> None:
        for number in range(500):
            inbox.put(Chunk(str(number)), is_urgent=number % 50 == 0)
        inbox.put(None)

    threads = [threading.Thread(target=produce, args=(inbox,)) for inbox in inboxes]
    for thread in threads:
        thread.start()
    for inbox in inboxes:
        texts = [chunk.text for number in range(500) if (chunk := await inbox.get()) is not None]
        assert texts == [str(number) for number in range(500)]
        assert await inbox.get() is None


async def test_a_chunk_that_is_not_urgent_comes_without_another_one_behind_it() -> None:
    """An engine that stalls after a token must not keep the token back."""
    inbox: Inbox[Chunk | None] = Inbox(Bell(asyncio.get_running_loop()))
    for text in "abc":
        inbox.put(Chunk(text), is_urgent=False)
        async with asyncio.timeout(5):
            chunk = await inbox.get()
        assert chunk == Chunk(text)


async def test_a_running_text_makes_few_deliveries() -> None:
    """The first text and the end are urgent; what is between waits for the pace."""
    talk = sequence()
    talk.inbox = inbox = UrgencyInbox(Bell(asyncio.get_running_loop()))
    for chunk in (Chunk(cached_tokens=0), Chunk("a"), Chunk("b"), Chunk("c"), Chunk(finish="stop")):
        talk.on_chunk(chunk)
    assert inbox.urgent == [True, True, False, False, True]


async def test_chunks_become_the_events_of_the_contract() -> None:
    """Progress first, then text, then one end with the usage."""
    talk = sequence()
    chunks = [
        *(Chunk(cached_tokens=1), Chunk(cached_tokens=1, processed_tokens=3)),
        *(Chunk("Hel", 1), Chunk("", 2), Chunk("lo", 3), Chunk(finish="stop", completion_tokens=4)),
    ]
    events = [event for chunk in chunks for event in talk.advance(chunk)]
    end = Finished("stop", Usage(3, 1, 4))
    assert untimed(events) == [Started(3, 1), PromptProgress(3, 3), TextDelta("Hel"), TextDelta("lo"), end]


async def test_a_stop_string_ends_the_sequence_and_its_engine() -> None:
    """The callback then asks the engine to stop."""
    talk = sequence(stop=("lo",))
    assert not talk.on_chunk(Chunk("Hel", 1))
    events = [*talk.advance(Chunk("Hel", 1)), *talk.advance(Chunk("lo", 2))]
    assert untimed(events)[-1] == Finished("stop_string", Usage(3, 0, 2), "lo")
    assert talk.on_chunk(Chunk("more", 3))


async def test_the_formats_own_end_of_turn_is_an_ordinary_end() -> None:
    """The client did not ask for that string and does not hear of it, unless it did."""
    talk = sequence(stop=("mine",), turn_stop=("\nUser:",))
    assert untimed(talk.advance(Chunk("Hi\nUser:", 3))) == [TextDelta("Hi"), Finished("stop", Usage(3, 0, 3))]
    both = sequence(stop=("\nUser:",), turn_stop=("\nUser:",))
    assert untimed(both.advance(Chunk("\nUser:", 3))) == [Finished("stop_string", Usage(3, 0, 3), "\nUser:")]


async def test_after_a_step_back_the_count_goes_on() -> None:
    """The engine counts from nothing again; the client's answer does not."""
    talk = sequence(max_tokens=10)
    talk.advance(Chunk("a", 4))
    talk.step_back()
    assert (talk.completion_tokens, talk.remaining_tokens, talk.held_tokens) == (4, 6, 7)
    talk.advance(Chunk("b", 1))
    assert (talk.completion_tokens, talk.held_tokens, talk.most_tokens) == (5, 8, 13)


async def test_an_error_of_the_engine_is_raised() -> None:
    """As the error it is."""
    with pytest.raises(BackendFailure, match="broken"):
        sequence().advance(Chunk(error=BackendFailure("broken")))
