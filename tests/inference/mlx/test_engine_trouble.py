"""The engine's thread when steps fail and memory runs short: who is to blame, who waits, and what is said at last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from pensieve.errors import BackendFailure, Overloaded
from pensieve.inference.mlx.engine import MAX_FAILURES
from pensieve.inference.mlx.sequence import Began, Ended, Failed, Read, Spoke
from tiny_engines import TinyEngine, Wrapped, greedy_alone, running
from tiny_engines import prompt_of as prompt

FolderOf = Callable[..., Path]
ModelOf = Callable[[str], Any]


pytestmark = pytest.mark.usefixtures("no_thread_is_left")

Alone = Callable[[list[int], int], list[int]]


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
        oldest = tiny.ask(bad, 30)
        neighbours = [tiny.ask(tokens, 60) for tokens in good]
        for _ in range(2 + MAX_FAILURES):
            failed = tiny.ask(bad, 30)
            assert isinstance(end := failed.end(), Failed)
            assert isinstance(end.error, BackendFailure)
            assert ("(RuntimeError)" if is_loud else "no finite numbers") in str(end.error)
            said = [item.token for item in failed.items if isinstance(item, Spoke)]
            assert said == alone(bad, 30)[: len(said)]
        assert isinstance(oldest.end(), Failed)
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


def test_a_prompt_that_gave_no_numbers_is_not_kept(llama: Path, alone: Alone) -> None:
    """What spoiled one request would spoil every other that begins like it."""

    class Spoiled(Wrapped):
        is_bad = True

        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            logits = super().__call__(tokens, cache)
            if self.is_bad:
                cache[0].keys *= mx.nan
            return logits * mx.nan if self.is_bad else logits

    with running(llama, Spoiled) as tiny:
        assert isinstance(tiny.ask(prompt(200), 5).end(), Failed)
        tiny.machine.runner._model.is_bad = False  # type: ignore[attr-defined]
        assert tiny.ask(prompt(200), 5).tokens == alone(prompt(200), 5)


@pytest.mark.parametrize("num_neighbours", [0, 3])
def test_who_cannot_be_decoded_fails_alone_though_its_prompt_can_be_read(
    llama: Path, alone: Alone, num_neighbours: int
) -> None:
    """Each try reads it again and so makes a token, which is no sign that its steps go well."""

    class Short(Wrapped):
        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            longest: Any = mx.max(mx.array(cache[0].offset)).item()
            if tokens.shape[1] == 1 and longest > 305:
                raise RuntimeError("too long to be decoded")
            return super().__call__(tokens, cache)

    with running(llama, Short) as tiny:
        neighbours = [tiny.ask(prompt(20, seed), 90) for seed in range(num_neighbours)]
        failed = tiny.ask(prompt(300, 9), 15)
        assert isinstance(failed.end(), Failed)
        said = [item.token for item in failed.items if isinstance(item, Spoke)]
        assert said == alone(prompt(300, 9), len(said))
        for seed, neighbour in enumerate(neighbours):
            assert neighbour.tokens == alone(prompt(20, seed), 90)
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
            assert "B can be had" in str(refused.error)
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
