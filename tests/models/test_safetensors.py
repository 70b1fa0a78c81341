"""The container of weights, whole and hostile."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_folders import TINY_TENSORS, safetensors_bytes
from pensieve.errors import LoadFailed
from pensieve.models.safetensors import Tensor, read_safetensors

WHOLE = safetensors_bytes()


def header_of(**tensors: object) -> bytes:
    """A file with that header and 16 bytes of data."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


def test_tensors_are_read_with_their_places(tmp_path: Path) -> None:
    """Every tensor but the notes, with type, shape and size."""
    (tmp_path / "m").write_bytes(WHOLE)
    tensors = read_safetensors(tmp_path / "m")
    assert list(tensors) == list(TINY_TENSORS)
    assert tensors["lm_head.weight"] == Tensor("U32", (10, 8), (128, 448))
    assert (tensors["lm_head.weight"].num_bytes, tensors["lm_head.weight"].num_elements) == (320, 80)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no safetensors file"),
        (b"GGUF" + bytes(100), "no safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "no safetensors file"),
        (struct.pack("<Q", 200_000_000) + b"{}", "no safetensors file"),
        (WHOLE[:-1], "ends 1 bytes too early: fetch it again"),
        (struct.pack("<Q", 2) + b"[]", "no list of tensors"),
        (struct.pack("<Q", 2) + b"\xff\xff", "no list of tensors"),
        (header_of(a=1), "no list of tensors"),
        (header_of(a={"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}), "no list of tensors"),
        (header_of(a={"dtype": "U8", "shape": [1] * 17, "data_offsets": [0, 1]}), "no list of tensors"),
        (header_of(a={"dtype": "U8", "shape": [2**60], "data_offsets": [0, 1]}), "no list of tensors"),
        (header_of(a={"dtype": "U8", "shape": [9], "data_offsets": [0, 8]}), "another size than its shape"),
        (header_of(a={"dtype": "NEW", "shape": [9], "data_offsets": [8, 0]}), "another size than its shape"),
        (header_of(a={"dtype": "NEW", "shape": [2**48, 2], "data_offsets": [0, 1]}), r"claims 6e\+14 numbers"),
        (header_of(**{n: {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]} for n in "ab"}), "overlap"),
    ],
)
def test_broken_files_are_refused_with_the_reason(tmp_path: Path, content: bytes, words: str) -> None:
    """Lengths, shapes and offsets are checked against the file before anything is believed."""
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(LoadFailed, match=words):
        read_safetensors(tmp_path / "m")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """The system's reason is in the sentence."""
    with pytest.raises(LoadFailed, match="cannot be read: Is a directory"):
        read_safetensors(tmp_path)


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255), end=st.integers(0, len(WHOLE)))
def test_any_damage_is_an_error_of_ours_or_none(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, end: int
) -> None:
    """One changed byte and a cut anywhere never end in a foreign error."""
    damaged = bytearray(WHOLE)
    damaged[place] = byte
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[:end])
    with suppress(LoadFailed):
        assert sum(tensor.num_bytes for tensor in read_safetensors(path).values()) <= len(WHOLE)
