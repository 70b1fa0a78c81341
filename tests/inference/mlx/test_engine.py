"""The engine's thread with tiny models: cancelling anywhere, failing alone, memory that runs short, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from pensieve.errors import BackendFailure, Overloaded
from pensieve.inference.mlx import reading
from pensieve.inference.mlx.engine import MAX_FAILURES, Engine
from pensieve.inference.mlx.prefix_cache import BLOCK_TOKENS
from pensieve.inference.mlx.reading import BOUNDARY_TOKENS
from pensieve.inference.mlx.sequence import Began, Ended, Failed, Read, Spoke, Task
from pensieve.sampling.params import SamplingParams
from tiny_engines import Asked, Gate, Listener, TinyEngine, Wrapped, greedy_alone, running

FolderOf = Callable[..., Path]
ModelOf = Callable[[str], Any]


def prompt(num_tokens: int, seed: int = 0) -> list[int]:
    """Tokens that differ from the first on for every seed."""
    return [3 + (seed * 37 + place * (seed + 5)) % 90 for place in range(num_tokens)]


@pytest.fixture
def llama(folder_of: FolderOf) -> Path:
    """The plainest tiny model."""
    return folder_of("llama")


@pytest.fixture
def alone(model_of: ModelOf) -> Callable[[list[int], int], list[int]]:
    """What the bare model says to a prompt."""
    return lambda tokens, count: greedy_alone(model_of("llama"), tokens, count)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread of an engine outlives its test."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("mlx")]


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


def test_items_come_in_order_with_the_prompt_s_progress(llama: Path) -> None:
    """Began, then pieces of the prompt up to its last token, then tokens, then one end with its times."""
    with running(llama) as tiny:
        asked = tiny.ask(prompt(200), 5)
        end = asked.end()
        assert asked.read_tokens == [64, 128, 192, 199]
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
    """An agent's helpers share its long instructions: they are read once, also while the first is still being read."""
    shared = prompt(BOUNDARY_TOKENS + 300)
    with running(llama, chunk_tokens=512) as tiny:
        first = tiny.ask(shared + prompt(1200, 1), 4)
        first.wait_for(Read)
        second = tiny.ask(shared + prompt(50, 2), 4)
        assert second.tokens == alone(second.task.prompt, 4)
        assert second.cached_tokens >= BOUNDARY_TOKENS
        assert first.tokens == alone(first.task.prompt, 4)


def test_a_short_prompt_overtakes_a_long_one_that_is_being_read(llama: Path, alone: Alone) -> None:
    """It has spoken before the long one is half read."""
    gate = Gate()
    with running(llama, gate) as tiny:
        gate.is_shut = True
        long = tiny.ask(prompt(1300), 4)
        gate.wait()
        short = tiny.ask(prompt(40, 1), 4)
        gate.let(9)
        assert len([item for item in short.items if isinstance(item, Spoke)]) >= 2
        assert long.read_tokens[-1] < 650
        gate.open()
        assert short.tokens == alone(prompt(40, 1), 4)
        assert long.tokens == alone(prompt(1300), 4)


# Failing.


def poisoned_at(token: int, *, is_loud: bool = True) -> Callable[[Any], Wrapped]:
    """A model that fails, or gives no numbers, for any batch or piece of a prompt that holds the token."""

    class Poisoned(Wrapped):
        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            logits = super().__call__(tokens, cache)
            if not is_loud:
                return mx.where((tokens == token)[..., None], mx.nan, logits)
            if (tokens == token).any().item():
                raise RuntimeError(f"token {token} is poison")
            return logits

    return Poisoned


def unlike(answer: list[int], others: list[list[int]]) -> int:
    """A token in the middle of the answer that no other has."""
    return next(token for token in answer[4:-4] if not any(token in other for other in others))


@pytest.mark.parametrize("is_loud", [True, False])
def test_a_sequence_whose_step_fails_fails_alone(llama: Path, alone: Alone, is_loud: bool) -> None:
    """Its neighbours step back, come again, and say what they say alone, however many bad ones there are."""
    bad, good = prompt(10, 1), [prompt(length, length) for length in (30, 70, 9)]
    token = unlike(alone(bad, 30), [tokens + alone(tokens, 60) for tokens in good] + [bad])
    with running(llama, poisoned_at(token, is_loud=is_loud)) as tiny:
        neighbours = [tiny.ask(tokens, 60) for tokens in good]
        for _ in range(2 + MAX_FAILURES):
            failed = tiny.ask(bad, 30)
            assert isinstance(end := failed.end(), Failed)
            assert isinstance(end.error, BackendFailure)
            assert ("(RuntimeError)" if is_loud else "no finite numbers") in str(end.error)
            said = [item.token for item in failed.items if isinstance(item, Spoke)]
            assert said == alone(bad, 30)[: len(said)]
        for tokens, neighbour in zip(good, neighbours, strict=True):
            assert neighbour.tokens == alone(tokens, 60)
        tiny.settle()


def test_a_prompt_that_cannot_be_read_fails_alone(llama: Path, alone: Alone) -> None:
    """In whatever piece the trouble is; what runs goes on, and what comes after is answered."""
    expected = alone(prompt(20, 1), 40)
    poison = next(token for token in range(93, 200) if token not in expected + alone(prompt(20, 2), 5))
    with running(llama, poisoned_at(poison)) as tiny:
        neighbour = tiny.ask(prompt(20, 1), 40)
        for place in (0, 150, 199):
            failed = tiny.ask([*prompt(place), poison, *prompt(200 - place)], 5)
            assert isinstance(end := failed.end(), Failed)
            assert "(RuntimeError)" in str(end.error)
        assert neighbour.tokens == expected
        assert tiny.ask(prompt(20, 2), 5).tokens == alone(prompt(20, 2), 5)
        tiny.settle()


def test_a_failing_step_that_nobody_is_to_blame_for_ends_all_with_an_error(llama: Path) -> None:
    """A model that fails whenever two speak, though each alone is well: everything ends, and nothing hangs."""

    class Lonely(Wrapped):
        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            if tokens.shape[0] > 1:
                raise ValueError("two are one too many")
            return super().__call__(tokens, cache)

    with running(llama, Lonely) as tiny:
        asked = [tiny.ask(prompt(20, seed), 30) for seed in range(3)]
        ends = [each.end() for each in asked]
        assert all("(ValueError)" in str(end.error) for end in ends if isinstance(end, Failed))
        assert isinstance(tiny.ask(prompt(20), 5).end(), Ended)
        tiny.settle()


def test_memory_that_cannot_be_read_is_an_error_and_not_the_end(llama: Path) -> None:
    """Whatever goes wrong outside of any sequence's step, those who wait hear of it and the thread lives."""

    class Blind(TinyEngine):
        def _available_bytes(self) -> int:
            if self.limit_bytes < 0:
                raise OSError("no such file")
            return super()._available_bytes()

    tiny = Blind(llama)
    tiny.start()
    try:
        tiny.limit_bytes = -1
        assert isinstance(tiny.ask(prompt(20), 5).end(), Failed)
        tiny.limit_bytes = 2**40
        assert len(tiny.ask(prompt(20), 5).tokens) == 5
    finally:
        tiny.engine.stop()


def test_a_cache_that_cannot_be_kept_costs_nobody_an_answer(llama: Path, alone: Alone) -> None:
    """What was said is said: an answer is never longer than it may be, nor lost, for the prefix cache's sake."""
    with running(llama) as tiny:
        tiny.machine.store.keep = _refuse_to_keep  # type: ignore[method-assign]
        asked = [tiny.ask(prompt(20, seed), 10) for seed in range(3)]
        assert [each.tokens for each in asked] == [alone(prompt(20, seed), 10) for seed in range(3)]
        cancelled = tiny.ask(prompt(20), 1000)
        cancelled.wait_for(Spoke)
        cancelled.cancel()
        assert isinstance(cancelled.end(), Ended)
        tiny.settle()


def _refuse_to_keep(tokens: Sequence[int], caches: Sequence[Any]) -> None:
    raise RuntimeError(f"no room for {len(tokens)} tokens of {len(caches)} layers")


# Memory.


def test_cached_prompts_give_way_to_a_request(llama: Path, alone: Alone) -> None:
    """With room for two prompts of four, each is answered at once, and the cache is what shrinks."""
    with running(llama) as tiny:
        tiny.limit_bytes = 3 * tiny.machine.shape.cache_bytes(1024)
        for seed in range(4):
            assert tiny.ask(prompt(700, seed), 6).tokens == alone(prompt(700, seed), 6)
        assert tiny.machine.store.stats().evicted_bytes > 0
        tiny.settle()
        tiny.machine.store.check_integrity()


def test_a_request_waits_until_others_make_room(llama: Path, alone: Alone) -> None:
    """It begins after the one before has ended, and is answered the same."""
    with running(llama, cache_budget_bytes=0) as tiny:
        tiny.limit_bytes = 2 * tiny.machine.shape.cache_bytes(1024)
        tiny.ask(prompt(10, 9), 2).end()
        first, second = tiny.ask(prompt(600, 1), 50), tiny.ask(prompt(600, 2), 5)
        assert second.tokens == alone(prompt(600, 2), 5)
        assert first.tokens == alone(prompt(600, 1), 50)
        ended, end = first.end(), second.end()
        assert isinstance(ended, Ended)
        assert isinstance(end, Ended)
        assert end.timings.queue_seconds > ended.timings.decode_seconds / 2


def test_a_request_that_can_never_fit_is_refused_with_the_numbers(llama: Path) -> None:
    """At once where nothing runs, and beside one that runs; the next request is answered."""
    with running(llama) as tiny:
        tiny.limit_bytes = 2 * tiny.machine.shape.cache_bytes(512)
        runs = tiny.ask(prompt(10), 60)
        for _ in range(2):
            refused = tiny.ask(prompt(5000, 1), 5).end()
            assert isinstance(refused, Failed)
            assert isinstance(refused.error, Overloaded)
            assert "5000 prompt tokens need" in str(refused.error)
            assert "MB can be had" in str(refused.error)
            assert len(runs.tokens) == 60
        tiny.settle()


@pytest.mark.parametrize(("family", "room"), [("llama", 2.5), ("gpt_oss", 3.2), ("mamba2", 2.5)])
def test_the_youngest_steps_back_when_answers_outgrow_memory_and_says_the_same(
    folder_of: FolderOf, model_of: ModelOf, family: str, room: float
) -> None:
    """It waits again, and goes on where it was: not a token is lost, changed or said twice."""
    with running(folder_of(family), cache_budget_bytes=0) as tiny:
        long, other = tiny.ask(prompt(200, 1), 120), tiny.ask(prompt(180, 2), 120, num_logprobs=0)
        other.wait_for(Spoke, 5)
        tiny.limit_bytes = int(room * tiny.machine.shape.cache_bytes(512))
        long.end()
        assert 5 <= sum(isinstance(item, Spoke) for item in other.items) < 110
        for asked in (long, other):
            assert asked.tokens == greedy_alone(model_of(family), asked.task.prompt, 120)
            assert sum(isinstance(item, Began) for item in asked.items) == 1
        tiny.settle()


def test_who_is_read_steps_back_before_an_answer_is_cut(llama: Path, alone: Alone) -> None:
    """An answer that runs is worth more than a prompt that has not said anything; both are answered in full."""
    with running(llama, cache_budget_bytes=0) as tiny:
        first = tiny.ask(prompt(20, 1), 120)
        first.wait_for(Spoke)
        second = tiny.ask(prompt(4500, 2), 3)
        second.wait_for(Read)
        tiny.limit_bytes = int(1.65 * tiny.machine.shape.cache_bytes(4500))
        assert isinstance(end := first.end(), Ended)
        assert (end.reason, first.tokens) == ("length", alone(prompt(20, 1), 120))
        assert second.tokens == alone(prompt(4500, 2), 3)
        assert second.read_tokens != sorted(second.read_tokens)


def test_the_last_answer_ends_where_memory_does(llama: Path, alone: Alone) -> None:
    """What was said stays said, the reason tells, and it is no error; nor is it for one that had stepped back."""
    with running(llama) as tiny:
        asked = [tiny.ask(prompt(30, seed), 1000) for seed in range(2)]
        asked[1].wait_for(Spoke)
        tiny.limit_bytes = 0
        for each in asked:
            assert isinstance(end := each.end(), Ended)
            assert end.reason == "context_full"
            assert each.tokens == alone(each.task.prompt, len(each.tokens))
        tiny.settle()


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


def test_a_block_is_what_the_prefix_cache_says_it_is() -> None:
    """Two files know the number; boundaries must be whole blocks."""
    assert reading.BLOCK_TOKENS == BLOCK_TOKENS
    assert BOUNDARY_TOKENS % BLOCK_TOKENS == 0
