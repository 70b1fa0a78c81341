"""Regular expressions as rules, against Python's own reading of them, alone and with lengths."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grammar_matching import python_pattern
from pensieve.inference.constraints.pattern import Unreadable, pattern_rule
from pensieve.inference.constraints.strings import FORMATS, Unmeetable, format_rule, lengths_of, string_of

PATTERNS = [
    *(
        r"^[a-z0-9_-]+$",
        r"^\d{3}-\d{4}$",
        "foo|^bar$",
        "^(a|bc)+$",
        "(^x$)|(^y+$)",
        r"\\" + '"',
        r'^[^"\\]*$',
        "^$",
        "",
    ),
    *(r"^\w+@\w+\.com$", r"[\n\t]", "^.{2,3}$", "^(?:ab?){2,4}c$", "a{2}b", r"^\u0041\x42$", r"^[\w.-]*\S$", "a{,x"),
]
TEXTS = st.lists(st.sampled_from([*'aabbcxyz01.-_@"\\\n\t', "foo", "bar", ".com", "A", "B", "a{,x"]), max_size=8).map(
    "".join
)


@settings(deadline=None)
@given(pattern=st.sampled_from(PATTERNS), text=TEXTS)
def test_a_rule_finds_what_the_expression_finds(pattern: str, text: str) -> None:
    """Anywhere in the text unless it is anchored."""
    found = re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None
    assert bool(re.fullmatch(python_pattern(pattern_rule(pattern)), text)) == found


@settings(deadline=None)
@given(pattern=st.sampled_from(PATTERNS), text=TEXTS, low=st.integers(0, 4), more=st.integers(0, 9))
def test_a_length_leaves_texts_that_meet_both(pattern: str, text: str, low: int, more: int) -> None:
    """As a JSON string, with what must be escaped escaped."""
    try:
        rule = string_of(pattern_rule(pattern), (low, low + more))
    except Unmeetable:
        return
    if re.fullmatch(python_pattern(rule), json.dumps(text)):
        assert re.search(pattern.replace("$", r"\Z"), text, re.ASCII)
        assert low <= len(text) <= low + more


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?=a)b", r"\bfoo", r"(a)\1", "a^b", "a$b", "[z-a]", "(", "a)", "*a", "a**", "\\", "[a", r"\u{110000}"),
        *(r"\ud800", "(?i)a", "a{5,2}", "x{99999}", "(" * 30 + ")" * 30, "a" * 3000, "[^\\s\\S]", r"\p{L}", "(?<=a)"),
    ],
)
def test_what_has_no_rule_is_refused(pattern: str) -> None:
    """And nothing else happens, however hostile it is."""
    with pytest.raises(Unreadable):
        pattern_rule(pattern)


@settings(deadline=None)
@given(st.text("ab^$()[]{}*+?|\\-,.1:<>=!dwsnux", max_size=30))
def test_any_text_is_read_or_refused(pattern: str) -> None:
    """Nothing but the one error comes out."""
    try:
        rule = pattern_rule(pattern)
    except Unreadable:
        return
    low, high = lengths_of(rule)
    assert high is None or low <= high


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_texts(name: str) -> None:
    """Its expression can be read."""
    assert lengths_of(format_rule(name))[0] >= 1
