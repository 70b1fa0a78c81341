"""From engine threads to the loop: nothing is lost, nothing urgent waits, and the rest comes in few deliveries."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from pensieve.config.settings import GenerationSettings
from pensieve.errors import BackendFailure
from pensieve.generation import Finished, GenerationEvent, PromptProgress, Started, TextDelta, Usage
from pensieve.inference.constraints.following import Follower, byte_matchers
from pensieve.inference.delivery import Bell, Inbox
from pensieve.inference.llamacpp.completion import Chunk
from pensieve.inference.llamacpp.phases import Phases
from pensieve.inference.llamacpp.sequence import Bound, EnginePrompt, Limit, Sequence
from pensieve.inference.parsing.grammar import PLAIN, OutputGrammar
from pensieve.inference.parsing.parser import OutputParser
from pensieve.inference.repetition import RepetitionGuard
from pensieve.sampling.params import SamplingParams

SPECIALS = {2: "<|im_end|>", 7: "<tool_call>"}


def sequence(
    *,
    stop: tuple[str, ...] = (),
    turn_stop: tuple[str, ...] = (),
    max_tokens: int = 10,
    grammar: OutputGrammar = PLAIN,
    stop_tokens: tuple[int, ...] = (),
    bound: Bound | None = None,
    triggers: tuple[str, ...] = (),
) -> Sequence:
    """A sequence of three prompt tokens."""
    return Sequence(
        "1",
        EnginePrompt([1, 2, 3]),
        parser=OutputParser(grammar, new_call_id=lambda: "c", stop=stop + turn_stop),
        phases=Phases(
            grammar, is_thinking_wanted=False, budget_tokens=None, is_bound=bound is not None, triggers=triggers
        ),
        guard=RepetitionGuard(GenerationSettings()),
        limit=Limit(max_tokens),
        inbox=Inbox(Bell(asyncio.get_running_loop())),
        sampling=SamplingParams(),
        bound=bound,
        turn_stop=frozenset(turn_stop) - frozenset(stop),
        stop_tokens=stop_tokens,
        specials=SPECIALS,
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
        *(Chunk("Hel", 4, 1), Chunk("", 5, 2), Chunk("lo", 6, 3), Chunk(finish="stop", completion_tokens=4)),
    ]
    events = [event for chunk in chunks for event in talk.take([chunk])]
    end = Finished("stop", Usage(3, 1, 4))
    assert untimed(events) == [Started(3, 1), PromptProgress(3, 3), TextDelta("Hel"), TextDelta("lo"), end]


async def test_the_slot_is_free_with_the_last_word_and_not_when_the_thread_is_back() -> None:
    """A next turn that comes at once finds what was read; a run that goes on holds its slot again."""
    talk = sequence()

    def after(*chunks: Chunk) -> tuple[bool, bool]:
        talk.take(chunks)
        return talk.is_let_go, talk.is_run_over

    assert after(Chunk(cached_tokens=0, processed_tokens=3), Chunk("a", 4, 1)) == (False, False)
    assert after(Chunk(finish="stop", completion_tokens=1)) == (True, False)
    talk.begin_run()
    assert after() == (False, False)


async def test_text_that_came_together_is_one_event() -> None:
    """Each costs a frame."""
    talk = sequence()
    assert talk.take([Chunk("Hel", 4, 1), Chunk("lo", 6, 2)]) == [TextDelta("Hello")]


async def test_a_stop_string_ends_the_sequence_and_its_engine() -> None:
    """The callback then asks the engine to stop."""
    talk = sequence(stop=("lo",))
    assert not talk.on_chunk(Chunk("Hel", 4, 1))
    events = talk.take([Chunk("Hel", 4, 1), Chunk("lo", 5, 2), Chunk("more", 6, 3)])
    assert untimed(events)[-1] == Finished("stop_string", Usage(3, 0, 2), "lo")
    assert talk.on_chunk(Chunk("more", 6, 3))


async def test_the_formats_own_end_of_turn_is_an_ordinary_end() -> None:
    """The client did not ask for that string and does not hear of it, unless it did."""
    talk = sequence(stop=("mine",), turn_stop=("\nUser:",))
    assert untimed(talk.take([Chunk("Hi\nUser:", 4, 3)])) == [TextDelta("Hi"), Finished("stop", Usage(3, 0, 3))]
    both = sequence(stop=("\nUser:",), turn_stop=("\nUser:",))
    assert untimed(both.take([Chunk("\nUser:", 4, 3)])) == [Finished("stop_string", Usage(3, 0, 3), "\nUser:")]


async def test_the_token_that_ends_a_turn_is_no_text() -> None:
    """Though it counts; the same token in the middle is."""
    talk = sequence()
    events = talk.take([Chunk("Hi", 4, 1), Chunk("<|im_end|>", 2, 2), Chunk(finish="stop", completion_tokens=2)])
    assert untimed(events) == [TextDelta("Hi"), Finished("stop", Usage(3, 0, 2))]
    middle = sequence()
    assert middle.take([Chunk("<|im_end|>", 2, 1), Chunk("on", 4, 2)]) == [TextDelta("<|im_end|>on")]


async def test_a_token_that_the_client_stops_at_is_no_text() -> None:
    """Special or not."""
    talk = sequence(stop_tokens=(9,))
    assert untimed(talk.take([Chunk("Hi", 4, 1), Chunk("!", 9, 2)])) == [
        TextDelta("Hi"),
        Finished("stop", Usage(3, 0, 2)),
    ]


async def test_bytes_that_were_cut_off_count() -> None:
    """The last chunk alone tells of them."""
    talk = sequence()
    events = talk.take([Chunk("a", 4, 1), Chunk(finish="length", completion_tokens=3)])
    assert untimed(events)[-1] == Finished("length", Usage(3, 0, 3))


async def test_after_a_step_back_the_count_goes_on_from_the_same_tokens() -> None:
    """The engine counts from nothing again; the client's answer does not, and nothing is encoded again."""
    talk = sequence(max_tokens=10)
    talk.take([Chunk("a", 4, 1), Chunk("b", 5, 2), None])
    assert talk.is_run_over
    talk.begin_run()
    assert talk.tokens(lambda _: [99]) == [1, 2, 3, 4, 5]
    assert (talk.said.num_sampled, talk.remaining_tokens, talk.held_tokens) == (2, 8, 5)
    talk.take([Chunk("c", 6, 1)])
    assert (talk.said.num_sampled, talk.held_tokens, talk.most_tokens) == (3, 6, 13)


async def test_each_slot_is_told_when_the_prompt_is_read_there() -> None:
    """After a step back too: whoever waits for its reader would wait for the whole answer."""
    talk = sequence()
    talk.sit(0)
    talk.take([Chunk(cached_tokens=0, processed_tokens=3, prompt_tokens=3), Chunk("a", 4, 1), None])
    assert (talk.has_just_read, talk.reading[0]) == (True, 3)
    talk.step_back()
    talk.sit(1)
    assert talk.engine_tokens == []
    talk.begin_run()
    talk.take([Chunk(cached_tokens=0, processed_tokens=2, prompt_tokens=4)])
    assert (talk.has_just_read, talk.engine_tokens) == (False, [1, 2])
    talk.take([Chunk("b", 5, 1)])
    assert (talk.has_just_read, talk.engine_tokens) == (True, [1, 2, 3, 4, 5])


async def test_being_asked_to_step_back_while_it_waits_is_not_forgotten() -> None:
    """Others already count on its room."""
    talk = sequence()
    talk.is_stepping_back = True
    talk.sit(0)
    talk.begin_run()
    assert talk.on_chunk(Chunk("a", 4, 1))


async def test_an_error_of_the_engine_comes_after_what_was_said() -> None:
    """As the error it is."""
    talk = sequence()
    assert talk.take([Chunk("a", 4, 1), Chunk(error=BackendFailure("broken"))]) == [TextDelta("a")]
    assert str(talk.failure) == "broken"


BOUND = '"a" "b" /c+/'
CUT = ("<call>",)


def bound() -> Bound:
    """An answer that must be "abc", or with more of the last."""
    return Bound(f"start: {BOUND}", Follower(byte_matchers().matcher(f"start: {BOUND}")))


async def test_a_sequence_is_pinned_once_its_grammar_has_begun() -> None:
    """With triggers that is after the first of them; elsewhere with the first token."""
    assert not pinned(sequence(), Chunk("a", 4, 1))
    assert not pinned(sequence(bound=bound()))
    assert pinned(sequence(bound=bound()), Chunk("a", 4, 1))
    triggered = sequence(bound=bound(), triggers=CUT)
    assert not pinned(triggered, Chunk("text <call>", 4, 1))
    assert (triggered.is_turning, triggered.said.text) == (True, "text ")
    assert pinned(triggered, Chunk("ab", 4, 1))


def pinned(talk: Sequence, *chunks: Chunk) -> bool:
    """Whether it is, after a run that says this."""
    talk.begin_run()
    talk.take(chunks)
    return talk.is_pinned


async def test_a_run_is_ruled_from_its_trigger_on() -> None:
    """The one before is free, and llama.cpp hears of no trigger."""
    talk = sequence(bound=bound(), triggers=CUT)
    assert talk.run([1]).lark == ""
    assert talk.take([Chunk("so <ca", 4, 1), Chunk("ll>{", 5, 2)]) == [TextDelta("so ")]
    assert talk.run([1]).lark == f"start: {BOUND}"
    free = sequence(bound=bound(), triggers=CUT)
    events = free.take([Chunk("so <ca", 4, 1), Chunk(finish="stop", completion_tokens=1)])
    assert untimed(events) == [TextDelta("so <ca"), Finished("stop", Usage(3, 0, 1))]


@pytest.mark.parametrize(
    "chunks",
    [
        [Chunk("ab", 4, 1), Chunk("x", 5, 2), Chunk("c", 5, 3)],
        [Chunk("abx", 4, 1)],
        [Chunk("ab", 4, 1), Chunk(finish="stop", completion_tokens=1)],
    ],
)
async def test_an_answer_that_leaves_its_grammar_is_stopped(chunks: list[Chunk]) -> None:
    """llama.cpp would go on freely; an end that comes too early is no end either."""
    talk = sequence(bound=bound())
    events = talk.take(chunks)
    assert isinstance(talk.failure, BackendFailure)
    assert "schema" in str(talk.failure)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) in {"", "ab"}
    assert talk.on_chunk(Chunk("c", 5, 4))


async def test_an_answer_that_keeps_to_its_grammar_ends_as_ever() -> None:
    """Whole, or cut by its limit, even within a character."""
    talk = sequence(bound=bound())
    assert untimed(talk.take([Chunk("abc", 4, 1), Chunk("c", 5, 2), Chunk(finish="stop", completion_tokens=2)])) == [
        TextDelta("abcc"),
        Finished("stop", Usage(3, 0, 2)),
    ]
    cut = sequence(bound=bound())
    cut.take([Chunk("ab", 4, 1), Chunk("\ufffd", finish="length", completion_tokens=3)])
    assert (cut.failure, cut.finished is not None) == (None, True)
