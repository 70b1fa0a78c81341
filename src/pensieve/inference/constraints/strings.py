"""JSON strings with a length, a pattern or a format, as rules.

Lengths count characters. Where a pattern meets a length, fewer texts may be left than both allow, never others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from pensieve.inference.constraints.constraint import (
    Characters,
    Choice,
    Lexeme,
    Literal,
    Repeat,
    Rule,
    choice,
    sequence,
)
from pensieve.inference.constraints.constraint import Sequence as Rules
from pensieve.inference.constraints.pattern import pattern_rule
from pensieve.inference.constraints.texts import ANY_IN_STRING, ANY_STRING, in_string

Lengths = tuple[int, int | None]

_DATE: Final = (
    "(?:[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))|[12][0-9](?:0[48]|[2468][048]|[13579][26])-02-29)"
)
_TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
_HOURS: Final = "[0-9]{1,4}(?:H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|M(?:[0-9]{1,4}S)?|S)"
_DAYS: Final = "(?:[0-9]{1,4}D)"
FORMATS: Final = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": (
        f"P(?:[0-9]{{1,4}}W|{_DAYS}(?:T{_HOURS})?|T{_HOURS}"
        f"|[0-9]{{1,4}}Y(?:[0-9]{{1,4}}M{_DAYS}?)?|[0-9]{{1,4}}M{_DAYS}?)"
    ),
    "email": rf"[A-Za-z0-9_+-]{{1,32}}(?:\.[A-Za-z0-9_+-]{{1,32}}){{0,3}}@{_LABEL}(?:\.{_LABEL}){{1,4}}",
    "hostname": rf"{_LABEL}(?:\.{_LABEL}){{0,5}}",
    "ipv4": r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    "ipv6": f"(?:(?:{_GROUP}:){{7}}{_GROUP}|(?:{_GROUP}:){{1,6}}:{_GROUP}|::(?:{_GROUP}:){{0,5}}{_GROUP})",
    "uuid": "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "uri": "[A-Za-z][A-Za-z0-9+.-]{1,15}:[A-Za-z0-9._~/?@!$&'()*+,;=:-]{1,2000}",
}
"""Formats that are obeyed, each as a part of what it allows."""


class Unmeetable(Exception):
    """The pattern or format and the length cannot be brought together; says which."""


@cache
def format_rule(name: str) -> Rule:
    """The texts of that format."""
    return pattern_rule(f"^{FORMATS[name]}$")


def any_string(lengths: Lengths = (0, None)) -> Rule:
    """A string of any characters, so many of them."""
    if lengths == (0, None):
        return ANY_STRING
    return _in_quotes(Repeat(ANY_IN_STRING, at_least=lengths[0], at_most=lengths[1]))


def string_of(text: Rule, lengths: Lengths = (0, None)) -> Rule:
    """A string of such a text; raises `Unmeetable`."""
    fitted = fit(text, lengths)
    if fitted is None:
        raise Unmeetable(
            f"no text of {lengths[0]} to {lengths[1] if lengths[1] is not None else 'any number of'} characters fits"
        )
    return _in_quotes(_encoded(fitted))


def _in_quotes(inside: Rule) -> Rule:
    return Lexeme(sequence(Literal('"'), inside, Literal('"')))


def _encoded(rule: Rule) -> Rule:
    """The rule over plain characters, over what stands for them in a JSON string."""
    match rule:
        case Literal(text):
            return sequence(*(in_string([(ord(character), ord(character))]) for character in text))
        case Characters(ranges):
            return in_string(ranges)
        case Rules(items):
            return sequence(*map(_encoded, items))
        case Choice(options):
            return choice(*map(_encoded, options))
        case Repeat(item, _, at_least, at_most):
            return Repeat(_encoded(item), at_least=at_least, at_most=at_most)
    raise AssertionError("patterns are made of nothing else")


# Lengths.


def lengths_of(rule: Rule) -> Lengths:
    """The fewest and the most characters of the rule's texts; None: no limit."""
    match rule:
        case Literal(text):
            return len(text), len(text)
        case Characters():
            return 1, 1
        case Rules(items):
            all_of = [lengths_of(item) for item in items]
            most = [high for _, high in all_of]
            return sum(low for low, _ in all_of), None if None in most else sum(
                high for high in most if high is not None
            )
        case Choice(options):
            each = [lengths_of(option) for option in options]
            highs = [high for _, high in each]
            return min((low for low, _ in each), default=0), None if None in highs else max(
                (high for high in highs if high is not None), default=0
            )
        case Repeat(item, _, at_least, at_most):
            low, high = lengths_of(item)
            if high == 0 or at_most == 0:
                return 0, 0
            return low * at_least, None if high is None or at_most is None else high * at_most
    raise AssertionError("patterns are made of nothing else")


def fit(rule: Rule, lengths: Lengths) -> Rule | None:
    """A rule for texts of the given one with so many characters: for all of them where that is easy. None: for none."""
    low, high = lengths_of(rule)
    fewest, most = lengths
    if (most is not None and low > most) or (high is not None and high < fewest):
        return None
    if low >= fewest and (most is None or (high is not None and high <= most)):
        return rule
    match rule:
        case Choice(options):
            fitting = [fitted for option in options if (fitted := fit(option, lengths)) is not None]
            return choice(*fitting) if fitting else None
        case Repeat():
            return _fit_repeat(rule, lengths)
        case Rules(items):
            return _fit_items(items, lengths)
    return None


def _fit_repeat(repeat: Repeat, lengths: Lengths) -> Rule | None:
    fewest, most = lengths
    item = repeat.item
    low, high = lengths_of(item)
    if high is None and most is not None:
        fitted = fit(item, (low, max(low, most // max(1, repeat.at_least))))
        if fitted is None:
            return None
        item = fitted
        low, high = lengths_of(item)
    at_least, at_most = repeat.at_least, repeat.at_most
    if fewest > low * at_least:
        if low == 0:
            fitted = fit(item, (1, high))
            if fitted is None:
                return None
            item, low = fitted, lengths_of(fitted)[0]
        at_least = -(-fewest // low)
    if most is not None and high:
        at_most = most // high if at_most is None else min(at_most, most // high)
    if at_most is not None and at_least > at_most:
        return None
    return Repeat(item, at_least=at_least, at_most=at_most)


def _fit_items(items: Sequence[Rule], lengths: Lengths) -> Rule | None:
    """Give each item its part of the length: what is bounded takes what it can, what has no end shares the rest."""
    fewest, most = lengths
    ranges = [lengths_of(item) for item in items]
    highs = _shared(ranges, most)
    missing = max(0, fewest - sum(low for low, _ in ranges))
    parts: list[Lengths] = []
    for (low, _), high in zip(ranges, highs, strict=True):
        more = missing if high is None else min(missing, high - low)
        missing -= more
        parts.append((low + more, high))
    if missing:
        return None
    fitted = [fit(item, part) for item, part in zip(items, parts, strict=True)]
    return None if None in fitted else sequence(*(item for item in fitted if item is not None))


def _shared(ranges: Sequence[Lengths], most: int | None) -> list[int | None]:
    """The most characters each item may have, so that all together have no more than `most`."""
    if most is None:
        return [high for _, high in ranges]
    left = most - sum(low for low, _ in ranges)
    highs: list[int | None] = [low for low, _ in ranges]
    for place, (low, high) in enumerate(ranges):
        if high is not None:
            more = min(left, high - low)
            highs[place], left = low + more, left - more
    endless = [place for place, (_, high) in enumerate(ranges) if high is None]
    for number, place in enumerate(endless):
        share = left // (len(endless) - number)
        highs[place], left = ranges[place][0] + share, left - share
    return highs
