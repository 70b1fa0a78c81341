"""The sampler against its definitions in plain Python, row by row, and each row as if it were alone."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.inference.mlx.sampler import Draw, RowSampler, draw
from pensieve.sampling.params import SamplingParams

OFF = SamplingParams(
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    seed=0,
)
LOGITS = [2.0, -1.0, 0.5, 3.0, 0.0, -2.5, 1.0, 2.5]


def params(**fields: Any) -> SamplingParams:
    """Everything off but these."""
    return SamplingParams(**{name: getattr(OFF, name) for name in OFF.__struct_fields__} | fields)


def sampler(
    prompt: tuple[int, ...] = (), outputs: tuple[int, ...] = (), *, vocabulary_size: int = len(LOGITS), **fields: Any
) -> RowSampler:
    """A row; `logit_bias` and `num_logprobs` are its own, all else are parameters."""
    own = {name: fields.pop(name) for name in ("logit_bias", "num_logprobs") if name in fields}
    return RowSampler(params(**fields), prompt, outputs, vocabulary_size=vocabulary_size, **own)


def draw_once(row: RowSampler, logits: list[float] = LOGITS, last: int = 0, *, is_output: bool = False) -> Draw:
    """One draw of one row."""
    return draw(mx.array([logits]), [row], mx.array([last]), [is_output])


def token_of(drawn: Draw) -> int:
    """The token of a single row."""
    tokens: Any = drawn.tokens.tolist()
    return int(tokens[0])


def frequencies(count: int, logits: list[float] = LOGITS, **fields: Any) -> dict[int, float]:
    """How often each token is drawn, by as many rows with seeds of their own."""
    rows = [sampler(vocabulary_size=len(logits), **fields | {"seed": seed}) for seed in range(count)]
    drawn: Any = draw(mx.array([logits] * count), rows, mx.zeros(count, dtype=mx.int32), [False] * count).tokens
    return {token: number / count for token, number in Counter(drawn.tolist()).items()}


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    """The definition."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def kept_tokens(logits: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    """The definition: top-k, of these top-p by their own probabilities, of these min-p; one token always."""
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))[: top_k or len(logits)]
    chances = softmax([logits[token] for token in ranked])
    kept, before = {ranked[0]}, 0.0
    for token, chance in zip(ranked, chances, strict=True):
        if before < top_p and chance >= min_p * chances[0]:
            kept.add(token)
        before += chance
    return kept


def adjusted(row: RowSampler, last: int = 0, *, is_output: bool = False) -> list[float]:
    """The logits after penalties and bias."""
    values: Any = row.adjust(mx.array(LOGITS), mx.array(last), is_output=is_output).tolist()
    return list(values)


def test_greedy_takes_the_likeliest_whatever_the_filters_say() -> None:
    """Temperature 0 needs no seed; so does one so small that dividing by it overflows."""
    for temperature in (0.0, 1e-9, 1e-42):
        for seed in range(5):
            row = sampler(temperature=temperature, top_k=1 + seed, top_p=0.5, min_p=0.1, seed=seed)
            assert draw_once(row).tokens.item() == 3
            assert draw_once(sampler(temperature=temperature, seed=seed)).tokens.item() == 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_says(temperature: float) -> None:
    """Over 4,000 seeds, each token within five deviations."""
    found = frequencies(4000, temperature=temperature)
    for token, chance in enumerate(softmax(LOGITS, temperature)):
        deviation = math.sqrt(chance * (1 - chance) / 4000)
        assert found.get(token, 0.0) == pytest.approx(chance, abs=5 * deviation + 1e-3)


def test_filters_come_before_the_temperature() -> None:
    """What is likely enough at temperature 1 stays so, however hot; among the kept, heat evens out."""
    found = frequencies(2000, temperature=5.0, min_p=0.3)
    assert set(found) == kept_tokens(LOGITS, 0, 1.0, 0.3) == {0, 3, 7}
    chances = softmax([LOGITS[token] for token in (0, 3, 7)], 5.0)
    for token, chance in zip((0, 3, 7), chances, strict=True):
        assert found[token] == pytest.approx(chance, abs=0.06)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40), min_size=2, max_size=20, unique=True).map(
        lambda values: [value / 8 for value in values]
    ),
    top_k=st.integers(0, 25),
    top_p=st.sampled_from([0.0, 0.1, 0.33, 0.5, 0.77, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.07, 0.23, 0.61, 1.0]),
)
def test_exactly_the_tokens_of_the_definition_can_be_drawn(
    logits: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    """A very hot row draws all of what is kept, and nothing else."""
    found = frequencies(600, logits, temperature=5.0, top_k=top_k, top_p=top_p, min_p=min_p)
    kept = kept_tokens(logits, top_k, top_p, min_p)
    assert set(found) <= kept
    chances = softmax([logits[token] for token in kept], 5.0)
    assert {token for token, chance in zip(kept, chances, strict=True) if chance > 0.03} <= set(found)


def test_equally_likely_tokens_are_drawn_the_same_alone_and_in_a_batch() -> None:
    """Half-precision models give many tokens the same logit; which of them a seed means must not depend on others."""
    logits = [float(token % 3) for token in range(300)]
    wide: dict[str, Any] = {"vocabulary_size": 300, "temperature": 1.0}
    for seed in range(8):
        alone = sampler(top_k=40, seed=seed, **wide)
        together = sampler(top_k=40, seed=seed, **wide)
        others = [sampler(seed=1, **wide), sampler(top_k=120, top_p=0.9, seed=2, **wide)]
        tokens: Any = draw(mx.array([logits] * 3), [*others, together], mx.zeros(3, dtype=mx.int32), [False] * 3).tokens
        assert draw_once(alone, logits).tokens.item() == tokens.tolist()[2] < 120


def test_a_seed_gives_the_same_tokens_alone_in_a_batch_and_after_a_pause() -> None:
    """Whatever the rows beside it are set to."""
    fields: dict[str, Any] = {"seed": 7, "top_k": 6, "top_p": 0.9, "min_p": 0.02, "presence_penalty": 0.5}
    alone, together = sampler((1, 2), **fields), sampler((1, 2), **fields)
    others = [sampler(temperature=0.0), sampler(top_k=3, seed=3), sampler((3,), repetition_penalty=1.7, seed=4)]
    answers: tuple[list[int], list[int]] = ([], [])
    for _ in range(12):
        last = answers[0][-1] if answers[0] else 2
        answers[0].append(token_of(draw_once(alone, last=last, is_output=bool(answers[0]))))
        rows, are_outputs = [*others, together], [True, True, True, bool(answers[1])]
        tokens: Any = draw(mx.array([LOGITS] * 4), rows, mx.array([0, 1, 2, last]), are_outputs).tokens
        answers[1].append(tokens.tolist()[3])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 2
    paused, last = sampler((1, 2), tuple(answers[0][:5]), **fields), answers[0][4]
    for place in range(5, 12):
        assert token_of(draw_once(paused, last=last, is_output=place > 5)) == answers[0][place]
        last = answers[0][place]


def test_other_seeds_and_places_give_other_numbers() -> None:
    """Even over [0, 1), and never 1 itself."""
    numbers = [sampler(seed=seed).uniform() for seed in range(2000)]
    row = sampler(seed=5)
    numbers += [row.uniform() for _ in range(2000)]
    assert len(set(numbers)) > 3990
    assert 0.0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1.0
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.03)


def test_repetition_weakens_what_prompt_and_answer_hold_once_whatever_the_number() -> None:
    """Positive logits are divided, negative ones multiplied."""
    row = sampler((3, 5, 5), repetition_penalty=2.0)
    assert adjusted(row) == [2.0, -1.0, 0.5, 1.5, 0.0, -5.0, 1.0, 2.5]
    expected = [1.0, -2.0, 0.5, 1.5, 0.0, -5.0, 1.0, 2.5]
    adjusted(row, 0, is_output=True)
    adjusted(row, 1, is_output=True)
    assert adjusted(row, 1, is_output=True) == expected
    assert adjusted(sampler((3, 5, 5), (0, 1, 1), repetition_penalty=2.0)) == expected


def test_presence_and_frequency_look_at_the_answer_alone() -> None:
    """One once for all, the other for each time; a prompt token that was read is no output."""
    row = sampler((3, 4), presence_penalty=0.5, frequency_penalty=0.25)
    assert adjusted(row, 4) == LOGITS
    adjusted(row, 3, is_output=True)
    adjusted(row, 3, is_output=True)
    expected = [2.0, -1.0, 0.5, 3.0 - 0.5 - 0.5, 0.0, -2.5, 1.0 - 0.75, 2.5]
    assert adjusted(row, 6, is_output=True) == expected
    assert adjusted(sampler((3, 4), (3, 3, 6), presence_penalty=0.5, frequency_penalty=0.25)) == expected


def test_bias_is_added_after_the_penalties_and_unknown_tokens_are_passed_over() -> None:
    """The numbers are exact; ids beyond the vocabulary touch nothing."""
    row = sampler((1,), repetition_penalty=2.0, logit_bias={1: 4.0, 3: -1.5, 8: 100.0, -1: 100.0})
    assert adjusted(row) == [2.0, 2.0, 0.5, 1.5, 0.0, -2.5, 1.0, 2.5]
    forced = sampler(logit_bias={5: 100.0}, seed=3)
    assert draw_once(forced).tokens.item() == 5
    banned = frequencies(300, logit_bias={3: -100.0, 7: -100.0})
    assert not {3, 7} & set(banned)


def test_logprobs_are_the_models_own_before_penalties_bias_and_temperature() -> None:
    """Of the drawn token and the most likely ones, in falling order."""
    row = sampler(temperature=0.0, repetition_penalty=2.0, logit_bias={5: 100.0}, num_logprobs=3)
    drawn = draw_once(row, last=3, is_output=True)
    expected = [math.log(chance) for chance in softmax(LOGITS)]
    (report,) = drawn.reports
    assert report is not None
    assert drawn.tokens.item() == 5
    assert report.logprob.item() == pytest.approx(expected[5], abs=1e-5)
    assert report.ids.tolist() == [3, 7, 0]
    assert report.logprobs.tolist() == pytest.approx([expected[token] for token in (3, 7, 0)], abs=1e-5)


def test_no_alternatives_and_more_than_there_are_tokens() -> None:
    """0 reports the token alone, None nothing, and a thousand as many as there are."""
    assert draw_once(sampler()).reports == (None,)
    (alone,) = draw_once(sampler(num_logprobs=0)).reports
    (many,) = draw_once(sampler(num_logprobs=1000)).reports
    assert alone is not None
    assert many is not None
    ids: Any = many.ids.tolist()
    assert (alone.ids.tolist(), sorted(ids)) == ([], list(range(8)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_without_numbers_is_flagged_and_it_alone(bad: float, temperature: float) -> None:
    """One such value is enough; the rows beside it draw what they draw alone; no token leaves the vocabulary."""
    broken = [*LOGITS[:4], bad, *LOGITS[5:]]
    rows = [sampler(temperature=temperature, seed=seed, top_k=5 * seed) for seed in range(3)]
    drawn = draw(mx.array([LOGITS, broken, LOGITS]), rows, mx.array([0, 0, 0]), [False] * 3)
    assert drawn.is_finite.tolist() == [True, False, True]
    tokens: Any = drawn.tokens.tolist()
    assert all(0 <= token < len(LOGITS) for token in tokens)
    for place in (0, 2):
        same = sampler(temperature=temperature, seed=place, top_k=5 * place)
        assert tokens[place] == draw_once(same).tokens.item()


def test_minus_infinity_bans_a_token_and_nothing_but_it_is_no_answer() -> None:
    """Models mask tokens so; a row of nothing else has nothing to draw from."""
    masked = [-math.inf if token in (3, 7) else logit for token, logit in enumerate(LOGITS)]
    found = frequencies(200, masked, top_k=4, repetition_penalty=1.3)
    assert not {3, 7} & set(found)
    assert not draw_once(sampler(), [-math.inf] * 8).is_finite.item()
    assert draw_once(sampler(), masked).is_finite.item()


def test_rows_are_drawn_in_half_precision_too() -> None:
    """What models give is turned to float32 first."""
    for dtype in (mx.float16, mx.bfloat16):
        drawn = draw(mx.array([LOGITS], dtype=dtype), [sampler(temperature=0.0)], mx.array([0]), [False])
        assert (drawn.tokens.item(), drawn.is_finite.item()) == (3, True)
