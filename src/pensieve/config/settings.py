"""What the user asked for, as frozen, typed sections. Knows nothing of files, environment or flags.

Each field's bounds are in its annotation, so that one validator serves every source; a description there says in
plain words what a pattern accepts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.config.platforms import default_model

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Name = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z", description="a name or path, on one line")]
Address = Annotated[str, Meta(pattern=r"^[!-~]+\Z", description="a host name or address, without spaces")]
WebOrigin = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+/?\Z",
        description="an origin with its scheme and no path, such as https://example.org",
    ),
]
"""Only what a browser can send: anything else would be kept and never match."""
Secret = Annotated[str, Meta(pattern=r"^[!-~]+\Z", description="visible ASCII characters, without spaces")]
"""What an HTTP header can carry; empty is refused, so that an unset shell variable never turns the key off."""


def mask(secret: str) -> str:
    """Stars, and the last two characters of a secret long enough to spare them."""
    return "****" + (secret[-2:] if len(secret) > 12 else "")


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where and for whom the server listens."""

    host: Address = "127.0.0.1"
    port: Port = 7777
    """0 takes any free port."""
    api_key: Secret | None = None
    """None: no key is asked for, which is allowed on loopback addresses only."""
    allowed_origins: tuple[WebOrigin, ...] = ()
    """Web origins that may call from a browser, beside none."""
    allowed_hosts: tuple[Address, ...] = ()
    """Host header names that are answered, beside loopback names and the bound address."""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=2**27)] = 16 * 2**20
    """Well below what a frame to the worker may have."""
    ping_seconds: Annotated[float, Meta(ge=0.05, le=60.0)] = 5.0
    """Longest silence of an open stream."""
    allow_image_urls: Literal["on", "off"] = "off"
    """Whether images and documents that a request names by address are fetched, from public addresses only."""
    keep_prompt_text: Literal["on", "off"] = "off"
    """Whether the words of the last prompts stay in memory, for `pensieve doctor cache --text`."""

    linger_seconds: Seconds = 120.0
    """How long a server that was started for agents stays when the last terminal has left."""

    def __repr__(self) -> str:
        shown = msgspec.structs.asdict(self)
        if self.api_key is not None:
            shown["api_key"] = mask(self.api_key)
        return f"ServerSettings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which model answers, and with how much context."""

    name: Name = default_model()
    """A catalog name, the name of a model on disk, or a path of a GGUF file or of a folder of safetensors."""
    context_tokens: Annotated[int, Meta(ge=256, le=2**24)] | None = None
    """None: what the model was trained for, at most 32,768."""
    swap: Literal["on", "off"] = "on"
    """Whether a request that names another model on this machine gets it; made-up names never change anything."""
    resident: Annotated[int, Meta(ge=1, le=16)] = 1
    """Models that may stay in memory together, as far as they fit; the one used longest ago goes first."""
    idle_seconds: Annotated[float, Meta(ge=0.0, le=31_536_000.0)] = 0.0
    """A model that nobody asked for so long leaves memory; 0: never."""
    drain_seconds: Seconds = 60.0
    """How long a model that must go may go on answering."""


class GenerationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen where a request says nothing; None: the program's default."""

    temperature: Annotated[float, Meta(ge=0.0, le=5.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10.0)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**24)] | None = None
    """For the chat and `ask`; clients of the server always say their own."""
    system: str = ""
    """For the chat and `ask`."""
    repetition_guard: Literal["on", "off"] = "on"
    """Whether an answer that goes round in circles is stopped."""
    repetition_times: Annotated[int, Meta(ge=2, le=10_000)] = 12
    """The same stretch of text so often in a row is a loop, if it is long enough."""
    repetition_tokens: Annotated[int, Meta(ge=16, le=2**24)] = 512
    """How long all of it must be, in tokens."""
    repetition_calls: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """After so many turns with the same tool call and the same result, the next such call is a loop."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the worker processes are kept."""

    load_timeout_seconds: Seconds = 600.0
    hang_seconds: Annotated[float, Meta(ge=0.1, le=86_400.0)] = 60.0
    """A loaded worker that gives no sign of life for so long is replaced."""
    queue_limit: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """Requests that may wait for one model; one more is refused as overloaded."""


class LlamaCppSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The llama.cpp engine; None: chosen from the machine and the model."""

    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    batch_tokens: Annotated[int, Meta(ge=8, le=8192)] | None = None
    """Prompt tokens a step; bounds how long a cancelled prefill holds its slot."""
    parallel: Annotated[int, Meta(ge=1, le=64)] = 4
    """Requests that run at once; further ones wait."""
    pool_tokens: Annotated[int, Meta(ge=256, le=2**26)] | None = None
    """Key-value cache shared by the running requests, in tokens."""
    prompt_cache_mib: Annotated[int, Meta(ge=0, le=2**20)] = 256
    """Budget of prompts that are put aside, in temporary files, when their place is needed; 0 turns it off."""
    gpu_layers: Annotated[int, Meta(ge=-1, le=10_000)] = -1
    """Layers on the GPU where there is one; -1: all."""
    embedding_tokens: Annotated[int, Meta(ge=32, le=32_768)] = 512
    """The longest text that can be embedded; its memory is taken while embeddings are made."""
    mmproj: Name | None = None
    """Path of the file that lets the model see images; None: the one in the model's folder, if there is one."""


class MlxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The MLX engine; None and `auto`: chosen from the machine and the model."""

    device: Literal["auto", "gpu", "cpu"] = "auto"
    parallel: Annotated[int, Meta(ge=1, le=256)] = 32
    """Requests that are decoded at once; further ones wait."""
    prefill_tokens: Annotated[int, Meta(ge=16, le=16_384)] | None = None
    """Prompt tokens a step at most; running answers wait that long for their next token."""
    quantization: Literal["none", "int4", "int8", "fp16"] = "none"
    """What an unquantized model is turned into at load; `none` leaves it as it is."""
    weights: Literal["auto", "quantized", "dual", "dense"] = "auto"
    """Quantized weights as they are; a dense copy beside them for prompts and batches; or the dense copy alone."""
    prefix_cache_mib: Annotated[int, Meta(ge=0, le=2**20)] | None = None
    """Budget of the cache of prompts in memory; 0 turns it off."""
    disk_cache_mib: Annotated[int, Meta(ge=0, le=2**24)] = 4096
    """Budget of the cache of prompts on disk, per model; 0 turns it off."""


Gigabytes = Annotated[float, Meta(ge=0.0, le=4096.0)]


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """When memory counts as short, in gigabytes (10^9 bytes) that are available; lowered on small machines."""

    warning_gb: Gigabytes = 2.0
    """Below: caches shrink."""
    critical_gb: Gigabytes = 1.0
    """Below: new requests are refused as overloaded."""
    emergency_gb: Gigabytes = 0.5
    """Below: the model is unloaded."""
    recovery_percent: Annotated[float, Meta(ge=0.0, le=100.0)] = 10.0
    """So much more than the threshold must be there again before a level is left."""
    recovery_seconds: Seconds = 2.0
    """For so long."""
    interval_seconds: Annotated[float, Meta(ge=0.02, le=10.0)] = 0.25
    """Between two readings."""
    reloads: Annotated[int, Meta(ge=0, le=1000)] = 3
    """How often in an hour a model that was unloaded is loaded again without being asked for."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server writes to standard error; never prompt text."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All sections."""

    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    generation: GenerationSettings = GenerationSettings()
    worker: WorkerSettings = WorkerSettings()
    llamacpp: LlamaCppSettings = LlamaCppSettings()
    mlx: MlxSettings = MlxSettings()
    memory: MemorySettings = MemorySettings()
    log: LogSettings = LogSettings()


class Folders(msgspec.Struct, frozen=True):
    """Where the program keeps its things. All lie under `PENSIEVE_HOME` when that is set."""

    config: Path
    data: Path
    state: Path

    @property
    def config_file(self) -> Path:
        """The user's settings."""
        return self.config / "config.toml"

    @property
    def prompts(self) -> Path:
        """The user's own presets."""
        return self.config / "prompts"

    @property
    def models(self) -> Path:
        """Models that `pull` and `convert` made."""
        return self.data / "models"

    @property
    def conversations(self) -> Path:
        """What was said in chats, owner-only."""
        return self.data / "conversations.db"

    @property
    def batches(self) -> Path:
        """The queue of Message Batches and their results, owner-only."""
        return self.data / "batches.db"

    @property
    def run_file(self) -> Path:
        """The server of this user that runs now: address and process id, owner-only."""
        return self.state / "server.json"

    @property
    def keys(self) -> Path:
        """Notes of the keys that terminals hold, one file a key, owner-only."""
        return self.state / "keys"
