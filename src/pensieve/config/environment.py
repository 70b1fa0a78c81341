"""Settings out of `PENSIEVE_*` variables: the environment's and those of a `.env` file.

Knows nothing of other sources, and which source wins is not decided here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pensieve.config.fields import FIELDS, PREFIX, nearest_variable
from pensieve.config.folders import HOME_VARIABLE
from pensieve.config.layers import Given, Layer, Origin
from pensieve.config.validation import parse, validate

if TYPE_CHECKING:
    from dotenv.parser import Binding

DEBUG_VARIABLE = "PENSIEVE_DEBUG"
NOT_SETTINGS = (HOME_VARIABLE, DEBUG_VARIABLE)
"""Variables of ours that are read elsewhere."""

Variables = Mapping[str, tuple[str, Origin]]
"""Values by name, each with where it stands."""


def environment_variables(environ: Mapping[str, str]) -> Variables:
    """Our variables in the process environment."""
    return {name: (value, Origin("environment", name)) for name, value in environ.items() if name.startswith(PREFIX)}


def dotenv_variables(file: Path) -> tuple[Variables, tuple[str, ...]]:
    """Our variables in a `.env` file, without interpolation, and a warning for each line that cannot be read."""
    try:
        if not file.is_file():
            return {}, ()
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return {}, (f"{file.name} is left out, for it cannot be read: {error}",)
    return _parsed(text)


def read_variables(variables: Variables) -> Layer:
    """The settings among the variables; where a setting has both its names, the section form wins."""
    given = []
    for field in FIELDS.values():
        for name in field.variables:
            if name in variables:
                text, origin = variables[name]
                given.append(Given(field.key, validate(field, parse(field, text), str(origin)), origin))
    known = {name for field in FIELDS.values() for name in field.variables}.union(NOT_SETTINGS)
    return Layer(tuple(given), tuple(_unknown(name, variables[name][1]) for name in variables if name not in known))


def _parsed(text: str) -> tuple[Variables, tuple[str, ...]]:
    # Imported here: most folders have no .env, and start-up is short.
    from dotenv.parser import parse_stream  # noqa: PLC0415

    variables, warnings = {}, []
    for binding in parse_stream(io.StringIO(text)):
        line = _line(binding)
        if binding.error:
            warnings.append(f".env, line {line} is left out, for it is not NAME=value")
        elif binding.key == DEBUG_VARIABLE:
            warnings.append(f".env, line {line} is left out, for {DEBUG_VARIABLE} is read from the environment only")
        elif binding.key and binding.key.startswith(PREFIX):
            # A bare NAME is taken for NAME=, as a shell would.
            variables[binding.key] = (binding.value or "", Origin("dotenv", binding.key, line))
    return variables, tuple(warnings)


def _line(binding: Binding) -> int:
    """The line of the binding itself: the parser counts the blank lines before it as part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _unknown(name: str, origin: Origin) -> str:
    nearest = nearest_variable(name)
    hint = f": did you mean {nearest}?" if nearest else ""
    return f"{origin} is not a setting{hint}"
