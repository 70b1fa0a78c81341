"""The user's own presets: TOML files, or Markdown with a few `key: value` lines in front.

Names stay inside their folder. Knows no conversation and no terminal.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pensieve.errors import InvalidRequest, UsageError
from pensieve.messages import Json
from pensieve.prompts.presets import BUILT_IN, Preset
from pensieve.sampling.params import RANGES, SamplingParams, validate

MAX_FILE_BYTES = 1_000_000
SUFFIXES = (".toml", ".md")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FENCE = "---"
NEW = """\
---
summary: What it is for, in one line.
# temperature: 0.7
# max_tokens: 500
# variables.name: a value for {{ name }} in the text below
---
You are a helpful assistant.
"""


class Shelf:
    """All presets: built in, and the user's own in one folder, which win over built-in ones of the same name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """Every name, in alphabetical order; what is in the files is not looked at."""
        return tuple(sorted({*BUILT_IN, *self._files()}))

    def find(self, name: str) -> Preset:
        """The preset of that name; raises `UsageError` where there is none, or its file is wrong."""
        file = self._files().get(name)
        if file is not None:
            return read(file)
        if name in BUILT_IN:
            return BUILT_IN[name]
        nearest = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "`pensieve prompts list` shows them"
        raise UsageError(f"there is no preset {name!r}: {hint}")

    def new(self, name: str, content: str = NEW) -> Path:
        """Make a file for a preset of that name, and say where; one that is there already is left alone."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a preset's name: letters, digits, - and _, at most 64")
        there = self._files().get(name)
        if there is not None:
            raise UsageError(f"there is a preset {name} already: edit {there}, or choose another name")
        path = self.folder / f"{name}.md"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(content)
        except OSError as error:
            raise UsageError(f"{path} could not be written: {error.strerror}") from error
        return path

    def _files(self) -> dict[str, Path]:
        try:
            found = sorted(self.folder.iterdir())
        except OSError:
            return {}
        return {path.stem: path for path in found if path.suffix in SUFFIXES and _NAME.fullmatch(path.stem)}


def split(words: str) -> tuple[str, dict[str, str]]:
    """`NAME key=value ...`, quoted as in a shell, as name and values; raises `UsageError` for anything else."""
    import shlex  # noqa: PLC0415 - needed where a preset is named

    try:
        name, *pairs = shlex.split(words)
        given = dict(pair.split("=", 1) for pair in pairs)
    except ValueError as error:
        raise UsageError("write a preset as NAME, or as NAME variable=value with quotes around spaces") from error
    return name, given


def read(file: Path) -> Preset:
    """The preset in a file, named as the file; raises `UsageError` that says what is wrong in it."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise UsageError(f"{file} is longer than {MAX_FILE_BYTES} bytes: no preset is")
        text = content.decode("utf-8-sig")
        fields = _toml(text) if file.suffix == ".toml" else _markdown(text)
        return _preset(fields, file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    except (msgspec.DecodeError, ValueError, InvalidRequest) as error:
        raise UsageError(f"{file} is not a preset: {error}") from error


def _toml(text: str) -> dict[str, Json]:
    return msgspec.toml.decode(text, type=dict[str, Json])


def _markdown(text: str) -> dict[str, Json]:
    lines = text.splitlines()
    if not lines or lines[0].strip() != _FENCE:
        return {"system": text}
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == _FENCE), None)
    if end is None:
        raise ValueError(f"the lines in front have no end: write {_FENCE} below them")
    return {**_front(lines[1:end]), "system": "\n".join(lines[end + 1 :])}


def _front(lines: list[str]) -> dict[str, Json]:
    fields: dict[str, Json] = {"variables": {}}
    for number, line in enumerate(lines, 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            raise ValueError(f"line {number} is not `key: value`")
        name, _, variable = key.partition(".")
        if variable and name == "variables":
            fields["variables"][variable] = value.strip("\"'")
        else:
            fields[key] = value.strip("\"'")
    return fields


def _preset(fields: Mapping[str, Json], file: Path) -> Preset:
    known = {*Preset.__struct_fields__, *RANGES} - {"name", "source", "sampling"}
    strange = sorted({*fields} - known)
    if strange:
        raise ValueError(f"{strange[0]} is not known: there are {', '.join(sorted(known))}")
    sampled = {key: value for key, value in fields.items() if key in RANGES}
    sampling = validate(msgspec.convert(sampled, SamplingParams, strict=False))
    others = {key: value for key, value in fields.items() if key not in RANGES}
    preset = msgspec.convert({**others, "name": file.stem}, Preset, strict=False)
    return msgspec.structs.replace(preset, sampling=sampling, source=os.fspath(file))
