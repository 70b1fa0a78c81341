"""The engine's thread with tiny models: all kinds of answers, cancelling anywhere, and its end."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.models.cache import ChunkedKVCache

from pensieve.errors import BackendFailure, Overloaded
from pensieve.inference.mlx.engine import Engine
from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS
from pensieve.inference.mlx.reading import BOUNDARY_TOKENS
from pensieve.inference.mlx.sequence import Began, Ended, Failed, Read, Spoke, Task
from pensieve.sampling.params import SamplingParams
from tiny_engines import Asked, Gate, Listener, greedy_alone, running
from tiny_engines import prompt_of as prompt

FolderOf = Callable[..., Path]
ModelOf = Callable[[str], Any]


pytestmark = pytest.mark.usefixtures("no_thread_is_left")

Alone = Callable[[list[int], int], list[int]]


# Answers.


def test_requests_of_all_lengths_together_say_what_each_says_alone(llama: Path, alone: Alone) -> None:
    """More than there are rows: they take turns, and each ends at exactly its number of tokens."""
    with running(llama, max_rows=4) as tiny:
        asked = [tiny.ask(prompt(length, length), 3 + length % 30) for length in (1, 2, 65, 130, 64, 300, 7, 40, 128)]
        for each in asked:
            assert each.tokens == alone(each.task.prompt, each.task.max_tokens)
            assert isinstance(each.end(), Ended)
            assert [item.reason for item in each.items if isinstance(item, Ended)] == ["length"]
        tiny.settle()
        tiny.machine.store.check_integrity()


def test_a_model_whose_caches_cannot_be_batched_answers_one_after_the_other(llama: Path, alone: Alone) -> None:
    """Slower, and never an error."""

    def chunked(model: Any) -> list[Any]:
        return [ChunkedKVCache(4096) for _ in model.layers]

    with running(llama, make_caches=chunked) as tiny:
        asked = [tiny.ask(prompt(70, seed), 9) for seed in range(3)]
        assert [each.tokens for each in asked] == [alone(prompt(70, seed), 9) for seed in range(3)]


def test_items_come_in_order_with_the_prompt_s_progress(llama: Path) -> None:
    """Began, then pieces of the prompt up to its last token, then tokens, then one end with its times."""
    with running(llama) as tiny:
        asked = tiny.ask(prompt(200), 5)
        end = asked.end()
        assert asked.read_tokens[:3] == [64, 128, 192]
        assert [type(item) for item in asked.items] == [Began, *[Read] * 4, *[Spoke] * 5, Ended]
        assert isinstance(end, Ended)
        assert end.timings.peak_memory_bytes > 0
        assert 0 < end.timings.time_to_first_token_seconds < end.timings.time_to_first_token_seconds + 1


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(llama: Path, alone: Alone) -> None:
    """Also where it is the last token that would have been allowed."""
    expected = alone(prompt(20), 30)
    place = next(place for place in range(5, 30) if expected[place] not in expected[:place])
    with running(llama) as tiny:
        for max_tokens in (30, place + 1):
            asked = tiny.ask(prompt(20), max_tokens, stop_tokens=[expected[place]])
            assert asked.tokens == expected[:place]
            assert isinstance(end := asked.end(), Ended)
            assert end.reason == "stop"
        full = tiny.ask(prompt(20), place, stop_tokens=[expected[place]])
        assert isinstance(end := full.end(), Ended)
        assert (end.reason, full.tokens) == ("length", expected[:place])


def test_a_seed_says_the_same_alone_and_in_company(llama: Path) -> None:
    """With penalties, beside greedy rows and rows of other seeds."""
    sampling = SamplingParams(temperature=1.2, top_p=0.9, seed=5, repetition_penalty=1.2, frequency_penalty=0.3)
    with running(llama) as tiny:
        first = tiny.ask(prompt(30), 20, sampling).tokens
        others = [tiny.ask(prompt(9, seed), 40, SamplingParams(temperature=seed / 3.0, seed=seed)) for seed in range(4)]
        again = tiny.ask(prompt(30), 20, sampling)
        assert again.tokens == first
        assert tiny.ask(prompt(30), 20, SamplingParams(temperature=1.2, top_p=0.9, seed=6)).tokens != first
        assert all(isinstance(other.end(), Ended) for other in others)


def test_a_request_without_a_seed_draws_another_every_time(llama: Path) -> None:
    """Two equal requests differ."""
    with running(llama) as tiny:
        asked = [tiny.ask(prompt(30), 20, SamplingParams(temperature=2.0)) for _ in range(3)]
        assert len({tuple(each.tokens) for each in asked}) == 3


# Cancelling.


@pytest.mark.parametrize("stage", ["waiting", "reading", "decoding"])
@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
def test_a_request_is_cancelled_at_any_stage_and_the_others_go_on(
    folder_of: FolderOf, model_of: ModelOf, family: str, stage: str
) -> None:
    """It ends once, however often it is cancelled, and leaves nothing behind."""
    gate = Gate()
    with running(folder_of(family), gate, max_rows=2) as tiny:
        other = tiny.ask(prompt(10, 1), 40)
        other.wait_for(Spoke)
        gate.is_shut = True
        gate.wait()
        running_too = tiny.ask(prompt(12, 2), 40) if stage == "waiting" else None
        asked = tiny.ask(prompt(300, 3), 40)
        gate.let({"waiting": 4, "reading": 4, "decoding": 24}[stage])
        seen = {"waiting": 0, "reading": 1, "decoding": 1}[stage]
        assert len([item for item in asked.items if isinstance(item, Began)]) == seen
        assert any(isinstance(item, Spoke) for item in asked.items) == (stage == "decoding")
        for _ in range(3):
            asked.cancel()
        gate.open()
        assert isinstance(asked.end(), Ended)
        assert other.tokens == greedy_alone(model_of(family), prompt(10, 1), 40)
        assert running_too is None or running_too.tokens == greedy_alone(model_of(family), prompt(12, 2), 40)
        asked.cancel()
        tiny.engine.cancel("nobody")
        tiny.settle()
        assert asked.num_ends == other.num_ends == 1


def test_what_a_cancelled_request_has_read_is_kept(llama: Path, alone: Alone) -> None:
    """The same request sent again goes on from there."""
    gate = Gate()
    with running(llama, gate) as tiny:
        gate.is_shut = True
        asked = tiny.ask(prompt(640), 8)
        gate.wait()
        gate.let(4)
        asked.cancel()
        gate.open()
        assert isinstance(asked.end(), Ended)
        again = tiny.ask(prompt(640), 8)
        assert again.tokens == alone(prompt(640), 8)
        assert again.cached_tokens >= 4 * 64


def test_a_request_sent_again_while_it_is_read_waits_for_its_own_prompt(llama: Path, alone: Alone) -> None:
    """Nothing is read twice, and the first one's leaving does not take the second along."""
    gate = Gate()
    with running(llama, gate) as tiny:
        gate.is_shut = True
        first, second = tiny.ask(prompt(640), 8), tiny.ask(prompt(640), 8)
        gate.wait()
        gate.let(3)
        assert not second.items
        first.cancel()
        gate.open()
        assert second.tokens == alone(prompt(640), 8)
        assert second.cached_tokens >= 3 * 64
        third, fourth = tiny.ask(prompt(640, 4), 8), tiny.ask(prompt(640, 4), 8)
        assert (third.tokens, third.cached_tokens) == (fourth.tokens, 0)
        assert fourth.cached_tokens == 576


def test_a_prompt_that_begins_like_one_being_read_gets_that_beginning(llama: Path, alone: Alone) -> None:
    """An agent's helpers share its long instructions: they are read once."""
    shared = prompt(600)
    with running(llama) as tiny:
        first, second = tiny.ask(shared + prompt(200, 1), 4), tiny.ask(shared + prompt(50, 2), 4)
        assert second.tokens == alone(second.task.prompt, 4)
        assert second.cached_tokens == 576
        assert first.tokens == alone(first.task.prompt, 4)


def test_a_long_prompt_is_kept_while_it_is_read(llama: Path) -> None:
    """Who waits for the part they share need not wait for the rest."""
    gate = Gate()
    with running(llama, gate, chunk_tokens=512) as tiny:
        gate.is_shut = True
        asked = tiny.ask(prompt(3000), 1)
        gate.wait()
        while not asked.read_tokens or asked.read_tokens[-1] < BOUNDARY_TOKENS:
            gate.let(1)
        assert asked.read_tokens[-1] < 3000
        assert BOUNDARY_TOKENS <= tiny.machine.store.probe(prompt(3000)) < 3000
        gate.open()
        asked.end()


def test_relief_empties_the_cache_and_reads_in_the_smallest_pieces(llama: Path, alone: Alone) -> None:
    """Also while nothing is asked; the words stay the same, and all is as before when it is over."""
    with running(llama) as tiny:
        tiny.ask(prompt(200), 4).end()
        assert tiny.machine.store.num_bytes > 0
        tiny.engine.relieve(cache_share=0.0, is_frugal=True)
        asked = tiny.ask(prompt(200), 4)
        assert asked.tokens == alone(prompt(200), 4)
        assert (tiny.engine.cached.num_bytes, asked.read_tokens[:2]) == (0, [32, 64])
        assert tiny.engine.cached.evicted_bytes > 0
        tiny.engine.relieve(cache_share=1.0, is_frugal=False)
        again = tiny.ask(prompt(200), 4)
        assert again.tokens == alone(prompt(200), 4)
        assert again.read_tokens[0] > 32
        assert tiny.engine.cached.num_bytes > 0
    assert tiny.engine.cached.num_bytes == 0


def test_relief_reaches_a_prompt_that_is_being_read(llama: Path, alone: Alone) -> None:
    """Its next piece is a small one; once memory is there again, pieces grow."""
    gate = Gate()
    with running(llama, gate) as tiny:
        gate.is_shut = True
        asked = tiny.ask(prompt(900), 4)
        gate.wait()
        gate.let(3)
        tiny.engine.relieve(cache_share=0.0, is_frugal=True)
        gate.let(4)
        tiny.engine.relieve(cache_share=1.0, is_frugal=False)
        gate.open()
        assert asked.tokens == alone(prompt(900), 4)
        sizes = [after - before for before, after in itertools.pairwise([0, *asked.read_tokens])]
        assert sizes[:3] == [64, 64, 64]
        assert sizes[4:7] == [32, 32, 32]
        assert max(sizes[8:]) > 32


def test_relief_halves_a_batch_and_nobody_loses_a_word(llama: Path, alone: Alone) -> None:
    """The younger two wait, and go on from where they were; nobody joins who would share the memory."""
    gate = Gate()
    with running(llama, gate, max_rows=4) as tiny:
        asked = [tiny.ask(prompt(10, seed), 60) for seed in range(4)]
        for each in asked:
            each.wait_for(Spoke)
        gate.is_shut = True
        gate.wait()
        tiny.engine.relieve(cache_share=0.0, is_frugal=True)
        gate.let(2)
        assert tiny.machine.runner.row_ids == (asked[0].task.id, asked[1].task.id)
        gate.open()
        assert [each.tokens for each in asked] == [alone(prompt(10, seed), 60) for seed in range(4)]


def test_a_short_prompt_overtakes_a_long_one_that_is_being_read(llama: Path, alone: Alone) -> None:
    """It has spoken before the long one is half read."""
    gate = Gate()
    with running(llama, gate) as tiny:
        gate.is_shut = True
        long = tiny.ask(prompt(1300), 4)
        gate.wait()
        short = tiny.ask(prompt(40, 1), 4)
        gate.let(9)
        assert any(isinstance(item, Spoke) for item in short.items)
        assert long.read_tokens[-1] < 650
        gate.open()
        assert short.tokens == alone(prompt(40, 1), 4)
        assert long.tokens == alone(prompt(1300), 4)


# The end.


def test_a_full_queue_refuses_at_once(llama: Path) -> None:
    """With a time to come again; those in the queue are answered."""
    gate = Gate()
    with running(llama, gate, max_rows=1, queue_limit=2) as tiny:
        gate.is_shut = True
        first = tiny.ask(prompt(5), 3)
        gate.wait()
        waiting = [tiny.ask(prompt(5, seed), 3) for seed in (1, 2)]
        refused = tiny.ask(prompt(5, 3), 3)
        gate.let(1)
        assert isinstance(end := refused.end(), Failed)
        assert isinstance(end.error, Overloaded)
        assert end.error.retry_after_seconds > 0
        gate.open()
        assert all(len(each.tokens) == 3 for each in (first, *waiting))


def test_stopping_ends_everybody_once_with_an_error(llama: Path) -> None:
    """Who decodes, who is read, who waits, and who comes too late; a second stop changes nothing."""
    gate = Gate()
    with running(llama, gate, max_rows=2) as tiny:
        decoding = tiny.ask(prompt(5), 1000)
        decoding.wait_for(Spoke)
        gate.is_shut = True
        asked = [decoding, tiny.ask(prompt(900, 1), 5), *(tiny.ask(prompt(9, seed), 5) for seed in range(2, 5))]
        gate.wait()
        gate.let(6)
        stopping = threading.Thread(target=tiny.engine.stop)
        stopping.start()
        gate.open()
        stopping.join()
        tiny.engine.stop()
        asked.append(tiny.ask(prompt(3), 3))
        for each in asked:
            assert isinstance(end := each.end(), Failed)
            assert "shutting down" in str(end.error)
            assert each.num_ends == 1


def test_an_engine_that_never_started_or_could_not_is_stopped() -> None:
    """What `build` raises comes out of `start`; a task that is submitted then is not left waiting."""

    def fail() -> Any:
        raise BackendFailure("no such model")

    for build in (None, fail):
        engine = Engine(max_rows=1, queue_limit=1)
        if build:
            with pytest.raises(BackendFailure, match="no such model"):
                engine.start(build)
        engine.stop()
        engine.stop()
        listener = Listener()
        engine.submit(Task(id="a", prompt=[1], sampling=SamplingParams(), max_tokens=1, **REST), listener)
        assert isinstance(listener.end(), Failed)


REST: dict[str, Any] = {"reason_at_max": "length", "stop_tokens": frozenset()}


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "mamba2", "deepseek_v3"])
def test_a_crowd_that_comes_and_goes_leaves_nothing_behind(folder_of: FolderOf, model_of: ModelOf, family: str) -> None:
    """Thirty requests, a third of them broken off, share prompts and memory: the rest say what each says alone."""
    with running(folder_of(family), max_rows=5) as tiny:
        tiny.limit_bytes = 6 * tiny.machine.shape.cache_bytes(1024)
        asked: list[Asked] = []
        for place in range(30):
            asked.append(tiny.ask(prompt((70 * place) % 500 + 1, place % 3), 5 + place % 11))
            if place % 3 == 2:
                asked[place - place % 5].cancel()
        for each in asked:
            assert isinstance(each.end(), Ended)
            assert each.tokens == greedy_alone(model_of(family), each.task.prompt, len(each.tokens))
        assert sum(len(each.tokens) == each.task.max_tokens for each in asked) >= 20
        tiny.settle()
        tiny.machine.store.check_integrity()


def test_boundaries_are_whole_blocks_of_the_prefix_cache() -> None:
    """Else they could not be stored."""
    assert BOUNDARY_TOKENS % BLOCK_TOKENS == 0
