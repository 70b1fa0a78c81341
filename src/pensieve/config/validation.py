"""Text to a typed value, a typed value against its bounds, and what is accepted in plain words.

The bounds stand once, in the annotations of `settings`; everything here is read from them. Knows no source.
"""

from __future__ import annotations

import msgspec
from msgspec import inspect

from pensieve.config.fields import Field
from pensieve.config.settings import mask
from pensieve.errors import ConfigurationError
from pensieve.messages import Json

_LONGEST_SHOWN = 80


def parse(field: Field, text: str) -> Json:
    """The value a text stands for, by the field's type; what does not parse stays text, for `validate` to refuse."""
    kind, is_optional = _kind(field)
    # For a secret, empty is more likely an unset shell variable than a wish to have none.
    if not text and is_optional and not field.is_secret:
        return None
    match kind:
        case inspect.IntType():
            return _number(int, text)
        case inspect.FloatType():
            return _number(float, text)
        case inspect.VarTupleType():
            return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def validate(field: Field, value: Json, source: str) -> Json:
    """The value as the field's type; raises `ConfigurationError` naming the source and what is accepted."""
    try:
        converted = msgspec.convert(value, type=field.annotation)
        if isinstance(converted, str):
            converted.encode()
    except (msgspec.ValidationError, UnicodeEncodeError):
        # The cause is left out: its text can hold a secret.
        raise ConfigurationError(_refusal(field, value), field.key, source) from None
    return converted


def accepted(field: Field) -> str:
    """What the field takes, in plain words: `a whole number from 0 to 65535`."""
    return _words(_kind(field)[0])


def display(field: Field, value: Json) -> str:
    """The value for people's eyes: a secret is masked, nothing has a word."""
    if value is None:
        return "not set"
    if value in ("", ()):
        return "empty"
    if field.is_secret:
        return mask(str(value))
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _refusal(field: Field, value: Json) -> str:
    if field.is_secret and value == "":
        return "an empty value is not accepted: unset it to have no key"
    return f"{_quoted(field, value)} is not accepted: {accepted(field)}"


def _quoted(field: Field, value: Json) -> str:
    """The value in an error: short, with what cannot be printed escaped, and a secret masked."""
    if field.is_secret:
        return mask(str(value))
    is_vast = isinstance(value, int) and value.bit_length() > 64
    # Python refuses to write an integer of thousands of digits in decimal.
    shown = hex(value) if is_vast else repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."


def _number(kind: type[int | float], text: str) -> Json:
    try:
        return kind(text)
    except ValueError:
        return text


def _kind(field: Field) -> tuple[inspect.Type, bool]:
    """The field's type without None, and whether None is one of its values."""
    kind = inspect.type_info(field.annotation)
    if not isinstance(kind, inspect.UnionType):
        return kind, False
    kinds = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
    assert len(kinds) == 1, f"{field.key}: sources cannot choose between {kinds}"
    return kinds[0], True


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
        case inspect.IntType(ge=low, le=high):
            return f"a whole number {_range(low, high)}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number {_range(low, high)}"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.VarTupleType(item_type=item):
            return f"a list, each {_words(item)}"
    return "text"


def _range(low: float | None, high: float | None) -> str:
    least, most = (f"{bound}".removesuffix(".0") for bound in (low, high))
    return f"from {least} to {most}"
