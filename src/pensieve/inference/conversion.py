"""Converting a model in a process of its own: the job, what that process says, and how it is started and ended.

Imports no engine: this is the side of the command line. The other side is `inference.mlx.convert`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final, Literal

import msgspec

from pensieve.errors import BackendFailure, Facts, LoadFailed, PensieveError, rebuild
from pensieve.models.progress import Progress

Bits = Literal["keep", "4", "8", "none"]
Dtype = Literal["keep", "float16", "bfloat16", "float32"]

MAX_LINE_BYTES: Final = 2**20
LAST_WORDS_BYTES: Final = 400
END_SECONDS: Final = 5.0
"""How long a process that has said its last word gets to end before it is killed."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be converted, and how."""

    source: str
    """A GGUF file or a folder of safetensors."""
    name: str
    """The source in messages."""
    folder: str
    """Empty; the files are written into it."""
    bits: Bits = "keep"
    dtype: Dtype = "keep"
    group_size: int = 64
    is_checked: bool = True
    """Whether the result is loaded, and its perplexity compared with the source's."""


class Progressed(msgspec.Struct, frozen=True, tag=True):
    """How far a stage is."""

    stage: str
    done_bytes: int
    total_bytes: int


class Warned(msgspec.Struct, frozen=True, tag=True):
    """Something the person should know; the conversion goes on."""

    warning: str


class Finished(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The files are written. Perplexities are None where they were not measured."""

    bytes_before: int
    bytes_after: int
    bits_before: float
    """Per parameter, over all weights, scales included."""
    bits_after: float
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    num_tokens: int = 0
    """Of the text that perplexity was measured on."""
    unmeasured: str = ""
    """Why the source's perplexity was not measured."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The conversion ended with this error."""

    code: str
    facts: Facts


Report = Progressed | Warned | Finished | Failed
_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def convert(job: Job, progress: Progress, warn: Callable[[str], None]) -> Finished:
    """Run the job in a process of its own, which ends with this call whatever happens; raises its `PensieveError`."""
    with tempfile.TemporaryFile() as last_words, _running(job, last_words) as process:
        finished = _follow(process, progress, warn)
        if finished is not None:
            return finished
        raise _ended(process, job, last_words)


def _follow(process: subprocess.Popen[bytes], progress: Progress, warn: Callable[[str], None]) -> Finished | None:
    """Pass on what the process says; None if it ended without a last word."""
    assert process.stdout is not None
    while line := process.stdout.readline(MAX_LINE_BYTES):
        match _decoded(line):
            case Progressed(stage, done_bytes, total_bytes):
                progress(stage, done_bytes, total_bytes)
            case Warned(warning):
                warn(warning)
            case Failed(code, facts):
                raise rebuild(code, facts)
            case Finished() as finished:
                return finished
    return None


def _decoded(line: bytes) -> Report:
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise BackendFailure(f"the converter said what cannot be understood: {line[:200]!r}") from error


@contextmanager
def _running(job: Job, last_words: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    command = (sys.executable, "-P", "-m", "pensieve.inference.mlx.convert")
    process = subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=last_words,
        start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends this process
    )
    with process:
        try:
            assert process.stdin is not None
            try:
                process.stdin.write(msgspec.json.encode(job) + b"\n")
                process.stdin.flush()  # left open: its end tells the process that we are gone
            except BrokenPipeError:
                raise _ended(process, job, last_words) from None
            yield process
        finally:
            process.kill()


def _ended(process: subprocess.Popen[bytes], job: Job, last_words: IO[bytes]) -> PensieveError:
    """What to tell of a process that ended without a last word."""
    try:
        status = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        status = -signal.SIGKILL
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    size_bytes = last_words.seek(0, os.SEEK_END)
    last_words.seek(max(0, size_bytes - LAST_WORDS_BYTES))
    said = " ".join(last_words.read().decode(errors="replace").split())
    if "No module named 'mlx" in said:
        return BackendFailure(
            "the MLX engine is not installed: `make setup` in your clone of Pensieve adds it, "
            "`make setup EXTRAS=mlx-cuda` for an NVIDIA GPU"
        )
    out_of_memory = "; it may have run out of memory: close other programs" if status == -signal.SIGKILL else ""
    problem = f"the process that converted it ended ({how}){out_of_memory}"
    return LoadFailed(f"{problem}: {said}" if said else problem, job.name)
