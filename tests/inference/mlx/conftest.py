"""Tiny models for the engine's tests: each family written once a run, loaded once a module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_model

from tiny_engines import greedy_alone
from tiny_models import make_tiny_model


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a tiny model of the family in float32, two layers; made once a run for each set of options."""
    made: dict[tuple[Any, ...], Path] = {}

    def folder(family: str, **options: Any) -> Path:
        key = (family, *sorted(options.items()))
        if key not in made:
            made[key] = make_tiny_model(tmp_path_factory.mktemp(family), family, **options)
        return made[key]

    return folder


@pytest.fixture(scope="module")
def model_of(folder_of: Callable[..., Path]) -> Callable[..., Any]:
    """The bare model in the folder of that family and those options; its arrays belong to the test's thread."""
    loaded: dict[Path, Any] = {}

    def model(family: str, **options: Any) -> Any:
        folder = folder_of(family, **options)
        if folder not in loaded:
            loaded[folder] = load_model(folder)[0]
        return loaded[folder]

    return model


@pytest.fixture
def llama(folder_of: Callable[..., Path]) -> Path:
    """The plainest tiny model."""
    return folder_of("llama")


@pytest.fixture
def alone(model_of: Callable[..., Any]) -> Callable[[list[int], int], list[int]]:
    """What that model says by itself to a prompt, in so many tokens."""
    return lambda tokens, count: greedy_alone(model_of("llama"), tokens, count)


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """No thread of an engine outlives its test."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("mlx")]
