"""The GGUF container reader against files that lie."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_files import TINY_MODEL, TINY_TENSORS, Tensor, gguf_bytes, write_gguf
from pensieve.errors import LoadFailed
from pensieve.models.gguf import MAX_NUMBERS, open_container
from pensieve.models.metadata import read_gguf

WHOLE = gguf_bytes()
HEADER_END = len(WHOLE) - 512
"""The tiny tensors take 224 and 256 bytes of data; this lies inside the header's last text."""


def problem_of(path: Path, data: bytes) -> str:
    """Why the file with this content is refused."""
    path.write_bytes(data)
    with pytest.raises(LoadFailed) as failure:
        read_gguf(path)
    return str(failure.value)


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(tmp_path: Path, version: int) -> None:
    """Versions 2 and 3 share one layout."""
    with open_container(write_gguf(tmp_path / "m.gguf", version=version)) as container:
        assert container.version == version
        assert container.text("general.architecture") == "llama"
        assert container.tensors.parameters == 64 * 5 + 64


@pytest.mark.parametrize(
    ("version", "words"), [(1, "version 1 is not supported"), (9, "version 9"), (0x03000000, "big-endian")]
)
def test_other_versions_are_named_in_the_refusal(tmp_path: Path, version: int, words: str) -> None:
    """A file of another version says which one it is."""
    assert words in problem_of(tmp_path / "m.gguf", gguf_bytes(version=version))


@pytest.mark.parametrize("data", [b"", b"GG", b"PK\x03\x04" + bytes(64), b"<html>not found</html>"])
def test_what_is_no_gguf_is_called_so(tmp_path: Path, data: bytes) -> None:
    """Empty files, archives and error pages are not read further than their first bytes."""
    assert "not a GGUF file" in problem_of(tmp_path / "m.gguf", data)


def test_a_cut_header_says_where_the_file_ends(tmp_path: Path) -> None:
    """The size is in the sentence, with the next step."""
    said = problem_of(tmp_path / "m.gguf", WHOLE[:100])
    assert "ends at 100 bytes, inside its header: download it again" in said


def test_cut_tensor_data_says_what_was_promised(tmp_path: Path) -> None:
    """One byte too few is enough, and both sizes are in the sentence."""
    said = problem_of(tmp_path / "m.gguf", WHOLE[:-1])
    assert f"ends at {len(WHOLE) - 1:,} bytes, its header promises {len(WHOLE):,}: download it again" in said


def test_every_cut_is_refused(tmp_path: Path) -> None:
    """No prefix of a whole file passes for a model; every third one is tried."""
    for size in range(0, len(WHOLE), 3):
        problem_of(tmp_path / "m.gguf", WHOLE[:size])


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12))
def test_any_damage_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, offset: int, noise: bytes) -> None:
    """Whatever is written over the file: a header, or `LoadFailed`, never another error."""
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(WHOLE[:offset] + noise + WHOLE[offset + len(noise) :])
    with suppress(LoadFailed):
        assert read_gguf(path).size_bytes == path.stat().st_size


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Random headers end in `LoadFailed` or in a value."""
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + data)
    with suppress(LoadFailed):
        assert read_gguf(path).weight_bytes >= 0


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (struct.pack("<QQ", 2**40, 0), "tensors"),
        (struct.pack("<QQ", 0, 2**40), "metadata entries"),
        (struct.pack("<QQQ", 0, 1, 2**63), "bytes of a name"),
        (struct.pack("<QQQ1sI", 0, 1, 1, b"k", 77), "unknown type 77"),
        (struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 9, 1), "unknown type 9"),
        (struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 8, 2**62), "texts in arrays"),
        (struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 10, 2**61), "inside its header"),
        (struct.pack("<QQQ1sIQ", 0, 1, 1, b"k", 8, 2**64 - 1), "inside its header"),
        (struct.pack("<QQQ1sI4Q", 1, 0, 1, b"t", 4, *[2**60] * 4), "elements of a tensor"),
        (struct.pack("<QQQ1sI", 1, 0, 1, b"t", 4_000_000), "dimensions"),
    ],
)
def test_hostile_counts_are_bounded(tmp_path: Path, tail: bytes, words: str) -> None:
    """Absurd counts, lengths and nesting are refused before any loop or allocation follows them."""
    assert words in problem_of(tmp_path / "m.gguf", b"GGUF" + struct.pack("<I", 3) + tail)


def test_a_tensor_offset_far_outside_is_refused(tmp_path: Path) -> None:
    """An offset near 2^64 counts as promised bytes."""
    tail = struct.pack("<QQQ1sIQIQ", 1, 0, 1, b"t", 1, 32, 0, 2**64 - 32)
    assert "its header promises" in problem_of(tmp_path / "m.gguf", b"GGUF" + struct.pack("<I", 3) + tail)


def test_a_key_named_twice_is_refused(tmp_path: Path) -> None:
    """Two readers must not see two different models."""
    data = gguf_bytes({"general.a": 1, "general.b": 2}).replace(b"general.b", b"general.a")
    assert "'general.a' twice" in problem_of(tmp_path / "m.gguf", data)


@pytest.mark.parametrize("alignment", [3, 2**31])
def test_an_absurd_alignment_is_refused(tmp_path: Path, alignment: int) -> None:
    """Alignment is a power of two, and small."""
    assert "alignment" in problem_of(tmp_path / "m.gguf", gguf_bytes({"general.alignment": alignment}))


def test_values_of_another_type_read_as_absent(tmp_path: Path) -> None:
    """A text where a number belongs is not a number, and the other way round."""
    with open_container(write_gguf(tmp_path / "m.gguf", {"a": "text", "b": 7, "c": ["x"], "d": 1.5})) as container:
        assert container.number("a") is None
        assert container.text("b") == container.text("c") == container.text("nowhere") == ""
        assert container.numbers("c") == container.numbers("d") == ()
        assert container.text_at("a", 0) == container.text_at("c", 1) == container.text_at("c", -1) == ""


def test_long_numeric_arrays_are_skipped(tmp_path: Path) -> None:
    """A scores array of a vocabulary is stepped over; what follows is read."""
    path = write_gguf(tmp_path / "m.gguf", {"scores": [1] * (MAX_NUMBERS + 1), "after": 5, "short": [1, 2]})
    with open_container(path) as container:
        assert container.numbers("scores") == ()
        assert container.numbers("short") == (1, 2)
        assert container.number("after") == 5


def test_a_tensor_type_of_tomorrow_counts_by_its_offset(tmp_path: Path) -> None:
    """A type that is not in our table is the engine's to judge."""
    path = write_gguf(tmp_path / "m.gguf", TINY_MODEL, [*TINY_TENSORS, Tensor("new", (64,), 250, 64)])
    assert read_gguf(path).parameters == 64 * 5 + 64 + 64


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe and nothing at all end in the same kind of error, without waiting."""
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("", "pipe.gguf", "nothing.gguf"):
        with pytest.raises(LoadFailed):
            read_gguf(tmp_path / name)
