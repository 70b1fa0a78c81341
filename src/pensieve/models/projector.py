"""Which file lets a model in a GGUF file see images: its multimodal projector, `mmproj` for short. Loads nothing."""

from __future__ import annotations

from pathlib import Path

from pensieve.errors import LoadFailed
from pensieve.models.metadata import SPLIT_NAME

_MARK = "mmproj"


def find_projector(model: Path, wanted: str | None) -> Path | None:
    """The projector for this model: the one that is wanted, else the one beside it. Raises `LoadFailed`.

    A folder of several models says nothing about which of them a projector is for: there it must be named.
    """
    if wanted is not None:
        named = Path(wanted).expanduser()
        if not named.is_file():
            raise LoadFailed(f"llamacpp.mmproj names {named.name}, which is no file", model.name)
        return named
    files = [file for file in sorted(model.parent.glob("*.gguf")) if file.is_file()]
    projectors = [file for file in files if _MARK in file.name.lower()]
    models = {_stem(file) for file in files if file not in projectors}
    return projectors[0] if projectors and models <= {_stem(model)} else None


def _stem(file: Path) -> str:
    match = SPLIT_NAME.fullmatch(file.name)
    return match["stem"] if match is not None else file.name
