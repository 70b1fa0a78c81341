"""The embedded llama.cpp server, fenced in: the only file that imports xllamacpp and knows its dictionaries.

Its HTTP side listens on a Unix socket in an owner-only folder behind a random key, so no port is open; only the
tokenizer uses it. Calls block and release the GIL, except loading, which holds it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import xllamacpp

from pensieve.config.settings import LlamaCppSettings
from pensieve.errors import BackendFailure, ContextOverflow, LoadFailed, PensieveError
from pensieve.inference.llamacpp.sizing import Sizes
from pensieve.models.spec import ModelSpec
from pensieve.sampling.params import SamplingParams

FOLDER_PREFIX = "pensieve-engine-"

RANDOM_SEED = 0xFFFFFFFF
"""What llama.cpp takes for "choose one"."""


class Chunk(msgspec.Struct, frozen=True):
    """One step of one sequence."""

    text: str = ""
    completion_tokens: int = 0
    """Sampled so far, this one included; 0 on prefill progress."""
    cached_tokens: int | None = None
    """Set on prefill progress."""
    processed_tokens: int = 0
    finish: str = ""
    """`stop` or `length` on the last chunk."""
    error: PensieveError | None = None


class Engine:
    """One loaded model. `complete` may run in as many threads as there are slots."""

    def __init__(self, spec: ModelSpec, sizes: Sizes, settings: LlamaCppSettings) -> None:
        """Load the model, which takes seconds to minutes. Raises `LoadFailed`."""
        _sweep()
        # Under another name until it is locked, or another worker that starts now would sweep it away.
        unlocked = Path(tempfile.mkdtemp(prefix="pensieve-new-"))
        self._lock = _locked(unlocked)
        self._folder = unlocked.rename(unlocked.with_name(FOLDER_PREFIX + unlocked.name.rpartition("-")[2]))
        self.socket_path = self._folder / "engine.sock"
        self.key = secrets.token_urlsafe(32)
        params = _common_params(spec.location, sizes, settings)
        params.hostnames = [str(self.socket_path)]
        params.api_keys = [self.key]
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            self.close()
            reason = f"llama.cpp refused it (architecture {spec.architecture or 'unknown'}), or memory ran out"
            raise LoadFailed(reason, spec.name) from error

    def complete(
        self, prompt: list[int], sampling: SamplingParams, max_tokens: int, on_chunk: Callable[[Chunk], bool]
    ) -> None:
        """Generate until done; `on_chunk` runs on this thread, and returns True to cancel. Blocks."""
        body = {"prompt": prompt, "n_predict": max_tokens, **_COMPLETION, **_sampling_fields(sampling)}
        try:
            self._server.handle_completions(body, lambda raw: on_chunk(_chunk(raw)))
        except (RuntimeError, ValueError) as error:
            on_chunk(Chunk(error=BackendFailure(f"llama.cpp: {error}")))

    def close(self) -> None:
        """Remove the socket; the memory goes when the process ends."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(folder: Path) -> int | None:
    """A lock on the folder that lasts as long as this process; None if another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep() -> None:
    """Remove the folders of our own engines that died without a chance to do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            lock = _locked(folder) if folder.lstat().st_uid == os.getuid() else None
        except OSError:
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


_COMPLETION: dict[str, Any] = {
    "stream": True,
    "return_progress": True,
    "cache_prompt": True,
    "timings_per_token": True,  # carries the exact number of sampled tokens; chunks are no measure of it
}


def _common_params(location: str, sizes: Sizes, settings: LlamaCppSettings) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = location
    params.n_ctx = sizes.pool_tokens
    params.n_parallel = sizes.num_slots
    params.kv_unified = True  # slots share the pool instead of splitting the context
    params.n_batch = params.n_ubatch = sizes.batch_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = sizes.num_threads
    params.n_gpu_layers = settings.gpu_layers
    params.cache_ram_mib = settings.prompt_cache_mib
    params.fit_params = False  # sizes were chosen by our rules, and the user was told them
    params.ctx_shift = False  # never drop the middle of a prompt silently
    params.offline = True
    params.ui = False
    params.use_jinja = False  # templates are rendered by pensieve.prompts
    params.verbosity = 1  # errors only: they end up as the last words of a worker
    return params


def _sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": RANDOM_SEED if sampling.seed is None else sampling.seed,
    }


def _chunk(raw: dict[str, Any]) -> Chunk:
    if "error" in raw:
        return Chunk(error=_error(raw["error"]))
    progress = raw.get("prompt_progress")
    if progress is not None:
        return Chunk(cached_tokens=progress["cache"], processed_tokens=progress["processed"])
    choice = raw["choices"][0]
    sampled = raw.get("timings", {}).get("predicted_n", 0)
    return Chunk(text=choice["text"], completion_tokens=sampled, finish=choice["finish_reason"] or "")


def _error(raw: dict[str, Any]) -> PensieveError:
    if raw.get("type") == "exceed_context_size_error":
        return ContextOverflow(prompt_tokens=raw["n_prompt_tokens"], limit_tokens=raw["n_ctx"])
    return BackendFailure(f"llama.cpp: {raw.get('message', 'failed without a message')}")
