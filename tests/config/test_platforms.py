"""What depends on the kind of machine."""

from __future__ import annotations

import pytest

from pensieve.config.platforms import default_model, is_apple_silicon
from pensieve.models.catalog import entry_named


@pytest.mark.parametrize(
    ("system", "machine", "model"),
    [
        ("darwin", "arm64", "phi-3-mini-128k"),
        ("darwin", "x86_64", "smollm2-135m"),
        ("linux", "aarch64", "smollm2-135m"),
        ("linux", "x86_64", "smollm2-135m"),
    ],
)
def test_the_default_model_fits_the_machine(system: str, machine: str, model: str) -> None:
    """Only Apple's own chips get a larger one; either can be pulled by that name."""
    assert default_model(system, machine) == model
    assert is_apple_silicon(system, machine) is (model != "smollm2-135m")
    entry = entry_named(model)
    assert entry is not None
    assert entry.name == model
