"""How much memory MLX may hold on to, and how much is left for requests: rules over numbers, and one act for each.

The rules are pure; `apply_limits` and `read_live` are all that touch MLX. What a platform lacks is not set there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import mlx.core as mx
import msgspec

from pensieve.devices import cuda, darwin
from pensieve.devices.processes import read_own_memory
from pensieve.devices.profile import DeviceKind, MlxDevice

MIB = 2**20
GIB = 2**30

CUDA_ENVIRONMENT = {
    # MLX counts the attention plans it ever built, one for each new shape of a prompt, and raises once there are twice
    # as many as its cache holds: a server that reads prompts of all lengths would fail after some hundreds of them.
    "MLX_ENABLE_CACHE_THRASHING_CHECK": "0",
    "MLX_CUDA_SDPA_CACHE_SIZE": "1024",
}

HOST_FLOOR_BYTES = 512 * MIB
"""With less than this the machine itself is in need, whatever a graphics card has free."""


class Limits(msgspec.Struct, frozen=True):
    """What MLX is told, in bytes; None: left as it is."""

    wired_bytes: int | None = None
    cache_bytes: int | None = None
    memory_bytes: int | None = None
    problem: str = ""
    """Why a limit could not be set."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The memory now, in bytes; None where nobody says."""

    kind: DeviceKind
    active_bytes: int
    """Arrays that MLX holds."""
    pooled_bytes: int
    """Buffers that MLX keeps for its next arrays."""
    working_set_bytes: int = 0
    device_free_bytes: int | None = None
    host_available_bytes: int | None = None


def prepare_environment() -> None:
    """Set what MLX reads from the environment; call before its first computation. A user's own values stay."""
    for name, value in CUDA_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def ceiling_bytes(device: MlxDevice, *, free_bytes: int | None, active_bytes: int, wired_limit_mib: int | None) -> int:
    """All that MLX may use on a GPU: what the system recommends or allows, less what others took of a card."""
    if device.kind == "metal" and wired_limit_mib:
        return min(device.working_set_bytes or sys.maxsize, wired_limit_mib * MIB)
    if device.kind == "cuda" and free_bytes is not None:
        return min(device.working_set_bytes or sys.maxsize, free_bytes + active_bytes)
    return device.working_set_bytes


def plan_limits(kind: DeviceKind, *, ceiling: int, weight_bytes: int) -> Limits:
    """The limits under a ceiling in bytes: everything wired on Metal, and a quarter of the slack for spare buffers.

    MLX's spare buffers look free to it and taken to everyone else, so they get 64 MiB to 12 GiB, never more than the
    slack that the weights leave. On a processor MLX's own small bound stands.
    """
    if kind == "cpu" or ceiling <= 0:
        return Limits()
    slack = max(0, ceiling - weight_bytes)
    pooled = min(slack, max(64 * MIB, min(slack // 4, 12 * GIB)))
    return Limits(wired_bytes=ceiling if kind == "metal" else None, cache_bytes=pooled, memory_bytes=ceiling)


def apply_limits(device: MlxDevice, *, weight_bytes: int) -> Limits:
    """Tell MLX its limits and return what was set, for the log. Call on the engine thread once weights are loaded."""
    live = read_live(device)
    wired_limit_mib = darwin.sysctl_number("iogpu.wired_limit_mb") if device.kind == "metal" else None
    ceiling = ceiling_bytes(
        device,
        free_bytes=live.device_free_bytes,
        active_bytes=live.active_bytes + live.pooled_bytes,
        wired_limit_mib=wired_limit_mib,
    )
    return _applied(plan_limits(device.kind, ceiling=ceiling, weight_bytes=weight_bytes))


def read_live(device: MlxDevice) -> Live:
    """The memory now. For the engine thread; takes microseconds, some more with a graphics card."""
    return Live(
        kind=device.kind,
        active_bytes=int(mx.get_active_memory()),
        pooled_bytes=int(mx.get_cache_memory()),
        working_set_bytes=device.working_set_bytes,
        device_free_bytes=_card_free_bytes(device) if device.kind == "cuda" else None,
        host_available_bytes=read_own_memory().available_bytes,
    )


def available_bytes(live: Live) -> int:
    """What MLX may still allocate; spare buffers count as free, since it takes them first."""
    host = live.host_available_bytes
    match live.kind:
        case "cuda":
            if host is not None and host < HOST_FLOOR_BYTES:
                return 0
            own = live.active_bytes + live.pooled_bytes
            free = live.working_set_bytes - own if live.device_free_bytes is None else live.device_free_bytes
            return max(0, free + live.pooled_bytes)
        case "metal":
            left = max(0, live.working_set_bytes - live.active_bytes)
            # One memory for processor and GPU: what other programs hold is missing here, too.
            return left if host is None else min(left, host + live.pooled_bytes)
        case _:
            return (host or 0) + live.pooled_bytes


def reserve_bytes(total_bytes: int) -> int:
    """What is never given to requests: a twentieth of the device's or machine's memory, 256 MiB to 4 GiB."""
    return max(256 * MIB, min(total_bytes // 20, 4 * GIB))


def _applied(plan: Limits) -> Limits:
    problems: list[str] = []
    wired = _set("wired", getattr(mx, "set_wired_limit", None), plan.wired_bytes, problems)
    pooled = _set("cache", getattr(mx, "set_cache_limit", None), plan.cache_bytes, problems)
    memory = _set("memory", getattr(mx, "set_memory_limit", None), plan.memory_bytes, problems)
    return Limits(wired, pooled, memory, "; ".join(problems))


def _set(what: str, call: Callable[[int], int] | None, num_bytes: int | None, problems: list[str]) -> int | None:
    if call is None or num_bytes is None:
        return None
    try:
        call(num_bytes)
    except (RuntimeError, ValueError) as error:
        problems.append(f"the {what} limit of {num_bytes} bytes was not taken: {error}")
        return None
    return num_bytes


def _card_free_bytes(device: MlxDevice) -> int | None:
    card = cuda.read_device(device.uuid)
    return None if card is None else card.free_bytes
