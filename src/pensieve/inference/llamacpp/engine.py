"""The embedded llama.cpp server, fenced in: the only file that imports xllamacpp and knows its dictionaries.

Its HTTP side listens on a Unix socket in an owner-only folder behind a random key, so no port is open; only the
tokenizer, images and chores between slots use it. Calls block and release the GIL, except loading, which holds it.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any

import xllamacpp

from pensieve.config.settings import LlamaCppSettings
from pensieve.errors import BackendFailure, LoadFailed
from pensieve.inference.llamacpp.completion import Chunk, Run, chunk_of
from pensieve.inference.llamacpp.engine_socket import EngineSocket
from pensieve.inference.llamacpp.sizing import Sizes
from pensieve.models.spec import ModelSpec

FOLDER_PREFIX = "pensieve-engine-"
COPY_NAME = "copy.bin"
_LETTER = {"type": "text", "text": "x"}


class Engine:
    """One loaded model. `complete` may run in as many threads as there are slots."""

    def __init__(
        self, spec: ModelSpec, sizes: Sizes, settings: LlamaCppSettings, projector: Path | None = None
    ) -> None:
        """Load the model, which takes seconds to minutes. Raises `LoadFailed`.

        `projector`: the file that turns images into embeddings of this model.
        """
        _sweep()
        # Under another name until it is locked, or another worker that starts now would sweep it away.
        unlocked = Path(tempfile.mkdtemp(prefix="pensieve-new-"))
        self._lock = _locked(unlocked)
        self._folder = unlocked.rename(unlocked.with_name(FOLDER_PREFIX + unlocked.name.rpartition("-")[2]))
        self.socket_path = self._folder / "engine.sock"
        key = secrets.token_urlsafe(32)
        self.socket = EngineSocket(self.socket_path, key)
        """For the tokenizer and for streams."""
        self._chores = EngineSocket(self.socket_path, key)
        self.sees_images = projector is not None
        params = _common_params(spec.location, sizes, settings)
        params.slot_save_path = f"{self._folder}{os.sep}"
        params.hostnames = [str(self.socket_path)]
        params.api_keys = [key]
        if projector is not None:
            files = params.mmproj
            files.path = str(projector)
            params.mmproj = files
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            self.close()
            reason = f"llama.cpp refused it (architecture {spec.architecture or 'unknown'}), or memory ran out"
            if projector is not None:
                reason += f"; its images go through {projector.name}: is that file made for this model?"
            raise LoadFailed(reason, spec.name) from error

    def complete(self, run: Run, on_chunk: Callable[[Chunk], bool]) -> None:
        """Generate until done; `on_chunk` runs on this thread, and returns True to cancel. Blocks."""
        try:
            if self.sees_images:  # the call inside the process takes neither images then, nor tokens
                with closing(self.socket.stream("/completion", run.body())) as answers:
                    any(on_chunk(chunk_of(raw)) for raw in answers)
            else:
                self._server.handle_completions(run.body(), lambda raw: on_chunk(chunk_of(raw)))
        except (RuntimeError, ValueError, OSError, HTTPException) as error:
            on_chunk(Chunk(error=BackendFailure(f"llama.cpp: {error}")))

    def copy(self, source: int, target: int) -> None:
        """Give the slot `target` all that the slot `source` has read; both must be idle. Raises `BackendFailure`."""
        try:
            self.save(source, COPY_NAME)
            self.restore(target, COPY_NAME)
        finally:
            self.forget(COPY_NAME)

    def save(self, slot: int, name: str) -> None:
        """Write what an idle slot has read to a file of the engine's folder. Raises `BackendFailure`."""
        self._chores.ask(f"/slots/{slot}?action=save", {"filename": name})

    def restore(self, slot: int, name: str) -> None:
        """Read it into an idle slot. Raises `BackendFailure`."""
        self._chores.ask(f"/slots/{slot}?action=restore", {"filename": name})

    def forget(self, name: str) -> None:
        """Delete the file."""
        (self._folder / name).unlink(missing_ok=True)

    def erase(self, slot: int) -> None:
        """Forget what an idle slot has read. Raises `BackendFailure`."""
        self._chores.ask(f"/slots/{slot}?action=erase", {})

    def image_mark(self) -> str:
        """What stands for an image in a prompt: a text that llama.cpp draws at random. Raises `BackendFailure`."""
        return str(self.socket.ask("/props").get("media_marker", ""))

    def image_tokens(self, image: bytes) -> int:
        """How many tokens of a prompt the image takes. Raises `BackendFailure`."""
        url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        shown = {"type": "image_url", "image_url": {"url": url}}
        # Both have the same line break in the middle; a letter is one token.
        return self._count(_LETTER, shown) - self._count(_LETTER, _LETTER) + 1

    def _count(self, *parts: dict[str, Any]) -> int:
        body = {"messages": [{"role": "user", "content": list(parts)}]}
        return int(self.socket.ask("/v1/chat/completions/input_tokens", body)["input_tokens"])

    def close(self) -> None:
        """Remove the socket and its folder; the memory goes when the process ends."""
        self.socket.close()
        self._chores.close()
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


def _common_params(location: str, sizes: Sizes, settings: LlamaCppSettings) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = location
    params.n_ctx = sizes.pool_tokens
    params.n_parallel = sizes.num_slots
    params.kv_unified = True  # slots share the pool instead of splitting the context
    params.n_batch = params.n_ubatch = sizes.batch_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = sizes.num_threads
    params.n_gpu_layers = settings.gpu_layers
    params.cache_ram_mib = 0  # llama.cpp's own cache empties idle slots; what stays and what goes is decided in `slots`
    params.cache_idle_slots = False
    params.fit_params = False  # sizes were chosen by our rules, and the user was told them
    params.ctx_shift = False  # never drop the middle of a prompt silently
    params.offline = True
    params.ui = False
    params.use_jinja = False  # templates are rendered by pensieve.prompts
    params.chat_template = "chatml"  # one that it surely knows: only used to count the tokens of images
    params.special = True  # what a parser reads stands between markers
    params.verbosity = 1  # errors only: they end up as the last words of a worker
    return params
