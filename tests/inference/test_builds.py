"""What an engine was built for, told from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pensieve.inference.builds import llamacpp_has_cuda, names_cuda


@pytest.mark.parametrize("library", ["libcuda.so.1", "libcudart.so.13", "libcublas.so.13"])
def test_a_build_for_cards_names_what_it_computes_with(tmp_path: Path, library: str) -> None:
    """Anywhere in the file."""
    built = tmp_path / "engine.so"
    built.write_bytes(b"\x00" * 5000 + library.encode() + b"\x00" * 5000)
    assert names_cuda(built)


def test_a_build_for_processors_names_none(tmp_path: Path) -> None:
    """Its own name for such a card is no library."""
    built = tmp_path / "engine.so"
    built.write_bytes(b"\x00libgomp.so.1\x00ggml-cuda\x00")
    assert not names_cuda(built)


def test_the_llama_cpp_of_the_package_index_computes_on_processors() -> None:
    """So that a model for it needs the host's memory, whatever cards there are."""
    assert not llamacpp_has_cuda()
