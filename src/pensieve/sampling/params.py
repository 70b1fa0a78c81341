"""Sampling parameters: what was asked, with `None` for "not said", so that layers of defaults merge.

Knows no engine: a backend that cannot honour a field refuses it by name.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pensieve.errors import InvalidRequest


class SamplingParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Unset differs from a value. Penalties follow the field's usual definitions (1.0 or 0.0 is off)."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None


class Range(NamedTuple):
    """Inclusive bounds of a parameter."""

    low: float
    high: float


RANGES: dict[str, Range] = {
    "temperature": Range(0.0, 5.0),
    "top_p": Range(0.0, 1.0),
    "top_k": Range(0, 1_000_000),
    "min_p": Range(0.0, 1.0),
    "repetition_penalty": Range(0.01, 10.0),
    "presence_penalty": Range(-2.0, 2.0),
    "frequency_penalty": Range(-2.0, 2.0),
    "seed": Range(0, 2**32 - 2),
}

DEFAULTS = SamplingParams(
    temperature=0.7,
    top_p=0.95,
    top_k=40,
    min_p=0.05,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
)
"""What is used where neither request, user nor model says anything. A missing seed means a fresh one each time."""


def validate(params: SamplingParams) -> SamplingParams:
    """The same parameters, if each is in its range; else `InvalidRequest` naming field, value and range."""
    for name, (low, high) in RANGES.items():
        value = getattr(params, name)
        if value is not None and not low <= value <= high:
            raise InvalidRequest(f"{value} is out of range: {low:g} to {high:g}", path=name)
    return params


def merge(*layers: SamplingParams) -> SamplingParams:
    """One set of parameters from several; a later layer wins where it says something."""
    merged: dict[str, float | int] = {}
    for layer in layers:
        merged |= {name: value for name in RANGES if (value := getattr(layer, name)) is not None}
    return SamplingParams(**merged)  # type: ignore[arg-type]
