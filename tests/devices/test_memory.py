"""How much memory is left, read from the kernel's own words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve.devices.memory import MemoryReader, MemoryReading, read_memory

MEMINFO = "MemTotal:       16384000 kB\nMemFree:  1 kB\nMemAvailable:    7939453 kB\n"
V2 = ("memory.max", "memory.current", "inactive_file", "active_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")


class Machine:
    """A root folder with the kernel's files in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: list[MemoryReader] = []

    def write(self, path: str, text: str) -> None:
        """One of the kernel's files."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def limit(self, folder: str, names: tuple[str, str, str, str], limit: str, usage: int, files: int) -> None:
        """A cgroup's files; `files` bytes of file pages are inactive, and as many active."""
        self.write(f"{folder}/{names[0]}", f"{limit}\n")
        self.write(f"{folder}/{names[1]}", f"{usage}\n")
        self.write(f"{folder}/memory.stat", f"anon 5\nfile 99\n{names[2]} {files}\n{names[3]} {files}\nslab 7\n")

    def read(self) -> MemoryReading:
        """What a fresh reader says."""
        self.opened.append(MemoryReader(self.root))
        return self.opened[-1].read()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """16.8 GB of memory, 8.13 of it available, in no cgroup."""
    made = Machine(tmp_path)
    made.write("proc/meminfo", MEMINFO)
    yield made
    for reader in made.opened:
        reader.close()


def test_meminfo_is_read_in_kibibytes(machine: Machine) -> None:
    """The kernel writes kB and means 1,024 bytes."""
    reading = machine.read()
    assert reading == MemoryReading(7939453 * 1024, 16384000 * 1024)
    assert reading.available_gb == "8.13"


@pytest.mark.parametrize("content", ["", "MemFree: 1 kB\n", "MemAvailable:\n", "MemAvailable: lots\n", None])
def test_a_machine_that_cannot_be_read_is_unknown(machine: Machine, content: str | None) -> None:
    """Rather than safe or full."""
    if content is None:
        (machine.root / "proc/meminfo").unlink()
    else:
        machine.write("proc/meminfo", content)
    reading = machine.read()
    assert (reading.available_bytes, reading.available_gb) == (None, "unknown")


@pytest.mark.parametrize(
    ("membership", "folder", "names"),
    [
        ("0::/shop/worker\n", "sys/fs/cgroup/shop/worker", V2),
        ("5:cpu:/\n4:memory:/shop/worker\n0::/\n", "sys/fs/cgroup/memory/shop/worker", V1),
        ("4:hugetlb,memory:/shop\n", "sys/fs/cgroup/memory", V1),
    ],
)
def test_a_cgroup_leaves_its_limit_less_what_cannot_be_taken_back(
    machine: Machine, membership: str, folder: str, names: tuple[str, str, str, str]
) -> None:
    """File pages count as used and are not lost: a mapped model of 3 GB in a limit of 4 leaves more than 1."""
    machine.write("proc/self/cgroup", membership)
    machine.limit(folder, names, "4000000000", usage=3_500_000_000, files=1_500_000_000)
    assert machine.read() == MemoryReading(3_500_000_000, 4_000_000_000, str(machine.root / folder))


def test_the_tightest_cgroup_above_counts(machine: Machine) -> None:
    """Every limit on the way to the root holds, in whatever order they come."""
    machine.write("proc/self/cgroup", "0::/a/b/c\n")
    machine.limit("sys/fs/cgroup/a/b/c", V2, "max", usage=1, files=0)
    machine.limit("sys/fs/cgroup/a/b", V2, "2000000000", usage=1_200_000_000, files=0)
    machine.limit("sys/fs/cgroup/a", V2, "6000000000", usage=5_900_000_000, files=0)
    assert machine.read() == MemoryReading(100_000_000, 2_000_000_000, str(machine.root / "sys/fs/cgroup/a"))


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "nonsense", ""])
def test_a_limit_that_limits_nothing_is_passed_over(machine: Machine, limit: str) -> None:
    """No limit, one above the machine's memory, one that cannot be read: the machine's own numbers stand."""
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("sys/fs/cgroup", V2, limit, usage=10**9, files=0)
    assert machine.read() == MemoryReading(7939453 * 1024, 16384000 * 1024)


def test_a_limit_above_what_the_machine_has_left_changes_only_the_total(machine: Machine) -> None:
    """The machine is shorter of memory than the cgroup."""
    machine.write("proc/self/cgroup", "0::/../..\n")
    machine.limit("sys/fs/cgroup", V2, "10000000000", usage=0, files=0)
    assert machine.read() == MemoryReading(7939453 * 1024, 10_000_000_000)


def test_a_reader_follows_what_changes(machine: Machine) -> None:
    """Its files stay open and are read anew each time; a number that got shorter leaves nothing behind."""
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("sys/fs/cgroup", V2, "4000000000", usage=3_000_000_000, files=0)
    assert machine.read().available_bytes == 1_000_000_000
    machine.write("sys/fs/cgroup/memory.current", "5\n")
    assert machine.opened[0].read().available_bytes == 3_999_999_995


def test_what_changes_slowly_is_read_once_a_second(machine: Machine) -> None:
    """A limit that binds is followed at once; one that is set where there was none is felt a second later."""
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("sys/fs/cgroup", V2, "max", usage=1_000_000_000, files=0)
    now = [100.0]
    reader = MemoryReader(machine.root, lambda: now[0])
    machine.opened.append(reader)
    told = []
    for seconds, limit in ((100.0, "max"), (100.9, "4000000000"), (101.0, "4000000000"), (101.1, "3000000000")):
        now[0] = seconds
        machine.write("sys/fs/cgroup/memory.max", limit)
        told.append(reader.read().available_bytes)
    assert told == [7939453 * 1024, 7939453 * 1024, 3_000_000_000, 2_000_000_000]


def test_pages_of_files_are_counted_only_where_they_matter(machine: Machine) -> None:
    """With more left than the machine has, the long file is not read; with less, it is."""
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("sys/fs/cgroup", V2, "12000000000", usage=3_000_000_000, files=0)
    (machine.root / "sys/fs/cgroup/memory.stat").write_text("active_file 500000000\n")
    assert machine.read().available_bytes == 7939453 * 1024
    machine.write("sys/fs/cgroup/memory.current", "11000000000\n")
    assert machine.opened[0].read().available_bytes == 1_500_000_000


def test_use_above_the_limit_leaves_nothing(machine: Machine) -> None:
    """Never less than nothing."""
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("sys/fs/cgroup", V2, "1000", usage=5000, files=0)
    assert machine.read().available_bytes == 0
    assert machine.opened[0].read().available_bytes == 0


def test_swap_that_is_used_is_told(machine: Machine) -> None:
    """In bytes; where the kernel does not speak of swap, nothing is claimed."""
    assert machine.read().swap_used_bytes is None
    machine.write("proc/meminfo", MEMINFO + "SwapTotal: 2000 kB\nSwapFree: 500 kB\n")
    reading = machine.read()
    assert (reading.swap_used_bytes, reading.swap_total_bytes) == (1500 * 1024, 2000 * 1024)


PRESSURE = "some avg10=9.00 avg60=1.00 avg300=0.00 total=1\nfull avg10={} avg60=1.00 avg300=0.00 total=1\n"


def test_stalls_are_the_cgroup_s_own_where_it_counts_them(machine: Machine) -> None:
    """Else the machine's; a kernel that counts none, or writes otherwise, says nothing."""
    machine.write("proc/self/cgroup", "0::/a\n")
    machine.limit("sys/fs/cgroup/a", V2, "max", usage=1, files=0)
    assert machine.read().stalled_percent is None
    machine.write("proc/pressure/memory", PRESSURE.format("12.50"))
    assert machine.read().stalled_percent == 12.5
    machine.write("sys/fs/cgroup/a/memory.pressure", PRESSURE.format("3.25"))
    assert machine.read().stalled_percent == 3.25
    machine.write("sys/fs/cgroup/a/memory.pressure", PRESSURE.format("much"))
    assert machine.read().stalled_percent is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux was tried")
def test_this_machine_can_be_read() -> None:
    """With plausible numbers."""
    reading = read_memory()
    assert reading.available_bytes is not None
    assert reading.total_bytes is not None
    assert 10**6 < reading.available_bytes <= reading.total_bytes


@pytest.mark.parametrize(("hard", "soft"), [("max", "3000000000"), ("4000000000", "3000000000"), ("3000000000", "max")])
def test_a_soft_limit_of_a_cgroup_counts_as_one(machine: Machine, hard: str, soft: str) -> None:
    """Above `memory.high` the kernel slows a process down until it hardly runs: that is no memory to be had."""
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("sys/fs/cgroup", V2, hard, usage=1_000_000_000, files=0)
    machine.write("sys/fs/cgroup/memory.high", soft)
    reading = machine.read()
    assert (reading.available_bytes, reading.total_bytes) == (2_000_000_000, 3_000_000_000)
