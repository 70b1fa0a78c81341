"""What `pensieve doctor` finds: the machine, its engines, which models fit, and what to do. Prints nothing.

Every field of `Report` is part of the documented JSON. Nothing here imports an engine or asks a network.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

import msgspec

from pensieve.config.settings import Settings
from pensieve.config.sources import LoadedSettings, folders, load
from pensieve.devices.cuda import DeviceMemory, read_devices
from pensieve.devices.levels import level_of, reserve_bytes
from pensieve.devices.profile import DeviceKind, MachineProfile, MlxDevice, read_profile
from pensieve.errors import ConfigurationError, ModelNotFound, PensieveError
from pensieve.inference.context import context_tokens
from pensieve.inference.prediction import SMALLEST_CONTEXT_TOKENS, EngineName, predict
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec

LLAMA_STEP = "pip install xllamacpp"
Fit = Literal["fits", "tight", "too big", "no engine", "unknown"]


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The machine itself."""

    chip: str
    num_cores: int
    architecture: str
    system: str
    python: str


class MemoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of the machine, or of the cgroup that limits it; null where it cannot be read."""

    status: str
    available_bytes: int | None
    total_bytes: int | None
    limited_by: str


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where MLX computes; `cpu` where it is not there."""

    kind: DeviceKind
    name: str
    working_set_bytes: int
    """What the device may hold: recommended by Metal, the card's memory, 0 on a processor."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: its version, empty where it is not installed, and why it cannot be used."""

    name: EngineName
    version: str
    problem: str
    next_step: str = ""
    """Where there is a problem: the command that would add it, or why there is none here."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One model and whether it fits. Bytes; `needed_bytes` is the sum of the four before it."""

    name: str
    state: Literal["here", "available"]
    engine: EngineName
    fit: Fit
    context_tokens: int
    """The context it would be loaded with."""
    max_context_tokens: int
    """The largest context that fits now, at most what the model was trained for."""
    weight_bytes: int
    cache_bytes: int
    """For that context."""
    is_cache_estimated: bool
    """No header is here to tell; the figure is for attention without shared heads, so rather too much."""
    scratch_bytes: int
    """For work, and what the worker takes by itself."""
    reserve_bytes: int
    """What models leave: the memory's threshold of Critical."""
    needed_bytes: int
    available_bytes: int | None
    """What can be had now, and with nothing else running."""
    total_bytes: int | None


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong, and what to do."""

    problem: str
    next_step: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found."""

    is_usable: bool
    """At least one engine can run, and the settings can be read."""
    machine: MachineFacts
    memory: MemoryFacts
    device: DeviceFacts
    cards: tuple[DeviceMemory, ...]
    """NVIDIA cards, as the driver tells of them."""
    engines: tuple[EngineFacts, ...]
    models: tuple[ModelFacts, ...]
    problems: tuple[Problem, ...]


class Cost(msgspec.Struct, frozen=True):
    """What a model takes: a fixed part, and a part for each token of context. Bytes."""

    fixed_bytes: int
    bytes_per_token: int

    def at(self, num_tokens: int) -> int:
        """Bytes with that context."""
        return self.fixed_bytes + self.bytes_per_token * num_tokens

    def most_tokens(self, available_bytes: int, limit_tokens: int) -> int:
        """The largest context that fits, at most the limit; 0 if none does."""
        left = available_bytes - self.fixed_bytes
        if left < 0:
            return 0
        return min(limit_tokens, left // self.bytes_per_token) if self.bytes_per_token else limit_tokens


class Room(msgspec.Struct, frozen=True):
    """Memory for a model: now, and with nothing else running; None where it cannot be read."""

    available_bytes: int | None
    total_bytes: int | None


def examine() -> Report:
    """Look at everything. Blocks for a second or two, while MLX is asked in a process of its own."""
    found, problems = _settings()
    loaded = found or LoadedSettings(Settings(), folders(os.environ), {})
    profile, cards = read_profile(), read_devices()
    engines = engines_of(profile, cards)
    registry = Registry(loaded.folders.models)
    models, model_problems = _models(registry, loaded.settings, profile, cards, engines)
    problems += [*_engine_problems(profile, cards, engines), *_memory_problems(profile), *model_problems]
    return Report(
        is_usable=any(not engine.problem for engine in engines) and found is not None,
        machine=MachineFacts(
            chip=profile.chip,
            num_cores=profile.num_cores,
            architecture=profile.architecture,
            system=profile.system,
            python=profile.python,
        ),
        memory=MemoryFacts(
            status=level_of(profile.memory),
            available_bytes=profile.memory.available_bytes,
            total_bytes=profile.memory.total_bytes,
            limited_by=profile.memory.limited_by,
        ),
        device=_device(profile),
        cards=cards,
        engines=engines,
        models=models,
        problems=tuple(problems),
    )


def fit_of(cost: Cost, context_tokens: int, room: Room) -> Fit:
    """Whether a model fits now at that context; `tight` if only with less context or with nothing else running."""
    if room.available_bytes is None:
        return "unknown"
    if cost.at(context_tokens) <= room.available_bytes:
        return "fits"
    smallest = min(context_tokens, SMALLEST_CONTEXT_TOKENS)
    return "tight" if cost.at(smallest) <= (room.total_bytes or room.available_bytes) else "too big"


def room_of(engine: EngineName, profile: MachineProfile, cards: tuple[DeviceMemory, ...]) -> Room:
    """The memory that an engine's models go to: a card's, Metal's part of the machine's, or the machine's."""
    memory = profile.memory
    mlx = profile.mlx
    if engine == "mlx" and isinstance(mlx, MlxDevice) and mlx.kind == "cuda":
        card = next((card for card in cards if card.uuid == mlx.uuid or len(cards) == 1), None)
        return Room(card.free_bytes, card.total_bytes) if card else Room(mlx.working_set_bytes, mlx.working_set_bytes)
    if isinstance(mlx, MlxDevice) and mlx.kind == "metal" and mlx.working_set_bytes:
        most = min(mlx.working_set_bytes, memory.total_bytes or sys.maxsize)
        return Room(most if memory.available_bytes is None else min(most, memory.available_bytes), most)
    return Room(memory.available_bytes, memory.total_bytes)


def engines_of(profile: MachineProfile, cards: tuple[DeviceMemory, ...] = ()) -> tuple[EngineFacts, ...]:
    """Both engines; why one cannot be used, and what would add it."""
    llama = profile.engines.get("xllamacpp", "")
    problem = "" if isinstance(profile.mlx, MlxDevice) else profile.mlx.reason
    if not problem and "mlx-lm" not in profile.engines:
        problem = "mlx-lm is not installed"
    return (
        EngineFacts(
            name="llama.cpp",
            version=llama,
            problem="" if llama else "it is not installed",
            next_step="" if llama else LLAMA_STEP,
        ),
        EngineFacts(
            name="mlx",
            version=profile.engines.get("mlx", ""),
            problem=problem,
            next_step=_mlx_step(profile, cards) if problem else "",
        ),
    )


def _settings() -> tuple[LoadedSettings | None, list[Problem]]:
    """The settings, or None where they are refused; and what is wrong with them."""
    try:
        loaded = load()
    except ConfigurationError as error:
        step = "correct that value; `pensieve config path` names the file"
        return None, [Problem(f"the settings are refused: {error}", step)]
    return loaded, [Problem(warning, "see `pensieve config show`") for warning in loaded.warnings]


def _device(profile: MachineProfile) -> DeviceFacts:
    mlx = profile.mlx
    if not isinstance(mlx, MlxDevice):
        return DeviceFacts(kind="cpu", name=profile.chip, working_set_bytes=0)
    return DeviceFacts(kind=mlx.kind, name=mlx.name, working_set_bytes=mlx.working_set_bytes)


def _models(
    registry: Registry,
    settings: Settings,
    profile: MachineProfile,
    cards: tuple[DeviceMemory, ...],
    engines: tuple[EngineFacts, ...],
) -> tuple[tuple[ModelFacts, ...], list[Problem]]:
    try:
        entries = registry.entries()
    except PensieveError as error:
        return (), [Problem(str(error), "make the folder readable")]
    here = [entry.manifest.spec for entry in entries if entry.manifest is not None]
    names = {entry.name for entry in entries}
    planned = [known.planned() for known in registry.catalog if known.name not in names]
    unusable = {engine.name for engine in engines if engine.problem}
    models = tuple(
        priced(spec, settings, room_of(_engine(spec), profile, cards), has_engine=_engine(spec) not in unusable)
        for spec in (*here, *planned)
    )
    return models, [
        *(
            Problem(f"{entry.name} is damaged: {entry.problem}", f"pensieve models rm {entry.name}, then pull it again")
            for entry in entries
            if entry.manifest is None
        ),
        *_wish_problems(registry, settings, models),
    ]


def priced(spec: ModelSpec, settings: Settings, room: Room, *, has_engine: bool = True) -> ModelFacts:
    """What a model takes at the context it would be loaded with, against the room there is."""
    engine = _engine(spec)
    context = context_tokens(spec, settings.model)
    predicted = predict(spec)
    work = predicted.scratch_bytes + predicted.process_bytes
    reserve = reserve_bytes(settings.memory, room.total_bytes)
    cost = Cost(predicted.fixed_bytes + reserve, predicted.bytes_per_token)
    return ModelFacts(
        name=spec.name,
        state="here" if spec.location else "available",
        engine=engine,
        fit=fit_of(cost, context, room) if has_engine else "no engine",
        context_tokens=context,
        max_context_tokens=cost.most_tokens(room.available_bytes or 0, spec.context_tokens or context),
        weight_bytes=spec.weight_bytes,
        cache_bytes=predicted.cache_bytes(context),
        is_cache_estimated=predicted.is_estimated,
        scratch_bytes=work,
        reserve_bytes=reserve,
        needed_bytes=cost.at(context),
        available_bytes=room.available_bytes,
        total_bytes=room.total_bytes,
    )


def _engine(spec: ModelSpec) -> EngineName:
    return "mlx" if spec.format == "mlx" else "llama.cpp"


def _wish_problems(registry: Registry, settings: Settings, models: tuple[ModelFacts, ...]) -> list[Problem]:
    """What stands between the person and the model of their settings."""
    name = settings.model.name
    try:
        spec = registry.find(name)
    except ModelNotFound as error:
        step = f"pensieve pull {error.what}" if error.is_known else "`pensieve models list` shows which are, and others"
        return [Problem(f"{name}, the model of the settings, is not here", step)]
    except PensieveError as error:
        return [
            Problem(f"{name}, the model of the settings, cannot be used: {error}", "choose another with PENSIEVE_MODEL")
        ]
    chosen = next((model for model in models if model.name == spec.name and model.state == "here"), None)
    match chosen.fit if chosen else "fits":
        case "too big":
            step = "choose a smaller one with PENSIEVE_MODEL"
            return [Problem(f"{name}, the model of the settings, is too big for this machine", step)]
        case "tight":
            most = chosen.max_context_tokens if chosen else 0
            step = (
                f"end other programs, or set model.context_tokens to {most} at most" if most else "end other programs"
            )
            return [Problem(f"{name}, the model of the settings, does not fit now with its whole context", step)]
        case "no engine":
            return [Problem(f"{name}, the model of the settings, has no engine here", "choose another model")]
        case _:
            return []


def _memory_problems(profile: MachineProfile) -> list[Problem]:
    memory = profile.memory
    match level_of(memory):
        case "Unknown":
            return [Problem("this machine's memory cannot be read", "watch it yourself: nothing is priced here")]
        case "Critical" | "Emergency":
            return [Problem(f"only {memory.available_gb} GB of memory are left", "end other programs")]
        case _:
            return []


def _engine_problems(
    profile: MachineProfile, cards: tuple[DeviceMemory, ...], engines: tuple[EngineFacts, ...]
) -> list[Problem]:
    llama, mlx = engines
    found = []
    if llama.problem:
        found.append(Problem(f"llama.cpp cannot be used: {llama.problem}", llama.next_step))
    if mlx.problem and mlx.version:
        found.append(Problem(f"MLX cannot be used: {mlx.problem}", mlx.next_step))
    elif mlx.problem and (cards or _is_apple(profile)):
        found.append(Problem("there is a GPU, and MLX, which would use it, is not installed", mlx.next_step))
    elif cards and profile.device == "cpu":
        found.append(Problem("there is an NVIDIA card, and MLX runs on the processor", _mlx_step(profile, cards)))
    return found


def _is_apple(profile: MachineProfile) -> bool:
    return profile.system.startswith("Darwin") and profile.architecture == "arm64"


def _mlx_step(profile: MachineProfile, cards: tuple[DeviceMemory, ...]) -> str:
    if _is_apple(profile):
        return "make setup"
    if not profile.system.startswith("Linux"):
        return "not on this system: MLX is there for Macs with Apple silicon and for Linux; GGUF models run without it"
    return f"make setup EXTRAS={'mlx-cuda' if cards else 'mlx-cpu'}"
