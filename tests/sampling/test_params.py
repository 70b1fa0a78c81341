"""Sampling parameters: layers and ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import InvalidRequest
from pensieve.sampling.params import DEFAULTS, RANGES, SamplingParams, merge, validate

LAYERS = st.builds(
    SamplingParams,
    temperature=st.none() | st.floats(0, 5),
    top_k=st.none() | st.integers(0, 100),
    seed=st.none() | st.integers(0, 2**32 - 2),
)


@given(LAYERS, LAYERS)
def test_a_later_layer_wins_where_it_says_something(first: SamplingParams, second: SamplingParams) -> None:
    """Unset differs from a value, 0 included."""
    merged = merge(first, second)
    for name in RANGES:
        later = getattr(second, name)
        assert getattr(merged, name) == (getattr(first, name) if later is None else later)


@pytest.mark.parametrize(("name", "value"), [("temperature", 5.1), ("top_p", -0.1), ("top_k", -1), ("seed", 2**32)])
def test_a_value_out_of_range_names_field_and_range(name: str, value: float) -> None:
    """The client learns which field, which value and what is accepted."""
    with pytest.raises(InvalidRequest, match="out of range") as caught:
        validate(SamplingParams(**{name: value}))  # type: ignore[arg-type]
    assert caught.value.path == name


def test_the_defaults_are_in_range_and_leave_the_seed_open() -> None:
    """A fresh seed each time, unless somebody asks for one."""
    assert validate(DEFAULTS).seed is None
