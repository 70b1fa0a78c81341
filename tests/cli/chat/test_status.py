"""The line below the prompt: what is told, and what leaves it in a narrow window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.chat.drawing.spans import row_cells
from pensieve.cli.chat.drawing.theme import plain
from pensieve.cli.chat.status import Status, short, status_row
from pensieve.generation import Usage

FULL = Status(
    model="starter",
    place="own worker",
    context_tokens=1_950,
    context_limit_tokens=8_192,
    available_bytes=5 * 10**9,
    level="Safe",
    usage=Usage(2_000, 1_500, 100),
    tokens_per_second=35.2,
    first_token_seconds=0.21,
)


def test_everything_that_is_known_is_told() -> None:
    """Where there is room."""
    assert plain([status_row(FULL, 200)]) == (
        "starter · own worker · context 1.9k/8.2k · memory 5.00 GB safe · cached 75% · 35 tokens/s · first in 210 ms"
    )


def test_what_matters_most_stays_longest() -> None:
    """The model, then how full the context is."""
    assert plain([status_row(FULL, 28)]) == "starter · context 1.9k/8.2k"
    assert plain([status_row(FULL, 4)]) == "star"


def test_short_memory_stays_as_long_as_the_model() -> None:
    """A warning is what one should see."""
    short_of = Status(model="m", available_bytes=10**9, level="Critical", context_limit_tokens=10)
    assert plain([status_row(short_of, 30)]) == "m · memory 1.00 GB critical"


@given(st.integers(1, 120))
def test_it_is_never_wider_than_the_window(columns: int) -> None:
    """However narrow that is."""
    assert row_cells(status_row(FULL, columns)) <= columns


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0"), (999, "999"), (1_234, "1.2k"), (9_960, "10.0k"), (131_072, "131k")]
)
def test_counts_are_short(number: int, told: str) -> None:
    """Three digits or so."""
    assert short(number) == told
