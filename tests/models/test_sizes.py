"""Bytes in words: powers of ten, and never a thousand of a unit."""

from __future__ import annotations

import pytest

from pensieve.models.sizes import gigabytes, in_words


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (98_400_000, "98.4 MB"),
        (999_999_999, "1.00 GB"),
        (2_150_000_000, "2.15 GB"),
        (2**40, "1099.51 GB"),
    ],
)
def test_a_size_has_the_unit_that_fits(num_bytes: int, words: str) -> None:
    """As downloads and disks are told."""
    assert in_words(num_bytes) == words


def test_sizes_that_are_compared_have_one_unit() -> None:
    """A tenth of a gigabyte stays one."""
    assert (gigabytes(20_000_000), gigabytes(8 * 10**9)) == ("0.02 GB", "8.00 GB")
