"""The disk tier in a real folder, with plain bytes: restarts, damage, full disks, killed writers."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.mlx.disk_format import BrokenFile, Label, Tensor, decode, encode
from pensieve.inference.mlx.disk_plan import Speeds
from pensieve.inference.mlx.disk_tier import DiskTier

MIB = 2**20
ROOT = b"r" * 16


def tier(root: Path, *, fingerprint: str = "model", budget_bytes: int = 64 * MIB, min_free_bytes: int = 0) -> DiskTier:
    """A tier whose machine computes slowly."""
    disk = DiskTier(root, fingerprint=fingerprint, budget_bytes=budget_bytes, min_free_bytes=min_free_bytes)
    disk.wait(10)
    disk.speeds.note_prefill(100, 10.0)
    return disk


def digests(*names: str) -> list[bytes]:
    """One digest for each name."""
    return [name.encode().ljust(16) for name in names]


def tensor(num_bytes: int = 1024) -> Tensor:
    """So many bytes."""
    return Tensor("U8", (num_bytes,), bytes(index % 251 for index in range(num_bytes)))


def write(disk: DiskTier, parent: bytes, names: Sequence[str], *, num_bytes: int = 1024) -> bool:
    """Write a run of blocks, and wait for it."""
    is_begun = disk.write_blocks(parent, digests(*names), [tensor(num_bytes), None, tensor(3)])
    disk.wait(10)
    disk.check_integrity()
    return is_begun


def files(root: Path) -> list[Path]:
    """All files below, whatever they are."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_file_is_found_again_after_a_restart(tmp_path: Path) -> None:
    """With its tensors, its place in the prompt, and the speed of the machine."""
    first = tier(tmp_path)
    assert write(first, ROOT, "ab")
    first.close()
    disk = DiskTier(tmp_path, fingerprint="model", budget_bytes=MIB)
    reading = disk.index.plan(digests("a", "b", "c"), disk.speeds, num_held=1, num_usable=1, is_trimmable=True)
    assert (reading.end, reading.pieces[0].offset) == (2, 1)
    content = disk.read(reading.pieces[0].file)
    assert content is not None
    assert bytes(content[1]["0"].data) == tensor().data
    assert sorted(content[1]) == ["0", "2"]
    assert disk.stats().prefill_tokens_per_second == 10
    disk.wait(10)
    assert disk.stats().read_bytes_per_second > 0
    disk.close()


@pytest.mark.parametrize("place", [0, 3, 9, 40, 150, -700, -1])
def test_any_flipped_byte_is_a_miss(tmp_path: Path, place: int) -> None:
    """In the length, the header or the data: the file goes, is counted, and nothing is raised."""
    first = tier(tmp_path)
    write(first, ROOT, "ab")
    first.close()
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    disk = tier(tmp_path)
    assert [disk.read(file) for file in set(disk.index.blocks.values())] in ([], [None])
    assert disk.stats().num_corrupt == 1
    assert files(tmp_path) == []
    disk.check_integrity()


@pytest.mark.parametrize("num_bytes", [0, 7, 8, 100, 900, 1500])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_truncated_file_is_a_miss(tmp_path: Path, num_bytes: int, is_open: bool) -> None:
    """Whether it was cut while the tier was open or before."""
    first = tier(tmp_path)
    write(first, ROOT, "ab")
    os.truncate(files(tmp_path)[0], num_bytes)
    disk = first if is_open else tier(tmp_path)
    found = disk.index.blocks.get(digests("a")[0])
    assert found is None or disk.read(found) is None
    assert disk.stats().num_corrupt == 1
    assert files(tmp_path) == []


def test_another_model_another_version_and_another_name_are_misses(tmp_path: Path) -> None:
    """A file of ours that does not belong where it lies is deleted; one that is not ours by name is left alone."""
    first = tier(tmp_path)
    write(first, ROOT, "ab")
    (path,) = files(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"model", b"medal"))
    other = path.with_name("0" * 32 + "-02.safetensors")
    other.write_bytes(good)
    third = path.with_name("1" * 32 + "-02.safetensors")
    third.write_bytes(good.replace(b'version\\":1', b'version\\":2'))
    path.with_name("notes.txt").write_text("mine")
    disk = tier(tmp_path)
    assert disk.stats().num_corrupt == 3
    assert [left.name for left in files(tmp_path)] == ["notes.txt"]


def test_each_fingerprint_has_its_own_folder(tmp_path: Path) -> None:
    """Two models under one root leave each other's files alone, whatever their fingerprints are made of."""
    first, second = tier(tmp_path, fingerprint="../a"), tier(tmp_path, fingerprint="../b")
    write(first, ROOT, "ab")
    write(second, ROOT, "ab")
    assert len(files(tmp_path)) == 2
    assert tier(tmp_path, fingerprint="../a").stats().num_corrupt == 0


@given(st.binary(max_size=300))
def test_hostile_bytes_are_one_error(content: bytes) -> None:
    """Whatever a file holds, reading it ends in BrokenFile."""
    with pytest.raises(BrokenFile):
        decode(memoryview(content), fingerprint="model")
    with pytest.raises(BrokenFile):
        decode(memoryview(struct.pack("<Q", len(content)) + content), fingerprint="model")


@pytest.mark.parametrize(
    "places",
    [
        {"0": {"dtype": "F99", "shape": [4], "data_offsets": [0, 4]}},
        {"0": {"dtype": "U8", "shape": [4], "data_offsets": [0, 5]}},
        {"0": {"dtype": "U8", "shape": [-4], "data_offsets": [0, -4]}},
        {"0": {"dtype": "U8", "shape": [2**40, 0], "data_offsets": [0, 0]}},
        {"0": {"dtype": "U8", "shape": [1] * 99, "data_offsets": [0, 1]}},
        {"0": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}},
        {str(place): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for place in range(9000)},
    ],
)
def test_hostile_headers_are_one_error(places: dict[str, object]) -> None:
    """Arrays that overlap, count below nothing or claim more than there is."""
    label = Label(version=1, fingerprint="model", parent="", digests=())
    metadata = {"label": msgspec.json.encode(label).decode(), "checksum": "00000000"}
    header = msgspec.json.encode({"__metadata__": metadata} | places)
    with pytest.raises(BrokenFile):
        decode(memoryview(struct.pack("<Q", len(header)) + header + bytes(8)), fingerprint="model")


@given(st.lists(st.binary(max_size=40), max_size=5), st.text(max_size=20))
def test_files_come_back_as_they_were_written(contents: list[bytes], tree: str) -> None:
    """Encode and decode are each other's inverse, empty arrays included."""
    label = Label(version=1, fingerprint="model", parent="ab", digests=("cd",), tree=tree)
    tensors = [(str(place), Tensor("U8", (len(data),), data)) for place, data in enumerate(contents)]
    found_label, found = decode(memoryview(b"".join(encode(label, tensors))), fingerprint="model")
    assert found_label == label
    assert [(name, bytes(item.data)) for name, item in found.items()] == [(n, t.data) for n, t in tensors]


def test_the_budget_holds_and_what_others_hang_on_goes_last(tmp_path: Path) -> None:
    """The oldest file without followers is deleted first, also when its order comes from an earlier run."""
    first = tier(tmp_path, budget_bytes=8_000)
    write(first, ROOT, "a", num_bytes=2000)
    write(first, digests("a")[0], "b", num_bytes=2000)
    write(first, ROOT, "x", num_bytes=2000)
    first.close()
    disk = tier(tmp_path, budget_bytes=8_000)
    write(disk, digests("x")[0], "y", num_bytes=2000)
    assert [disk.has_block(digest) for digest in digests("a", "b", "x", "y")] == [True, False, True, True]
    write(disk, digests("y")[0], "z", num_bytes=2000)
    assert [disk.has_block(digest) for digest in digests("a", "x", "y", "z")] == [False, True, True, True]
    assert sum(path.stat().st_size for path in files(tmp_path)) == disk.stats().num_bytes <= 8_000


def test_a_file_that_cannot_fit_costs_nothing(tmp_path: Path) -> None:
    """Nor does one that would fit only in place of what it hangs on."""
    disk = tier(tmp_path, budget_bytes=5_000)
    write(disk, ROOT, "a", num_bytes=2000)
    assert not write(disk, ROOT, "x", num_bytes=9000)
    assert not write(disk, digests("a")[0], "b", num_bytes=3000)
    assert disk.has_block(digests("a")[0])
    assert disk.stats().evicted_bytes == 0


def test_a_smaller_budget_at_the_next_start_deletes_the_rest(tmp_path: Path) -> None:
    """A budget of nothing turns the tier off without touching files."""
    first = tier(tmp_path)
    for name in "abcd":
        write(first, ROOT, name, num_bytes=2000)
    first.close()
    assert tier(tmp_path, budget_bytes=6_000).stats().num_files == 2
    off = tier(tmp_path, budget_bytes=0)
    assert not off.can_write
    assert len(files(tmp_path)) == 2


def test_what_must_stay_free_on_the_disk_stays_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written then for a while, and that is said once."""
    disk = tier(tmp_path, min_free_bytes=2**62)
    assert not write(disk, ROOT, "a")
    assert not disk.can_write
    assert files(tmp_path) == []
    assert len(caplog.records) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_stops_the_writing_for_a_while(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The half-written file goes, one line is logged, what was there serves on, and later writing goes on."""
    disk = DiskTier(small_disk, fingerprint="model", budget_bytes=64 * MIB, min_free_bytes=-64 * MIB, pause_seconds=0.2)
    write(disk, ROOT, "a", num_bytes=1000)
    write(disk, ROOT, "b", num_bytes=2 * MIB)
    assert (disk.stats().num_failed_writes, len(files(small_disk))) == (1, 1)
    assert [disk.can_write, len(caplog.records)] == [False, 1]
    assert "No space left" in caplog.text
    assert disk.read(disk.index.blocks[digests("a")[0]]) is not None
    while not disk.can_write:
        time.sleep(0.01)
    assert write(disk, ROOT, "c", num_bytes=1000)
    assert disk.has_block(digests("c")[0])
    disk.close()


WRITER = """
import sys
import time
from pathlib import Path
from pensieve.inference.mlx.disk_tier import DiskTier
from pensieve.inference.mlx.disk_format import Tensor
disk = DiskTier(Path(sys.argv[1]), fingerprint="model", budget_bytes=2**40, min_free_bytes=0)
data = bytes(2**20)
for index in range(10_000):
    disk.write_blocks(b"r" * 16, [index.to_bytes(16, "big")], [Tensor("U8", (len(data),), data)] * 8)
    disk.wait(10)
    print(index, flush=True)
"""


@pytest.mark.parametrize("num_lines", [1, 3])
def test_a_killed_writer_leaves_whole_files_only(tmp_path: Path, num_lines: int) -> None:
    """After kill -9 the next start finds the finished files, all in order, and sweeps up the one that was not."""
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(num_lines):
            child.stdout.readline()
        child.kill()
    (tmp_path / "model" / "left.safetensors.1.part").write_bytes(b"torn")
    disk = tier(tmp_path)
    assert disk.stats().num_files >= num_lines
    assert all(disk.read(file) for file in list(disk.index.blocks.values()))
    assert disk.stats().num_corrupt == 0
    assert not [path for path in files(tmp_path) if path.suffix == ".part"]
    disk.close()


def test_a_second_process_leaves_a_file_under_way_alone(tmp_path: Path) -> None:
    """Its lock tells it from litter."""
    first = tier(tmp_path)
    busy = tmp_path / "model" / "x.safetensors.1.part"
    with busy.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        tier(tmp_path)
        assert busy.exists()
    tier(tmp_path)
    assert not busy.exists()
    first.close()


def test_folders_of_models_long_unused_go(tmp_path: Path) -> None:
    """Only ours, only files of ours, and only after a month without a use."""
    for name in ("recent", "stale", "mixed"):
        disk = tier(tmp_path, fingerprint=name)
        write(disk, ROOT, "ab")
        disk.close()
    (tmp_path / "mixed" / "notes.txt").write_text("mine")
    for name in ("stale", "mixed"):
        os.utime(tmp_path / name, (1e9, 1e9))
    os.utime(tmp_path, (1e9, 1e9))
    tier(tmp_path, fingerprint="new").close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed", "new", "recent"]
    assert [path.name for path in (tmp_path / "mixed").iterdir()] == ["notes.txt"]
    assert len(list((tmp_path / "recent").iterdir())) == 1


def test_two_tiers_over_one_folder_share_and_tolerate(tmp_path: Path) -> None:
    """The same file written twice is one file; a file the other deleted is a miss and no corruption."""
    first, second = tier(tmp_path), tier(tmp_path)
    write(first, ROOT, "ab")
    write(second, ROOT, "ab")
    assert len(files(tmp_path)) == 1
    files(tmp_path)[0].unlink()
    for disk in (first, second):
        assert disk.read(disk.index.blocks[digests("a")[0]]) is None
        assert not disk.has_block(digests("a")[0])
        assert disk.stats().num_corrupt == 0
        disk.check_integrity()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """They hold what people said."""
    disk = tier(tmp_path)
    write(disk, ROOT, "ab")
    (path,) = files(tmp_path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_folder_that_cannot_be_made_turns_the_tier_off(tmp_path: Path) -> None:
    """One line in the log, no error."""
    (tmp_path / "file").write_text("")
    disk = tier(tmp_path / "file")
    assert not disk.can_write
    disk.close()


def test_reading_must_beat_computing() -> None:
    """Unknown speeds are taken cautiously; a faster machine counts at once, a slower time little by little."""
    speeds = Speeds()
    assert not speeds.is_worth(2048 * 400_000, 2048)
    assert speeds.is_worth(2048 * 1_000, 2048)
    speeds.note_prefill(1000, 2.0)
    assert speeds.is_worth(2048 * 400_000, 2048)
    speeds.note_read(1_000_000, 1.0)
    assert not speeds.is_worth(2048 * 400_000, 2048)
    speeds.note_prefill(1000, 0.1)
    assert speeds.prefill_tokens_per_second == 10_000
    speeds.note_prefill(1000, 100.0)
    assert 9_000 <= speeds.prefill_tokens_per_second < 10_000


def test_a_boundary_is_planned_with_the_blocks_before_it(tmp_path: Path) -> None:
    """The last one that is worth its files; none beyond the blocks that are there."""
    disk = tier(tmp_path)
    write(disk, ROOT, "ab")
    write(disk, digests("b")[0], "cd")
    for name in "ac":
        disk.write_boundary(digests(name)[0], "[]", [tensor(10)])
        disk.wait(10)
    plan = disk.index.plan(digests(*"abcd"), disk.speeds, num_held=0, num_usable=0, is_trimmable=False)
    assert (plan.end, [piece.end for piece in plan.pieces]) == (3, [2, 4])
    assert plan.boundary is disk.index.boundaries[digests("c")[0]]
    plan = disk.index.plan(digests(*"abx"), disk.speeds, num_held=2, num_usable=1, is_trimmable=False)
    assert plan.end == 0


def test_files_knotted_into_a_ring_do_not_hang(tmp_path: Path) -> None:
    """Each names the other as what comes before it."""
    disk = tier(tmp_path)
    write(disk, digests("b")[0], "a")
    write(disk, digests("a")[0], "b")
    assert disk.read(disk.index.blocks[digests("a")[0]]) is not None
    assert tier(tmp_path, budget_bytes=1500).stats().num_files == 1
