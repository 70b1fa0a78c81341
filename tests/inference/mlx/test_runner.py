"""The runner: sequences join and leave at any moment, and each says what it says alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from pensieve.inference.mlx.runner import Runner, Spoken
from pensieve.inference.mlx.sampler import RowSampler
from pensieve.sampling.params import SamplingParams
from tiny_engines import Wrapped, greedy_alone

FAMILIES = ["llama", "gpt_oss", "gemma3", "mamba2", "qwen3_next", "deepseek_v3", "phi3-128k"]
"""Full attention, sliding windows in two orders, recurrent, partly recurrent, latent, and scaled positions."""

ModelOf = Callable[[str], Any]


def prompt(num_tokens: int, seed: int) -> list[int]:
    """Random tokens."""
    source = random.Random(seed)
    return [source.randrange(3, 99) for _ in range(num_tokens)]


def runner_for(model: Any) -> Runner:
    """A runner of the bare model."""
    return Runner(model, lambda: make_prompt_cache(model))


def greedy(num_logprobs: int | None = None) -> RowSampler:
    """The likeliest token, with its probabilities if asked for."""
    return RowSampler(SamplingParams(temperature=0.0), [], vocabulary_size=256, num_logprobs=num_logprobs)


def join(runner: Runner, model: Any, name: str, tokens: list[int], sampler: RowSampler | None = None) -> None:
    """Read the prompt in two pieces and decode it from now on."""
    caches = make_prompt_cache(model)
    middle = len(tokens) // 2
    for piece in (tokens[:middle], tokens[middle:-1]):
        if piece:
            runner.read(caches, piece)
    runner.join(name, sampler or greedy(), caches, tokens)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_rows_that_come_and_go_say_what_they_say_alone(model_of: ModelOf, family: str, seed: int) -> None:
    """Lengths differ, windows are passed, rows leave for good or to join again; every token is the lonely one's."""
    model, source = model_of(family), random.Random(seed)
    runner = runner_for(model)
    prompts = {str(place): prompt(source.choice([2, 3, 7, 15, 17, 40, 90, 250, 260]), place) for place in range(6)}
    expected = {name: greedy_alone(model, tokens, 40) for name, tokens in prompts.items()}
    said: dict[str, list[int]] = {name: [] for name in prompts}
    for _ in range(60):
        running = runner.row_ids
        absent = [name for name in prompts if name not in running and len(said[name]) < 30]
        if absent and (not running or source.random() < 0.25):
            name = source.choice(absent)
            join(runner, model, name, prompts[name] + said[name])
        elif running and source.random() < 0.2:
            runner.leave(source.sample(running, source.randint(1, len(running))))
        if runner.row_ids:
            for spoken in runner.step():
                said[spoken.row_id].append(spoken.token)
    assert sum(map(len, said.values())) > 60
    for name, tokens in said.items():
        assert tokens == expected[name][: len(tokens)]


@pytest.mark.parametrize("family", FAMILIES)
def test_caches_taken_out_of_a_batch_go_on_as_if_they_had_been_alone(model_of: ModelOf, family: str) -> None:
    """They hold exactly the row's tokens, and taking them changes nothing for those who stay."""
    model = model_of(family)
    runner = runner_for(model)
    prompts = {"a": prompt(30, 1), "b": prompt(5, 2), "c": prompt(19, 3)}
    for name, tokens in prompts.items():
        join(runner, model, name, tokens)
    said = [spoken for _ in range(10) for spoken in runner.step()]
    for name, tokens in prompts.items():
        own = [spoken.token for spoken in said if spoken.row_id == name]
        assert runner.tokens(name)[: len(tokens) + 9] == tokens + own
        caches = runner.caches(name)
        held = runner.tokens(name)
        following: Any = mx.argmax(model(mx.array([[7]]), cache=caches)[0, -1]).tolist()
        assert following == greedy_alone(model, [*held, 7], 1)[0]
    after = {spoken.row_id: spoken.token for _ in range(2) for spoken in runner.step()}
    assert after == {name: greedy_alone(model, tokens, 11)[-1] for name, tokens in prompts.items()}


def test_a_row_speaks_from_its_second_step_on(model_of: ModelOf) -> None:
    """Each step computes one token and gives the one before; a row that joins later does not hold up the others."""
    model = model_of("llama")
    runner = runner_for(model)
    join(runner, model, "a", prompt(9, 1))
    assert runner.step() == []
    join(runner, model, "b", prompt(4, 2))
    assert [[spoken.row_id for spoken in runner.step()] for _ in range(3)] == [["a"], ["a", "b"], ["a", "b"]]
    assert runner.row_ids == ("a", "b")


def test_probabilities_are_those_of_their_own_token(model_of: ModelOf) -> None:
    """In a batch where only some ask for them, and after the first row has left."""
    model = model_of("llama")
    runner = runner_for(model)
    for name, count in (("x", None), ("a", 2), ("b", 0)):
        join(runner, model, name, prompt(8, len(name)), greedy(count))
    said: list[Spoken] = [spoken for _ in range(4) for spoken in runner.step()]
    runner.leave(["x"])
    said += [spoken for _ in range(3) for spoken in runner.step()]
    logits = model(mx.array([prompt(8, 1) + greedy_alone(model, prompt(8, 1), 6)]))[0, 7:]
    logprobs: Any = (logits - mx.logsumexp(logits, axis=-1, keepdims=True)).tolist()
    assert all(spoken.probabilities is None for spoken in said if spoken.row_id == "x")
    for name, count in (("a", 2), ("b", 0)):
        reported = [(spoken.token, spoken.probabilities) for spoken in said if spoken.row_id == name]
        assert len(reported) == 6
        for (token, probabilities), expected in zip(reported, logprobs, strict=False):
            assert probabilities is not None
            assert probabilities.logprob == pytest.approx(expected[token], abs=1e-4)
            assert len(probabilities.alternatives) == count
            assert [other for other, _ in probabilities.alternatives[:1]] == [token][:count]


def test_a_row_without_numbers_leaves_its_neighbours_alone(model_of: ModelOf) -> None:
    """The others say what they say alone, before and after it is gone."""
    model = model_of("llama")

    class Spoiled(Wrapped):
        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            logits = self.model(tokens, cache=cache)
            is_second = mx.arange(tokens.shape[0])[:, None, None] == 1
            return mx.where(is_second & (tokens.shape[0] == 3), mx.nan, logits)

    runner = Runner(Spoiled(model), lambda: make_prompt_cache(model))
    prompts = {name: prompt(6, place) for place, name in enumerate("abc")}
    for name, tokens in prompts.items():
        join(runner, model, name, tokens)
    runner.step()
    said = runner.step()
    assert [spoken.is_finite for spoken in said] == [True, False, True]
    runner.leave(["b"])
    said += [spoken for _ in range(4) for spoken in runner.step()]
    for name in "ac":
        own = [spoken.token for spoken in said if spoken.row_id == name]
        assert own == greedy_alone(model, prompts[name], 5)


@pytest.mark.parametrize("tail_tokens", [1, 4, 2048])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_token_comes_with_the_last_piece(model_of: ModelOf, family: str, tail_tokens: int) -> None:
    """It is the one that a step of its own would give, with its probabilities, and the row goes on from it."""
    model = model_of(family)
    runner = Runner(model, lambda: make_prompt_cache(model), tail_tokens=tail_tokens)
    caches, tokens, sampler = make_prompt_cache(model), prompt(40, 3), greedy(1)
    runner.read(caches, tokens[:30])
    first = runner.read_last("a", sampler, caches, tokens[30:])
    assert first.probabilities is not None
    assert first.probabilities.alternatives[0][0] == first.token
    runner.join("a", sampler, caches, [*tokens, first.token])
    said = [spoken.token for _ in range(6) for spoken in runner.step()]
    assert [first.token, *said] == greedy_alone(model, tokens, 6)


def test_a_row_s_tokens_are_those_that_were_heard(model_of: ModelOf) -> None:
    """Prompt and answer but for the token that nobody has heard; unknown rows may leave at any time."""
    model = model_of("llama")
    runner = runner_for(model)
    runner.leave(["nobody"])
    for name in "ab":
        join(runner, model, name, prompt(5, ord(name)))
    said = [spoken.token for _ in range(3) for spoken in runner.step() if spoken.row_id == "a"]
    runner.leave(["nobody"])
    assert runner.tokens("a") == prompt(5, ord("a")) + said
    runner.clear()
    assert runner.row_ids == ()
    runner.close()
