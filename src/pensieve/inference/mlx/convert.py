"""The process that converts a model: a job on standard input, reports on standard output, files in the job's folder.

A composition root, started by `inference.conversion`. Whatever happens here, the folder becomes a model only when the
parent says so.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import mlx.core as mx
import msgspec

from pensieve.config.settings import Settings
from pensieve.devices.processes import read_own_memory
from pensieve.errors import LoadFailed, PensieveError
from pensieve.inference import conversion
from pensieve.inference.conversion import Failed, Finished, Job, Progressed, Report, Warned
from pensieve.inference.mlx import loader
from pensieve.inference.mlx.folder_model import FolderModel
from pensieve.inference.mlx.gguf import GgufModel
from pensieve.inference.mlx.perplexity import evaluation_text, perplexity
from pensieve.inference.mlx.shards import write_shards
from pensieve.inference.mlx.weight_form import Converted, Source, Wanted
from pensieve.inference.worker.main import die_with_parent
from pensieve.models.folders import CONFIG_NAME
from pensieve.models.sizes import in_words
from pensieve.models.spec import ModelSpec
from pensieve.models.staging import disk_errors, require_space

BITS: Final = {"keep": None, "none": 0, "4": 4, "8": 8}
DTYPES: Final = {"keep": None, "float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
OVERHEAD_BYTES: Final = 2**20
"""Headers, configs and the manifest."""
CPU_WORK: Final = 2e10
"""Parameters times tokens that a CPU may spend on one measurement: about half a minute."""
LEAST_TOKENS: Final = 64
REFERENCE_NAME: Final = "reference"
"""Folder inside the job's for the source as it is, where MLX cannot read it in place."""
MAX_LOSS: Final = 10.0
"""A converted model that is this many times as surprised as its source, or as one that guesses, is broken."""


class Conversion:
    """One job under way."""

    def __init__(self, job: Job, say: Callable[[Report], None]) -> None:
        self._job = job
        self._say = say
        self._source: Source | None = open_source(Path(job.source))
        self._folder = Path(job.folder)
        self._parameters = self._opened().parameters
        self._num_tokens = 0
        self._columns = 0

    def run(self) -> Finished:
        """Convert; raises `PensieveError`."""
        job, source = self._job, self._opened()
        wanted = Wanted(BITS[job.bits], job.group_size, DTYPES[job.dtype])
        if source.quantization and wanted.bits:
            self._say(Warned(requantizing(source.quantization)))
        bytes_before, parameters = source.num_bytes, max(self._parameters, 1)
        before, why = self._measure_source(wanted) if job.is_checked else (None, "")
        bytes_after = self._write(self._opened().converted(wanted), self._folder)
        self._source = None
        after = self._measure(self._folder, "measuring the result") if job.is_checked else None
        if after is not None:
            check_perplexity(before, after, self._columns, job.name)
        return Finished(
            bytes_before=bytes_before,
            bytes_after=bytes_after,
            bits_before=bytes_before * 8 / parameters,
            bits_after=bytes_after * 8 / parameters,
            perplexity_before=before,
            perplexity_after=after,
            num_tokens=self._num_tokens,
            unmeasured=why,
        )

    def _opened(self) -> Source:
        """The source; it is let go once it is written, so that the result has the memory."""
        if self._source is None:
            self._source = open_source(Path(self._job.source))
        return self._source

    def _measure_source(self, wanted: Wanted) -> tuple[float | None, str]:
        """The source's perplexity, or why it was not measured."""
        source = self._opened()
        room_bytes = read_own_memory().available_bytes
        if room_bytes is not None and source.num_bytes > room_bytes:
            return None, f"its {in_words(source.num_bytes)} do not fit into the {in_words(room_bytes)} that are free"
        if isinstance(source, FolderModel):
            self._source = None
            return self._measure(Path(self._job.source), "measuring the source"), ""
        if isinstance(source, GgufModel) and source.is_kept_whole and wanted.bits is None and wanted.dtype is None:
            return None, "the weights are the same numbers"
        reference = self._folder / REFERENCE_NAME
        with disk_errors(self._folder, 0):
            reference.mkdir()
        self._write(source.converted(Wanted(dtype=mx.float32)), reference)
        self._source = None
        measured = self._measure(reference, "measuring the source")
        shutil.rmtree(reference)
        return measured, ""

    def _write(self, converted: Converted, folder: Path) -> int:
        """Write the model into the folder; the bytes of its weights."""
        files = {**converted.files, CONFIG_NAME: msgspec.json.format(msgspec.json.encode(converted.config), indent=2)}
        needed_bytes = converted.num_bytes + sum(map(len, files.values())) + OVERHEAD_BYTES
        with disk_errors(folder, needed_bytes):
            require_space(folder, needed_bytes)
            for name, content in files.items():
                (folder / name).write_bytes(content)
            write_shards(folder, converted.slots, converted.arrays, self._progress)
        return converted.num_bytes

    def _measure(self, folder: Path, stage: str) -> float:
        """The perplexity of the model in the folder; raises `LoadFailed` if it cannot be loaded."""
        gc.collect()  # what was read before is let go
        mx.clear_cache()
        self._progress(stage, 0, 0)
        text = evaluation_text()
        loaded = loader.load(ModelSpec(name=self._job.name, location=str(folder), format="mlx"), Settings())
        self._columns = loaded.vocabulary_size
        tokens = loaded.tokenizer.encode(text)
        limit = token_limit(self._parameters, len(tokens))
        self._num_tokens = len(tokens[:limit])
        measured_bytes = len(text.encode()) * self._num_tokens // len(tokens)

        def note(num_tokens: int) -> None:
            self._progress(stage, measured_bytes * num_tokens // self._num_tokens, measured_bytes)

        return perplexity(loaded.model, tokens[:limit], note)

    def _progress(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        self._say(Progressed(stage, done_bytes, total_bytes))


def open_source(path: Path) -> Source:
    """The model at the path, its header read; raises `LoadFailed`."""
    return FolderModel(path) if path.is_dir() else GgufModel(path)


def requantizing(quantization: str) -> str:
    """The warning for a source that is quantized already."""
    return f"the source is quantized already ({quantization}); doing it again loses more: `--bits keep` loses nothing"


def token_limit(parameters: int, num_tokens: int) -> int:
    """How many tokens are measured: all on a GPU, on a CPU what takes about half a minute."""
    if mx.default_device() != mx.Device(mx.cpu):
        return num_tokens
    return min(num_tokens, max(LEAST_TOKENS, int(CPU_WORK / max(parameters, 1))))


def check_perplexity(before: float | None, after: float, num_columns: int, model: str) -> None:
    """Raise `LoadFailed` for a model that conversion has broken: it knows less than one that guesses."""
    limit = MAX_LOSS * (num_columns if before is None else min(before, num_columns))
    if not math.isfinite(after) or after > limit:
        was = "" if before is None else f", the source's is {before:,.1f}"
        problem = f"its perplexity after conversion is {after:,.1f}{was}: it is broken, and nothing was kept"
        raise LoadFailed(f"{problem}; try --bits 8, or --dtype float32", model)


def main() -> None:
    """Entry point: one job, as a line of JSON."""
    die_with_parent()
    job = msgspec.json.decode(sys.stdin.buffer.readline(conversion.MAX_LINE_BYTES), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; reports stay among themselves

    def say(report: Report) -> None:
        reports.write(msgspec.json.encode(report) + b"\n")
        reports.flush()

    try:
        say(Conversion(job, say).run())
    except PensieveError as error:
        if isinstance(error, LoadFailed):
            error.model = job.name
        say(Failed(error.code, error.facts()))
    os._exit(0)  # nothing to save; taking arrays apart at exit only takes time


def _end_with_parent() -> None:
    """Standard input ends when the parent does, also where the system does not tell us."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
