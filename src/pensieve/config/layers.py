"""What one source gives: values that were validated, each with where it came from. Knows no order of sources."""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.messages import Json


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from; `str(origin)` says it to a person."""

    layer: Literal["default", "file", "dotenv", "environment", "flag"]
    name: str = ""
    """The file's path, the variable or the flag."""
    line: int = 0
    """The line in `.env`."""

    def __str__(self) -> str:
        match self.layer:
            case "default":
                return "default"
            case "dotenv":
                return f"{self.name} in .env, line {self.line}"
            case "environment":
                return f"{self.name} in the environment"
        return self.name


class Given(msgspec.Struct, frozen=True):
    """One setting as a source gave it."""

    key: str
    value: Json
    origin: Origin


class Layer(msgspec.Struct, frozen=True):
    """All that one source gave, weakest first, and what there is to warn of."""

    given: tuple[Given, ...] = ()
    warnings: tuple[str, ...] = ()
