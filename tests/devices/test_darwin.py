"""What is made of a Mac's own numbers, on any machine."""

from __future__ import annotations

import sys

import pytest

from pensieve.devices import darwin

PAGE_BYTES = 16_384
TOTAL_BYTES = 16 * 2**30
TOTAL_PAGES = TOTAL_BYTES // PAGE_BYTES


def statistics(free: int, active: int, inactive: int, wired: int, compressor: int = 0, speculative: int = 0) -> bytes:
    """The structure the kernel fills, with these numbers of pages."""
    counters = [0] * 9
    purgeable = 77
    return darwin.VM_STATISTICS.pack(
        *(free, active, inactive, wired, *counters, purgeable, speculative, *([0] * 4), compressor, 0, 0, 0, 0)
    )


def test_free_and_inactive_pages_can_be_had() -> None:
    """A quarter each: half of the machine. Speculative pages are among the free ones."""
    quarter = TOTAL_PAGES // 4
    raw = statistics(quarter, quarter, quarter, quarter // 2, compressor=quarter // 2, speculative=quarter)
    assert darwin.available_of(raw, page_bytes=PAGE_BYTES, total_bytes=TOTAL_BYTES) == TOTAL_BYTES // 2


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


@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_this_mac_can_be_read() -> None:
    """With plausible numbers."""
    total, available = darwin.total_bytes(), darwin.available_bytes()
    assert total is not None
    assert available is not None
    assert 10**8 < available < total
