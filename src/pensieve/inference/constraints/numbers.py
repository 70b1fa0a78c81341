"""Numbers between bounds as rules over their digits, exactly.

A number has at most 18 digits before its point and about 15 in all, so that a reader with doubles sees it on the same
side of a bound. Values in, values out.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from pensieve.inference.constraints.constraint import (
    NEVER,
    NOTHING,
    Characters,
    Lexeme,
    Literal,
    Repeat,
    Rule,
    choice,
    optional,
    sequence,
)
from pensieve.inference.constraints.texts import one_of

INTEGER_DIGITS: Final = 18
SIGNIFICANT_DIGITS: Final = 15
MOST_DIGITS: Final = 40
"""Bounds with more digits than this are refused."""
FARTHEST: Final = 10**118
"""No number is written that lies so far out: a bound there says nothing."""
MOST_MULTIPLES: Final = 512
"""Multiples are written one by one, up to so many."""

_DIGIT: Final = Characters(((0x30, 0x39),))
_NONZERO: Final = Characters(((0x31, 0x39),))
_EXPONENT: Final = sequence(
    Characters(((0x45, 0x45), (0x65, 0x65))),
    optional(Characters(((0x2B, 0x2B), (0x2D, 0x2D)))),
    Repeat(_DIGIT, at_least=1, at_most=2),
)
_NATURAL: Final = choice(Literal("0"), sequence(_NONZERO, Repeat(_DIGIT, at_most=INTEGER_DIGITS - 1)))

ANY_INTEGER: Final = Lexeme(
    choice(Literal("0"), sequence(optional(Literal("-")), _NONZERO, Repeat(_DIGIT, at_most=INTEGER_DIGITS - 1)))
)
ANY_NUMBER: Final = Lexeme(
    sequence(
        optional(Literal("-")),
        _NATURAL,
        optional(sequence(Literal("."), Repeat(_DIGIT, at_least=1, at_most=SIGNIFICANT_DIGITS))),
        optional(_EXPONENT),
    )
)


class Bound(msgspec.Struct, frozen=True):
    """An end of a range."""

    value: Decimal
    is_inclusive: bool = True


class Unwritable(Exception):
    """Such numbers cannot be written as a rule of bearable size; says why."""


def integers(low: Bound | None, high: Bound | None) -> Rule:
    """Every integer between the bounds, `NEVER` if there is none."""
    first = None if low is None else _ceiling(low)
    last = None if high is None else _floor(high)
    if first is None and last is None:
        return ANY_INTEGER
    return _lexeme(_signed(first, last))


def multiples(of: int, low: Bound | None, high: Bound | None) -> Rule:
    """The multiples of `of` between the bounds. Raises `Unwritable`."""
    if low is not None and high is not None:
        first, last = -(-_ceiling(low) // of), _floor(high) // of
        if last - first < MOST_MULTIPLES:
            return _lexeme(one_of(str(of * each) for each in range(first, last + 1)) if first <= last else NEVER)
    if low is not None or high is not None:
        raise Unwritable(f"there are more than {MOST_MULTIPLES} multiples between these bounds")
    num_digits = next((size for size in range(1, 4) if 10**size % of == 0), None)
    if num_digits is None:
        raise Unwritable("without both `minimum` and `maximum` only divisors of 10, 100 or 1000 can be counted off")
    few = [str(each) for each in range(of, 10**num_digits, of)]
    endings = [f"{each:0{num_digits}}" for each in range(0, 10**num_digits, of)]
    many = sequence(_NONZERO, Repeat(_DIGIT, at_most=INTEGER_DIGITS - 1 - num_digits), one_of(endings))
    return _lexeme(
        choice(Literal("0"), sequence(optional(Literal("-")), choice(*([one_of(few)] if few else []), many)))
    )


def decimals(low: Bound | None, high: Bound | None) -> Rule:
    """Numbers between the bounds, with or without a fraction and without an exponent; `NEVER` if there is none."""
    if low is None and high is None:
        return ANY_NUMBER
    known = [abs(each.value) for each in (low, high) if each is not None]
    whole_digits = max(len(str(int(value))) for value in known)
    fraction_digits = max(1, SIGNIFICANT_DIGITS - whole_digits, *(len(_parts(value)[1]) for value in known))
    zero = Bound(Decimal(0), is_inclusive=False)
    options = []
    if high is None or high.value >= 0:
        options.append(
            _positive(low if low is not None and low.value >= 0 else Bound(Decimal(0)), high, fraction_digits)
        )
    if low is None or low.value < 0:
        nearest = Bound(-high.value, high.is_inclusive) if high is not None and high.value < 0 else zero
        farthest = None if low is None else Bound(-low.value, low.is_inclusive)
        negative = _positive(nearest, farthest, fraction_digits)
        options.append(NEVER if negative == NEVER else sequence(Literal("-"), negative))
    return _lexeme(choice(*options))


def _lexeme(rule: Rule) -> Rule:
    return NEVER if rule == NEVER else Lexeme(rule)


def _ceiling(bound: Bound) -> int:
    whole = int(bound.value.to_integral_value("ROUND_CEILING"))
    return whole + 1 if whole == bound.value and not bound.is_inclusive else whole


def _floor(bound: Bound) -> int:
    whole = int(bound.value.to_integral_value("ROUND_FLOOR"))
    return whole - 1 if whole == bound.value and not bound.is_inclusive else whole


# Whole numbers.


def _signed(first: int | None, last: int | None) -> Rule:
    options: list[Rule] = []
    if last is None or last >= 0:
        options.append(_naturals(max(0, first or 0), last))
    if first is None or first < 0:
        below = _naturals(max(1, -(last if last is not None else 0)), None if first is None else -first)
        options.append(NEVER if below == NEVER else sequence(Literal("-"), below))
    return choice(*options)


def _naturals(first: int, last: int | None) -> Rule:
    """From `first` up to `last`, or up to as many digits as there may be."""
    most = 10 ** max(INTEGER_DIGITS, len(str(first)) + 1) - 1
    last = most if last is None else last
    if len(str(last)) > MOST_DIGITS:
        raise Unwritable(f"bounds may have {MOST_DIGITS} digits")
    options, whole_sizes = [], []
    for size in range(len(str(first)), len(str(last)) + 1):
        smallest, largest = (0 if size == 1 else 10 ** (size - 1)), 10**size - 1
        if size > 1 and first <= smallest and largest <= last:
            whole_sizes.append(size)
        elif max(first, smallest) <= min(last, largest):
            options.append(_between(str(max(first, smallest)), str(min(last, largest))))
    if whole_sizes:
        options.append(sequence(_NONZERO, Repeat(_DIGIT, at_least=whole_sizes[0] - 1, at_most=whole_sizes[-1] - 1)))
    return choice(*options)


def _any_digits(count: int) -> Rule:
    return Repeat(_DIGIT, at_least=count, at_most=count) if count else NOTHING


def _digits(first: int, last: int) -> Rule:
    return Characters(((0x30 + first, 0x30 + last),)) if first <= last else NEVER


def _then(head: Rule, tail: Rule) -> Rule:
    return NEVER if NEVER in (head, tail) else sequence(head, tail)


def _between(low: str, high: str) -> Rule:
    """Digits of the same number between these two, ends included."""
    if not low:
        return NOTHING
    first, last = int(low[0]), int(high[0])
    if first == last:
        return sequence(Literal(low[0]), _between(low[1:], high[1:]))
    size = len(low) - 1
    if (low[1:], high[1:]) == ("0" * size, "9" * size):
        return sequence(_digits(first, last), _any_digits(size))
    return choice(
        sequence(Literal(low[0]), _between(low[1:], "9" * size)),
        _then(_digits(first + 1, last - 1), _any_digits(size)),
        sequence(Literal(high[0]), _between("0" * size, high[1:])),
    )


# Fractions.


def _parts(value: Decimal) -> tuple[int, str]:
    """The whole part of a number that is not negative, and the digits behind its point without zeros at the end."""
    whole, _, fraction = f"{value:f}".partition(".")
    return int(whole), fraction.rstrip("0")


def _positive(low: Bound, high: Bound | None, most: int) -> Rule:
    """Numbers from `low` (not negative) on, with at most so many digits behind the point."""
    if high is not None and (high.value < low.value or (high.value == low.value and not _is_point(low, high))):
        return NEVER
    whole, fraction = _parts(low.value)
    at_low = _Fraction(fraction, low.is_inclusive)
    if high is None:
        above, at_high, last = _naturals(whole + 1, None), None, None
    else:
        last, fraction = _parts(high.value)
        at_high = _Fraction(fraction, high.is_inclusive)
        above = _naturals(whole + 1, last - 1) if last - 1 > whole else NEVER
    if last == whole:
        return _with_fraction(Literal(str(whole)), at_low, at_high, most)
    return choice(
        _with_fraction(Literal(str(whole)), at_low, None, most),
        NEVER if above == NEVER else _with_fraction(above, None, None, most),
        NEVER if last is None else _with_fraction(Literal(str(last)), None, at_high, most),
    )


def _is_point(low: Bound, high: Bound) -> bool:
    return low.is_inclusive and high.is_inclusive


class _Fraction(msgspec.Struct, frozen=True):
    """A bound behind the point: its digits that are still to come."""

    digits: str
    is_inclusive: bool


def _with_fraction(whole: Rule, low: _Fraction | None, high: _Fraction | None, most: int) -> Rule:
    """The whole part, then a point and digits, or nothing where that is between the bounds too."""
    fraction = _behind_point(low, high, most, is_first=True)
    options: list[Rule] = [] if fraction == NEVER else [sequence(Literal("."), fraction)]
    if _may_end(low, high):
        options.append(NOTHING)
    return sequence(whole, choice(*options)) if options else NEVER


def _may_end(low: _Fraction | None, high: _Fraction | None) -> bool:
    """Whether zeros from here on are between the bounds."""
    is_high_enough = low is None or (not low.digits and low.is_inclusive)
    return is_high_enough and (high is None or bool(high.digits) or high.is_inclusive)


def _behind_point(low: _Fraction | None, high: _Fraction | None, most: int, *, is_first: bool = False) -> Rule:
    """Digits, at most so many, that are between the bounds; `is_first`: at least one."""
    if low is None and high is None:
        return Repeat(_DIGIT, at_least=int(is_first), at_most=most)
    options: list[Rule] = [NOTHING] if not is_first and _may_end(low, high) else []
    if most:
        first = int(low.digits[:1] or "0") if low else 0
        last = int(high.digits[:1] or "0") if high else 9
        free_from, free_to = first + (low is not None), last - (high is not None)
        options.append(_then(_digits(free_from, free_to), Repeat(_DIGIT, at_most=most - 1)))
        for digit in sorted({first, last} - set(range(free_from, free_to + 1))):
            if first <= digit <= last:
                below = _next(low) if low and digit == first else None
                above = _next(high) if high and digit == last else None
                options.append(_then(Literal(str(digit)), _behind_point(below, above, most - 1)))
    return choice(*(option for option in options if option != NEVER))


def _next(bound: _Fraction) -> _Fraction:
    return _Fraction(bound.digits[1:], bound.is_inclusive)
