"""What Claude Code is told of a model's size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import UsageError
from pensieve.launch.plan import (
    PROMPT_TOKENS,
    ROOM_TOKENS,
    ModelFacts,
    Plan,
    compacts_at,
    note_of,
    plan_claude,
    smallest_context_tokens,
)


@pytest.mark.parametrize(
    ("context_tokens", "plan"),
    [
        (8_192, Plan(8_192, 1_024, "bare")),
        (16_384, Plan(16_384, 2_048, "reduced")),
        (32_768, Plan(32_768, 4_096, "all")),
        (131_072, Plan(131_072, 16_384, "all")),
        (1_000_000, Plan(1_000_000, 32_000, "all")),
    ],
)
def test_the_context_chooses_limits_and_tools(context_tokens: int, plan: Plan) -> None:
    """An eighth is for the answer; the most tools that leave room."""
    assert plan_claude(ModelFacts("m", context_tokens, context_tokens)) == plan


@pytest.mark.parametrize(
    ("context_tokens", "output_tokens", "expected"), [(32_768, 4_096, 25_672), (32_768, 32_000, 9_768)]
)
def test_it_compacts_where_claude_code_does(context_tokens: int, output_tokens: int, expected: int) -> None:
    """As measured; the default output on a small context leaves less than the first prompt has."""
    assert compacts_at(context_tokens, output_tokens) == expected


@given(st.integers(1, 2_000_000), st.integers(1, 2_000_000))
def test_no_plan_thrashes_or_overflows(context_tokens: int, max_output_tokens: int) -> None:
    """Compaction comes after the first prompt with room between, and before prompt and answer pass the context."""
    facts = ModelFacts("m", context_tokens, max_output_tokens)
    try:
        plan = plan_claude(facts)
    except UsageError:
        assert context_tokens < smallest_context_tokens()
        return
    assert plan.compacts_at_tokens >= PROMPT_TOKENS[plan.tools] + ROOM_TOKENS[plan.tools]
    assert plan.compacts_at_tokens + min(plan.output_tokens, 20_000) < context_tokens
    assert plan.output_tokens <= max_output_tokens


def test_a_context_that_carries_nothing_is_refused_with_both_numbers() -> None:
    """And with what to do."""
    with pytest.raises(UsageError, match=r"m has a context of 4,096 .* needs 6,5\d\d or more: take another model"):
        plan_claude(ModelFacts("m", 4_096, 4_096))


def test_what_is_left_out_is_said() -> None:
    """With the number that decided; nothing where nothing was left out."""
    assert "8,192 tokens" in note_of(Plan(8_192, 1_024, "bare"))
    assert "Write" in note_of(Plan(16_384, 2_048, "reduced"))
    assert note_of(Plan(32_768, 4_096, "all")) == ""
