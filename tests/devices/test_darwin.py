"""What is made of a Mac's own numbers, on any machine."""

from __future__ import annotations

import sys

import pytest

from pensieve.devices import darwin

PAGE_BYTES = 16_384
TOTAL_BYTES = 16 * 2**30
TOTAL_PAGES = TOTAL_BYTES // PAGE_BYTES


def statistics(
    free: int, active: int, inactive: int, wired: int, compressor: int = 0, speculative: int = 0, purgeable: int = 77
) -> bytes:
    """The structure the kernel fills, with these numbers of pages."""
    counters = [0] * 9
    return darwin.VM_STATISTICS.pack(
        *(free, active, inactive, wired, *counters, purgeable, speculative, *([0] * 4), compressor, 0, 0, 0, 0)
    )


def test_free_and_inactive_pages_can_be_had() -> None:
    """A quarter each: half of the machine. Speculative pages are among the free ones."""
    quarter = TOTAL_PAGES // 4
    raw = statistics(quarter, quarter, quarter, quarter // 2, compressor=quarter // 2, speculative=quarter)
    assert darwin.available_of(raw, page_bytes=PAGE_BYTES, total_bytes=TOTAL_BYTES) == TOTAL_BYTES // 2


@pytest.mark.parametrize(
    ("purgeable", "expected_quarters"), [(1, 2), (TOTAL_PAGES // 4, 2), (TOTAL_PAGES * 3 // 8, 2.5)]
)
def test_purgeable_pages_count_once(purgeable: int, expected_quarters: float) -> None:
    """They may all be inactive ones already: only what is more than those is added."""
    quarter = TOTAL_PAGES // 4
    raw = statistics(quarter, quarter, quarter, quarter, purgeable=purgeable)
    available = darwin.available_of(raw, page_bytes=PAGE_BYTES, total_bytes=TOTAL_BYTES)
    assert available == expected_quarters * TOTAL_BYTES / 4


def test_more_purgeable_pages_than_pageable_ones_are_no_answer() -> None:
    """They lie in the active and inactive queues: the structure was read wrongly then."""
    quarter = TOTAL_PAGES // 4
    raw = statistics(quarter, quarter, quarter, quarter, purgeable=2 * quarter + 1)
    assert darwin.available_of(raw, page_bytes=PAGE_BYTES, total_bytes=TOTAL_BYTES) is None


def test_the_footprint_is_the_eighth_counter() -> None:
    """After the UUID; the structure has the size of the header's."""
    counters = list(range(1, 36))
    assert darwin.footprint_of(darwin.RUSAGE.pack(b"u" * 16, *counters)) == 8
    assert darwin.RUSAGE.size == 16 + 35 * 8


def test_swap_is_read_from_its_structure() -> None:
    """Another size, or more used than there is, is no answer."""
    raw = darwin.SWAP_USAGE.pack(4 * 2**30, 3 * 2**30, 2**30, PAGE_BYTES, 1)
    assert darwin.swap_of(raw) == darwin.SwapUsage(4 * 2**30, 2**30)
    assert darwin.swap_of(raw[:-4]) is None
    assert darwin.swap_of(darwin.SWAP_USAGE.pack(1, 0, 2, PAGE_BYTES, 1)) is None


@pytest.mark.parametrize(
    ("limit_mib", "total_gib", "expected_gib"),
    [(None, 24, 16), (0, 24, 16), (None, 64, 48), (20 * 1024, 24, 20), (90 * 1024, 24, 24)],
)
def test_the_wired_limit_is_the_user_s_or_the_system_s(
    limit_mib: int | None, total_gib: int, expected_gib: int
) -> None:
    """A limit above the memory there is cannot hold."""
    assert darwin.wired_limit_of(limit_mib, total_gib * 2**30) == expected_gib * 2**30


@pytest.mark.parametrize("pages", [TOTAL_PAGES // 16, TOTAL_PAGES])
def test_pages_that_do_not_add_up_are_no_answer(pages: int) -> None:
    """The structure was read wrongly then: a quarter of the machine is missing, or four machines are there."""
    raw = statistics(pages, pages, pages, pages)
    assert darwin.available_of(raw, page_bytes=PAGE_BYTES, total_bytes=TOTAL_BYTES) is None


def test_the_structure_has_the_kernel_s_size() -> None:
    """38 words of 4 bytes, the count the kernel is asked for."""
    assert darwin.VM_STATISTICS.size == 38 * 4


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has them")
def test_elsewhere_nothing_is_known() -> None:
    """The C library of another system is asked for names it does not have, and nothing breaks."""
    assert darwin.total_bytes() is None
    assert darwin.available_bytes() is None
    assert darwin.sysctl_text("machdep.cpu.brand_string") == ""
    assert (darwin.swap_bytes(), darwin.pressure_level(), darwin.footprint_bytes(1)) == (None, 0, None)


@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_this_mac_can_be_read() -> None:
    """With plausible numbers."""
    total, available = darwin.total_bytes(), darwin.available_bytes()
    assert total is not None
    assert available is not None
    assert 10**8 < available < total
