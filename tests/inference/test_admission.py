"""The rule of admission: pure values, so every law is checked over many machines and models."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.admission import (
    COMFORT_TOKENS,
    FLOOR_TOKENS,
    IDLE,
    Admit,
    Budget,
    CacheShape,
    Decision,
    Evict,
    LayerCache,
    Need,
    Refuse,
    Running,
    Transient,
    Wait,
    chunk_sizes,
    decide,
    needed_bytes,
)

SHAPE = CacheShape((LayerCache("full", 1000), LayerCache("sliding", 1000, window_tokens=512)))
WIDE = Transient(
    query_heads=16, head_dim=256, hidden=512, intermediate=1024, vocabulary=1000, element_bytes=2, is_fused=False
)
FUSED = msgspec.structs.replace(WIDE, is_fused=True)

NEEDS = st.builds(
    lambda prompt, share: Need(prompt_tokens=prompt, cached_tokens=int(prompt * share)),
    st.integers(1, 200_000),
    st.floats(0, 1),
)
BYTES = st.integers(0, 20 * 10**9)
BUDGETS = st.builds(
    Budget, available_bytes=BYTES, reserve_bytes=BYTES, evictable_bytes=BYTES, committed_bytes=st.integers(0, 10**9)
)
RUNNING = st.builds(
    Running, num_sequences=st.integers(1, 32), longest_tokens=st.integers(1, 100_000), num_bytes=st.integers(0, 10**10)
)
SHAPES = st.sampled_from((SHAPE, CacheShape.uniform(50_000), CacheShape((LayerCache("recurrent", state_bytes=10**6),))))
TRANSIENTS = st.sampled_from((WIDE, FUSED, None))
CHUNKS = st.integers(1, 8192)


def rank(decision: Decision) -> tuple[int, int]:
    """How much of its wish a sequence got: refused, told to wait, or let in with chunks of some size."""
    match decision:
        case Refuse():
            return (0, 0)
        case Wait():
            return (1, 0)
        case Evict():
            return (2, 0)
        case Admit(chunk_tokens=chunk):
            return (2, chunk)


def free_after(decision: Decision, need: Need, budget: Budget, **model: object) -> Decision:
    """The decision once a prefix cache has given back what it was asked for."""
    if not isinstance(decision, Evict):
        return decision
    freed = msgspec.structs.replace(
        budget,
        available_bytes=budget.available_bytes + decision.num_bytes,
        evictable_bytes=budget.evictable_bytes - decision.num_bytes,
    )
    return decide(need, freed, **model)  # type: ignore[arg-type]


@given(NEEDS, BUDGETS, SHAPES, TRANSIENTS, CHUNKS)
def test_where_nothing_runs_nothing_waits(
    need: Need, budget: Budget, shape: CacheShape, transient: Transient | None, chunk: int
) -> None:
    """A sequence that waited for nobody would wait forever."""
    decision = decide(need, budget, shape=shape, transient=transient, chunk_tokens=chunk)
    assert not isinstance(decision, Wait)


@given(NEEDS, BUDGETS, RUNNING, SHAPES, TRANSIENTS, CHUNKS)
def test_what_is_admitted_fits(
    need: Need, budget: Budget, running: Running, shape: CacheShape, transient: Transient | None, chunk: int
) -> None:
    """Cache, padding and scratch of an admitted sequence stay within what is free after reserve and promises."""
    decision = decide(need, budget, shape=shape, transient=transient, chunk_tokens=chunk, running=running)
    if isinstance(decision, Admit):
        chunk = decision.chunk_tokens
        price = needed_bytes(need, shape=shape, transient=transient, chunk_tokens=chunk, running=running)
        assert decision.needed_bytes == price <= budget.free_bytes


@given(NEEDS, BUDGETS, RUNNING, SHAPES, TRANSIENTS, CHUNKS)
def test_what_was_evicted_for_is_then_admitted(
    need: Need, budget: Budget, running: Running, shape: CacheShape, transient: Transient | None, chunk: int
) -> None:
    """The bytes of an eviction are neither more than there is to evict nor too few to run."""
    model = {"shape": shape, "transient": transient, "chunk_tokens": chunk, "running": running}
    decision = decide(need, budget, **model)  # type: ignore[arg-type]
    if isinstance(decision, Evict):
        assert 0 < decision.num_bytes <= budget.evictable_bytes
        assert isinstance(free_after(decision, need, budget, **model), Admit)


@given(NEEDS, BUDGETS, st.one_of(st.just(IDLE), RUNNING), SHAPES, TRANSIENTS, BYTES)
def test_more_memory_never_decides_worse(
    need: Need, budget: Budget, running: Running, shape: CacheShape, transient: Transient | None, more_bytes: int
) -> None:
    """Refused, waiting, let in with small chunks, with larger ones: memory only moves a sequence up."""
    model = {"shape": shape, "transient": transient, "chunk_tokens": 2048, "running": running}
    richer = msgspec.structs.replace(budget, available_bytes=budget.available_bytes + more_bytes)
    before, after = (
        rank(free_after(decide(need, purse, **model), need, purse, **model))  # type: ignore[arg-type]
        for purse in (budget, richer)
    )
    assert before <= after


@pytest.mark.parametrize("withheld", ["reserve_bytes", "committed_bytes"])
def test_what_is_reserved_or_promised_is_not_given_out(withheld: str) -> None:
    """A sequence that fits to the byte is refused when one byte of that is kept back or was promised to another."""
    need, shape = Need(prompt_tokens=100), CacheShape.uniform(1000)
    price = needed_bytes(need, shape=shape, transient=None, chunk_tokens=100)
    exact = Budget(available_bytes=price)
    assert decide(need, exact, shape=shape, transient=None, chunk_tokens=100) == Admit(100, price)
    short = msgspec.structs.replace(exact, **{withheld: 1})
    assert isinstance(decide(need, short, shape=shape, transient=None, chunk_tokens=100), Refuse)


def test_the_chunk_shrinks_before_a_sequence_is_refused() -> None:
    """With less and less memory, the same prompt is read in smaller chunks and refused only after the smallest."""
    need = Need(prompt_tokens=32_768)
    seen: list[int | str] = []
    for available in range(2 * 10**9, 0, -(10**6)):
        decision = decide(need, Budget(available_bytes=available), shape=SHAPE, transient=WIDE, chunk_tokens=2048)
        step = decision.chunk_tokens if isinstance(decision, Admit) else type(decision).__name__
        if step not in seen:
            seen.append(step)
    assert seen == [1024, 512, 256, 128, 64, 32, "Refuse"]


def test_a_cached_prefix_yields_before_a_chunk_gets_uncomfortably_small() -> None:
    """Large chunks shrink while prefixes stay; at the comfortable size the prefixes go."""
    need = Need(prompt_tokens=32_768)
    price = {
        size: needed_bytes(need, shape=SHAPE, transient=WIDE, chunk_tokens=size)
        for size in (COMFORT_TOKENS * 2, COMFORT_TOKENS)
    }
    purse = Budget(available_bytes=price[COMFORT_TOKENS], evictable_bytes=10**10)
    assert decide(need, purse, shape=SHAPE, transient=WIDE, chunk_tokens=512) == Admit(256, price[COMFORT_TOKENS])
    purse = Budget(available_bytes=price[COMFORT_TOKENS] - 7, evictable_bytes=10**10)
    assert decide(need, purse, shape=SHAPE, transient=WIDE, chunk_tokens=512) == Evict(7)


def test_a_sequence_waits_for_those_that_hold_its_memory() -> None:
    """It fits beside nobody now, but would fit alone; if it would not even then, it is refused at once."""
    need = Need(prompt_tokens=10_000)
    running = Running(num_sequences=3, longest_tokens=10_000, num_bytes=60_000_000)
    purse = Budget(available_bytes=1_000_000)
    model = {"shape": SHAPE, "transient": None, "chunk_tokens": 512}
    assert isinstance(decide(need, purse, running=running, **model), Wait)  # type: ignore[arg-type]
    poorer = msgspec.structs.replace(running, num_bytes=1_000_000)
    assert isinstance(decide(need, purse, running=poorer, **model), Refuse)  # type: ignore[arg-type]


def test_a_long_row_is_priced_with_the_padding_of_short_ones() -> None:
    """Every row of a batch is as long as its longest, so a long prompt beside ten short answers costs ten more."""
    shape = CacheShape.uniform(100)
    running = Running(num_sequences=10, longest_tokens=256)
    alone = needed_bytes(Need(prompt_tokens=10_000), shape=shape, transient=None, chunk_tokens=512)
    beside = needed_bytes(Need(prompt_tokens=10_000), shape=shape, transient=None, chunk_tokens=512, running=running)
    row = shape.cache_bytes(10_256)
    assert beside - alone == 10 * (row - shape.cache_bytes(256))


def test_growing_a_cache_holds_a_layer_twice() -> None:
    """Where caches grow by copying, the largest layer's copy is priced for every row of the batch."""
    layers = (LayerCache("full", 100), LayerCache("full", 300), LayerCache("sliding", 900, window_tokens=1))
    assert CacheShape(layers).growth_bytes(4, 256) == 4 * 300 * 256
    assert CacheShape.uniform(100).growth_bytes(4, 256) == 0


def test_a_refusal_says_the_numbers() -> None:
    """Both numbers are facts of the value and stand in its sentence."""
    decision = decide(
        Need(prompt_tokens=5000),
        Budget(available_bytes=2_000_000, reserve_bytes=1_000_000),
        shape=CacheShape.uniform(1000),
        transient=None,
        chunk_tokens=512,
    )
    assert decision == Refuse("5000 prompt tokens need 5.4 MB of memory, 1.0 MB can be had", 5_376_000, 1_000_000)


@pytest.mark.parametrize(
    ("layer", "num_tokens", "num_bytes"),
    [
        (LayerCache("full", 10), 257, 5120),
        (LayerCache("latent", 10), 256, 2560),
        (LayerCache("sliding", 10, window_tokens=128), 100_000, 1280),
        (LayerCache("sliding", 10, window_tokens=4096), 300, 5120),
        (LayerCache("recurrent", state_bytes=77), 100_000, 77),
        (LayerCache("shared", 10), 100_000, 0),
        (LayerCache("tomorrow's kind", 10, window_tokens=16), 512, 5120),
    ],
)
def test_each_kind_of_layer_grows_in_its_way(layer: LayerCache, num_tokens: int, num_bytes: int) -> None:
    """In steps, up to a window, not at all; a kind nobody knows grows with every token."""
    assert CacheShape((layer,)).cache_bytes(num_tokens) == num_bytes


def test_a_window_holds_a_chunk_more_while_a_prompt_is_read() -> None:
    """Each token of a chunk sees its whole window."""
    shape = CacheShape((LayerCache("sliding", 1, window_tokens=512),))
    assert shape.prefill_cache_bytes(10_000, 2048) == 512 + 2048 - 1
    assert shape.cache_bytes(10_000) == 512


def test_scores_are_priced_where_they_are_materialized() -> None:
    """Head size 256 and 64k of context, cached tokens included: gigabytes for one call, the number that kills."""
    unfused = WIDE.prefill_bytes(2048, 65_536)
    assert 4.2e9 < unfused - FUSED.prefill_bytes(2048, 65_536) < 4.4e9 * 5 / 4
    every_position = msgspec.structs.replace(FUSED, most_logit_rows=100_000)
    assert every_position.prefill_bytes(2048, 10) - FUSED.prefill_bytes(2048, 10) == 2047 * 1000 * 4


@pytest.mark.parametrize(
    ("layers", "span_tokens"),
    [
        ((LayerCache("recurrent"), LayerCache("shared")), 512),
        ((LayerCache("recurrent"), LayerCache("sliding", window_tokens=1000)), 1511),
        ((LayerCache("sliding", window_tokens=16), LayerCache("latent")), 9000),
        ((LayerCache("new"),), 9000),
    ],
)
def test_scores_reach_as_far_as_the_layer_that_looks_back_farthest(
    layers: tuple[LayerCache, ...], span_tokens: int
) -> None:
    """A model of windows and states alone never holds scores over its whole context."""
    assert CacheShape(layers).span_tokens(9000, 512) == span_tokens


@given(st.integers(-5, 100_000))
def test_chunks_halve_down_to_the_floor(preferred_tokens: int) -> None:
    """They only shrink, end at the floor or below it, and are never empty."""
    sizes = list(chunk_sizes(preferred_tokens))
    assert sizes == sorted(set(sizes), reverse=True)
    assert 1 <= sizes[-1] <= FLOOR_TOKENS
