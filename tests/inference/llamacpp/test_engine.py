"""What an engine leaves behind, and who tidies it up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pensieve.config.settings import LlamaCppSettings
from pensieve.errors import LoadFailed
from pensieve.inference.llamacpp.engine import FOLDER_PREFIX, Engine
from pensieve.inference.llamacpp.sizing import Sizes
from pensieve.models.spec import ModelSpec

SIZES = Sizes(context_tokens=256, pool_tokens=256, batch_tokens=32, num_slots=1, num_threads=1)


def folders() -> set[Path]:
    """The engines' folders there are."""
    return set(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"))


def engine(model: Path) -> Engine:
    """An engine of the smallest sizes."""
    return Engine(ModelSpec(name="m", location=str(model)), SIZES, LlamaCppSettings())


def test_a_refused_file_leaves_nothing_behind(tmp_path: Path) -> None:
    """One error with the architecture, and no folder."""
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF" + bytes(200))
    before = folders()
    with pytest.raises(LoadFailed, match="architecture"):
        engine(junk)
    assert folders() <= before


@pytest.mark.model
def test_the_next_engine_sweeps_up_after_one_that_was_killed(starter_model: Path) -> None:
    """Its folder is not locked any more; those of living engines are, and stay."""
    left = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    first = engine(starter_model)
    second = engine(starter_model)
    assert not left.exists()
    assert first.socket_path.exists()
    first.close()
    second.close()
    assert not first.socket_path.parent.exists()
