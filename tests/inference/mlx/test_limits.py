"""The limits MLX is given and the memory it may still take, from plain numbers; a processor keeps its own."""

from __future__ import annotations

import os

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.devices.profile import DeviceKind, MlxDevice
from pensieve.inference.mlx.limits import (
    GIB,
    MIB,
    Limits,
    Live,
    _applied,
    apply_limits,
    available_bytes,
    ceiling_bytes,
    plan_limits,
    prepare_environment,
    read_live,
    reserve_bytes,
)
from pensieve.inference.mlx.probe import read_device

METAL = MlxDevice(kind="metal", working_set_bytes=48 * GIB, total_bytes=64 * GIB)
CARD = MlxDevice(kind="cuda", working_set_bytes=80 * GIB, total_bytes=80 * GIB)
SIZES = st.integers(0, 2**40)


@pytest.mark.parametrize(
    ("device", "free_gib", "wired_gib", "ceiling_gib"),
    [
        (METAL, None, None, 48),
        (METAL, None, 0, 48),
        (METAL, None, 40, 40),
        (METAL, None, 60, 48),
        (CARD, None, None, 80),
        (CARD, 30, None, 40),
        (CARD, 79, 10, 80),
        (MlxDevice(kind="cpu"), None, None, 0),
    ],
)
def test_the_ceiling_is_what_the_system_allows(
    device: MlxDevice, free_gib: int | None, wired_gib: int | None, ceiling_gib: int
) -> None:
    """Recommended or set by the user on a Mac; what others leave of a card, whose own 10 GiB count as free."""
    ceiling = ceiling_bytes(
        device,
        free_bytes=None if free_gib is None else free_gib * GIB,
        active_bytes=10 * GIB,
        wired_limit_mib=None if wired_gib is None else wired_gib * 1024,
    )
    assert ceiling == ceiling_gib * GIB


@given(st.sampled_from(("metal", "cuda", "cpu")), SIZES, SIZES)
def test_spare_buffers_never_take_more_than_the_weights_leave(kind: DeviceKind, ceiling: int, weights: int) -> None:
    """At most a quarter of it and 12 GiB, unless that were less than 64 MiB."""
    plan = plan_limits(kind, ceiling=ceiling, weight_bytes=weights)
    slack = max(0, ceiling - weights)
    if plan.cache_bytes is not None:
        assert plan.cache_bytes <= min(slack, max(64 * MIB, slack // 4), 12 * GIB)
        assert plan.memory_bytes == ceiling
    assert (plan.wired_bytes is not None) == (kind == "metal" and ceiling > 0)
    assert kind != "cpu" or plan == Limits()


def test_a_processor_s_limits_are_left_alone() -> None:
    """Nothing is set, so MLX answers the next question for its old limit with its own."""
    before = mx.get_memory_limit()
    assert apply_limits(MlxDevice(kind="cpu"), weight_bytes=GIB) == Limits()
    assert mx.get_memory_limit() == before


def test_what_is_set_is_what_mlx_then_holds() -> None:
    """The limits of a plan arrive, and one that is refused is told with its reason."""
    before = mx.set_cache_limit(1), mx.get_memory_limit()
    try:
        assert _applied(Limits(None, 5 * MIB, 6 * GIB)) == Limits(None, 5 * MIB, 6 * GIB)
        assert (mx.set_cache_limit(before[0]), mx.get_memory_limit()) == (5 * MIB, 6 * GIB)
    finally:
        mx.set_cache_limit(before[0])
        mx.set_memory_limit(before[1])


@pytest.mark.parametrize(
    ("live", "left_gib"),
    [
        (Live(kind="cpu", active_bytes=9 * GIB, pooled_bytes=GIB, host_available_bytes=5 * GIB), 6),
        (Live(kind="cpu", active_bytes=0, pooled_bytes=0), 0),
        (Live(kind="metal", active_bytes=8 * GIB, pooled_bytes=GIB, working_set_bytes=48 * GIB), 40),
        (
            Live(
                kind="metal",
                active_bytes=8 * GIB,
                pooled_bytes=GIB,
                working_set_bytes=48 * GIB,
                host_available_bytes=20 * GIB,
            ),
            21,
        ),
        (Live(kind="cuda", active_bytes=8 * GIB, pooled_bytes=GIB, working_set_bytes=80 * GIB), 72),
        (Live(kind="cuda", active_bytes=8 * GIB, pooled_bytes=GIB, device_free_bytes=3 * GIB), 4),
        (
            Live(kind="cuda", active_bytes=0, pooled_bytes=0, device_free_bytes=70 * GIB, host_available_bytes=MIB),
            0,
        ),
        (Live(kind="metal", active_bytes=9 * GIB, pooled_bytes=0, working_set_bytes=8 * GIB), 0),
    ],
)
def test_what_may_still_be_allocated(live: Live, left_gib: int) -> None:
    """The machine's on a processor, the card's, or the working set's; spare buffers are taken first; never below 0."""
    assert available_bytes(live) == left_gib * GIB


def test_this_device_is_read_live() -> None:
    """Where tests run there is memory left, and an array shows up in the reading."""
    device = read_device()
    before = read_live(device)
    array = mx.ones((MIB,))
    mx.eval(array)
    assert read_live(device).active_bytes >= before.active_bytes + 4 * MIB
    assert available_bytes(before) > 0


def test_the_reserve_is_bounded() -> None:
    """A twentieth between 256 MiB and 4 GiB."""
    assert [reserve_bytes(gib * GIB) for gib in (1, 20, 640)] == [256 * MIB, GIB, 4 * GIB]


def test_the_environment_keeps_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """And gets what MLX needs to serve prompts of all lengths."""
    monkeypatch.setenv("MLX_CUDA_SDPA_CACHE_SIZE", "7")
    monkeypatch.setenv("MLX_ENABLE_CACHE_THRASHING_CHECK", "")
    monkeypatch.delenv("MLX_ENABLE_CACHE_THRASHING_CHECK")
    prepare_environment()
    assert os.environ["MLX_CUDA_SDPA_CACHE_SIZE"] == "7"
    assert os.environ["MLX_ENABLE_CACHE_THRASHING_CHECK"] == "0"
