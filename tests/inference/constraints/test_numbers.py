"""Numbers between bounds, digit by digit, against arithmetic."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grammar_matching import python_pattern
from pensieve.inference.constraints.numbers import MOST_DIGITS, Bound, Unwritable, decimals, integers, multiples

VALUES = st.one_of(st.integers(-30, 30).map(Decimal), st.integers(-3000, 3000).map(lambda value: Decimal(value) / 100))
BOUNDS = st.none() | st.builds(Bound, VALUES, st.booleans())


def is_between(value: Decimal, low: Bound | None, high: Bound | None) -> bool:
    """By comparison."""
    is_above = low is None or value > low.value or (low.is_inclusive and value == low.value)
    return is_above and (high is None or value < high.value or (high.is_inclusive and value == high.value))


@settings(deadline=None)
@given(low=BOUNDS, high=BOUNDS, near=st.lists(st.integers(-4000, 4000), min_size=20))
def test_integers_are_exactly_those_between_the_bounds(low: Bound | None, high: Bound | None, near: list[int]) -> None:
    """Neither more nor fewer, and as decimals too."""
    rules = [re.compile(python_pattern(made(low, high))) for made in (integers, decimals)]
    for value in [*range(-35, 36), *near]:
        for rule in rules:
            assert bool(rule.fullmatch(str(value))) == is_between(Decimal(value), low, high)


@settings(deadline=None)
@given(low=BOUNDS, high=BOUNDS, steps=st.lists(st.integers(-2000, 2000), min_size=20))
def test_decimals_are_exactly_those_between_the_bounds(low: Bound | None, high: Bound | None, steps: list[int]) -> None:
    """At every distance from a bound, with zeros at their ends as well."""
    rule = re.compile(python_pattern(decimals(low, high)))
    start = next((each.value for each in (low, high) if each is not None), Decimal(0))
    for step in steps:
        value = start + Decimal(step) / 1000
        written = f"{value:f}"
        if value or not written.startswith("-"):
            assert bool(rule.fullmatch(written)) == is_between(value, low, high), written


@pytest.mark.parametrize("of", [1, 2, 5, 10, 25, 7])
def test_multiples_are_counted_off(of: int) -> None:
    """Within bounds any, without bounds those that the last digits tell."""
    low, high = Bound(Decimal(-20)), Bound(Decimal(50), is_inclusive=False)
    rules: list[tuple[re.Pattern[str], Bound | None, Bound | None]] = [
        (re.compile(python_pattern(multiples(of, low, high))), low, high),
    ]
    if of != 7:
        rules.append((re.compile(python_pattern(multiples(of, None, None))), None, None))
    for rule, least, most in rules:
        for value in range(-1500, 1500):
            assert bool(rule.fullmatch(str(value))) == (value % of == 0 and is_between(Decimal(value), least, most))


def test_what_would_be_too_large_a_rule_is_refused() -> None:
    """Bounds of very many digits, and multiples that no last digit tells."""
    with pytest.raises(Unwritable, match="digits"):
        integers(None, Bound(Decimal(10**MOST_DIGITS)))
    with pytest.raises(Unwritable, match="divisors"):
        multiples(7, None, None)
    with pytest.raises(Unwritable, match="multiples"):
        multiples(7, Bound(Decimal(0)), None)
