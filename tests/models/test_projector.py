"""Which projector a model sees through."""

from __future__ import annotations

from pathlib import Path

import pytest

from pensieve.errors import LoadFailed
from pensieve.models.projector import find_projector


def files(folder: Path, *names: str) -> Path:
    """Empty files; the first is the model."""
    for name in names:
        (folder / name).touch()
    return folder / names[0]


def test_the_projector_beside_the_model_is_found(tmp_path: Path) -> None:
    """Whatever its whole name."""
    model = files(tmp_path, "m.gguf", "m.mmproj-Q8_0.gguf")
    assert find_projector(model, None) == tmp_path / "m.mmproj-Q8_0.gguf"


def test_a_model_in_several_files_is_one_model(tmp_path: Path) -> None:
    """Its parts are not others."""
    model = files(tmp_path, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-m.gguf")
    assert find_projector(model, None) == tmp_path / "mmproj-m.gguf"


def test_among_several_models_nothing_is_guessed(tmp_path: Path) -> None:
    """It may be for the other one; naming it helps."""
    model = files(tmp_path, "m.gguf", "other.gguf", "mmproj-other.gguf")
    assert find_projector(model, None) is None
    assert find_projector(model, str(tmp_path / "mmproj-other.gguf")) == tmp_path / "mmproj-other.gguf"


def test_without_a_projector_there_is_none(tmp_path: Path) -> None:
    """And a named one must be there."""
    model = files(tmp_path, "m.gguf")
    assert find_projector(model, None) is None
    with pytest.raises(LoadFailed, match=r"llamacpp\.mmproj"):
        find_projector(model, str(tmp_path / "gone.gguf"))
