"""Text to values, what is refused, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from pensieve.config.fields import FIELDS
from pensieve.config.settings import mask
from pensieve.config.validation import accepted, display, parse, validate
from pensieve.errors import ConfigurationError
from pensieve.messages import Json


def refusal(key: str, value: Json) -> str:
    """The problem that is told of a value."""
    with pytest.raises(ConfigurationError) as caught:
        validate(FIELDS[key], value, "somewhere")
    assert (caught.value.key, caught.value.source) == (key, "somewhere")
    return caught.value.problem


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("server.port", "70000", "70000 is not accepted: a whole number from 0 to 65535"),
        ("server.port", "-1", "-1 is not accepted: a whole number from 0 to 65535"),
        ("server.port", "", "'' is not accepted: a whole number from 0 to 65535"),
        ("server.port", "80.5", "'80.5' is not accepted: a whole number from 0 to 65535"),
        ("server.ping_seconds", "soon", "'soon' is not accepted: a number from 0.05 to 60"),
        ("log.level", "loud", "'loud' is not accepted: one of debug, error, info, warning"),
        ("server.host", "", "'' is not accepted: a host name or address, without spaces"),
        (
            "server.allowed_hosts",
            "a b",
            "('a b',) is not accepted: a list, each a host name or address, without spaces",
        ),
        ("model.name", "a\x1b[2Jb", "'a\\x1b[2Jb' is not accepted: a name or path, on one line"),
        ("generation.system", "\udcff", "'\\udcff' is not accepted: text"),
    ],
)
def test_a_refusal_shows_the_value_and_says_what_is_accepted(key: str, text: str, problem: str) -> None:
    """The words come from the bounds in the annotations, and nothing in them can upset a terminal."""
    assert refusal(key, parse(FIELDS[key], text)) == problem


@pytest.mark.parametrize("value", [True, 80.0, "80", [80], {"port": 80}, None])
def test_a_value_of_another_type_is_refused(value: Json) -> None:
    """Typed sources must give the right type: a quoted port in TOML is a mistake."""
    assert refusal("server.port", value).endswith("is not accepted: a whole number from 0 to 65535")


NUMBERS = [key for key, field in FIELDS.items() if accepted(field).startswith(("a number", "a whole number"))]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "9" * 5000])
def test_no_number_is_unbounded(key: str, text: str) -> None:
    """Every number has both bounds, so nothing endless reaches an engine or a frame."""
    assert "None" not in accepted(FIELDS[key])
    assert "is not accepted" in refusal(key, parse(FIELDS[key], text))


@given(st.integers(min_value=65536))
def test_any_integer_out_of_range_is_refused(port: int) -> None:
    """However large, it is refused with its range."""
    assert refusal("server.port", port).endswith("from 0 to 65535")


def test_an_integer_too_long_for_decimal_is_still_shown() -> None:
    """Python will not write thousands of digits; the refusal must not fail over it."""
    assert refusal("server.port", 1 << 20_000).startswith("0x1000")


@pytest.mark.parametrize("secret", ["has a space", "tab\tinside-a-long-key", "schlüssel-schlüssel", 1234567890123456])
def test_a_refused_key_is_masked(secret: Json) -> None:
    """A key that is wrong is a secret all the same."""
    problem = refusal("server.api_key", secret)
    assert str(secret) not in problem
    assert problem.startswith("****")


def test_a_refused_key_is_in_no_chained_error() -> None:
    """A debug traceback shows no key either."""
    with pytest.raises(ConfigurationError) as caught:
        validate(FIELDS["server.api_key"], "spaces in here", "somewhere")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(("secret", "shown"), [("short", "****"), ("x" * 12, "****"), ("x" * 11 + "ab", "****ab")])
def test_only_a_long_key_spares_two_characters(secret: str, shown: str) -> None:
    """Two characters help to tell keys apart once the rest is long enough to guess."""
    assert mask(secret) == display(FIELDS["server.api_key"], secret) == shown


@pytest.mark.parametrize("key", [key for key, field in FIELDS.items() if field.default is None and not field.is_secret])
def test_an_empty_text_unsets_an_optional_setting(key: str) -> None:
    """`PENSIEVE_X=` is how a variable says: the program's own choice."""
    assert validate(FIELDS[key], parse(FIELDS[key], ""), "somewhere") is None


@pytest.mark.parametrize(
    "origin", ["*", "null", "example.org", "https://", "https://*.example.org", "https://example.org/chat", "//a.b"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    """It could never match, and its owner would wonder why."""
    problem = refusal("server.allowed_origins", (origin,))
    assert problem.endswith("a list, each an origin with its scheme and no path, such as https://example.org")


@pytest.mark.parametrize(
    "origin", ["https://example.org", "HTTP://[::1]:3000", "http://localhost:3000/", "chrome-extension://abcdef"]
)
def test_an_origin_with_its_scheme_is_taken(origin: str) -> None:
    """Extensions have origins too; a slash at the end is commonly copied along."""
    assert validate(FIELDS["server.allowed_origins"], (origin,), "somewhere") == (origin,)


@pytest.mark.parametrize(("text", "hosts"), [("", ()), ("a", ("a",)), (" a , b ,", ("a", "b"))])
def test_lists_are_separated_by_commas(text: str, hosts: tuple[str, ...]) -> None:
    """Spaces around a comma and a comma at the end mean nothing."""
    assert parse(FIELDS["server.allowed_hosts"], text) == hosts


@pytest.mark.parametrize("key", list(FIELDS))
def test_every_default_is_accepted_and_shown(key: str) -> None:
    """The defaults obey the bounds too."""
    field = FIELDS[key]
    assert validate(field, field.default, "default") == field.default
    assert display(field, field.default)
    assert isinstance(inspect.type_info(field.annotation), inspect.Type)
